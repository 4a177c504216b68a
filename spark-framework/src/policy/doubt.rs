//! What the master does not know and may yet hear of: one that was restarted without
//! its registry knows no task until the task's agent is back.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::time::Time;

/// How long an agent may take to come back with its tasks to a master that knows
/// neither. Agents try again within a minute.
pub const DOUBT: Duration = Duration::from_secs(90);

/// Why something is lost whose agent did not come back in time.
pub(super) const NOT_BACK: &str = "the master does not know it, and its agent did not return";

/// What the master does not know, and until when it may turn up.
#[derive(Clone, Debug)]
pub(super) struct Doubts<K>(BTreeMap<K, Time>);

impl<K> Default for Doubts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Doubts<K> {
    /// The master does not know it. Said again, it is waited for no longer.
    pub(super) fn raise(&mut self, now: Time, key: K) {
        self.0.entry(key).or_insert(now + DOUBT);
    }

    /// Something was heard of it, or it is of no more interest.
    pub(super) fn settle(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// There is no master that could hear of anything; the next one is asked again.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// One that did not turn up in time; it is forgotten.
    pub(super) fn take_due(&mut self, now: Time) -> Option<K> {
        let key = self.0.iter().find(|(_, until)| **until <= now).map(|(key, _)| *key)?;
        self.0.remove(&key);
        Some(key)
    }

    /// When the first of them is given up.
    pub(super) fn next(&self) -> Option<Time> {
        self.0.values().min().copied()
    }

    /// Whether there are none.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
