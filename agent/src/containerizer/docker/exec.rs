//! One more program in a container that runs.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use bollard::{
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::{ExecConfig, ExecInspectResponse},
    query_parameters::ResizeExecOptionsBuilder,
};
use futures_util::StreamExt as _;
use mezz_proto::ids::ContainerId;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    ContainerError, Inner, KILL_PATIENCE,
    container::Container,
    engine::EngineError,
    operation,
    proc::{self, First},
    watch::wait_status,
};
use crate::containerizer::{Exec, ExecSpec, Program, Stream, WindowSize};

const DOING: &str = "running a program in it";

/// Pieces of output that wait to be taken; then the program waits.
const OUTPUTS: usize = 64;

/// Bytes of input that wait to be taken.
const INPUT_BYTES: usize = 64 * 1024;

/// How often the engine is asked whether a program has ended: at first, and later.
const ASK: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(256));

type Input = std::pin::Pin<Box<dyn AsyncWrite + Send>>;

impl Inner {
    pub(super) async fn exec(
        self: Arc<Self>,
        id: &ContainerId,
        spec: ExecSpec,
    ) -> Result<Exec, ContainerError> {
        let container = self.containers.get(id)?;
        let Some(first) = self.first_process(&container, DOING).await? else {
            let ended = io::Error::new(io::ErrorKind::NotFound, "it does not run");
            return Err(ContainerError::Operation { id: id.clone(), doing: DOING, source: ended });
        };
        let failed = |error| operation(id, DOING)(error);
        let config = config(&spec)
            .map_err(|what| ContainerError::Unsupported { id: id.clone(), what: what.into() })?;
        let exec = self.create_exec(&container, config).await.map_err(failed)?;
        let (answer, started) = oneshot::channel();
        let program = Running { inner: self, exec, first, pid: AtomicI32::new(0) };
        // A task of its own: what was started must not be left behind when the caller stops
        // waiting.
        tokio::spawn(program.run(id.clone(), spec.stdin, spec.terminal, answer));
        started.await.unwrap_or_else(|_| {
            let source = io::Error::other("its start panicked");
            Err(ContainerError::Operation { id: id.clone(), doing: DOING, source })
        })
    }

    async fn create_exec(
        &self,
        container: &Container,
        config: ExecConfig,
    ) -> Result<String, EngineError> {
        let name = &container.name;
        self.engine
            .call(|link| async move { link.create_exec(name, config).await })
            .await
            .map(|made| made.id)
    }

    /// A size that is not set is no reason to fail.
    async fn resize(&self, exec: &str, size: WindowSize) {
        let options =
            ResizeExecOptionsBuilder::new().h(size.rows.into()).w(size.columns.into()).build();
        let resized =
            self.engine.call(|link| async move { link.resize_exec(exec, options).await }).await;
        if let Err(error) = resized {
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }

    async fn inspect_exec(&self, exec: &str) -> Result<ExecInspectResponse, EngineError> {
        self.engine.call(|link| async move { link.inspect_exec(exec).await }).await
    }
}

fn config(spec: &ExecSpec) -> Result<ExecConfig, &'static str> {
    let cmd = match &spec.program {
        Program::Shell(text) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()],
        Program::Exec { path, argv } => {
            std::iter::once(path).chain(argv.iter().skip(1)).cloned().collect()
        }
        Program::Image { .. } | Program::Hold => {
            return Err("only a command can be run in a container that runs");
        }
    };
    let variables = spec.environment.iter().map(|(name, value)| format!("{name}={value}"));
    Ok(ExecConfig {
        attach_stdin: Some(spec.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(spec.terminal.is_some()),
        env: Some(variables.collect()),
        cmd: Some(cmd),
        ..ExecConfig::default()
    })
}

/// Input to the program; its end is the end of the program's.
async fn pump(mut from: tokio::io::DuplexStream, mut to: Input) {
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!(%error, "a program takes no more input");
    }
    let _ = to.shutdown().await;
}

/// A program that is started, or will be in a moment.
struct Running {
    inner: Arc<Inner>,
    exec: String,
    first: First,
    /// As the engine said last; 0 before it did.
    pid: AtomicI32,
}

type Output = std::pin::Pin<
    Box<dyn futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>,
>;

