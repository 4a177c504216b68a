//! One container, as this agent process knows it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use mezz_proto::ids::ContainerId;
use tokio::sync::watch;

use super::{gpus::Gpus, logs::Sink, spec};
use crate::containerizer::Termination;

/// Where it is in its life.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// The engine has not yet said that it runs.
    Starting,
    /// It runs, or did when the engine was last asked.
    Running,
    /// It has ended. How it did.
    Ended(Termination),
    /// It never started, and is forgotten.
    Failed,
}

/// One container.
pub(super) struct Container {
    pub(super) id: ContainerId,
    /// The engine's name for it.
    pub(super) name: String,
    /// Its output, once it is known where that goes.
    pub(super) sink: OnceLock<Sink>,
    /// Whether somebody here wanted it dead.
    killed: AtomicBool,
    /// Its GPUs, as bits.
    gpus: AtomicU64,
    state: watch::Sender<State>,
}

impl Container {
    pub(super) fn new(id: ContainerId, state: State) -> Arc<Self> {
        Arc::new(Self {
            name: spec::name(&id),
            id,
            sink: OnceLock::new(),
            killed: AtomicBool::new(false),
            gpus: AtomicU64::new(0),
            state: watch::Sender::new(state),
        })
    }

    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(super) fn set_killed(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    pub(super) fn set_gpus(&self, gpus: Gpus) {
        self.gpus.store(gpus.bits(), Ordering::Relaxed);
    }

    pub(super) fn gpus(&self) -> Gpus {
        Gpus::from_bits(self.gpus.load(Ordering::Relaxed))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(&*self.state.borrow(), State::Ended(_) | State::Failed)
    }

    /// Waits until it runs. Whether it does; otherwise it has ended.
    pub(super) async fn runs(&self) -> bool {
        self.until(|state| matches!(state, State::Running)).await;
        !self.has_ended()
    }

    async fn until(&self, mut wanted: impl FnMut(&State) -> bool) {
        // An error means that the sender is gone, which `self` holds.
        let wanted = |s: &State| wanted(s) || matches!(s, State::Ended(_) | State::Failed);
        let _ = self.state.subscribe().wait_for(wanted).await;
    }

    /// Waits for its end; none if it never started.
    pub(super) async fn ended(&self) -> Option<Termination> {
        self.until(|_| false).await;
        match &*self.state.borrow() {
            State::Ended(termination) => Some(termination.clone()),
            _ => None,
        }
    }
}
