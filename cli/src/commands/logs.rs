//! `mezz logs`.

use anyhow::anyhow;
use clap::Args;

use crate::{
    client::ClientArgs,
    commands::task::TaskSelector,
    output,
    sandbox::{self, SandboxFile},
};

/// Print what a task wrote to its standard output.
#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    task: TaskSelector,
    /// Go on until the task has ended
    #[arg(long, short)]
    follow: bool,
    /// What it wrote to its standard error instead
    #[arg(long)]
    stderr: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Prints a task's output, read from its agent.
///
/// # Errors
/// When the task cannot be found or its agent cannot be asked.
pub async fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let mut operator = args.client.operator().await?;
    let record = args.task.find(&mut operator, true).await?;
    let address = record.agent_api_address.as_deref().ok_or_else(|| {
        anyhow!(
            "the agent of task {} is gone, and its sandbox with it; `mezz agents` lists those that \
             are there",
            record.task.task_id.value
        )
    })?;
    let file = SandboxFile {
        agent: address.to_owned(),
        framework_id: record.task.framework_id.value.clone(),
        task_id: record.task.task_id.value.clone(),
        path: if args.stderr { "stderr" } else { "stdout" }.to_owned(),
        follow: args.follow,
    };
    sandbox::read(&file, output::write_bytes).await
}
