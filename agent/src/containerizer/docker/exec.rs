//! One more program in a container that runs.

use std::{io, sync::Arc, time::Duration};

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
    ContainerError, Inner, container::Container, engine::EngineError, operation, proc,
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
        let container = self.container(id)?;
        let Some((first, _)) = self.first_process(&container, DOING).await? else {
            let ended = io::Error::new(io::ErrorKind::NotFound, "it does not run");
            return Err(ContainerError::Operation { id: id.clone(), doing: DOING, source: ended });
        };
        let failed = |error| operation(id, DOING)(error);
        let config = config(&spec)
            .map_err(|what| ContainerError::Unsupported { id: id.clone(), what: what.into() })?;
        let exec = self.create_exec(&container, config).await.map_err(failed)?;
        let terminal = spec.terminal;
        let options =
            StartExecOptions { detach: false, tty: terminal.is_some(), output_capacity: None };
        let started = self
            .engine
            .call(|link| {
                let exec = exec.clone();
                async move { link.start_exec(&exec, Some(options)).await }
            })
            .await
            .map_err(failed)?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(failed(self.engine.broken_off()));
        };
        if let Some(size) = terminal {
            self.resize(&exec, size).await;
        }

        let dropped = CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        let (outputs, receiver) = mpsc::channel(OUTPUTS);
        let (resize, sizes) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let stdin = spec.stdin.then(|| {
            let (ours, theirs) = tokio::io::duplex(INPUT_BYTES);
            tokio::spawn(dropped.clone().run_until_cancelled_owned(pump(theirs, input)));
            Box::new(ours) as Box<dyn AsyncWrite + Send + Unpin>
        });
        let program = Running { inner: self, exec, first };
        tokio::spawn(program.follow(output, outputs, sizes, dropped, ended));
        let id = id.clone();
        Ok(Exec {
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

/// A program that was started.
struct Running {
    inner: Arc<Inner>,
    exec: String,
    first: i32,
}

impl Running {
    async fn follow(
        self,
        output: impl futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
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
            match end {
                // Nobody may be waiting for it.
                Some(end) => _ = ended.send(end),
                None => self.kill().await,
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

    async fn end(&self) -> Result<i32, EngineError> {
        let mut pause = ASK.0;
        loop {
            let now = self.inner.inspect_exec(&self.exec).await?;
            if now.running == Some(false)
                && let Some(code) = now.exit_code
            {
                return Ok(wait_status(code));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK.1);
        }
    }

    /// The engine has no way to end it.
    async fn kill(&self) {
        let Ok(now) = self.inner.inspect_exec(&self.exec).await else { return };
        let pid = now.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let (Some(pid), Some(true)) = (pid, now.running) else { return };
        let first = self.first;
        let killed = tokio::task::spawn_blocking(move || proc::kill_tree(pid, first)).await;
        if let Ok(Err(error)) = killed {
            tracing::warn!(pid, %error, "a program in a container was not killed");
        }
    }
}

async fn copy(
    mut output: impl futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
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
