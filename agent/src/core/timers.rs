//! Deadlines, one for each purpose of each object.

use std::collections::{BTreeMap, BTreeSet};

use mezz_proto::time::Time;

use super::{ExecutorKey, TaskKey, check::CheckKind};

/// What is due at a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The master has not pinged.
    Ping,
    /// The update in flight is to be sent again.
    Retry(TaskKey),
    /// The grace of a kill is over.
    Kill(TaskKey),
    /// `max_completion_time` is over.
    Completion(TaskKey),
    /// The executor should have subscribed.
    Registration(ExecutorKey),
    /// The executor should have come back after the agent's restart.
    Reregistration(ExecutorKey),
    /// The executor lost its connection and should have come back.
    Disconnected(ExecutorKey),
    /// The executor should have ended.
    Shutdown(ExecutorKey),
    /// A check is to be made.
    Probe(TaskKey, CheckKind),
    /// The agent was given up, and what it runs should have ended.
    Leave,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Time, Timer)>,
    at: BTreeMap<Timer, Time>,
}

impl Timers {
    /// Sets it, instead of where it stood before.
    pub(super) fn set(&mut self, timer: Timer, at: Time) {
        self.cancel(&timer);
        self.due.insert((at, timer.clone()));
        self.at.insert(timer, at);
    }

    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some((timer, at)) = self.at.remove_entry(timer) {
            self.due.remove(&(at, timer));
        }
    }

    pub(super) fn get(&self, timer: &Timer) -> Option<Time> {
        self.at.get(timer).copied()
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.due.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }

    /// All that are set, for the invariants.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Timer> {
        self.at.keys()
    }
}
