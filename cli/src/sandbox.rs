//! Files of tasks' sandboxes, read from the agents that have them.

use std::time::Duration;

use mezz_proto::mezz::v1::ReadSandboxRequest;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::client::{self, plain};

/// A sandbox is made a moment after its task is known: that long it is waited
/// for.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);

/// An agent that is restarted is back within this.
const AGENT_BACK_WITHIN: Duration = Duration::from_secs(60);

/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A file to read.
#[derive(Clone, Debug)]
pub struct SandboxFile {
    /// host:port of the agent that has it.
    pub agent: String,
    /// The task's framework.
    pub framework_id: String,
    /// The task.
    pub task_id: String,
    /// Relative to the sandbox.
    pub path: String,
    /// Until the task has ended and the file's end is reached.
    pub follow: bool,
}

/// Why an attempt ended early.
enum Trouble {
    /// There is no such file (yet).
    NotThere(anyhow::Error),
    /// The agent cannot be reached (any more).
    Cut(anyhow::Error),
    /// Nothing that time would heal.
    Final(anyhow::Error),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        let error = plain(&status);
        match status.code() {
            Code::NotFound => Self::NotThere(error),
            // A connection that breaks shows as any of these.
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal => {
                Self::Cut(error)
            }
            _ => Self::Final(error),
        }
    }
}

/// Hands every piece of the file to `sink`, in order. Following goes on over a
/// restart of the agent.
///
/// # Errors
/// When the agent refuses or is lost, or `sink` fails.
pub async fn read(
    file: &SandboxFile,
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut offset = 0;
    let mut trouble_since = None;
    loop {
        let (error, patience) =
            match attempt(file, &mut offset, &mut trouble_since, &mut sink).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::NotThere(error)) => (error, APPEARS_WITHIN),
                Err(Trouble::Cut(error)) => (error, AGENT_BACK_WITHIN),
            };
        let since = *trouble_since.get_or_insert_with(Instant::now);
        if !file.follow || since.elapsed() > patience {
            return Err(error);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Reads from `offset` on, and moves it. When the agent answers there is no
/// trouble any more.
async fn attempt(
    file: &SandboxFile,
    offset: &mut i64,
    trouble_since: &mut Option<Instant>,
    sink: &mut impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), Trouble> {
    let mut agent = client::agent(&file.agent).await.map_err(Trouble::Cut)?;
    let request = ReadSandboxRequest {
        framework_id: file.framework_id.clone(),
        task_id: file.task_id.clone(),
        path: file.path.clone(),
        offset: Some(*offset),
        follow: Some(file.follow),
        limit: None,
    };
    let mut stream = agent.read_sandbox(request).await?.into_inner();
    *trouble_since = None;
    while let Some(chunk) = stream.message().await? {
        sink(&chunk.data).map_err(|error| Trouble::Final(error.into()))?;
        // Not counted here: a log that is put aside starts again.
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        *offset = i64::try_from(end).unwrap_or(i64::MAX);
    }
    Ok(())
}
