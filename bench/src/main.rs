//! `mezz-bench`: every figure that the documentation states.
//!
//! One subcommand for each workload. Each measurement is one line on standard
//! output, for people or, with `--json`, one JSON object, with the parameters of
//! the workload.

mod agent;
mod agents;
mod allocator;
mod cluster;
mod containers;
mod containment;
mod encoded;
mod etcd;
mod failover;
mod framework;
mod health;
mod http;
mod latency;
mod launch;
mod report;
mod reregister;
mod spark;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::framework::unless_broken_off;

/// What the master uses too: the figures are of the program that users run.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Mezz.
#[derive(Debug, Parser)]
#[command(name = "mezz-bench", version)]
struct Cli {
    /// One JSON object for each measurement in place of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// The allocator alone, in this process
    Allocator(allocator::AllocatorArgs),
    /// Tasks through a master over real sockets, with simulated agents
    Launch(launch::LaunchArgs),
    /// No-op tasks on one real agent
    Agent(agent::AgentArgs),
    /// Many containers alive at once on one real agent
    Containers(containers::ContainersArgs),
    /// From a freed resource to the next offer
    Latency(latency::LatencyArgs),
    /// Mesos' HTTP API beside gRPC, and `/state` for many pollers
    Http(http::HttpArgs),
    /// Agents that come back to a restarted master
    Reregister(reregister::ReregisterArgs),
    /// From a leader's end to the next one's offers, all agents at once at the next
    /// leader, and the registry in etcd
    Failover(failover::FailoverArgs),
    /// Spark jobs on Mezz and on Spark's own Standalone manager
    Spark(spark::SparkArgs),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Without the backtrace that `Debug` would print.
        Err(error) => {
            eprintln!("mezz-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let cli = Cli::parse();
    let mut report = report::Report::new(cli.json);
    let report = &mut report;
    // The load generator gets what the master leaves: as in the peer's measurements,
    // both are on the same two cores.
    let runtime = tokio::runtime::Runtime::new()?;
    match cli.workload {
        Workload::Allocator(args) => args.run(report),
        Workload::Launch(args) => runtime.block_on(unless_broken_off(args.run(report))),
        Workload::Agent(args) => runtime.block_on(args.run(report)),
        Workload::Containers(args) => runtime.block_on(args.run(report)),
        Workload::Latency(args) => runtime.block_on(unless_broken_off(args.run(report))),
        Workload::Http(args) => runtime.block_on(unless_broken_off(args.run(report))),
        Workload::Reregister(args) => runtime.block_on(unless_broken_off(args.run(report))),
        Workload::Failover(args) => runtime.block_on(unless_broken_off(args.run(report))),
        Workload::Spark(args) => runtime.block_on(unless_broken_off(args.run(report))),
    }
}
