//! Commands on a real cluster, as a user runs and sees them.

#![allow(clippy::expect_used)]

use anyhow::{Result, ensure};
use mezz_tests::{Cluster, ClusterOptions, PATIENCE, eventually};
use rustix::process::Signal;

#[test]
fn a_command_runs_on_each_instance_and_its_output_comes_back() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { agents: 2, ..Default::default() })?;
    let run = cluster.mezz([
        "run",
        "--name",
        "hello",
        "--resources",
        "cpus:0.5;mem:64",
        "--instances",
        "3",
        "--",
        "sh",
        "-c",
        "echo hi from $MESOS_TASK_ID; echo oops >&2",
    ])?;
    let run = run.success()?;
    let greetings = run.stdout.lines().filter(|l| l.contains("hi from")).count();
    ensure!(greetings == 3, "{run}");
    ensure!(run.stderr.contains("TASK_FINISHED"), "{run}");

    let tasks = cluster.list("tasks", &["--completed"])?;
    ensure!(tasks.len() == 3 && tasks.iter().all(|t| t["state"] == "TASK_FINISHED"), "{tasks:?}");
    let id = tasks[0]["id"].as_str().expect("an id").to_owned();
    let logs = cluster.mezz(["logs", &id])?.success()?;
    ensure!(logs.stdout.contains("hi from"), "{logs}");
    let errors = cluster.mezz(["logs", &id, "--stderr"])?.success()?;
    ensure!(errors.stdout.contains("oops"), "{errors}");

    let frameworks = cluster.list("frameworks", &["--completed"])?;
    ensure!(frameworks.len() == 1 && frameworks[0]["status"] == "completed", "{frameworks:?}");
    cluster.stop()
}

#[test]
fn the_exit_status_follows_the_tasks() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let run = cluster.mezz(["run", "--", "sh", "-c", "exit 7"])?;
    ensure!(run.code == Some(7), "{:?}\n{run}", run.code);
    ensure!(run.stderr.contains("exited with status 7"), "{run}");
    let run = cluster.mezz(["run", "--", "no-such-program-anywhere"])?;
    ensure!(run.code.is_some_and(|c| c != 0), "{run}");
    ensure!(run.stderr.contains("no-such-program-anywhere"), "{run}");
    cluster.stop()
}

#[test]
fn a_task_may_have_the_huge_pages_that_its_agent_does_without() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let run = cluster.mezz(["run", "--", "grep", "THP_enabled", "/proc/self/status"])?.success()?;
    let allowed = run.stdout.lines().any(|line| line.ends_with("THP_enabled:\t1"));
    ensure!(allowed, "{run}");
    cluster.stop()
}

#[test]
fn a_task_that_uses_more_memory_than_it_holds_is_told_so() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let greedy = "import sys; held = []\nwhile True: held.append(bytearray(1 << 20))";
    let run =
        cluster.mezz(["run", "--resources", "cpus:1;mem:64", "--", "python3", "-c", greedy])?;
    ensure!(run.code.is_some_and(|c| c != 0), "{run}");
    ensure!(run.stderr.to_lowercase().contains("memory"), "{run}");
    ensure!(
        run.stderr.contains("64 MiB") || run.stderr.contains("64.0 MiB"),
        "the limit is named: {run}"
    );
    cluster.stop()
}

#[test]
fn a_running_task_can_be_killed_and_a_framework_torn_down() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let mut run = cluster.spawn("sleeper", ["run", "--name", "sleeper", "--", "sleep", "1000"])?;
    let id = running_task(&cluster)?;
    cluster.mezz(["task", "kill", &id])?.success()?;
    let end = run.wait(PATIENCE)?;
    ensure!(end.code.is_some_and(|c| c != 0) && end.stderr.contains("TASK_KILLED"), "{end}");

    let mut run = cluster.spawn("sleeper2", ["run", "--name", "sleeper", "--", "sleep", "1000"])?;
    running_task(&cluster)?;
    let frameworks = cluster.list("frameworks", &[])?;
    let id = frameworks[0]["id"].as_str().expect("an id");
    cluster.mezz(["framework", "teardown", id])?.success()?;
    let end = run.wait(PATIENCE)?;
    ensure!(end.code.is_some_and(|c| c != 0), "{end}");
    eventually(PATIENCE, "no task is left", || {
        let tasks = cluster.list("tasks", &[])?;
        Ok(if tasks.is_empty() { Ok(()) } else { Err(format!("{tasks:?}")) })
    })?;
    cluster.stop()
}

#[test]
fn ctrl_c_ends_a_run_its_tasks_and_its_framework() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let mut run = cluster.spawn("sleeper", ["run", "--", "sleep", "1000"])?;
    running_task(&cluster)?;
    run.signal(Signal::INT)?;
    let end = run.wait(PATIENCE)?;
    ensure!(end.code != Some(0), "{end}");
    eventually(PATIENCE, "task and framework are gone", || {
        let left = (cluster.list("tasks", &[])?, cluster.list("frameworks", &[])?);
        Ok(if left.0.is_empty() && left.1.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    cluster.stop()
}

#[test]
fn explain_says_why_nothing_is_offered() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let mut run = cluster.spawn("big", ["run", "--resources", "cpus:64;mem:64", "--", "true"])?;
    let frameworks = eventually(PATIENCE, "the framework subscribes", || {
        let all = cluster.list("frameworks", &[])?;
        Ok(if all.len() == 1 { Ok(all) } else { Err(format!("{all:?}")) })
    })?;
    let id = frameworks[0]["id"].as_str().expect("an id").to_owned();
    eventually(PATIENCE, "the refusal is explained", || {
        let told = cluster.mezz(["explain", "framework", &id])?.success()?;
        Ok(if told.stdout.contains("refused") { Ok(()) } else { Err(told.stdout) })
    })?;
    let unknown = cluster.mezz(["explain", "framework", "nobody"])?;
    ensure!(unknown.code.is_some_and(|c| c != 0), "{unknown}");
    ensure!(
        unknown.stderr.contains("nobody") && unknown.stderr.contains("mezz frameworks"),
        "{unknown}"
    );
    run.signal(Signal::INT)?;
    run.wait(PATIENCE)?;
    cluster.stop()
}

/// The id of the one task that runs, once it does.
fn running_task(cluster: &Cluster) -> Result<String> {
    eventually(PATIENCE, "one task runs", || {
        let tasks = cluster.list("tasks", &[])?;
        Ok(match tasks.as_slice() {
            [task] if task["state"] == "TASK_RUNNING" => {
                Ok(task["id"].as_str().expect("an id").to_owned())
            }
            _ => Err(format!("{tasks:?}")),
        })
    })
}
