//! A whole cluster, `mezz local`, used by the other commands.

#![allow(clippy::unwrap_used)] // in a function that clippy does not know as a test's

mod common;

use std::{fs, path::Path};

use common::{Cluster, Running, stderr, stdout, wait_until};

const SMALL: &str = "cpus:0.1;mem:32";

#[test]
fn a_command_runs_and_its_output_comes_back() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(2, tmp.path());
    let script = "echo hi from $WHO; echo to stderr >&2";
    let output = cluster.run(&[
        "run",
        "--name",
        "hello",
        "--resources",
        SMALL,
        "--instances",
        "3",
        "--env",
        "WHO=me",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let mut lines: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["hello-1: hi from me", "hello-2: hi from me", "hello-3: hi from me"]);
    for part in ["hello-2: to stderr", "hello-3: TASK_FINISHED"] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert_eq!(cluster.tasks("TASK_FINISHED").len(), 3);
    assert_eq!(stdout(&cluster.run(&["logs", "hello-2"])), "hi from me\n");
    assert_eq!(stdout(&cluster.run(&["logs", "hello-2", "--stderr", "-f"])), "to stderr\n");
}

#[test]
fn the_exit_status_is_that_of_the_task() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let output = cluster.run(&["run", "--resources", SMALL, "--", "sh", "-c", "echo out; exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(stdout(&output), "out\n");
    assert!(stderr(&output).contains("TASK_FAILED: exited with status 7"), "{}", stderr(&output));
    let output = cluster.run(&["run", "--resources", SMALL, "--", "/nonexistent/program"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let missing = ["run", "--resources", SMALL, "--uri", "file:///nonexistent", "--", "true"];
    let output = cluster.run(&missing);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("file:///nonexistent"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("could not be read"), "{}", stderr(&output));
}

#[test]
fn lists_kill_logs_explain_and_teardown() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(2, tmp.path());
    assert_eq!(cluster.json(&["agents"]).as_array().unwrap().len(), 2);
    let nothing = cluster.run(&["tasks"]);
    assert_eq!((stdout(&nothing).as_str(), stderr(&nothing).as_str()), ("", "no tasks\n"));

    let script = "echo started; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let job = |name: &str| {
        let args = ["run", "--name", name, "--resources", SMALL, "--", "sh", "-c", script];
        let mut job = Running::start(cluster.mezz(&args));
        job.wait_out("started");
        job
    };
    let mut killed = job("killed");
    let mut torn = job("torn");

    let frameworks = cluster.json(&["frameworks"]);
    let names: Vec<_> = frameworks.as_array().unwrap().iter().map(|f| f["name"].clone()).collect();
    assert_eq!(names, ["killed", "torn"]);
    let tasks = cluster.json(&["tasks"]);
    assert_eq!(tasks[0]["state"], "TASK_RUNNING");
    assert_eq!(tasks[0]["resources"]["cpus"], 0.1);
    let roles = cluster.json(&["roles"]);
    assert_eq!(roles[0]["allocated"]["mem"], 64.0);
    assert!(cluster.json(&["offers"]).is_array());
    let table = stdout(&cluster.run(&["tasks"]));
    assert!(table.starts_with("ID ") && table.contains("killed-1"), "{table}");

    let logs = cluster.run(&["logs", "killed-1"]);
    assert_eq!(stdout(&logs), "started\n", "{}", stderr(&logs));
    let id = frameworks[0]["id"].as_str().unwrap();
    let short = id.rsplit('-').next().unwrap();
    for args in [
        &["explain", "framework", short][..],
        &["explain", "task", "killed-1"],
        &["explain", "role", "*"],
    ] {
        let explained = cluster.json(args);
        assert!(!explained["summary"].as_str().unwrap().is_empty(), "{args:?}");
    }

    let output = cluster.run(&["task", "kill", "killed"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_ne!(killed.wait().code(), Some(0));
    let id = frameworks[1]["id"].as_str().unwrap();
    let output = cluster.run(&["framework", "teardown", id]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_ne!(torn.wait().code(), Some(0));
    wait_until("no frameworks", || {
        cluster.json(&["frameworks"]).as_array().unwrap().is_empty().then_some(())
    });

    let output = cluster.run(&["task", "kill", "killed-1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("`mezz tasks` lists them"), "{}", stderr(&output));
}

#[test]
fn run_tells_why_it_waits_and_ctrl_c_ends_it() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let mut job =
        Running::start(cluster.mezz(&["run", "--resources", "cpus:1000;mem:32", "--", "true"]));
    job.wait_err("1 waiting for offers (each needs cpus:1000; mem:32)");
    job.wait_err("No offer was large enough; the largest had cpus:2; ");
    job.interrupt();
    assert_eq!(job.wait().code(), Some(130));
    assert_eq!(cluster.json(&["frameworks"]), serde_json::json!([]));
}

#[test]
fn ctrl_c_ends_the_tasks_of_a_run() {
    let tmp = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, tmp.path());
    let script = "echo pid $$; exec sleep 1000";
    let args = ["run", "--resources", SMALL, "--", "sh", "-c", script];
    let mut job = Running::start(cluster.mezz(&args));
    let pid = job.wait_out("pid ").replace("pid ", "");
    assert!(alive(&pid));
    job.interrupt();
    assert_eq!(job.wait().code(), Some(130));
    wait_until("the task's end", || (!alive(&pid)).then_some(()));
    assert_eq!(cluster.json(&["frameworks"]), serde_json::json!([]));
}

#[test]
fn ctrl_c_leaves_nothing_of_a_cluster() {
    let tmp = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(2, tmp.path());
    let script = "echo pid $$; exec sleep 1000";
    let args = ["run", "--resources", SMALL, "--instances", "2", "--", "sh", "-c", script];
    let mut job = Running::start(cluster.mezz(&args));
    let pids: Vec<String> = ["run-1: pid ", "run-2: pid "]
        .iter()
        .map(|prefix| job.wait_out(prefix).replace(prefix, ""))
        .collect();
    assert!(pids.iter().all(|pid| alive(pid)));
    cluster.process.interrupt();
    assert_eq!(cluster.process.wait().code(), Some(0), "{:?}", cluster.process.err);
    assert!(pids.iter().all(|pid| !alive(pid)), "tasks outlive the cluster");
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0, "files are left behind");
    assert_eq!(launchers_below(tmp.path()), Vec::<String>::new());
    assert_ne!(job.wait().code(), Some(0));
}

fn alive(pid: &str) -> bool {
    // A zombie has ended; only its parent has not looked yet.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Launchers are started with the path of their plan.
fn launchers_below(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|cmdline| cmdline.contains("\0launch\0") && cmdline.contains(dir))
        .collect()
}
