use mezz_master::credentials::Credentials;

use super::*;
use crate::testing::check_args;

fn check(line: &str) -> Result<Master, Problems> {
    check_args::<MasterArgs, _>("master", line, MasterArgs::check)
}

#[test]
fn no_option_means_the_defaults_of_the_library() {
    let master = check("").unwrap();
    let expected =
        CoreOptions { master_id: master.options.core.master_id.clone(), ..CoreOptions::default() };
    assert_eq!(master.options.core, expected);
    assert_eq!(
        master.options.registry,
        RegistryOptions::File("/var/lib/mezz/master/registry.redb".into())
    );
}

#[test]
fn every_option_arrives() {
    let master = check(
        "--registry memory --advertise m:5050 --cluster c --ping-interval 1s \
         --max-missed-pings 2 --agent-reregister-timeout 3s --heartbeat-interval 4s \
         --offer-timeout 5s --allocation-batch 6ms --min-filter 7s \
         --min-allocatable-resources cpus:1;mem:10|gpus:1 --fair-sharing-excluded gpus,x \
         --filter-gpu-resources false --weights a=2,b=3 --region r --max-agents 8 \
         --max-frameworks 9 --max-tasks 10 --max-completed-frameworks 11 \
         --max-completed-tasks 12 --agent-removal-rate-limit 1/10mins",
    )
    .unwrap();
    let core = master.options.core;
    assert_eq!(master.options.registry, RegistryOptions::Memory);
    assert_eq!(master.options.advertise.as_deref(), Some("m:5050"));
    assert_eq!(master.options.cluster.as_deref(), Some("c"));
    assert_eq!(core.ping_interval, Duration::from_secs(1));
    assert_eq!(core.max_missed_pings, 2);
    assert_eq!(core.agent_reregister_timeout, Duration::from_secs(3));
    let rate = RemovalRate { agents: 1, per: Duration::from_secs(600) };
    assert_eq!(core.agent_removal_rate_limit, Some(rate));
    assert_eq!(core.heartbeat_interval, Duration::from_secs(4));
    assert_eq!(core.offer_timeout, Some(Duration::from_secs(5)));
    assert_eq!(core.allocation_batch, Duration::from_millis(6));
    assert_eq!(core.min_filter, Duration::from_secs(7));
    assert_eq!(core.allocator.min_allocatable.len(), 2);
    assert_eq!(core.allocator.min_allocatable[0].len(), 2);
    assert_eq!(core.allocator.fair_sharing_excluded, ["gpus", "x"]);
    assert!(!core.allocator.filter_gpu_resources);
    assert_eq!(core.weights, [("a".to_owned(), 2.0), ("b".to_owned(), 3.0)]);
    assert_eq!(core.allocator.region.as_deref(), Some("r"));
    assert_eq!((core.max_agents, core.max_frameworks, core.max_tasks), (8, 9, 10));
    assert_eq!((core.max_completed_frameworks, core.max_completed_tasks), (11, 12));
}

#[test]
fn a_registry_in_etcd() {
    let master = check(
        "--registry etcds://a:2379,b:2379/mezz --leader-lease 5s --etcd-ca-file /ca \
         --etcd-cert-file /cert --etcd-key-file /key",
    );
    let RegistryOptions::Etcd(etcd) = master.unwrap().options.registry else { panic!("no etcd") };
    assert_eq!(etcd.endpoints, ["https://a:2379", "https://b:2379"]);
    assert_eq!((etcd.prefix.as_str(), etcd.lease), ("/mezz", Duration::from_secs(5)));
    assert_eq!(etcd.tls.ca.as_deref(), Some("/ca".as_ref()));
    assert_eq!(etcd.tls.identity, Some(("/cert".into(), "/key".into())));
    for (line, option) in [
        ("--registry etcd://a:2379", "registry"),
        ("--registry etcd://a:2379/m --etcd-ca-file /ca", "etcd-ca-file"),
        ("--registry etcds://a:2379/m --etcd-key-file /key", "etcd-key-file"),
        ("--registry etcd://a:2379/m --etcd-password-file /p", "etcd-password-file"),
        ("--registry memory --etcd-user u", "etcd-user"),
    ] {
        let problems = check(line).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{line}: {problems:?}");
        assert!(problems[0].starts_with(&format!("--{option}: ")), "{problems:?}");
    }
}

