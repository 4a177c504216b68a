//! Programs that are run in the containers of running tasks, for people.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use mezz_proto::{
    ids::{ContainerId, FrameworkId, TaskId},
    mezz::v1::{self as wire, exec_input::Input, exec_output::Output},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::Served;
use crate::{
    containerizer::{self, ContainerError, Exec, ExecSpec, Program, WindowSize},
    core::TaskKey,
};

/// Messages each way that may wait for a slow side: then the other one waits.
pub(super) const QUEUE: usize = 16;

/// Longest command line, in bytes: Linux takes 128 KiB for one argument.
const MAX_ARGV: usize = 128 << 10;

type Out = mpsc::Sender<Result<wire::ExecOutput, Status>>;

/// Starts what the first message asks for; the rest goes on by itself until the
/// program ends, the caller goes, or the agent stops.
pub(super) async fn exec<S>(
    served: &Arc<Served>,
    mut inputs: S,
) -> Result<mpsc::Receiver<Result<wire::ExecOutput, Status>>, Status>
where
    S: Stream<Item = Result<wire::ExecInput, Status>> + Send + Unpin + 'static,
{
    let Some(Ok(wire::ExecInput { input: Some(Input::Start(start)) })) = inputs.next().await else {
        return Err(Status::invalid_argument("the first message must be `start`"));
    };
    let container = running(served, &start.framework_id, &start.task_id)?;
    let spec = spec(start)?;
    let terminal = spec.terminal.is_some();
    let exec = served.containerizer.exec(&container, spec).await.map_err(|e| refused(&e))?;
    let (sender, outputs) = mpsc::channel(QUEUE);
    let stop = served.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {
                let status = Status::unavailable("the agent stops; the program was killed");
                let _ = sender.try_send(Err(status));
            }
            () = relay(exec, inputs, terminal, sender.clone()) => {}
        }
    });
    Ok(outputs)
}

/// The container of a task that runs.
fn running(served: &Served, framework: &str, task: &str) -> Result<ContainerId, Status> {
    let key = TaskKey { framework: FrameworkId::new(framework), task: TaskId::new(task) };
    served.index.container(&key).ok_or_else(|| {
        Status::not_found(format!(
            "task {task} of framework {framework} does not run on this agent; `mezz tasks` tells \
             where it does"
        ))
    })
}

fn spec(start: wire::ExecStart) -> Result<ExecSpec, Status> {
    let invalid = |text: String| Err(Status::invalid_argument(text));
    let terminal = match start.terminal {
        None => None,
        Some(size) => Some(
            window(size).map_err(|e| Status::invalid_argument(format!("start.terminal.{e}")))?,
        ),
    };
    let stdin = start.stdin();
    let argv = start.argv;
    let Some(path) = argv.first().filter(|path| !path.is_empty()).cloned() else {
        return invalid("start.argv: must name a program".to_owned());
    };
    let length: usize = argv.iter().map(|arg| arg.len() + 1).sum();
    if length > MAX_ARGV {
        return invalid(format!("start.argv: is {length} bytes long; {MAX_ARGV} are allowed"));
    }
    if let Some(arg) = argv.iter().find(|arg| arg.contains('\0')) {
        return invalid(format!("start.argv: {arg:?} contains a zero byte"));
    }
    let environment = environment(start.environment)?;
    Ok(ExecSpec { program: Program::Exec { path, argv }, environment, stdin, terminal })
}

fn environment(given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Status> {
    let bad = |(name, value): (&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match given.iter().find(|entry| bad(*entry)) {
        Some((name, _)) => Err(Status::invalid_argument(format!(
            "start.environment: {name:?} is no name of a variable, or its value has a zero byte"
        ))),
        None => Ok(given),
    }
}

fn window(size: wire::WindowSize) -> Result<WindowSize, String> {
    let side = |name: &str, n: u32| {
        u16::try_from(n).map_err(|_| format!("{name}: {n} is more than {}", u16::MAX))
    };
    Ok(WindowSize { rows: side("rows", size.rows)?, columns: side("columns", size.columns)? })
}

fn refused(error: &ContainerError) -> Status {
    let text = mezz_proto::error::chain(error);
    match error {
        ContainerError::Unknown(_) => {
            Status::failed_precondition("the task's container has not started yet, or has ended")
        }
        ContainerError::Unsupported { .. } => Status::unimplemented(text),
        ContainerError::Launch { .. }
        | ContainerError::Operation { .. }
        | ContainerError::ImageGone { .. } => Status::failed_precondition(text),
    }
}

/// Until the program has ended and its output is passed on, or the caller has gone:
/// then `exec` is dropped, which kills it.
async fn relay<S>(exec: Exec, inputs: S, terminal: bool, sender: Out)
where
    S: Stream<Item = Result<wire::ExecInput, Status>> + Send + Unpin,
{
    let Exec { stdin, mut output, resize, ended } = exec;
    let writing = async {
        let left = write(stdin, inputs, terminal.then_some(resize)).await;
        match left {
            // It may read no more, but it may still write.
            Left::Done => std::future::pending().await,
            Left::Gone => None,
            Left::Broken(status) => Some(status),
        }
    };
    let reading = async {
        while let Some((stream, data)) = output.recv().await {
            let data = Vec::from(data);
            let output = match stream {
                containerizer::Stream::Stdout => Output::Stdout(data),
                containerizer::Stream::Stderr => Output::Stderr(data),
            };
            if sender.send(Ok(wire::ExecOutput { output: Some(output) })).await.is_err() {
                return None;
            }
        }
        Some(match ended.await {
            Ok(status) => Ok(wire::ExecOutput { output: Some(Output::WaitStatus(status)) }),
            Err(error) => Err(Status::internal(mezz_proto::error::chain(&error))),
        })
    };
    let last = tokio::select! {
        broken = writing => broken.map(Err),
        last = reading => last,
        () = sender.closed() => None,
    };
    if let Some(last) = last {
        let _ = sender.send(last).await;
    }
}

/// Why no more input comes.
enum Left {
    /// The caller has closed its side.
    Done,
    /// The caller has gone.
    Gone,
    /// The caller sent what makes no sense.
    Broken(Status),
}

/// Passes input on. A program that does not read holds it up, and with it the
/// caller.
async fn write<S>(
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    mut inputs: S,
    resize: Option<mpsc::Sender<WindowSize>>,
) -> Left
where
    S: Stream<Item = Result<wire::ExecInput, Status>> + Send + Unpin,
{
    while let Some(input) = inputs.next().await {
        match input {
            Err(_) => return Left::Gone,
            Ok(wire::ExecInput { input: Some(Input::Stdin(data)) }) => {
                let Some(to) = &mut stdin else { continue };
                let data = Bytes::from(data);
                let written = async {
                    to.write_all(&data).await?;
                    to.flush().await
                };
                if written.await.is_err() {
                    // It has closed its side, as `head` does; what it writes still counts.
                    stdin = None;
                }
            }
            Ok(wire::ExecInput { input: Some(Input::CloseStdin(_)) }) => stdin = None,
            Ok(wire::ExecInput { input: Some(Input::Resize(size)) }) => match window(size) {
                Ok(size) => {
                    if let Some(resize) = &resize {
                        let _ = resize.send(size).await;
                    }
                }
                Err(text) => {
                    return Left::Broken(Status::invalid_argument(format!("resize.{text}")));
                }
            },
            Ok(wire::ExecInput { input: Some(Input::Start(_)) | None }) => {
                return Left::Broken(Status::invalid_argument(
                    "after `start` come `stdin`, `close_stdin` and `resize`",
                ));
            }
        }
    }
    Left::Done
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
