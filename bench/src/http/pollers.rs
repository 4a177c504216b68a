//! Those who read `/state` again and again.
//!
//! In a real cluster they are on other machines. Here they share the master's processors, and
//! what they do with an answer is none of the master's work: their thread runs when nobody
//! else wants to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::process::setpriority_process;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::client::Connection;

/// The lowest priority that a thread may have.
const LOWEST: i32 = 19;

/// They poll until they are stopped.
pub struct Pollers {
    runtime: Option<Runtime>,
    tasks: JoinSet<Result<(Vec<f64>, usize)>>,
    /// Those that have not read often enough yet.
    lacking: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
}

/// What they found.
pub struct Polled {
    /// How long each answer took, in milliseconds.
    pub millis: Vec<f64>,
    /// How many answers the one with the fewest had.
    pub fewest: usize,
    /// A page's length.
    pub bytes: usize,
}

impl Pollers {
    /// Starts so many; each reads at least `reads` times, with a pause after each answer.
    pub fn start(address: &str, count: usize, reads: usize, pause: Duration) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("pollers")
            .on_thread_start(|| {
                // Of this thread alone, on Linux. Without it only the figures are worse.
                let _ = setpriority_process(None, LOWEST);
            })
            .enable_all()
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let lacking = Arc::new(AtomicUsize::new(count));
        let mut tasks = JoinSet::new();
        for n in 0..count {
            // Not all at once.
            let first = pause.mul_f64(n as f64 / count as f64);
            let lacks = Lacks(Some(Arc::clone(&lacking)));
            let (address, stopped) = (address.to_owned(), stopped.clone());
            let polling = async move {
                sleep(first).await;
                poll(&address, reads, pause, lacks, stopped).await
            };
            tasks.spawn_on(polling, runtime.handle());
        }
        Ok(Self { runtime: Some(runtime), tasks, lacking, stop })
    }

    /// Whether each has read often enough, or failed.
    pub fn have_enough(&self) -> bool {
        self.lacking.load(Ordering::Relaxed) == 0
    }

    /// Ends them, each after its answer.
    pub async fn stop(mut self) -> Result<Polled> {
        let _ = self.stop.send(true);
        let mut out = Polled { millis: Vec::new(), fewest: usize::MAX, bytes: 0 };
        while let Some(polled) = self.tasks.join_next().await {
            let (millis, bytes) = polled??;
            out.fewest = out.fewest.min(millis.len());
            out.bytes = bytes;
            out.millis.extend(millis);
        }
        Ok(out)
    }
}

impl Drop for Pollers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // An async thread may not wait for it.
            runtime.shutdown_background();
        }
    }
}

/// One that has not read often enough; it is counted until this is dropped.
struct Lacks(Option<Arc<AtomicUsize>>);

impl Drop for Lacks {
    fn drop(&mut self) {
        if let Some(lacking) = self.0.take() {
            lacking.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How long each answer took in milliseconds, and the newest's length in bytes.
async fn poll(
    address: &str,
    reads: usize,
    pause: Duration,
    lacks: Lacks,
    mut stop: watch::Receiver<bool>,
) -> Result<(Vec<f64>, usize)> {
    let mut lacks = Some(lacks);
    let mut connection = Connection::open(address).await?;
    let mut millis = Vec::with_capacity(reads);
    loop {
        let begin = Instant::now();
        let head = connection.ask("GET /state", &[], b"").await?;
        let length = connection.body(&head).await?;
        ensure!(head.status == 200, "/state answers {}", head.status);
        millis.push(begin.elapsed().as_secs_f64() * 1e3);
        if millis.len() >= reads {
            drop(lacks.take());
        }
        // An error is that the time is not over, or that nobody waits any more.
        let stopped = timeout(pause, stop.wait_for(|stop| *stop)).await;
        if stopped.is_ok() {
            return Ok((millis, length));
        }
    }
}
