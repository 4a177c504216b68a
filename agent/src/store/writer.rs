//! Group commit: a thread of its own writes whatever has come meanwhile in one
//! transaction, so that many tasks share one sync of the disk.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Store, StoreError};
use crate::core::StoreOp;

/// Batches that may wait for the thread; the core waits when there are more.
const QUEUE: usize = 1024;

/// Batches that go into one transaction.
const MAX_BATCHES: usize = 512;

/// What nobody waits for may stay unwritten so long, in the hope of sharing a
/// sync with something urgent. Losing it costs a repeated update at most.
const LAZY: Duration = Duration::from_millis(20);

/// When the queue is full, so long passes until the next look at it.
const FULL: Duration = Duration::from_millis(1);

/// How far the writing is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Everything up to this number is on the disk.
    Written(u64),
    /// Nothing will be written any more.
    Failed(Arc<StoreError>),
}

struct Batch {
    number: u64,
    urgent: bool,
    ops: Vec<StoreOp>,
}

/// The way to the writing thread.
#[derive(Debug)]
pub struct Writer {
    batches: mpsc::SyncSender<Batch>,
    progress: watch::Receiver<Progress>,
    thread: thread::JoinHandle<()>,
    last: u64,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(store: Store) -> std::io::Result<Self> {
        let (batches, queue) = mpsc::sync_channel(QUEUE);
        let (report, progress) = watch::channel(Progress::Written(0));
        let thread = thread::Builder::new()
            .name("mezz-agent-store".to_owned())
            .spawn(move || write(&store, &queue, &report))?;
        Ok(Self { batches, progress, thread, last: 0 })
    }

    /// Hands over a batch and returns its number. With `urgent` it is written as
    /// soon as can be.
    pub async fn put(&mut self, ops: Vec<StoreOp>, urgent: bool) -> u64 {
        self.last += 1;
        let mut batch = Batch { number: self.last, urgent, ops };
        // The thread ends early only after a failure, which `progress` tells.
        while let Err(mpsc::TrySendError::Full(back)) = self.batches.try_send(batch) {
            batch = back;
            tokio::time::sleep(FULL).await;
        }
        self.last
    }

    /// The number of the newest batch.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Follows the writing.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Writes what is left and closes the file.
    pub async fn close(self) {
        drop(self.batches);
        let thread = self.thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

fn write(store: &Store, queue: &mpsc::Receiver<Batch>, report: &watch::Sender<Progress>) {
    let mut batches: Vec<Batch> = Vec::new();
    while let Ok(first) = queue.recv() {
        let mut urgent = first.urgent;
        batches.push(first);
        let patience = Instant::now() + LAZY;
        while batches.len() < MAX_BATCHES {
            let wait = if urgent {
                Duration::ZERO
            } else {
                patience.saturating_duration_since(Instant::now())
            };
            let Ok(batch) = queue.recv_timeout(wait) else { break };
            urgent |= batch.urgent;
            batches.push(batch);
        }
        let Some(last) = batches.last().map(|batch| batch.number) else { continue };
        let empty = batches.iter().all(|batch| batch.ops.is_empty());
        let written =
            if empty { Ok(()) } else { store.apply(batches.iter().flat_map(|batch| &batch.ops)) };
        batches.clear();
        match written {
            Ok(()) => {
                let _ = report.send(Progress::Written(last));
            }
            Err(error) => {
                let _ = report.send(Progress::Failed(Arc::new(error)));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_put_is_written_before_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.redb");
        let mut writer = Writer::start(Store::open(&path).unwrap()).unwrap();
        let mut progress = writer.progress();
        let mut number = 0;
        for n in 0..100 {
            number = writer.put(vec![StoreOp::PutBootId(n.to_string())], n % 7 == 0).await;
        }
        let reached = progress.wait_for(|at| matches!(at, Progress::Written(at) if *at >= number));
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap().unwrap();
        writer.close().await;
        let stored = Store::open(&path).unwrap().load().unwrap();
        assert_eq!(stored.boot_id.as_deref(), Some("99"));
    }

    #[tokio::test]
    async fn what_is_not_urgent_is_written_too_when_it_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.redb");
        let mut writer = Writer::start(Store::open(&path).unwrap()).unwrap();
        writer.put(vec![StoreOp::PutBootId("b".into())], false).await;
        writer.close().await;
        let stored = Store::open(&path).unwrap().load().unwrap();
        assert_eq!(stored.boot_id.as_deref(), Some("b"));
    }
}
