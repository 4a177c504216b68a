//! `mezz attach`.

use std::io::Write;

use clap::Args;
use mezz_proto::mezz::v1::{AttachRequest, attach_output::Output};

use crate::{
    client::{self, ClientArgs, plain},
    commands::{exec::address, task::TaskSelector},
    output,
};

/// Print what a running task writes, from now on until it has ended.
///
/// Its standard output and standard error come as such. What it wrote before is
/// printed by `mezz logs`; a command with input and a terminal runs by
/// `mezz exec -it TASK -- sh`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    #[command(flatten)]
    task: TaskSelector,
    #[command(flatten)]
    client: ClientArgs,
}

/// Prints until the task has ended.
///
/// # Errors
/// When the task cannot be found, or its agent cannot be asked.
pub async fn run(args: &AttachArgs) -> anyhow::Result<()> {
    let mut operator = args.client.operator().await?;
    let record = args.task.find(&mut operator, false).await?;
    let mut agent = client::agent(address(&record)?).await?;
    let request = AttachRequest {
        framework_id: record.task.framework_id.value.clone(),
        task_id: record.task.task_id.value.clone(),
    };
    let mut outputs = agent.attach(request).await.map_err(|s| plain(&s))?.into_inner();
    while let Some(message) = outputs.message().await.map_err(|s| plain(&s))? {
        match message.output {
            Some(Output::Stdout(data)) => output::write_bytes(&data)?,
            Some(Output::Stderr(data)) => std::io::stderr().lock().write_all(&data)?,
            None => {}
        }
    }
    Ok(())
}
