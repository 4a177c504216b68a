//! One more program in a container that runs.

use std::{
    io::{self, IoSlice, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use mezz_proto::ids::ContainerId;
use nix::{fcntl::OFlag, unistd::pipe2};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, BufReader},
    net::{UnixStream, unix::pipe},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    Inner, blocking,
    container::{Container, Launcher, State},
    operation,
    terminal::{self, Terminal},
    watch,
};
use crate::{
    containerizer::{ContainerError, Exec, ExecSpec, Stream, WindowSize},
    launcher::{
        Plan,
        enter::{self, Answer, DESCRIPTORS, Request},
        plan,
    },
    options::LauncherCommand,
};

pub(super) const DOING: &str = "running a program in it";

/// Pieces of output that wait for their reader; then the program waits.
const PIECES: usize = 16;

/// A piece is not longer, in bytes.
const PIECE: usize = 16 * 1024;

/// So long after the program's end its output is waited for: somebody outside of what it
/// left may hold it open.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(5);

/// After that, so much of what was written is still passed on, in bytes: what a pipe
/// holds, for a reader that is slow.
const LATE_OUTPUT: usize = 64 * 1024;

/// Sizes of the terminal that wait to be set.
const RESIZES: usize = 4;

/// An answer is a line that is not longer, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// The program's ends of what ties it to the agent, and ours.
struct Ends {
    theirs: [OwnedFd; DESCRIPTORS],
    ours: Ours,
}

enum Ours {
    Terminal(Terminal),
    Pipes { stdin: Option<pipe::Sender>, stdout: pipe::Receiver, stderr: pipe::Receiver },
}

impl Inner {
    pub(super) async fn exec(
        self: Arc<Self>,
        id: ContainerId,
        spec: ExecSpec,
    ) -> Result<Exec, ContainerError> {
        let failed = |error| operation(&id, DOING)(error);
        let container = self.containers.get(&id)?;
        container.until(|state| !matches!(state, State::Starting)).await;
        let gone = || failed(io::Error::new(io::ErrorKind::NotFound, "it has ended"));
        if container.has_ended() {
            return Err(gone());
        }
        let target = container.started().ok_or_else(gone)?.child;
        let plan = self.directory.join(id.as_str()).join(plan::FILE);
        let read = plan.clone();
        // The launcher reads it again; this is for the error.
        blocking(move || Ok(Plan::read(&read))).await.map_err(&failed)?.map_err(|error| {
            let what = format!("programs cannot be run in it: {error}");
            ContainerError::Unsupported { id: id.clone(), what }
        })?;
        let Ends { theirs, ours } = ends(&spec).map_err(&failed)?;
        let request = Request {
            v: enter::VERSION,
            plan,
            target,
            program: spec.program,
            environment: spec.environment,
            terminal: spec.terminal.is_some(),
        };
        let command = self.launcher.clone();
        let (socket, launcher) =
            blocking(move || start(&command, &request, &theirs)).await.map_err(&failed)?;
        let mut socket = UnixStream::from_std(socket).map(BufReader::new).map_err(&failed)?;
        match answer(&mut socket).await {
            Ok(Answer::Started) => {}
            other => {
                tokio::spawn(async move { watch::until_dead(&launcher).await });
                return Err(failed(match other {
                    // The program's fault: to be told from the agent's own troubles.
                    Ok(Answer::Failed(text)) => io::Error::new(io::ErrorKind::InvalidInput, text),
                    Ok(_) => io::ErrorKind::InvalidData.into(),
                    Err(error) => error,
                }));
            }
        }
        let (tell, told) = oneshot::channel();
        let late = CancellationToken::new();
        tokio::spawn(see_it_end(container, socket, launcher, tell, late.clone()));
        let ended = async move {
            let ended = told.await.unwrap_or_else(|e| Err(io::Error::other(e)));
            ended.map_err(operation(&id, DOING))
        };
        Ok(tie(ours, spec.stdin, Box::pin(ended), &late))
    }
}

/// Until the program has ended, or nobody wants to know, or its container has ended.
async fn see_it_end(
    container: Arc<Container>,
    mut socket: BufReader<UnixStream>,
    launcher: Launcher,
    mut tell: oneshot::Sender<io::Result<i32>>,
    late: CancellationToken,
) {
    let early = tokio::select! {
        answer = answer(&mut socket) => Some(answer),
        () = tell.closed() => None,
        _ = container.ended() => None,
    };
    let answer = match early {
        Some(answer) => answer,
        None => {
            // Then its launcher kills it, and says so.
            let _ = tokio::io::AsyncWriteExt::shutdown(socket.get_mut()).await;
            answer(&mut socket).await
        }
    };
    let _ = tell.send(match answer {
        Ok(Answer::Ended(status)) => Ok(status),
        Ok(Answer::Failed(text)) => Err(io::Error::other(text)),
        Ok(Answer::Started) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) => Err(error),
    });
    drop(socket);
    watch::until_dead(&launcher).await;
    tokio::time::sleep(OUTPUT_PATIENCE).await;
    late.cancel();
}

