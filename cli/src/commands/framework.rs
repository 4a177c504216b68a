//! `mezz framework`.

use clap::{Args, Subcommand};
use mezz_proto::mezz::v1::{ListFrameworksRequest, TeardownRequest};

use crate::{
    client::{ClientArgs, plain},
    ids, text,
};

/// Act on a framework.
#[derive(Debug, Args)]
pub struct FrameworkArgs {
    /// What to do.
    #[command(subcommand)]
    command: FrameworkCommand,
}

#[derive(Debug, Subcommand)]
enum FrameworkCommand {
    /// End a framework and all of its tasks, for good
    Teardown(TeardownArgs),
}

#[derive(Debug, Args)]
struct TeardownArgs {
    /// The framework's id; an end or a beginning of it is enough
    #[arg(value_name = "FRAMEWORK")]
    framework: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Acts on a framework.
///
/// # Errors
/// When it cannot be found or the master refuses.
pub async fn run(args: &FrameworkArgs) -> anyhow::Result<()> {
    let FrameworkCommand::Teardown(args) = &args.command;
    let mut operator = args.client.operator().await?;
    let request = ListFrameworksRequest { completed: Some(false) };
    let answer = operator.list_frameworks(request).await.map_err(|s| plain(&s))?.into_inner();
    let all = answer.frameworks.iter().map(super::frameworks::id);
    let id = ids::resolve(&args.framework, all, "framework", "mezz frameworks")
        .map_err(anyhow::Error::msg)?
        .to_owned();
    let state = answer.frameworks.iter().find(|f| super::frameworks::id(f) == id);
    operator.teardown(TeardownRequest { framework_id: id.clone() }).await.map_err(|s| plain(&s))?;
    let (name, tasks) = state.map_or(("", 0), |f| (f.framework.name.as_str(), f.tasks as usize));
    eprintln!("framework {name} ({id}) is torn down; {} had not ended", text::count(tasks, "task"));
    Ok(())
}
