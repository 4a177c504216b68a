//! `kill -9` of the master and of agents: what runs goes on, and what ended
//! meanwhile is told.

#![allow(clippy::expect_used)]

use anyhow::{Result, ensure};
use mezz_tests::{Cluster, ClusterOptions, PATIENCE, Process, eventually};

/// A job of one task that runs until the test makes a file, and then ends with
/// status 3.
struct Job {
    run: Process,
    go: std::path::PathBuf,
}

impl Job {
    fn start(cluster: &Cluster) -> Result<Self> {
        let go = cluster.folder().join("go");
        let script = format!(
            "echo started; while [ ! -e {} ]; do sleep 0.05; done; echo done; exit 3",
            go.display()
        );
        let run = cluster.spawn("job", ["run", "--name", "job", "--", "sh", "-c", &script])?;
        let job = Self { run, go };
        eventually(PATIENCE, "the task runs", || {
            let tasks = cluster.list("tasks", &[])?;
            let running = tasks.iter().any(|t| t["state"] == "TASK_RUNNING");
            Ok(if running { Ok(()) } else { Err(format!("{tasks:?}")) })
        })?;
        Ok(job)
    }

    fn let_it_end(&self) -> Result<()> {
        Ok(std::fs::write(&self.go, "")?)
    }

    fn check_end(mut self) -> Result<()> {
        let end = self.run.wait(PATIENCE)?;
        ensure!(end.code == Some(3), "{:?}\n{end}", end.code);
        Ok(())
    }
}

fn master_restart(registry: &str) -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions {
        master_args: vec!["--registry".to_owned(), registry.to_owned()],
        ..Default::default()
    })?;
    let job = Job::start(&cluster)?;
    let before = cluster.list("frameworks", &[])?[0]["id"].clone();
    cluster.master()?.kill_9()?;
    cluster.start_master()?;
    cluster.wait_for_agents(1)?;
    eventually(PATIENCE, "framework and task are back", || {
        let (frameworks, tasks) = (cluster.list("frameworks", &[])?, cluster.list("tasks", &[])?);
        let back = frameworks.iter().any(|f| f["id"] == before && f["status"] == "active")
            && tasks.iter().any(|t| t["state"] == "TASK_RUNNING");
        Ok(if back { Ok(()) } else { Err(format!("{frameworks:?} {tasks:?}")) })
    })?;
    job.let_it_end()?;
    job.check_end()?;
    cluster.stop()
}

#[test]
fn master_killed_and_back_with_a_file_registry() -> Result<()> {
    master_restart("file")
}

#[test]
fn master_killed_and_back_with_a_memory_registry() -> Result<()> {
    master_restart("memory")
}

#[test]
fn a_task_ends_while_the_master_is_away() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    let job = Job::start(&cluster)?;
    cluster.master()?.kill_9()?;
    job.let_it_end()?;
    cluster.start_master()?;
    job.check_end()?;
    cluster.stop()
}

#[test]
fn agent_killed_and_back_under_a_running_task() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    let job = Job::start(&cluster)?;
    cluster.agent(0)?.kill_9()?;
    cluster.start_agent(0)?;
    cluster.wait_for_agents(1)?;
    let tasks = cluster.list("tasks", &[])?;
    ensure!(tasks.len() == 1 && tasks[0]["state"] == "TASK_RUNNING", "{tasks:?}");
    job.let_it_end()?;
    job.check_end()?;
    cluster.stop()
}

#[test]
fn a_task_ends_while_its_agent_is_away() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    let job = Job::start(&cluster)?;
    cluster.agent(0)?.kill_9()?;
    job.let_it_end()?;
    eventually(PATIENCE, "the task's program has ended", || {
        let left = mezz_tests::processes_of(&cluster.folder().join("agent0"))?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    cluster.start_agent(0)?;
    job.check_end()?;
    cluster.stop()
}

#[test]
fn master_and_agent_killed_together() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    let job = Job::start(&cluster)?;
    cluster.master()?.kill_9()?;
    cluster.agent(0)?.kill_9()?;
    cluster.start_agent(0)?;
    cluster.start_master()?;
    cluster.wait_for_agents(1)?;
    job.let_it_end()?;
    job.check_end()?;
    cluster.stop()
}
