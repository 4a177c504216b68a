//! What this API knows of executors, from what the core tells: enough to turn strangers away,
//! and to let updates wait, before a call comes to the core.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockWriteGuard},
};

use tokio::sync::watch;

use super::gate::Gate;
use crate::core::{Change, ExecutorKey, Intake, Proof, Token};

/// Those that have not ended. The lock is held for moments only.
#[derive(Default)]
pub(crate) struct Executors(RwLock<HashMap<ExecutorKey, Known>>);

struct Known {
    token: Token,
    /// It has subscribed at least once.
    subscribed: bool,
    /// It has shown its token, and has to from then on.
    proven: bool,
    intake: watch::Sender<Intake>,
    gate: Gate,
}

impl Known {
    fn new(token: Token) -> Self {
        let (intake, gate) = Gate::new();
        Self { token, subscribed: false, proven: false, intake, gate }
    }
}

impl Executors {
    /// With what the store knows of earlier runs: tokens are asked for before the core has
    /// told anything.
    pub(crate) fn new(stored: impl IntoIterator<Item = (ExecutorKey, Token)>) -> Self {
        let known = stored.into_iter().map(|(key, token)| (key, Known::new(token)));
        Self(RwLock::new(known.collect()))
    }

    pub(crate) fn apply(&self, change: &Change) {
        match change {
            Change::ExecutorAdded { executor, token, .. } => {
                let mut all = self.write();
                // Whoever waits for one of an earlier run goes on with that.
                if all.get(executor).is_none_or(|known| known.token != *token) {
                    all.insert(executor.clone(), Known::new(token.clone()));
                }
            }
            Change::ExecutorSubscribed { executor, proven } => {
                if let Some(known) = self.write().get_mut(executor) {
                    known.subscribed = true;
                    known.proven = *proven;
                }
            }
            Change::Intake { executor, intake } => {
                if let Some(known) = self.write().get_mut(executor) {
                    known.intake.send_replace(*intake);
                }
            }
            Change::ExecutorForgotten(executor) => {
                self.write().remove(executor);
            }
            _ => {}
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ExecutorKey, Known>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is that of an executor that has not ended; which one is for the core.
    pub(super) fn is_token(&self, token: &str) -> bool {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values().any(|known| known.token.is(token))
    }

    /// Where updates of this executor wait, for who was admitted and shows to be it. There is
    /// none for others, nor before it has subscribed: the core tells them what is wrong.
    pub(super) fn gate(&self, key: &ExecutorKey, proof: &Proof) -> Option<Gate> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(key).filter(|known| known.subscribed)?;
        proof.shows(&known.token, known.proven).ok()?;
        Some(known.gate.clone())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use mezz_proto::v1::{TaskState, TaskStatus, executor::Call, executor::call};

    use super::*;

    fn key() -> ExecutorKey {
        ExecutorKey { framework: "F".into(), executor: "E".into() }
    }

    fn added(token: &str) -> Change {
        Change::ExecutorAdded {
            executor: key(),
            container: "c".into(),
            token: Token(token.into()),
            info: Box::default(),
        }
    }

    fn update() -> Call {
        let state = TaskState::TaskRunning.into();
        let status = TaskStatus { state, ..Default::default() };
        Call { update: Some(call::Update { status }), ..Default::default() }
    }

    #[test]
    fn only_who_may_be_the_executor_waits_at_its_gate() {
        let executors = Executors::new([(key(), Token("old".into()))]);
        assert!(executors.is_token("old"));
        executors.apply(&added("new"));
        assert!(!executors.is_token("old") && executors.is_token("new"));
        let waits = |token: Option<&str>| {
            let proof = Proof::http(token.map(str::to_owned), true);
            executors.gate(&key(), &proof).is_some()
        };
        assert!(!waits(Some("new")), "it has not subscribed");
        executors.apply(&Change::ExecutorSubscribed { executor: key(), proven: false });
        assert!(waits(Some("new")) && waits(None) && !waits(Some("old")));
        executors.apply(&Change::ExecutorSubscribed { executor: key(), proven: true });
        assert!(waits(Some("new")) && !waits(None), "it has shown its token");
        executors.apply(&Change::ExecutorForgotten(key()));
        assert!(!waits(Some("new")) && !executors.is_token("new"));
    }

    #[test]
    fn the_gate_is_as_the_core_says_and_ends_with_the_executor() {
        let executors = Executors::default();
        executors.apply(&added("t"));
        executors.apply(&Change::ExecutorSubscribed { executor: key(), proven: false });
        let gate = executors.gate(&key(), &Proof::token("t")).unwrap();
        assert!(gate.pass(&update()).now_or_never().is_some());
        executors.apply(&Change::Intake { executor: key(), intake: Intake::Ends });
        // The core tells of it again, as after a restart.
        executors.apply(&added("t"));
        let call = update();
        let mut waits = Box::pin(gate.pass(&call));
        assert!((&mut waits).now_or_never().is_none());
        executors.apply(&Change::ExecutorForgotten(key()));
        assert!(waits.now_or_never().is_some_and(|passed| passed.is_err()));
    }
}
