//! Help, wrong options and configuration, with the real program.

mod common;

use std::{fs, net::TcpListener};

use common::{mezz, run, stderr, stdout, unwrapped};

#[test]
fn help_tells_defaults_units_and_environment() {
    let master = unwrapped(&stdout(&run(&["master", "--help"])));
    for part in [
        "[default: 0.0.0.0:5050]",
        "[env: MEZZ_PING_INTERVAL]",
        "[default: 15s]",
        "[default: 10m]",
        "[default: cpus:0.01|mem:32]",
        "[default: file]",
        "mem and disk in MiB",
    ] {
        assert!(master.contains(part), "{part}: {master}");
    }
    let agent = stdout(&run(&["agent", "--help"]));
    for part in
        ["[default: 0.0.0.0:5051]", "[default: cgroup]", "[default: 7d]", "[default: 16GiB]"]
    {
        assert!(agent.contains(part), "{part}: {agent}");
    }
    let local = stdout(&run(&["local", "--help"]));
    assert!(local.contains("[default: 5050]"), "{local}");
    let run_help = stdout(&run(&["run", "--help"]));
    assert!(run_help.contains("[default: cpus:1;mem:128]"), "{run_help}");
    for list in ["agents", "frameworks", "tasks", "offers", "roles"] {
        let help = stdout(&run(&[list, "--help"]));
        assert!(help.contains("[default: 127.0.0.1:5050]"), "{list}: {help}");
        assert!(help.contains("[default: table]"), "{list}: {help}");
    }
}

#[test]
fn version() {
    assert_eq!(stdout(&run(&["--version"])), format!("mezz {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_command_has_help() {
    for command in [
        &["master"][..],
        &["agent"],
        &["local"],
        &["run"],
        &["spark"],
        &["agents"],
        &["frameworks"],
        &["tasks"],
        &["offers"],
        &["roles"],
        &["task"],
        &["task", "kill"],
        &["framework"],
        &["framework", "teardown"],
        &["logs"],
        &["explain"],
        &["explain", "framework"],
        &["explain", "task"],
        &["explain", "role"],
    ] {
        let output = mezz().args(command).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command:?}");
        let text = stdout(&output);
        assert!(text.contains(&format!("Usage: mezz {}", command.join(" "))), "{text}");
    }
}

#[test]
fn wrong_options_are_usage_errors() {
    for (args, part) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["agent"], "--master"),
        (&["master", "--ping-interval", "15"], "--ping-interval: `15` has no unit"),
        (&["agent", "--master", "x"], "--master: `x` is no address"),
        (&["agent", "--master", "x:1", "--resources", "cpus"], "--resources: `cpus`"),
        (&["local", "--port", "x"], "--port: `x` is no port"),
        (&["run", "--instances", "0", "--", "true"], "--instances: 0 is too few"),
        (&["run", "true"], "--"),
        (&["tasks", "--master", "x"], "--master: `x` is no address"),
        (&["tasks", "--output", "xml"], "xml"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn all_problems_are_told_together() {
    let output = run(&["master", "--ping-interval", "x", "--max-tasks", "0", "--weights", "a"]);
    let text = stderr(&output);
    assert!(text.contains("3 problems with the options"), "{text}");
    for option in ["--ping-interval", "--max-tasks", "--weights"] {
        assert!(text.contains(option), "{text}");
    }
    assert!(text.contains("try 'mezz master --help'"), "{text}");
}

/// Each layer sets a value that is wrong, so that the error tells which one won.
#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mezz.toml");
    fs::write(&file, "[master]\nping-interval = 'by-file'\n").unwrap();
    let file = file.to_str().unwrap();

    let error = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    let text = error(mezz().args(["master", "--config", file]));
    assert!(text.contains(&format!("--ping-interval (from {file}): `by-file`")), "{text}");
    let text = error(mezz().arg("master").env("MEZZ_CONFIG", file));
    assert!(text.contains("`by-file`"), "{text}");
    let env = ("MEZZ_PING_INTERVAL", "by-env");
    let text = error(mezz().args(["master", "--config", file]).env(env.0, env.1));
    assert!(text.contains("--ping-interval (from environment): `by-env`"), "{text}");
    let flag = ["master", "--config", file, "--ping-interval", "by-flag"];
    let text = error(mezz().args(flag).env(env.0, env.1));
    assert!(text.contains("--ping-interval: `by-flag`"), "{text}");
}

#[test]
fn unknown_keys_of_the_file_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mezz.toml");
    fs::write(&file, "[agent]\nhostnam = 'x'\n").unwrap();
    let output = run(&["master", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("`hostnam`") && text.contains("did you mean `hostname`?"), "{text}");
    assert!(text.contains(file.to_str().unwrap()), "{text}");
    let output = run(&["master", "--config", "/nonexistent/mezz.toml"]);
    assert!(stderr(&output).contains("/nonexistent/mezz.toml"), "{}", stderr(&output));
}

#[test]
fn a_port_in_use_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = address.to_string();
    let dir = tempfile::tempdir().unwrap();
    let work_dir = dir.path().to_str().unwrap();
    let output = run(&["master", "--listen", &listen, "--work-dir", work_dir]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("choose another with --listen"), "{}", stderr(&output));
    let output = run(&["local", "--port", &address.port().to_string()]);
    assert!(stderr(&output).contains("choose another with --port"), "{}", stderr(&output));
}

#[test]
fn the_effective_configuration_is_logged() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let args = ["master", "--registry", "memory", "--listen", &listen, "--log-format"];
    let output = mezz().args(args).arg("text").output().unwrap();
    let text = stderr(&output);
    assert!(text.contains(&format!("listen={listen}(flag)")), "{text}");
    assert!(text.contains("ping-interval=15s "), "{text}");
    let output = mezz().args(args).arg("json").output().unwrap();
    let line = stderr(&output).lines().next().unwrap().to_owned();
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(json["message"].as_str().unwrap().contains("ping-interval=15s"), "{line}");
}

#[test]
fn no_master_says_what_to_do() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for args in [&["agents"][..], &["run", "--", "true"], &["logs", "x"], &["explain", "role", "r"]]
    {
        let output = mezz().args(args).env("MEZZ_MASTER", &nobody).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = stderr(&output);
        for part in [&nobody[..], "`mezz master`", "--master", "MEZZ_MASTER"] {
            assert!(text.contains(part), "{args:?}: {text}");
        }
    }
}
