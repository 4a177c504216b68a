use super::*;
use crate::testing::check_args;

fn check(line: &str) -> Result<Agent, Problems> {
    check_args::<AgentArgs, _>("agent", &format!("--master m:5050 {line}"), AgentArgs::check)
}

#[test]
fn no_option_means_the_defaults() {
    let agent = check("").unwrap();
    let launcher = LauncherCommand { program: PathBuf::new(), args: Vec::new() };
    let expected = AgentOptions {
        masters: vec!["m:5050".to_owned()],
        ..default_options("/var/lib/mezz/agent".into(), launcher)
    };
    assert_eq!(agent.options, expected);
    assert_eq!(agent.listen.address, "0.0.0.0:5051".parse().unwrap());
}

#[test]
fn every_option_arrives() {
    let agent = check(
        "--listen 127.0.0.1:0 --advertise a:1 --hostname h --work-dir /w --resources cpus:4;x:{a} \
         --attributes rack:r1 --region r --zone z --containment none --cgroup-root a.b \
         --cgroup-cpu-quota true --kill-grace 1s --executor-registration-timeout 2s \
         --executor-reregistration-timeout 3s --executor-shutdown-grace 4s --update-retry-min 5s \
         --update-retry-max 6s --register-backoff-min 7s --register-backoff-max 8s \
         --sandbox-retention 9s --max-tasks 10 --max-fetch-size 11MiB",
    )
    .unwrap();
    let o = agent.options;
    let secs = Duration::from_secs;
    assert_eq!(o.advertise.as_deref(), Some("a:1"));
    assert_eq!((o.hostname.as_str(), o.work_dir), ("h", PathBuf::from("/w")));
    assert_eq!(o.resources, Resources::parse("cpus:4;x:{a}").unwrap());
    assert_eq!(o.attributes[0].name, "rack");
    assert_eq!(o.domain.unwrap().fault_domain.unwrap().zone.name, "z");
    assert_eq!((o.containment, o.cgroup_root.as_str()), (Containment::None, "a.b"));
    assert!(o.cgroup_cpu_quota);
    assert_eq!((o.kill_grace, o.executor_registration_timeout), (secs(1), secs(2)));
    assert_eq!((o.executor_reregistration_timeout, o.executor_shutdown_grace), (secs(3), secs(4)));
    assert_eq!(o.update_retry, (secs(5), secs(6)));
    assert_eq!(o.register_backoff, (secs(7), secs(8)));
    assert_eq!((o.sandbox_retention, o.max_tasks, o.max_fetch_bytes), (secs(9), 10, 11 << 20));
}

#[test]
fn every_bad_text_names_its_option_and_all_are_reported_together() {
    let bad = [
        ("--master", "localhost"),
        ("--listen", "x"),
        ("--advertise", "x"),
        ("--resources", "cpus"),
        ("--attributes", "rack"),
        ("--region", "r"),
        ("--cgroup-root", "a/b"),
        ("--cgroup-cpu-quota", "on"),
        ("--kill-grace", "3"),
        ("--executor-registration-timeout", "x"),
        ("--executor-reregistration-timeout", "x"),
        ("--executor-shutdown-grace", "x"),
        ("--update-retry-min", "x"),
        ("--update-retry-max", "x"),
        ("--register-backoff-min", "x"),
        ("--register-backoff-max", "x"),
        ("--sandbox-retention", "x"),
        ("--max-tasks", "0"),
        ("--max-fetch-size", "1"),
        ("--log-level", "a=b=c"),
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
        ("--zone z", "zone"),
        ("--update-retry-min 11m", "update-retry-max"),
        ("--register-backoff-min 0s", "register-backoff-min"),
        ("--executor-registration-timeout 0s", "executor-registration-timeout"),
        ("--executor-reregistration-timeout 16s", "executor-reregistration-timeout"),
    ] {
        let problems = check(line).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{line}: {problems:?}");
        assert!(problems[0].starts_with(&format!("--{option}: ")), "{problems:?}");
    }
}
