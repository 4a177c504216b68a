//! Emptying real agents, and giving them up.

use anyhow::{Context, Result, ensure};
use mezz_tests::{Cluster, ClusterOptions, PATIENCE, eventually, processes_of};

/// A framework that is removed while its agent drains: nobody but the agent knows of
/// its tasks any more, and they are in their grace. The agent is not given up before
/// they have ended.
#[test]
fn an_agent_is_gone_only_when_a_removed_frameworks_tasks_have_ended() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions {
        agent_args: ["--kill-grace", "6s"].map(ToOwned::to_owned).into(),
        ..Default::default()
    })?;
    let asked = cluster.folder().join("asked");
    let script = format!("trap 'touch {}' TERM; while :; do sleep 0.05; done", asked.display());
    let mut run = cluster.spawn("run", ["run", "--", "sh", "-c", &script])?;
    let task = eventually(PATIENCE, "the task runs", || {
        let tasks = cluster.list("tasks", &[])?;
        let running = tasks.iter().find(|t| t["state"] == "TASK_RUNNING");
        Ok(running.cloned().ok_or_else(|| format!("{tasks:?}")))
    })?;
    let id = |value: &serde_json::Value, what| {
        value[what].as_str().map(ToOwned::to_owned).with_context(|| format!("{what} of {value}"))
    };
    let agent = id(&cluster.list("agents", &[])?[0], "id")?;
    let framework = id(&cluster.list("frameworks", &[])?[0], "id")?;
    let work = cluster.folder().join("agent0");

    let mut drain = cluster.spawn("drain", ["agent", "drain", &agent, "--mark-gone", "--wait"])?;
    eventually(PATIENCE, "the task is asked to end", || {
        Ok(if asked.exists() { Ok(()) } else { Err(format!("{task}")) })
    })?;
    cluster.mezz(["framework", "teardown", &framework])?.success()?;
    let tasks = cluster.list("tasks", &[])?;
    ensure!(tasks.is_empty(), "the master knows of no task: {tasks:?}");
    let agents = cluster.list("agents", &[])?;
    ensure!(agents.len() == 1, "and yet the agent is not gone: {agents:?}");
    ensure!(cluster.agent(0)?.running(), "it has left its task alone");

    let end = cluster.agent(0)?.wait(PATIENCE)?;
    ensure!(end.code.is_some_and(|code| code != 0), "{:?}\n{end}", end.code);
    ensure!(end.stderr.contains("was given up"), "it says why: {end}");
    let left = processes_of(&work)?;
    ensure!(left.is_empty(), "processes left behind: {left:?}");
    let agents = cluster.list("agents", &[])?;
    ensure!(agents.is_empty(), "{agents:?}");
    let drained = drain.wait(PATIENCE)?.success()?;
    ensure!(drained.stderr.contains("drained and given up"), "{drained}");
    // It can be said again, by the whole id.
    let again = cluster.mezz(["agent", "gone", &agent])?.success()?;
    ensure!(again.stderr.contains("was given up before"), "{again}");
    run.wait(PATIENCE)?;
    Ok(())
}

/// Whether it was drained is not known, so `--wait` does not say that it was.
#[test]
fn waiting_for_an_agent_that_is_forgotten_fails() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions {
        master_args: [
            "--ping-interval",
            "100ms",
            "--agent-reregister-timeout",
            "4s",
            "--unreachable-retention",
            "1s",
        ]
        .map(ToOwned::to_owned)
        .into(),
        ..Default::default()
    })?;
    let agents = cluster.list("agents", &[])?;
    let agent = agents[0]["id"].as_str().context("an agent without an id")?.to_owned();
    cluster.agent(0)?.kill_9()?;
    let waits = [("drain", vec![]), ("give-up", vec!["--mark-gone"])].map(|(name, more)| {
        let order = ["agent", "drain", &agent, "--wait"];
        cluster.spawn(name, order.into_iter().chain(more))
    });
    for wait in waits {
        let end = wait?.wait(PATIENCE)?;
        ensure!(end.code.is_some_and(|code| code != 0), "{:?}\n{end}", end.code);
        ensure!(end.stderr.contains("is forgotten"), "it says why: {end}");
    }
    Ok(())
}
