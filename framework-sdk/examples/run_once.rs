//! Runs one command on the cluster, prints what becomes of it, and exits with its
//! status.
//!
//! ```text
//! cargo run --example run_once -- --master 127.0.0.1:5050 -- sh -c 'echo hi; exit 3'
//! ```

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use mezz_sdk::{
    build::{FrameworkBuilder, TaskBuilder},
    matcher::{self, Want},
    resources::Resources,
    scheduler::{self, Event, SchedulerOptions},
    v1,
};

/// Runs one command on the cluster.
#[derive(Parser)]
struct Args {
    /// The masters, as host:port.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:5050")]
    master: Vec<String>,
    /// The role to be offered resources for.
    #[arg(long, default_value = "*")]
    role: String,
    /// What the command needs.
    #[arg(long, default_value = "cpus:0.1;mem:32")]
    resources: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Of a command that ended without a status of its own.
const NO_STATUS: u8 = 1;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let resources = Resources::parse(&args.resources).context("--resources")?;
    let want = [Want { resources, count: 1, ..Want::default() }];
    let framework = FrameworkBuilder::new("run-once").roles([&args.role]).build();
    let (scheduler, mut events) =
        scheduler::connect(SchedulerOptions::new(args.master, framework))?;

    let mut launched = false;
    while let Some(event) = events.next().await {
        match event {
            Event::Offers(offers) => {
                let mut unused: Vec<_> = offers.iter().map(|o| o.id.clone()).collect();
                if !launched {
                    let matched = matcher::place(&offers, &want)?;
                    unused = matched.unused;
                    for launch in matched.launches {
                        let task = TaskBuilder::new("once").argv(&args.command);
                        let task = task.place(&launch.tasks[0])?;
                        println!("launched on {}", launch.hostname);
                        scheduler.launch(launch.offers, vec![task]).await?;
                        launched = true;
                    }
                }
                scheduler.decline(unused, None).await?;
                if launched {
                    scheduler.suppress(&[]).await?;
                }
            }
            Event::Update(status) => {
                println!("{}: {}", status.state().as_str_name(), status.message());
                if status.state().is_terminal() {
                    // Asking once more would acknowledge it; the framework ends here.
                    scheduler.teardown().await?;
                    return Ok(exit_code(&status));
                }
            }
            Event::Disconnected { reason } => eprintln!("disconnected: {reason}"),
            Event::Error(message) => bail!("the master refuses this framework: {message}"),
            _ => {}
        }
    }
    bail!("the driver ended before the command did")
}

/// The command's own status, where the agent tells it.
fn exit_code(status: &v1::TaskStatus) -> ExitCode {
    if status.state() == v1::TaskState::TaskFinished {
        return ExitCode::SUCCESS;
    }
    let own = status.message().strip_prefix("exited with status ").and_then(|s| s.parse().ok());
    ExitCode::from(own.unwrap_or(NO_STATUS))
}
