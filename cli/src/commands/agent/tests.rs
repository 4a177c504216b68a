use mezz_agent::options::{IsolationOptions, Isolator};

use super::{fetcher::fetcher_command, *};
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
         --cgroup-cpu-quota true --authenticate-http-executors true --kill-grace 1s --executor-registration-timeout 2s \
         --executor-reregistration-timeout 3s --executor-shutdown-grace 4s --update-retry-min 5s \
         --update-retry-max 6s --register-backoff-min 7s --register-backoff-max 8s \
         --native-library /l.so --isolation pid,mount --image-dir /i --pids-limit 99 \
         --bounding-capabilities KILL --allowed-host-paths /d --sandbox-retention 9s --max-tasks 10 \
         --max-fetch-size 11MiB \
         --fetcher-cache-size 12MiB --fetch-timeout 17s --disk-watch-interval 13s --container-disk-watch-interval 14s \
         --enforce-disk-quota true --container-ports-watch-interval 15s \
         --enforce-container-ports true --check-agent-port-range-only true --log-max-size 16MiB",
    )
    .unwrap();
    let o = agent.options;
    let secs = Duration::from_secs;
    assert_eq!(o.advertise.as_deref(), Some("a:1"));
    assert_eq!((o.hostname.as_str(), o.work_dir), ("h", PathBuf::from("/w")));
    assert_eq!(o.native_library, Some(PathBuf::from("/l.so")));
    assert_eq!(o.resources, Resources::parse("cpus:4;x:{a}").unwrap());
    assert_eq!(o.attributes[0].name, "rack");
    assert_eq!(o.domain.unwrap().fault_domain.unwrap().zone.name, "z");
    assert_eq!((o.containment, o.cgroup_root.as_str()), (Containment::None, "a.b"));
    assert!(o.cgroup_cpu_quota && o.authenticate_http_executors);
    assert_eq!((o.kill_grace, o.executor_registration_timeout), (secs(1), secs(2)));
    assert_eq!((o.executor_reregistration_timeout, o.executor_shutdown_grace), (secs(3), secs(4)));
    assert_eq!(o.update_retry, (secs(5), secs(6)));
    assert_eq!(o.register_backoff, (secs(7), secs(8)));
    assert_eq!((o.sandbox_retention, o.max_tasks, o.max_fetch_bytes), (secs(9), 10, 11 << 20));
    let expected = IsolationOptions {
        always: [Isolator::Pid, Isolator::Mount].into(),
        image_dir: Some("/i".into()),
        pids_limit: 99,
        bounding: Some(1 << 5),
        host_paths: Some(vec!["/d".into()]),
    };
    assert_eq!(o.isolation, expected);
    assert_eq!((o.fetcher.cache_bytes, o.fetcher.timeout), (12 << 20, secs(17)));
    let expected = MonitorOptions {
        disk_watch_interval: secs(13),
        container_disk_interval: secs(14),
        enforce_disk_quota: true,
        container_ports_interval: secs(15),
        enforce_ports: true,
        check_agent_port_range_only: true,
        log_max_bytes: 16 << 20,
    };
    assert_eq!(o.monitor, expected);
    assert_eq!(check("--log-max-size none").unwrap().options.monitor.log_max_bytes, 0);
}

#[test]
fn fetcher_commands_are_split_and_checked() {
    let (scheme, command) = fetcher_command("HDFS = hadoop fs -get {uri} {path}").unwrap();
    assert_eq!((&*scheme, &*command), ("hdfs", "hadoop fs -get {uri} {path}"));
    for (bad, why) in [
        ("hdfs", "`hdfs` is no SCHEME=COMMAND"),
        ("h:=x {uri} {path}", "is no scheme"),
        ("hdfs=x {uri}", "hold {uri} and {path}"),
        ("hdfs={uri} {path}", "must be a program"),
    ] {
        let problem = fetcher_command(bad).unwrap_err();
        assert!(problem.contains(why), "{problem}");
    }
    // Without blanks, for these are split at them.
    let found = check("--fetcher-command a=x{uri}{path};b=y").unwrap_err().problems;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|problem| problem.starts_with("--fetcher-command: ")), "{found:?}");
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
        ("--isolation", "pid,jail"),
        ("--pids-limit", "0"),
        ("--max-tasks", "0"),
        ("--max-fetch-size", "1"),
        ("--fetcher-command", "x"),
        ("--fetcher-cache-size", "x"),
        ("--fetch-timeout", "x"),
        ("--disk-watch-interval", "x"),
        ("--container-disk-watch-interval", "x"),
        ("--enforce-disk-quota", "on"),
        ("--container-ports-watch-interval", "x"),
        ("--enforce-container-ports", "on"),
        ("--check-agent-port-range-only", "on"),
        ("--log-max-size", "x"),
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
        ("--disk-watch-interval 0s", "disk-watch-interval"),
        ("--fetch-timeout 0s", "fetch-timeout"),
        ("--container-disk-watch-interval 0s", "container-disk-watch-interval"),
        ("--container-ports-watch-interval 0s", "container-ports-watch-interval"),
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

