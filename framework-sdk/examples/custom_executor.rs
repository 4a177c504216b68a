//! A custom executor: runs its tasks inside its own process. A task's data is a
//! number n; the executor sends the framework `ID: the sum of 1 to n` as a message
//! and finishes the task. `custom_framework` launches it.

use std::{collections::BTreeMap, process::ExitCode};

use mezz_sdk::{
    executor::{self, Event, Executor, UpdateError},
    v1::{self, TaskState},
};
use tokio::task::AbortHandle;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("custom_executor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let (executor, mut events) = executor::connect_from_env()?;
    let mut tasks: BTreeMap<String, AbortHandle> = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Subscribed { agent, .. } => println!("subscribed to {}", agent.hostname),
            Event::Launch(task) => {
                let id = task.task_id.value.clone();
                let work = tokio::spawn(work(executor.clone(), *task));
                tasks.insert(id, work.abort_handle());
            }
            Event::LaunchGroup(group) => {
                for task in group {
                    let id = task.task_id.value.clone();
                    let work = tokio::spawn(work(executor.clone(), task));
                    tasks.insert(id, work.abort_handle());
                }
            }
            Event::Kill { task_id, .. } => {
                if let Some(work) = tasks.remove(&task_id.value).filter(|w| !w.is_finished()) {
                    work.abort();
                    executor.state(task_id, TaskState::TaskKilled).await?;
                }
            }
            Event::Message(data) => {
                println!("the framework says {}", String::from_utf8_lossy(&data));
            }
            Event::Disconnected { reason } => println!("disconnected: {reason}"),
            Event::Shutdown => {
                for (value, work) in tasks.into_iter().filter(|(_, w)| !w.is_finished()) {
                    work.abort();
                    executor.state(v1::TaskId { value }, TaskState::TaskKilled).await?;
                }
                executor.stop().await?;
                return Ok(());
            }
            Event::Error(message) => anyhow::bail!("the agent refuses this executor: {message}"),
        }
    }
    Ok(())
}

async fn work(executor: Executor, task: v1::TaskInfo) -> Result<(), UpdateError> {
    executor.state(task.task_id.clone(), TaskState::TaskRunning).await?;
    let number = String::from_utf8_lossy(task.data()).trim().parse::<u32>();
    let state = match number {
        Ok(n) => {
            let sum: u64 = (1..=u64::from(n)).sum();
            executor.message(format!("{}: {sum}", task.task_id.value)).await?;
            TaskState::TaskFinished
        }
        Err(_) => TaskState::TaskFailed,
    };
    executor.state(task.task_id, state).await
}
