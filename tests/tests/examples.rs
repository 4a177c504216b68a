//! The SDK's examples as real programs on a real cluster.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use mezz_tests::{Cluster, ClusterOptions, PATIENCE, Process, example_program};

fn start(cluster: &Cluster, name: &str, args: &[&str]) -> Result<Process> {
    let mut command = std::process::Command::new(example_program(name)?);
    command.args(["--master", cluster.master_address()]).args(args);
    Process::start(name, cluster.folder(), command)
}

#[test]
fn run_once_ends_as_its_command_does() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let end = start(&cluster, "run_once", &["--", "sh", "-c", "exit 4"])?.wait(PATIENCE)?;
    ensure!(end.code == Some(4), "{:?}\n{end}", end.code);
    cluster.stop()
}

#[test]
fn the_batch_queue_gets_through_restarts_of_master_and_agents() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { agents: 2, ..Default::default() })?;
    let args = ["--total", "20", "--parallel", "4", "sleep 0.3"];
    let mut queue = start(&cluster, "batch_queue", &args)?;
    for done in ["3/20 done", "8/20 done", "13/20 done"] {
        queue.wait_for_output(done, PATIENCE)?;
        cluster.master()?.kill_9()?;
        cluster.start_master()?;
        cluster.agent(0)?.kill_9()?;
        cluster.start_agent(0)?;
    }
    let end = queue.wait(PATIENCE)?.success()?;
    ensure!(end.stdout.contains("finished: 20 runs"), "{end}");
    cluster.stop()
}

#[test]
fn a_custom_executor_works_and_answers_its_framework() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let executor = example_program("custom_executor")?;
    let executor: &Path = &executor;
    let path = executor.to_str().context("a path in UTF-8")?;
    let args = ["--executor", path, "10", "100", "1000"];
    let end = start(&cluster, "custom_framework", &args)?.wait(PATIENCE)?.success()?;
    for sum in ["55", "5050", "500500"] {
        ensure!(end.stdout.contains(sum), "{end}");
    }
    cluster.stop()
}
