//! The JVM: a child process with one socket at its standard input, which both
//! sides read and write. Its standard output and error are the sandbox's.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    process::{Child, Command},
    sync::mpsc,
};
use tracing::warn;

use super::{
    ExecutorError,
    message::{FromJvm, SECRET_SETTINGS},
};

/// Lines that the JVM has not read yet; beyond that the agent waits.
const MAX_UNREAD: usize = 1024;
/// Messages of the JVM that wait to be handled; more stay in the socket.
const MAX_WAITING: usize = 256;
/// Longest line of the JVM in bytes. Results of this size and more go from block
/// manager to block manager.
const MAX_LINE: u64 = 64 << 20;
/// Bytes that are written at once, about.
const MAX_PIECE: usize = 64 << 10;
/// What proves to the agent who this process is, and settings that the JVM is told: not
/// for the environment of its Python workers.
const NOT_FOR_JVM: [&str; 3] =
    ["MEZZ_EXECUTOR_TOKEN", "MESOS_EXECUTOR_AUTHENTICATION_TOKEN", SECRET_SETTINGS];

/// A running JVM; killed when dropped.
pub(super) struct Jvm {
    child: Child,
    lines: mpsc::Sender<Vec<u8>>,
    messages: mpsc::Receiver<FromJvm>,
}

impl Jvm {
    /// Starts it by this argv.
    pub(super) fn start(command: &[String]) -> Result<Self, ExecutorError> {
        let (program, arguments) = command.split_first().ok_or(ExecutorError::NoCommand)?;
        let system = |doing| move |source| ExecutorError::System { doing, source };
        let (ours, theirs) = StdStream::pair().map_err(system("make a socket"))?;
        ours.set_nonblocking(true).map_err(system("make a socket"))?;
        let ours = UnixStream::from_std(ours).map_err(system("make a socket"))?;
        let mut jvm = Command::new(program);
        jvm.args(arguments).stdin(Stdio::from(OwnedFd::from(theirs))).kill_on_drop(true);
        for name in NOT_FOR_JVM {
            jvm.env_remove(name);
        }
        let child = jvm
            .spawn()
            .map_err(|source| ExecutorError::Start { program: program.clone(), source })?;
        let (read, write) = ours.into_split();
        let (lines, unread) = mpsc::channel(MAX_UNREAD);
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        tokio::spawn(write_lines(write, unread));
        tokio::spawn(read_lines(read, sender));
        Ok(Self { child, lines, messages })
    }

    /// Sends a line; waits while the JVM is far behind. One that is gone is noticed
    /// by its end.
    pub(super) async fn send(&self, line: Vec<u8>) {
        let _ = self.lines.send(line).await;
    }

    /// What it says, until it says no more.
    pub(super) async fn next(&mut self) -> Option<FromJvm> {
        self.messages.recv().await
    }

    /// Its end.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, ExecutorError> {
        let source = |source| ExecutorError::System { doing: "wait for the JVM", source };
        self.child.wait().await.map_err(source)
    }

    /// Ends it by force.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.start_kill();
    }
}

async fn write_lines(mut socket: OwnedWriteHalf, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut text) = lines.recv().await {
        while text.len() < MAX_PIECE
            && let Ok(line) = lines.try_recv()
        {
            text.extend(line);
        }
        if socket.write_all(&text).await.is_err() {
            return;
        }
    }
}

async fn read_lines(socket: OwnedReadHalf, messages: mpsc::Sender<FromJvm>) {
    let mut input = BufReader::new(socket);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut input).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(_) if line.last() == Some(&b'\n') => {}
            // Cut off: it is dead, or beyond understanding, and is then replaced.
            Ok(_) | Err(_) => return,
        }
        match serde_json::from_slice(&line) {
            Ok(message) => {
                if messages.send(message).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "the JVM sent a line that is not understood");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Jvm {
        Jvm::start(&["sh".into(), "-c".into(), script.into()]).unwrap()
    }

    async fn next(jvm: &mut Jvm) -> Option<FromJvm> {
        tokio::time::timeout(Duration::from_secs(20), jvm.next()).await.unwrap()
    }

    #[tokio::test]
    async fn one_socket_carries_both_ways() {
        let mut jvm = shell(
            "read line; echo '{\"t\":\"hello\",\"v\":1}' >&0; read line; \
             echo \"{\\\"t\\\":\\\"status\\\",\\\"tid\\\":7,\\\"state\\\":\\\"$line\\\",\\\"data\\\":\\\"\\\"}\" >&0",
        );
        jvm.send(b"one\n".to_vec()).await;
        assert!(matches!(next(&mut jvm).await, Some(FromJvm::Hello { v: 1 })));
        jvm.send(b"two\n".to_vec()).await;
        let status = next(&mut jvm).await;
        assert!(
            matches!(&status, Some(FromJvm::Status { tid: 7, state, .. }) if state == "two"),
            "{status:?}"
        );
        assert!(next(&mut jvm).await.is_none());
        assert!(jvm.wait().await.unwrap().success());
    }

    #[tokio::test]
    async fn nonsense_is_the_end_and_so_is_a_line_that_is_cut_off() {
        for said in ["nonsense\\n", "{\"t\":\"hello\""] {
            let mut jvm = shell(&format!("printf '{said}' >&0; exec sleep 100"));
            // The other end is still open where the line is cut off.
            if said.starts_with('{') {
                jvm.kill();
            }
            assert!(next(&mut jvm).await.is_none(), "{said}");
            jvm.kill();
            jvm.wait().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_named() {
        let error = Jvm::start(&["/no/such/java".into()]).err().unwrap();
        assert!(error.to_string().starts_with("cannot start /no/such/java"), "{error}");
        assert!(matches!(Jvm::start(&[]), Err(ExecutorError::NoCommand)));
    }
}
