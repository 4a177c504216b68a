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

    cluster.mezz(["agent", "drain", &agent, "--mark-gone"])?.success()?;
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
    run.wait(PATIENCE)?;
    Ok(())
}