impl Running {
    /// From its start to its end, which comes soon when nobody wants it any more.
    async fn run(
        self,
        id: ContainerId,
        stdin: bool,
        terminal: Option<WindowSize>,
        mut answer: oneshot::Sender<Result<Exec, ContainerError>>,
    ) {
        let started = {
            let mut start = std::pin::pin!(self.start(terminal));
            let started = tokio::select! {
                started = &mut start => Some(started),
                () = answer.closed() => None,
            };
            match started {
                Some(started) => started,
                // It may run already, or begin to at any time.
                None => {
                    return tokio::select! {
                        () = self.kill() => {}
                        () = async { _ = start.await; std::future::pending().await } => {}
                    };
                }
            }
        };
        let (output, input) = match started {
            Ok(started) => started,
            Err(error) => {
                let unsure = error.is_away();
                let _ = answer.send(Err(operation(&id, DOING)(error)));
                if unsure {
                    self.kill().await;
                }
                return;
            }
        };
        if let Some(size) = terminal {
            self.inner.resize(&self.exec, size).await;
        }
        let dropped = CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        let (outputs, receiver) = mpsc::channel(OUTPUTS);
        let (resize, sizes) = mpsc::channel(1);
        let (ended, end) = oneshot::channel::<Result<i32, EngineError>>();
        let stdin = stdin.then(|| {
            let (ours, theirs) = tokio::io::duplex(INPUT_BYTES);
            tokio::spawn(dropped.clone().run_until_cancelled_owned(pump(theirs, input)));
            Box::new(ours) as Box<dyn AsyncWrite + Send + Unpin>
        });
        let exec = Exec {
            stdin,
            output: receiver,
            resize,
            ended: Box::pin(async move {
                let end = end.await;
                // What it wrote is still to be read.
                guard.disarm();
                match end {
                    Ok(end) => end.map_err(operation(&id, DOING)),
                    Err(_) => {
                        let source = io::ErrorKind::BrokenPipe.into();
                        Err(ContainerError::Operation { id, doing: DOING, source })
                    }
                }
            }),
        };
        // If nobody takes it, it is dropped, and so is the guard.
        let _ = answer.send(Ok(exec));
        self.follow(output, outputs, sizes, dropped, ended).await;
    }

    async fn start(&self, terminal: Option<WindowSize>) -> Result<(Output, Input), EngineError> {
        let options =
            StartExecOptions { detach: false, tty: terminal.is_some(), output_capacity: None };
        let engine = &self.inner.engine;
        let exec = &self.exec;
        let started =
            engine.call(|link| async move { link.start_exec(exec, Some(options)).await }).await?;
        match started {
            StartExecResults::Attached { output, input } => Ok((output, input)),
            StartExecResults::Detached => Err(engine.broken_off()),
        }
    }

    async fn follow(
        &self,
        output: Output,
        outputs: mpsc::Sender<(Stream, bytes::Bytes)>,
        sizes: mpsc::Receiver<WindowSize>,
        dropped: CancellationToken,
        ended: oneshot::Sender<Result<i32, EngineError>>,
    ) {
        let lives = async {
            let end = tokio::select! {
                end = self.end() => Some(end),
                () = dropped.cancelled() => None,
                never = self.resize_as_told(sizes) => match never {},
            };
            let runs = !matches!(end, Some(Ok(_)));
            if let Some(end) = end {
                // Nobody may be waiting for it.
                let _ = ended.send(end);
            }
            if runs {
                self.kill().await;
            }
        };
        tokio::join!(copy(output, outputs, dropped.clone()), lives);
    }

    async fn resize_as_told(
        &self,
        mut sizes: mpsc::Receiver<WindowSize>,
    ) -> std::convert::Infallible {
        while let Some(size) = sizes.recv().await {
            self.inner.resize(&self.exec, size).await;
        }
        std::future::pending().await
    }

    async fn inspect(&self) -> Result<ExecInspectResponse, EngineError> {
        let now = self.inner.inspect_exec(&self.exec).await?;
        let pid = now.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        self.pid.store(pid, Ordering::Relaxed);
        Ok(now)
    }

    async fn end(&self) -> Result<i32, EngineError> {
        let mut pause = ASK.0;
        loop {
            if let Some(code) = exit_code(&self.inspect().await?) {
                return Ok(wait_status(code));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK.1);
        }
    }

    /// The engine has no way to end it, and may not even have started it yet.
    async fn kill(&self) {
        let known = async {
            let mut pause = ASK.0;
            loop {
                match self.inspect().await {
                    Ok(now) if exit_code(&now).is_some() => return false,
                    Ok(now) if now.running == Some(true) && self.pid() > 0 => return true,
                    Err(error) if !error.is_away() => return true,
                    _ => {}
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ASK.1);
            }
        };
        // An engine that does not answer has said before which process it is.
        let runs = tokio::time::timeout(KILL_PATIENCE, known).await.unwrap_or(true);
        let pid = self.pid();
        if !runs || pid <= 0 {
            return;
        }
        let (first, engine_id) = (self.first.pid, self.first.engine_id.clone());
        let kill = move || proc::kill_tree(pid, first, &engine_id);
        let killed = tokio::task::spawn_blocking(kill).await;
        if let Ok(Err(error)) = killed {
            tracing::warn!(pid, %error, "a program in a container was not killed");
        }
    }

    fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }
}

/// None while it may run.
fn exit_code(program: &ExecInspectResponse) -> Option<i64> {
    program.exit_code.filter(|_| program.running == Some(false))
}

async fn copy(
    mut output: Output,
    outputs: mpsc::Sender<(Stream, bytes::Bytes)>,
    dropped: CancellationToken,
) {
    let copied = async {
        while let Some(Ok(piece)) = output.next().await {
            let stream = match &piece {
                LogOutput::StdErr { .. } => Stream::Stderr,
                _ => Stream::Stdout,
            };
            if outputs.send((stream, piece.into_bytes())).await.is_err() {
                return;
            }
        }
    };
    let closed = outputs.clone();
    tokio::select! {
        () = copied => {}
        () = closed.closed() => {}
        () = dropped.cancelled() => {}
    }
}