async fn answer(socket: &mut BufReader<UnixStream>) -> io::Result<Answer> {
    let mut line = Vec::new();
    socket.take(LONGEST_ANSWER).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::Error::other("its launcher died without a word"));
    }
    Ok(serde_json::from_slice(&line)?)
}

fn ends(spec: &ExecSpec) -> io::Result<Ends> {
    if let Some(size) = spec.terminal {
        let (terminal, theirs) = terminal::open(size)?;
        let theirs = [theirs.try_clone()?, theirs.try_clone()?, theirs];
        return Ok(Ends { theirs, ours: Ours::Terminal(terminal) });
    }
    let (stdin, our_stdin) = if spec.stdin {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
        (theirs, Some(pipe::Sender::from_owned_fd(ours)?))
    } else {
        (std::fs::File::open("/dev/null")?.into(), None)
    };
    let (our_stdout, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (our_stderr, stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let ours = Ours::Pipes {
        stdin: our_stdin,
        stdout: pipe::Receiver::from_owned_fd(our_stdout)?,
        stderr: pipe::Receiver::from_owned_fd(our_stderr)?,
    };
    Ok(Ends { theirs: [stdin, stdout, stderr], ours })
}

/// Starts the launcher and tells it what to do.
fn start(
    command: &LauncherCommand,
    request: &Request,
    theirs: &[OwnedFd],
) -> io::Result<(StdStream, Launcher)> {
    let (mut ours, its) = StdStream::pair()?;
    // No closure runs between fork and exec, so that the agent's memory is not copied.
    let mut child = Command::new(&command.program)
        .args(&command.args)
        .arg(enter::WORD)
        .env_clear()
        .env("MIMALLOC_ARENA_RESERVE", "0")
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let launcher = match Launcher::of_child(child.id()) {
        Ok(launcher) => launcher,
        Err(error) => {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(error);
        }
    };
    // One that dies is heard of by its answer, or the lack of one.
    let _ = send(&mut ours, request, theirs);
    ours.set_nonblocking(true)?;
    Ok((ours, launcher))
}

fn send(socket: &mut StdStream, request: &Request, descriptors: &[OwnedFd]) -> io::Result<()> {
    let text = serde_json::to_vec(request)?;
    let length = (text.len() as u64).to_ne_bytes();
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&*socket, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    socket.write_all(&text)
}

/// Connects our ends with what the caller gets.
fn tie(
    ours: Ours,
    stdin: bool,
    ended: crate::containerizer::BoxFuture<'static, Result<i32, ContainerError>>,
    late: &CancellationToken,
) -> Exec {
    let (write, output) = mpsc::channel(PIECES);
    let (resize, mut sizes) = mpsc::channel::<WindowSize>(RESIZES);
    let stdin: Option<Box<dyn AsyncWrite + Send + Unpin>> = match ours {
        Ours::Terminal(terminal) => {
            let (reader, resized) = (terminal.clone(), terminal.clone());
            tokio::spawn(async move {
                while let Some(size) = sizes.recv().await {
                    let _ = resized.resize(size);
                }
            });
            let read = async move |buffer: &mut [u8]| reader.read(buffer).await;
            tokio::spawn(copy(read, Stream::Stdout, write, late.clone()));
            stdin.then(|| Box::new(terminal) as _)
        }
        Ours::Pipes { stdin, stdout, stderr } => {
            let (mut out, mut err) = (stdout, stderr);
            let out = async move |buffer: &mut [u8]| out.read(buffer).await;
            let err = async move |buffer: &mut [u8]| err.read(buffer).await;
            tokio::spawn(copy(out, Stream::Stdout, write.clone(), late.clone()));
            tokio::spawn(copy(err, Stream::Stderr, write, late.clone()));
            stdin.map(|stdin| Box::new(stdin) as _)
        }
    };
    Exec { stdin, output, resize, ended }
}

/// Until nobody writes any more; or, when that is late after the program's end, what is
/// there.
async fn copy(
    mut read: impl AsyncFnMut(&mut [u8]) -> io::Result<usize>,
    stream: Stream,
    to: mpsc::Sender<(Stream, Bytes)>,
    late: CancellationToken,
) {
    let (mut buffer, mut left) = (vec![0; PIECE], LATE_OUTPUT);
    while left > 0 {
        let read = tokio::select! {
            biased;
            read = read(&mut buffer) => read,
            () = late.cancelled() => break,
        };
        let Ok(read @ 1..) = read else { break };
        if late.is_cancelled() {
            left = left.saturating_sub(read);
        }
        let piece = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
        if to.send((stream, piece)).await.is_err() {
            break;
        }
    }
}
