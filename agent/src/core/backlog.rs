//! How much the updates of executors weigh that wait for acknowledgement.

use std::collections::BTreeMap;

use mezz_proto::v1::TaskStatus;
use prost::Message as _;

use super::{Core, ExecutorKey, TaskKey, state::Home};

/// Encoded bytes, by executor. It outlives executors, as their updates do; one
/// that is started again under the same id answers for both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog(BTreeMap<ExecutorKey, usize>);

impl Backlog {
    pub(super) fn of(&self, key: &ExecutorKey) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    pub(super) fn add<'a>(
        &mut self,
        key: ExecutorKey,
        updates: impl IntoIterator<Item = &'a TaskStatus>,
    ) {
        let more = bytes(updates);
        if more > 0 {
            *self.0.entry(key).or_default() += more;
        }
    }

    pub(super) fn take<'a>(
        &mut self,
        key: &ExecutorKey,
        updates: impl IntoIterator<Item = &'a TaskStatus>,
    ) {
        if let Some(held) = self.0.get_mut(key) {
            *held = held.saturating_sub(bytes(updates));
            if *held == 0 {
                self.0.remove(key);
            }
        }
    }
}

fn bytes<'a>(updates: impl IntoIterator<Item = &'a TaskStatus>) -> usize {
    updates.into_iter().map(TaskStatus::encoded_len).sum()
}

impl TaskKey {
    /// To whom the task's updates are charged, if it is an executor's.
    pub(super) fn charged(&self, home: &Home) -> Option<ExecutorKey> {
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
                backlog.add(executor, &task.updates);
            }
        }
        backlog
    }
}
