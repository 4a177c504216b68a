//! Launches `custom_executor` and gives it a few sums to do; prints its answers.
//!
//! ```text
//! cargo build --examples
//! cargo run --example custom_framework -- --master 127.0.0.1:5050 \
//!     --executor $PWD/target/debug/examples/custom_executor 10 100 1000
//! ```

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, bail};
use clap::Parser;
use mezz_sdk::{
    build::{CommandBuilder, ExecutorBuilder, FrameworkBuilder, TaskBuilder},
    matcher::{self, Want},
    resources::Resources,
    scheduler::{self, Event, SchedulerOptions},
    v1::{ExecutorInfo, TaskState},
};
use tokio::time::timeout;

/// Sums up numbers in a custom executor.
#[derive(Parser)]
struct Args {
    /// The masters, as host:port.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:5050")]
    master: Vec<String>,
    /// The role to be offered resources for.
    #[arg(long, default_value = "*")]
    role: String,
    /// The executor's program, a path on the agents.
    #[arg(long)]
    executor: String,
    /// For each, the sum of all numbers up to it is asked for.
    #[arg(required = true)]
    numbers: Vec<u32>,
}

/// A message may be overtaken by the update that ends its task, but not by more.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(5);
const MAX: Duration = Duration::MAX;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let executor: ExecutorInfo =
        ExecutorBuilder::new("summer", CommandBuilder::argv([&args.executor]))
            .name("custom_executor")
            .resources(&Resources::parse("cpus:0.1;mem:32")?)
            .build();
    let framework = FrameworkBuilder::new("custom-framework").roles([&args.role]).build();
    let (scheduler, mut events) =
        scheduler::connect(SchedulerOptions::new(args.master, framework))?;

    let mut todo = args.numbers.clone();
    let (mut answers, mut running) = (0, BTreeSet::new());
    while answers < args.numbers.len() || !running.is_empty() || !todo.is_empty() {
        // Messages come at most once, so the last ones are not waited for long.
        let patience = if todo.is_empty() && running.is_empty() { MESSAGE_PATIENCE } else { MAX };
        let Ok(event) = timeout(patience, events.next()).await else {
            eprintln!("{} answers were lost", args.numbers.len() - answers);
            break;
        };
        let event = event.context("the driver has ended")?;
        match event {
            Event::Offers(offers) => {
                // Room for an executor of its own is asked for with each task; an
                // agent that has it already gives what is left back.
                let resources = Resources::parse("cpus:0.2;mem:64")?;
                let want = Want { resources, count: todo.len(), ..Want::default() };
                let matched = matcher::place(&offers, &[want])?;
                for launch in matched.launches {
                    let mut tasks = Vec::new();
                    for placed in &launch.tasks {
                        let Some(number) = todo.pop() else { break };
                        let id = format!("sum-{}-{number}", todo.len());
                        let task = TaskBuilder::new(&id)
                            .executor(executor.clone())
                            .data(number.to_string())
                            .resources(Resources::parse("cpus:0.1;mem:32")?)
                            .build(placed.agent_id.clone())?;
                        running.insert(id);
                        tasks.push(task);
                    }
                    scheduler.launch(launch.offers, tasks).await?;
                }
                scheduler.decline(matched.unused, None).await?;
            }
            Event::Message { data, .. } => {
                println!("{}", String::from_utf8_lossy(&data));
                answers += 1;
            }
            Event::Update(status) => {
                let state = status.state();
                println!("{} {}", status.task_id.value, state.as_str_name());
                if state.is_terminal() {
                    running.remove(&status.task_id.value);
                    if state != TaskState::TaskFinished {
                        scheduler.teardown().await?;
                        bail!(
                            "{} ended as {}: {}",
                            status.task_id.value,
                            state.as_str_name(),
                            status.message()
                        );
                    }
                }
            }
            Event::Disconnected { reason } => eprintln!("disconnected: {reason}"),
            Event::Error(message) => bail!("the master refuses this framework: {message}"),
            _ => {}
        }
    }
    scheduler.teardown().await?;
    Ok(())
}
