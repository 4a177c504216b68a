//! Two thousand short tasks of mixed kinds, with random kills, and agents and the
//! master that are killed and come back: each task has exactly one end, the right
//! one, and nothing is left behind.
//!
//! `MEZZ_STRESS_SEED` and `MEZZ_STRESS_TASKS` change the run; both are printed.

#![allow(clippy::expect_used)]

mod kinds;
mod left;
mod run;

use std::time::Duration;

use anyhow::Result;
use mezz_tests::{Cluster, ClusterOptions, prepared_value};

use run::Run;

/// Tasks of one run.
const TASKS: usize = 2000;

/// Between two kills of an agent or of the master.
const PAUSE: Duration = Duration::from_secs(4);

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_task_is_accounted_for_and_nothing_is_left() -> Result<()> {
    let (seed, tasks) = (setting("MEZZ_STRESS_SEED", 1), setting("MEZZ_STRESS_TASKS", TASKS));
    println!("MEZZ_STRESS_SEED={seed} MEZZ_STRESS_TASKS={tasks}");
    let image = prepared_value("MEZZ_TEST_DOCKER_IMAGE")?;
    let before = left::Machine::look()?;
    let mut cluster = Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:4;mem:4096;disk:1000".to_owned(),
        master_args: vec!["--registry".to_owned(), "file".to_owned()],
        ..Default::default()
    })?;
    let names: Vec<String> = (0..2).map(|n| format!("{}-{n}", cluster.cgroup_root())).collect();
    let run = Run::start(cluster.master_address(), seed, tasks, image)?;
    let mut turn = 0;
    while !run.wait(PAUSE)? {
        // Agents in turn, and the master each third time.
        match turn % 3 {
            2 => {
                cluster.master()?.kill_9()?;
                cluster.start_master()?;
            }
            n => {
                cluster.agent(n)?.kill_9()?;
                cluster.start_agent(n)?;
            }
        }
        turn += 1;
    }
    println!("{}", run.finish()?);
    cluster.wait_for_agents(2)?;
    left::nothing_running(&cluster)?;
    cluster.stop()?;
    before.check(&names)
}
