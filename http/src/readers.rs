//! Who reads, and who works.
//!
//! Pages of some megabytes for a hundred pollers are copied to their sockets for longer than
//! an agent's message takes to become an offer. On threads that both share, the message would
//! wait its turn behind them. So HTTP/1 connections that are no framework's and no executor's
//! are served on threads of their own, which run when no other thread of the process wants
//! the processor (ADR 0016).

use std::io;

use rustix::process::setpriority_process;
use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle, Runtime},
};
use tracing::warn;

use crate::limits::{READER_BLOCKING_THREADS, READER_PRIORITY, READER_THREADS};

/// As many bytes of a request as tell what it is for.
const LOOK: usize = 64;

/// Paths of those who work, whatever stands before them: `/master`, `/slave(1)`. Who asks
/// whether the process is well must not hear that it is busy.
const WORK: [&[u8]; 3] = [b"/api/v1/scheduler", b"/api/v1/executor", b"/health"];

/// The threads.
#[derive(Debug)]
pub(crate) struct Readers(Option<Runtime>);

impl Readers {
    /// Those that cannot be had are missed with a warning: all are served by the same then.
    pub(crate) fn start() -> Self {
        let started = start();
        if let Err(error) = &started {
            warn!(%error, "no threads for those who read pages: they share the others'");
        }
        Self(started.ok())
    }

    /// Where they are served.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // An async thread may not wait for it.
            runtime.shutdown_background();
        }
    }
}

fn start() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(READER_THREADS)
        .max_blocking_threads(READER_BLOCKING_THREADS)
        .thread_name("mezz-readers")
        .on_thread_start(|| {
            // Of this thread alone, on Linux. A kernel that refuses leaves them as the others.
            let _ = setpriority_process(None, READER_PRIORITY);
        })
        .enable_all()
        .build()
}

/// Whether a connection is one that only reads: seen from its first bytes, for they come
/// before it is known who serves it. It stays what it was at first.
pub(crate) async fn only_reads(stream: &TcpStream) -> bool {
    let mut first = [0; LOOK];
    match stream.peek(&mut first).await {
        Ok(length) => !is_work(first.get(..length).unwrap_or_default()),
        // Whoever serves it finds the same.
        Err(_) => false,
    }
}

/// HTTP/2 is agents and frameworks over gRPC. A line that has not come whole is taken for
/// work: nobody who matters waits for it to end.
fn is_work(first: &[u8]) -> bool {
    let mut words = first.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(_)) = (words.next(), words.next(), words.next()) else {
        return first.len() < LOOK;
    };
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    method == b"PRI" || WORK.iter().any(|work| path.ends_with(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frameworks_and_executors_work_and_others_read() {
        for (first, work) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
            ("POST /api/v1/scheduler HTTP/1.1\r\n", true),
            ("POST /master/api/v1/scheduler HTTP/1.1\r\n", true),
            ("POST /slave(1)/api/v1/executor?x HTTP/1.1\r\n", true),
            ("GET /health HTTP/1.1\r\n", true),
            ("GET /master/health?x HTTP/1.1\r\n", true),
            ("POST /api/v1 HTTP/1.1\r\n", false),
            ("GET /state HTTP/1.1\r\n", false),
            ("GET /state?x=/api/v1/scheduler HTTP/1.1\r\n", false),
            ("HEAD / HTTP/1.1\r\n", false),
            ("GET /sta", true),
            ("", true),
        ] {
            assert_eq!(is_work(first.as_bytes()), work, "{first}");
        }
        // The rest of a long target is not looked at.
        assert!(!is_work(&[b"GET /", [b'x'; LOOK - 5].as_slice()].concat()));
    }

    #[test]
    fn their_threads_give_way() {
        let readers = Readers::start();
        let handle = readers.handle().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        for blocking in [false, true] {
            let tell = tell.clone();
            let look = move || tell.send(rustix::process::getpriority_process(None).unwrap());
            if blocking {
                handle.spawn_blocking(look);
            } else {
                handle.spawn(async move { look() });
            }
            let seen = told.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
            assert!(seen >= READER_PRIORITY, "{blocking}: {seen}");
        }
    }
}
