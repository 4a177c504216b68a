//! What falls due when.

use std::collections::BTreeSet;

use mezz_proto::time::Time;

use super::OfferKey;
use crate::allocator::{AgentKey, FrameworkKey};

/// Something that falls due. Each owner keeps the time of its own entry, so that
/// it can be taken out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::core) enum Timer {
    /// The agent is to be pinged, or has missed a ping.
    Ping(AgentKey),
    /// The agent that is away is unreachable, or the unreachable one is given up.
    AgentAway(AgentKey),
    /// The next of the agents that wait for it may become unreachable.
    Removal,
    /// The framework that is away is removed.
    Failover(FrameworkKey),
    /// The framework is to be sent a heartbeat.
    Heartbeat(FrameworkKey),
    /// The framework is to be told of the next of its tasks.
    Reconcile(FrameworkKey),
    /// The offer was not used in time.
    OfferExpiry(OfferKey),
}

/// An ordered queue of timers.
#[derive(Debug, Default)]
pub(in crate::core) struct Timers(BTreeSet<(Time, Timer)>);

impl Timers {
    /// Adds an entry.
    pub fn set(&mut self, at: Time, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Takes an entry out.
    pub fn clear(&mut self, at: Time, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// When the first one falls due.
    pub fn first(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out the first one that is due.
    pub fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let (at, timer) = *self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some(timer)
    }

    /// Takes out all heartbeats that are due, and nothing else. Looks at all that is
    /// due.
    pub fn pop_due_heartbeats(&mut self, now: Time) -> Vec<FrameworkKey> {
        let due: Vec<_> = self
            .0
            .iter()
            .take_while(|(at, _)| *at <= now)
            .filter_map(|entry| match entry.1 {
                Timer::Heartbeat(framework) => Some((*entry, framework)),
                _ => None,
            })
            .collect();
        due.into_iter()
            .map(|(entry, framework)| {
                self.0.remove(&entry);
                framework
            })
            .collect()
    }

    /// Whether the entry is there.
    pub fn contains(&self, at: Time, timer: Timer) -> bool {
        self.0.contains(&(at, timer))
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
