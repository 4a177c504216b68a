//! How much waits of what executors said, and what is taken of them meanwhile.
//!
//! A framework that is slow, or away, makes its executors wait and ends none of them: the
//! shell passes on only what [`Intake`] lets pass, and an executor that calls meanwhile waits
//! with that call.

use std::collections::{BTreeMap, VecDeque};

use mezz_proto::{time::Time, v1::TaskStatus};
use prost::Message as _;

use super::{Change, Core, Effect, Effects, ExecutorKey, TaskKey, state::Home};

/// Updates of one task that wait for its framework; then it waits with more, the last aside.
pub(super) const MOST_OF_A_TASK: usize = 256;

/// Bytes of an executor's updates that wait for its framework, encoded: more is taken only
/// of what ends a task. As much as one call may have.
pub(super) const FULL_BYTES: usize = 16 << 20;

/// As [`FULL_BYTES`], and nothing more is taken.
pub(super) const CLOSED_BYTES: usize = 64 << 20;

/// Which updates of an executor are taken now. One is taken whole, so that the bounds are
/// passed by one call at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Intake {
    /// All.
    #[default]
    Open,
    /// Those that end a task: it holds less from then on, and there is one of each.
    Ends,
    /// None.
    Closed,
}

impl Intake {
    /// Whether this update is taken.
    #[must_use]
    pub fn takes(self, status: &TaskStatus) -> bool {
        match self {
            Intake::Open => true,
            Intake::Ends => status.state().is_terminal(),
            Intake::Closed => false,
        }
    }
}

/// What waits of one executor's updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// Encoded.
    bytes: usize,
    /// Tasks with [`MOST_OF_A_TASK`].
    crowded: usize,
}

impl Held {
    fn of(updates: &VecDeque<TaskStatus>) -> Self {
        Self {
            bytes: updates.iter().map(TaskStatus::encoded_len).sum(),
            crowded: usize::from(updates.len() >= MOST_OF_A_TASK),
        }
    }

    fn intake(self) -> Intake {
        match self {
            Held { bytes: CLOSED_BYTES.., .. } => Intake::Closed,
            Held { bytes: FULL_BYTES.., .. } | Held { crowded: 1.., .. } => Intake::Ends,
            _ => Intake::Open,
        }
    }
}

/// What waits, by executor. It outlives executors, as their updates do; one that is started
/// again under the same id answers for both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog(BTreeMap<ExecutorKey, Held>);

impl Backlog {
    fn of(&self, key: &ExecutorKey) -> Held {
        self.0.get(key).copied().unwrap_or_default()
    }

    fn change(&mut self, key: ExecutorKey, before: Held, after: Held) {
        let held = self.of(&key);
        let held = Held {
            bytes: (held.bytes + after.bytes).saturating_sub(before.bytes),
            crowded: (held.crowded + after.crowded).saturating_sub(before.crowded),
        };
        if held == Held::default() {
            self.0.remove(&key);
        } else {
            self.0.insert(key, held);
        }
    }
}

impl TaskKey {
    /// To whom the task's updates are charged, if it is an executor's.
    fn charged(&self, home: &Home) -> Option<ExecutorKey> {
        match home {
            Home::Executor(id) => Some(self.executor(id)),
            Home::Command(_) | Home::Member { .. } | Home::None => None,
        }
    }
}

impl Core {
    /// As it must be, for the start and for the invariants.
    pub(super) fn count_backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        for (key, task) in &self.tasks {
            if let Some(executor) = key.charged(&task.home) {
                backlog.change(executor, Held::default(), Held::of(&task.updates));
            }
        }
        backlog
    }

    /// What is taken of this executor now.
    pub(super) fn intake(&self, key: &ExecutorKey) -> Intake {
        self.backlog.of(key).intake()
    }

    /// Changes the updates of a task that wait. Whoever brings its executor's calls hears
    /// what may come now.
    pub(super) fn change_updates<T>(
        &mut self,
        key: &TaskKey,
        out: &mut Effects,
        change: impl FnOnce(&mut VecDeque<TaskStatus>) -> T,
    ) -> Option<T> {
        let task = self.tasks.get_mut(key)?;
        let Some(executor) = key.charged(&task.home) else {
            return Some(change(&mut task.updates));
        };
        let before = Held::of(&task.updates);
        let result = change(&mut task.updates);
        let after = Held::of(&task.updates);
        let was = self.intake(&executor);
        self.backlog.change(executor.clone(), before, after);
        let intake = self.intake(&executor);
        if intake != was {
            self.tell_intake(&executor, out);
        }
        Some(result)
    }

    pub(super) fn tell_intake(&self, key: &ExecutorKey, out: &mut Effects) {
        if self.executors.contains_key(key) {
            let intake = self.intake(key);
            out.now.push(Effect::Change(Change::Intake { executor: key.clone(), intake }));
        }
    }

    /// An acknowledgement has made room. An executor of which updates were not taken sends
    /// them with its next subscription, so this one ends: only who subscribes more than once
    /// can have brought too many, and so lives through it.
    pub(super) fn catch_up(&mut self, now: Time, task: &TaskKey, out: &mut Effects) {
        let home = self.tasks.get(task).map(|task| &task.home);
        let Some(key) = home.and_then(|home| task.charged(home)) else { return };
        // Half of it, or the executor would come back for each acknowledgement.
        let held = self.backlog.of(&key);
        if held.crowded > 0 || held.bytes > FULL_BYTES / 2 {
            return;
        }
        let Some(executor) = self.executors.get_mut(&key) else { return };
        let Some(connection) = executor.connection.filter(|_| executor.behind) else { return };
        executor.behind = false;
        self.on_executor_disconnected(now, connection);
        // Without an error, which would tell it to end.
        out.now.push(Effect::CloseExecutor { connection, error: None });
    }
}
