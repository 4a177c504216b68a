//! `mezz exec`.

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use anyhow::{Context, anyhow};
use clap::Args;
use mezz_proto::mezz::v1::{
    CloseStdin, ExecInput, ExecOutput, ExecStart, TaskRecord, WindowSize, exec_input::Input,
    exec_output::Output,
};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    client::{self, ClientArgs, plain},
    commands::task::TaskSelector,
    output, terminal,
};

/// Messages that may wait for a slow agent.
const QUEUE: usize = 4;

/// What is read of standard input at once, in bytes.
const CHUNK: usize = 16 << 10;

/// The size of a terminal that nobody looks at.
const NO_WINDOW: WindowSize = WindowSize { rows: 24, columns: 80 };

/// Run a command in the container of a running task.
///
/// It runs beside the task's own program, with the same user, limits and folder,
/// and is killed when this ends. The exit status is the command's, or 128 plus the
/// number of the signal that ended it.
#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    task: TaskSelector,
    /// Give the command what comes on standard input
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Give the command a terminal; with -i, this one
    #[arg(long, short = 't')]
    tty: bool,
    #[command(flatten)]
    client: ClientArgs,
    /// The command and its arguments, after `--`
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command to its end.
///
/// # Errors
/// When the task cannot be found, its agent cannot be asked, or the command cannot
/// be started.
pub async fn run(args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let mut operator = args.client.operator().await?;
    let record = args.task.find(&mut operator, false).await?;
    let mut agent = client::agent(address(&record)?).await?;
    let window = || terminal::window().unwrap_or(NO_WINDOW);
    let mut environment = BTreeMap::new();
    if args.tty
        && let Ok(term) = std::env::var("TERM")
    {
        environment.insert("TERM".to_owned(), term);
    }
    let start = ExecStart {
        framework_id: record.task.framework_id.value.clone(),
        task_id: record.task.task_id.value.clone(),
        argv: args.command.clone(),
        stdin: Some(args.stdin),
        terminal: args.tty.then(window),
        environment,
    };
    let (inputs, receiver) = mpsc::channel(QUEUE);
    send(&inputs, Input::Start(start)).await;
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let outputs = agent.exec(ReceiverStream::new(receiver)).await.map_err(|s| plain(&s))?;
    // Only from here on: errors are for a terminal that breaks lines as usual.
    let raw = (args.tty && args.stdin).then(terminal::raw).transpose()?.flatten();
    if args.stdin {
        tokio::spawn(read_stdin(inputs.clone()));
    }
    if args.tty {
        tokio::spawn(tell_sizes(inputs.clone()));
    }
    let ended = tokio::select! {
        ended = write_outputs(outputs.into_inner()) => ended,
        _ = signals.0.recv() => Ok(status(SIGTERM)),
        _ = signals.1.recv() => Ok(status(SIGHUP)),
    };
    drop(raw);
    ended
}

const SIGHUP: i32 = 1;
const SIGTERM: i32 = 15;

/// Where a running task's agent is.
pub fn address(record: &TaskRecord) -> anyhow::Result<&str> {
    record.agent_api_address.as_deref().ok_or_else(|| {
        anyhow!(
            "the agent of task {} is not there now; `mezz agents` lists those that are",
            record.task.task_id.value
        )
    })
}

/// False when nobody listens any more.
async fn send(inputs: &mpsc::Sender<ExecInput>, input: Input) -> bool {
    inputs.send(ExecInput { input: Some(input) }).await.is_ok()
}

async fn read_stdin(inputs: mpsc::Sender<ExecInput>) {
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK];
    loop {
        match stdin.read(&mut chunk).await {
            Ok(0) | Err(_) => {
                send(&inputs, Input::CloseStdin(CloseStdin {})).await;
                return;
            }
            Ok(n) => {
                let data = chunk.get(..n).unwrap_or_default().to_vec();
                if !send(&inputs, Input::Stdin(data)).await {
                    return;
                }
            }
        }
    }
}

/// Follows the size of this terminal.
async fn tell_sizes(inputs: mpsc::Sender<ExecInput>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        if let Some(size) = terminal::window()
            && !send(&inputs, Input::Resize(size)).await
        {
            return;
        }
    }
}

async fn write_outputs(mut outputs: Streaming<ExecOutput>) -> anyhow::Result<ExitCode> {
    loop {
        let message = outputs.message().await.map_err(|status| cut(&status))?;
        match message.and_then(|message| message.output) {
            Some(Output::Stdout(data)) => output::write_bytes(&data)?,
            Some(Output::Stderr(data)) => {
                let mut err = std::io::stderr().lock();
                err.write_all(&data).and_then(|()| err.flush()).context("standard error")?;
            }
            Some(Output::WaitStatus(wait_status)) => return Ok(status(wait_status)),
            None => return Err(anyhow!("the agent ended the call before the command had ended")),
        }
    }
}

fn cut(status: &Status) -> anyhow::Error {
    match status.code() {
        Code::Unknown | Code::Internal | Code::Cancelled => {
            anyhow!("the connection to the agent broke: {}", status.message())
        }
        _ => plain(status),
    }
}

/// As shells have it.
fn status(wait_status: i32) -> ExitCode {
    ExitCode::from(code(wait_status))
}

fn code(wait_status: i32) -> u8 {
    let (signal, code) = (wait_status & 0x7f, (wait_status >> 8) & 0xff);
    u8::try_from(if signal == 0 { code } else { 128 + signal }).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_those_of_shells() {
        assert_eq!(code(0), 0);
        assert_eq!(code(3 << 8), 3);
        assert_eq!(code(9), 137);
        assert_eq!(code(15), 143);
        // With a core dump.
        assert_eq!(code(11 | 0x80), 139);
    }
}
