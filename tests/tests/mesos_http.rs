//! Real masters and agents under clients that were written for Mesos: in Python, with
//! nothing but its standard library, over HTTP in both content types.
//!
//! The clients and what they check are in `tests/mesos/`: `rules.py` runs the functions of one
//! subject, which are named after the rules and scenarios that they check.

use std::time::Duration;

use anyhow::Result;
use mezz_tests::{Cluster, ClusterOptions, QUICK_LOSS, eventually, processes_of, run_mesos_client};

/// What a subject takes in the worst case on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(240);

fn options(master_args: &[&str]) -> ClusterOptions {
    ClusterOptions {
        master_args: master_args.iter().map(|&arg| arg.to_owned()).collect(),
        ..Default::default()
    }
}

fn follows(subject: &str, options: ClusterOptions) -> Result<()> {
    let mut cluster = Cluster::start(options)?;
    let args = ["--subject", subject];
    println!("{}", run_mesos_client(&mut cluster, "rules.py", &args, PATIENCE)?);
    stop(cluster)
}

/// The executors of frameworks that are torn down end by themselves, before their agent does.
fn stop(mut cluster: Cluster) -> Result<()> {
    let mut own = vec![cluster.master()?.pid()];
    for n in 0..cluster.agent_addresses().len() {
        own.push(cluster.agent(n)?.pid());
    }
    let folder = cluster.folder().to_owned();
    eventually(mezz_tests::PATIENCE, "all containers have ended", || {
        let mut left = processes_of(&folder)?;
        left.retain(|pid| !own.contains(pid));
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    cluster.stop()
}

fn runs_a_hundred_tasks(format: &str) -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { agents: 2, ..Default::default() })?;
    let args = ["--format", format, "--faults"];
    println!("{}", run_mesos_client(&mut cluster, "framework.py", &args, PATIENCE)?);
    stop(cluster)
}

#[test]
fn a_framework_in_json_runs_a_hundred_tasks_while_master_and_agent_are_killed() -> Result<()> {
    runs_a_hundred_tasks("json")
}

#[test]
fn a_framework_in_protobuf_runs_a_hundred_tasks_while_master_and_agent_are_killed() -> Result<()> {
    runs_a_hundred_tasks("protobuf")
}

#[test]
fn calls_of_schedulers_are_checked_as_mesos_does() -> Result<()> {
    follows("calls", options(&[]))
}

#[test]
fn frameworks_subscribe_as_with_mesos() -> Result<()> {
    follows("subscription", options(&[]))
}

#[test]
fn offers_are_used_and_refused_as_with_mesos() -> Result<()> {
    follows("offers", options(&[]))
}

#[test]
fn offers_that_nobody_answers_time_out() -> Result<()> {
    follows("offer_timeout", options(&["--offer-timeout=3s"]))
}

#[test]
fn tasks_are_reported_killed_and_reconciled_as_with_mesos() -> Result<()> {
    let agent_args = vec!["--update-retry-min=1s".to_owned()];
    follows("tasks", ClusterOptions { agent_args, ..Default::default() })
}

#[test]
fn executors_over_http_are_served_as_with_mesos() -> Result<()> {
    follows("executors", options(&[]))
}

#[test]
fn agents_are_lost_return_and_are_drained_as_with_mesos() -> Result<()> {
    follows("agents", options(&QUICK_LOSS))
}

#[test]
fn operators_and_tools_read_what_mesos_shows() -> Result<()> {
    follows("operators", options(&[]))
}