#[test]
fn docker_is_the_machines_own_another_or_none() {
    let docker = |line: &str| check(line).unwrap().options.docker;
    let own = docker("");
    assert_eq!(own.engine.unwrap().as_str(), "unix:///var/run/docker.sock");
    assert_eq!(own.config, None);
    let other = docker("--docker http://localhost:2375 --docker-config /root/.docker/config.json");
    assert_eq!(other.engine.unwrap().as_str(), "http://localhost:2375");
    assert_eq!(other.config, Some("/root/.docker/config.json".into()));
    assert_eq!(docker("--docker none").engine, None);
    let problems = check("--docker tcp://h:1").unwrap_err().problems;
    let all = format!("{problems:?}");
    assert!(all.contains("docker") && all.contains("unix:///PATH"), "{all}");
}

/// The texts in a Rust source, without its comments.
fn texts(source: &str) -> Vec<String> {
    let (mut texts, mut rest) = (Vec::new(), source);
    while let Some(at) = rest.find(['"', '\'', '/']) {
        rest = &rest[at..];
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(after) = rest.strip_prefix("'\"'") {
            rest = after;
        } else if let Some(text) = rest.strip_prefix('"') {
            let mut end = 0;
            while !text[end..].starts_with('"') {
                end += if text[end..].starts_with('\\') { 2 } else { 1 };
                while !text.is_char_boundary(end) {
                    end += 1;
                }
            }
            texts.push(text[..end].to_owned());
            rest = &text[end + 1..];
        } else {
            rest = &rest[1..];
        }
    }
    texts
}

/// `--name` in a text.
fn flags(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("--").filter_map(|(at, _)| {
        let name = &text[at + 2..];
        let end = name.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(name.len());
        (end > 1 && !text[..at].ends_with('-')).then_some(&name[..end])
    })
}

#[test]
fn what_the_agent_says_of_its_options_can_be_typed() {
    fn sources(folder: &std::path::Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                _ if path.file_stem().is_some_and(|n| n.to_string_lossy().contains("tests")) => {}
                true => sources(&path, found),
                false => found.push(path),
            }
        }
    }
    let command = AgentArgs::augment_args(clap::Command::new("agent"));
    let options: Vec<String> =
        command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect();
    let exists = |name: &str| {
        // `--update-retry{-min,-max}`
        options
            .iter()
            .any(|o| o == name || o.strip_prefix(name).is_some_and(|o| o.starts_with('-')))
    };
    let mut found = Vec::new();
    sources(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../agent/src"), &mut found);
    let inner = ["max_fetch_bytes", "cache_bytes", "container_disk_interval", "log_max_bytes"];
    // The protocol has fields of this name.
    let fields = ["bounding_capabilities"];
    let mut named = 0;
    for path in found {
        let source = std::fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for text in texts(source) {
            for flag in flags(&text) {
                assert!(exists(flag), "{}: --{flag} in \"{text}\"", path.display());
                named += 1;
            }
            // `/flags` has Mesos' names, in Mesos' form.
            if path.ends_with("api/about.rs") {
                continue;
            }
            // A user knows neither the names in the source nor what they would be there.
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.contains('_') && !fields.contains(word)) {
                let option = options.contains(&word.replace('_', "-")) || inner.contains(&word);
                assert!(!option, "{}: {word} in \"{text}\"", path.display());
            }
        }
    }
    assert!(named > 20, "{named} texts with options");
}