#[test]
fn frameworks_that_prove_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, owner).unwrap();
        path.display().to_string()
    };
    let json = r#"{"credentials":[{"principal":"spark","secret":"hush"}]}"#;
    let good = file("good.json", json);
    for flag in ["--authenticate-frameworks", "--authenticate-frameworks=true"] {
        let master = check(&format!("{flag} --credentials {good}")).unwrap();
        let authentication = master.options.authentication.unwrap();
        assert_eq!(authentication.file, Some(good.clone().into()));
        assert_eq!(*authentication.credentials, Credentials::parse("spark hush").unwrap());
        assert_eq!(master.warnings, [""; 0]);
    }
    let unused = check(&format!("--credentials {good} --authenticate-frameworks false")).unwrap();
    assert_eq!(unused.options.authentication, None);
    assert!(unused.warnings[0].contains("--authenticate-frameworks"), "{:?}", unused.warnings);
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&good, all).unwrap();
    let open = check(&format!("--credentials {good} --authenticate-frameworks")).unwrap();
    assert!(open.warnings[0].contains("chmod o= "), "{:?}", open.warnings);

    let bad = file("bad.json", r#"{"credentials":[{"principal":"spark","secret":["hush"]}]}"#);
    for (line, option, says) in [
        ("--authenticate-frameworks".to_owned(), "authenticate-frameworks", "--credentials"),
        ("--authenticate-frameworks=maybe".to_owned(), "authenticate-frameworks", "maybe"),
        (format!("--credentials {bad}"), "credentials", "credentials[0].secret"),
        ("--credentials /none/there".to_owned(), "credentials", "/none/there"),
    ] {
        let problems = check(&line).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{line}: {problems:?}");
        assert!(problems[0].starts_with(&format!("--{option}: ")), "{problems:?}");
        assert!(problems[0].contains(says) && !problems[0].contains("hush"), "{problems:?}");
    }
}

#[test]
fn every_bad_text_names_its_option_and_all_are_reported_together() {
    let bad = [
        ("--listen", "here"),
        ("--advertise", "there"),
        ("--registry", "paper"),
        ("--leader-lease", "1s"),
        ("--ping-interval", "15"),
        ("--max-missed-pings", "0"),
        ("--agent-reregister-timeout", "soon"),
        ("--agent-removal-rate-limit", "10"),
        ("--heartbeat-interval", "1x"),
        ("--offer-timeout", "always"),
        ("--allocation-batch", "-"),
        ("--min-filter", "none"),
        ("--min-allocatable-resources", "cpus"),
        ("--filter-gpu-resources", "maybe"),
        ("--weights", "a=0"),
        ("--max-agents", "many"),
        ("--max-frameworks", "0"),
        ("--max-tasks", "1.5"),
        ("--max-completed-frameworks", "x"),
        ("--max-completed-tasks", "y"),
        ("--log-level", "x=loud"),
    ];
    for (option, text) in bad {
        let problems = check(&format!("{option}={text}")).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{option}: {problems:?}");
        assert!(problems[0].starts_with(&format!("{option}: ")), "{problems:?}");
    }
    let line: Vec<String> = bad.iter().map(|(o, t)| format!("{o}={t}")).collect();
    assert_eq!(check(&line.join(" ")).unwrap_err().problems.len(), bad.len());
}

#[test]
fn relations_are_checked() {
    for (line, option) in [
        ("--agent-reregister-timeout 74s", "agent-reregister-timeout"),
        ("--ping-interval 0s", "ping-interval"),
        ("--heartbeat-interval 0s", "heartbeat-interval"),
        ("--allocation-batch 2s", "allocation-batch"),
        ("--min-filter 400d", "min-filter"),
        ("--offer-timeout 1ms", "offer-timeout"),
    ] {
        let problems = check(line).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{line}: {problems:?}");
        assert!(problems[0].starts_with(&format!("--{option}: ")), "{problems:?}");
    }
    assert!(check("--agent-reregister-timeout 75s").is_ok());
}
