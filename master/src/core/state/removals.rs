//! Agents whose time is up and that wait for their turn to become unreachable.

use std::{collections::BTreeSet, time::Duration};

use mezz_proto::time::Time;

use crate::{allocator::AgentKey, options::RemovalRate};

/// Lets one agent after the other become unreachable, no faster than it may.
#[derive(Debug)]
pub(in crate::core) struct Removals {
    /// From one to the next; none without a limit.
    interval: Duration,
    /// None may be before.
    next: Time,
    /// By the time at which each one's own time was up.
    waiting: BTreeSet<(Time, AgentKey)>,
}

impl Removals {
    /// With nobody waiting, and the first turn free.
    pub fn new(rate: Option<RemovalRate>) -> Self {
        let interval = rate.map_or(Duration::ZERO, |rate| rate.interval());
        Self { interval, next: Time::ZERO, waiting: BTreeSet::new() }
    }

    /// Takes the turn at `now`, if it is free and nobody waits for it.
    ///
    /// The next is a whole interval after this one, however late this one is: a master
    /// that stood still, and to which all agents seem to be gone, does not make up for
    /// the turns of that time.
    pub fn take_turn(&mut self, now: Time) -> bool {
        let free = self.waiting.is_empty() && self.next <= now;
        if free {
            self.next = now + self.interval;
        }
        free
    }

    /// Queues an agent whose time was up at `until`.
    pub fn wait(&mut self, until: Time, agent: AgentKey) {
        self.waiting.insert((until, agent));
    }

    /// Takes an agent out that waits. False if it does not.
    pub fn cancel(&mut self, until: Time, agent: AgentKey) -> bool {
        self.waiting.remove(&(until, agent))
    }

    /// The turn at `now` goes to the one that has waited longest.
    pub fn pop(&mut self, now: Time) -> Option<AgentKey> {
        let (_, agent) = self.waiting.pop_first()?;
        self.next = now + self.interval;
        Some(agent)
    }

    /// When the next of those that wait has its turn.
    pub fn due(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// Whether this agent waits.
    pub fn contains(&self, until: Time, agent: AgentKey) -> bool {
        self.waiting.contains(&(until, agent))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}
