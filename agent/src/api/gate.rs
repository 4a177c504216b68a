//! Holding an executor's updates back while its framework does not acknowledge those that it
//! sent before: the one way in which executors are slowed, over gRPC and over HTTP, with a
//! stream of events and without.

use std::sync::Arc;

use mezz_proto::v1::executor::Call;
use prost::Message as _;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, watch};

use crate::core::Intake;

/// KiB of one executor's updates that wait at the same time. Over gRPC, and with Mesos' own
/// library, only one waits; it may have all that a call may have.
const WAITING_KIB: usize = 64 << 10;

/// On the executor's side of the gate, for whoever reads its calls.
#[derive(Clone)]
pub(super) struct Gate {
    intake: watch::Receiver<Intake>,
    /// Of the one update that is on its way to the core, whose answer is the next intake.
    turn: Arc<Mutex<()>>,
    waiting: Arc<Semaphore>,
}

/// Kept until the core has taken the update.
pub(crate) struct Turn {
    _turn: OwnedMutexGuard<()>,
    _waiting: OwnedSemaphorePermit,
}

/// Why an update does not pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// The executor has ended.
    Left,
    /// As many as may wait do.
    Full,
}

impl Gate {
    /// A gate that is open, and what moves it; it is left when that is dropped.
    pub(super) fn new() -> (watch::Sender<Intake>, Self) {
        let (sender, intake) = watch::channel(Intake::default());
        let waiting = Arc::new(Semaphore::new(WAITING_KIB));
        (sender, Self { intake, turn: Arc::default(), waiting })
    }

    /// Waits until this call may come to the core. What is no update may at once, and needs
    /// no turn.
    ///
    /// # Errors
    /// [`Shut`] says why it never will.
    pub(super) async fn pass(&self, call: &Call) -> Result<Option<Turn>, Shut> {
        let Some(update) = &call.update else { return Ok(None) };
        let kib = u32::try_from(update.status.encoded_len() >> 10).map_err(|_| Shut::Full)? + 1;
        let waiting = Arc::clone(&self.waiting).try_acquire_many_owned(kib);
        let waiting = waiting.map_err(|_| Shut::Full)?;
        let mut intake = self.intake.clone();
        loop {
            let open = intake.wait_for(|intake| intake.takes(&update.status)).await;
            open.map_err(|_| Shut::Left)?;
            let turn = Arc::clone(&self.turn).lock_owned().await;
            // Another may have filled it meanwhile; without a turn, ends of tasks pass those
            // that wait.
            if intake.borrow().takes(&update.status) {
                return Ok(Some(Turn { _turn: turn, _waiting: waiting }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use mezz_proto::v1::{TaskState, TaskStatus, executor::call};

    use super::*;

    fn update(state: TaskState) -> Call {
        let status = TaskStatus { state: state.into(), ..Default::default() };
        Call { update: Some(call::Update { status }), ..Default::default() }
    }

    #[tokio::test]
    async fn what_is_not_taken_waits_and_lets_the_others_pass() {
        let (sender, gate) = Gate::new();
        let (running, ended) = (update(TaskState::TaskRunning), update(TaskState::TaskFinished));
        let turn = gate.pass(&running).await.unwrap();
        // One at a time, for it may be the one that fills it.
        assert!(gate.pass(&running).now_or_never().is_none());
        sender.send_replace(Intake::Ends);
        drop(turn);
        assert!(gate.pass(&running).now_or_never().is_none());
        assert!(gate.pass(&ended).await.is_ok());
        sender.send_replace(Intake::Closed);
        assert!(gate.pass(&ended).now_or_never().is_none());
        assert!(gate.pass(&Call::default()).await.unwrap().is_none(), "no update");
        let waits = gate.pass(&running);
        let opens = async {
            tokio::task::yield_now().await;
            sender.send_replace(Intake::Open);
        };
        assert!(tokio::join!(waits, opens).0.is_ok());
    }

    #[tokio::test]
    async fn no_more_wait_than_may_and_none_for_ever() {
        let (sender, gate) = Gate::new();
        sender.send_replace(Intake::Closed);
        let mut call = update(TaskState::TaskFinished);
        if let Some(update) = &mut call.update {
            update.status.data = Some(vec![0; 16 << 20]);
        }
        let all: Vec<_> = (0..3)
            .map(|_| {
                let (gate, call) = (gate.clone(), call.clone());
                tokio::spawn(async move { gate.pass(&call).await.err() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(gate.pass(&call).await.err(), Some(Shut::Full));
        drop(sender);
        for waiting in all {
            assert_eq!(waiting.await.unwrap(), Some(Shut::Left));
        }
    }
}
