//! Keeps a number of tasks going until enough of them have finished, through
//! failures of tasks and agents and restarts of masters.
//!
//! ```text
//! cargo run --example batch_queue -- --master 127.0.0.1:5050 --total 20 'sleep 1'
//! ```

mod queue;

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use mezz_sdk::{
    build::FrameworkBuilder,
    resources::Resources,
    scheduler::{self, SchedulerOptions},
};

/// Runs a command a number of times on the cluster.
#[derive(Parser)]
struct Args {
    /// The masters, as host:port.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:5050")]
    master: Vec<String>,
    /// The role to be offered resources for.
    #[arg(long, default_value = "*")]
    role: String,
    /// What each run needs.
    #[arg(long, default_value = "cpus:0.1;mem:32")]
    resources: String,
    /// So many runs must finish.
    #[arg(long, default_value_t = 10)]
    total: usize,
    /// So many run at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// Each run may fail so often.
    #[arg(long, default_value_t = 3)]
    retries: usize,
    /// The line for /bin/sh; `$ITEM` is the number of the run, from 0.
    command: String,
}

/// How long the tasks outlive this program and its link to the master.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let framework = FrameworkBuilder::new("batch-queue")
        .roles([&args.role])
        .failover_timeout(FAILOVER_TIMEOUT)
        .checkpoint(true)
        .build();
    let (scheduler, mut events) =
        scheduler::connect(SchedulerOptions::new(args.master, framework))?;
    let job = queue::Job {
        total: args.total,
        parallel: args.parallel.into(),
        retries: args.retries,
        resources: Resources::parse(&args.resources).context("--resources")?,
        command: args.command,
    };
    let result = queue::run(&scheduler, &mut events, job, |line| println!("{line}")).await;
    // The driver has already ended when the master refused the framework.
    let _ = scheduler.teardown().await;
    let summary = result?;
    println!("finished: {} runs, {} repeated", summary.done, summary.retried);
    Ok(())
}
