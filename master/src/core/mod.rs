//! The master's decisions, pure: no clock, no randomness, no I/O.
//!
//! [`Core`] owns what the master knows of agents, frameworks, offers and tasks.
//! It is told of events and of the time, and appends what is to be done to
//! [`Effects`]. Which resources go to whom is the [`Allocator`]'s business; the
//! core keeps it in step with every change.
//!
//! Handlers stand one in a file: `agents` (messages of agents, and their loss),
//! `frameworks` (subscriptions), `offers`, `tasks`, `operator`. `validate` has
//! the checks on what peers send, `state` plain data, `invariants` what must
//! always hold.
//!
//! ```no_run
//! # use mezz_master::{allocator::Allocator, core::*, options::CoreOptions};
//! # use mezz_master::registry::RegistrySnapshot;
//! # use mezz_proto::time::Time;
//! # fn f(options: CoreOptions, allocator: Box<dyn Allocator>, now: Time, event: Event) {
//! let mut core = Core::new(options, allocator, RegistrySnapshot::default(), now);
//! let mut out = Effects::default();
//! core.handle(now, event, &mut out);
//! // … carry `out` out; sleep until core.next_deadline(), then:
//! core.on_deadline(now, &mut out);
//! # }
//! ```

mod agents;
mod change;
mod effect;
mod event;
mod frameworks;
mod invariants;
mod offers;
mod operator;
mod recovery;
mod state;
mod tasks;
mod validate;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    time::Time,
};

pub use change::{Change, ShownAgent, ShownTask};
pub use effect::{CallError, CallReply, Effect, Effects, OperatorError, OperatorReply};
pub use event::{ConnectionId, Event, OperatorCommand, RequestId};
pub use frameworks::{Standing, master_info};
pub use invariants::Violation;
pub use state::{Counters, TaskEnds};
pub use validate::{
    MAX_RECORD_BYTES, check_call, check_request, claim, is_weight, other_principal,
};

use crate::{
    allocator::{AgentKey, Allocator, FrameworkKey},
    options::CoreOptions,
};
use offers::AllocationClock;
use state::{
    Agent, CompletedFramework, Duty, Framework, Interner, Offer, OfferKey, Records, Removals, Slab,
    Task, TaskKey, Timer, Timers,
};

/// Agents that one call of [`Core::on_deadline`] loses or gives up at most: each
/// is told to every framework, and other events must not wait for all of them.
const MAX_LOSSES: usize = 64;

/// The master's state machine. One task owns it; see the module's header.
#[derive(Debug)]
pub struct Core {
    options: CoreOptions,
    allocator: Box<dyn Allocator>,
    agents: Slab<AgentKey, Agent>,
    agent_ids: BTreeMap<AgentId, AgentKey>,
    agent_links: BTreeMap<ConnectionId, AgentKey>,
    /// Agents by hostname and port, those that tell both.
    agent_places: BTreeSet<(String, i32, AgentKey)>,
    /// Unreachable agents, by since when.
    unreachable_since: BTreeSet<(Time, AgentKey)>,
    removals: Removals,
    /// Agents that operators have given up, and when: none of them may come back.
    gone: BTreeMap<AgentId, Time>,
    /// What operators want of agents that were away too long and are forgotten,
    /// and since when; for their return.
    kept_duties: BTreeMap<AgentId, (Time, Duty)>,
    /// Agents that drain and whose last task may have ended in this call.
    perhaps_drained: Vec<AgentKey>,
    frameworks: Slab<FrameworkKey, Framework>,
    framework_ids: BTreeMap<FrameworkId, FrameworkKey>,
    framework_links: BTreeMap<ConnectionId, FrameworkKey>,
    /// Ended frameworks, and the order in which they ended.
    completed: BTreeMap<FrameworkId, CompletedFramework>,
    completed_order: VecDeque<FrameworkId>,
    tasks: Slab<TaskKey, Task>,
    offers: BTreeMap<OfferKey, Offer>,
    timers: Timers,
    allocation: AllocationClock,
    interner: Interner,
    records: Records,
    counters: Counters,
    /// Roles' weights, those that were set.
    weights: BTreeMap<String, f64>,
    /// Numbers of the next agent, framework, offer and completed task.
    next_agent: u64,
    next_framework: u64,
    next_offer: OfferKey,
    next_completed: u64,
}

impl Core {
    /// Takes in one event. What is to be done is appended to `out`.
    ///
    /// `now` never goes back from one call to the next.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Effects) {
        out.begin();
        match event {
            Event::SchedulerCall { connection, call } => {
                self.scheduler_call(now, connection, *call, out);
            }
            Event::SchedulerRequest { request, connection, call } => {
                let answer = self.scheduler_request(now, connection, *call, out);
                out.answer(request, answer);
            }
            Event::SchedulerDisconnected { connection } => {
                self.scheduler_disconnected(now, connection, out);
            }
            Event::AgentMessage { connection, message } => {
                self.agent_message(now, connection, *message, out);
            }
            Event::AgentDisconnected { connection } => {
                self.agent_disconnected(now, connection, out);
            }
            Event::Operator { request, command } => {
                let reply = self.operator(now, command, out);
                out.reply(request, reply);
            }
        }
        self.settle(now, out);
    }

    /// Does what has fallen due. To be called when [`next_deadline`] has come;
    /// at another time it does nothing. Where many agents are lost together some
    /// stay due for the next call.
    ///
    /// [`next_deadline`]: Core::next_deadline
    pub fn on_deadline(&mut self, now: Time, out: &mut Effects) {
        out.begin();
        let mut losses = 0;
        while losses < MAX_LOSSES {
            let Some(timer) = self.timers.pop_due(now) else { break };
            let unreachable = self.counters.agents_unreachable;
            match timer {
                Timer::Ping(agent) => self.ping_due(now, agent, out),
                Timer::AgentAway(agent) => self.agent_away_too_long(now, agent, out),
                Timer::Removal => self.removal_due(now, out),
                Timer::Failover(framework) => self.failover_due(now, framework, out),
                Timer::Heartbeat(framework) => self.heartbeat_due(now, framework, out),
                Timer::Reconcile(framework) => self.reconciliation_due(now, framework, out),
                Timer::OfferExpiry(offer) => self.offer_expired(now, offer, out),
            }
            losses += usize::from(unreachable != self.counters.agents_unreachable);
        }
        self.settle(now, out);
    }

    /// Does of what has fallen due only what writes nothing and waits for no answer:
    /// the heartbeats of frameworks. For as long as nothing else may be done, so that
    /// frameworks do not take this master for dead.
    pub fn on_heartbeats(&mut self, now: Time, out: &mut Effects) {
        out.begin();
        for framework in self.timers.pop_due_heartbeats(now) {
            self.heartbeat_due(now, framework, out);
        }
    }

    /// When [`on_deadline`](Core::on_deadline) must be called at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let filter_ends = self.allocator.next_deadline();
        let filter_ends = filter_ends.map(|at| self.allocation_not_before(at));
        [self.timers.first(), self.allocation.due(), filter_ends].into_iter().flatten().min()
    }

    /// Counts since the start, and how many of each thing there are now.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What ends every call: drains that are done, and the allocation that the
    /// changes ask for.
    fn settle(&mut self, now: Time, out: &mut Effects) {
        self.finish_drains(now, out);
        self.allocate_if_due(now, out);
        self.counters.tasks_live = self.tasks.len() as u64;
        self.counters.offers_outstanding = self.offers.len() as u64;
    }
}
