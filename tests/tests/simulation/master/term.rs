//! A leadership: the real core and the real dispatch of its effects, in a loop as
//! `master/src/shell/core_loop.rs` has.

mod turn;

use std::{collections::BTreeMap, sync::Arc};

use mezz_master::{
    core::{Change, Core, Effects},
    options::CoreOptions,
    registry::RegistryOp,
    simulation::{Dispatch, Metrics, OutboxStream},
};
use mezz_proto::{
    mezz::v1 as mezz,
    time::Time,
    v1::{self, scheduler},
};

use super::Writer;
use crate::net::Stream;

/// How far a term is.
enum Stage {
    /// The registry is read.
    Loading,
    Deciding(Box<Core>),
    /// The loop has ended; what was decided in time is written yet.
    Over,
}

/// What goes out to a peer.
enum Outgoing {
    Agent(OutboxStream<mezz::MasterMessage>),
    Framework(OutboxStream<scheduler::Event>),
}

pub struct Term {
    pub fence: i64,
    pub id: String,
    /// The tenure's end.
    until: Time,
    stage: Stage,
    pub writer: Writer,
    dispatch: Dispatch,
    outgoing: BTreeMap<Stream, Outgoing>,
    out: Effects,
    last_write: u64,
    /// When an agent was given up last, by its own clock.
    last_loss: Option<Time>,
    /// What readers see.
    pub tasks: BTreeMap<(String, String), v1::Task>,
    pub agents: BTreeMap<String, mezz::AgentState>,
    pub frameworks: BTreeMap<String, mezz::FrameworkState>,
    pub offers: BTreeMap<String, mezz::OfferRecord>,
}

impl Term {
    pub fn new(fence: i64, until: Time, id: String) -> Self {
        let metrics = Metrics::new().expect("metrics can be made");
        Self {
            fence,
            id,
            until,
            stage: Stage::Loading,
            writer: Writer::new(fence),
            dispatch: Dispatch::new(Arc::new(metrics)),
            outgoing: BTreeMap::new(),
            out: Effects::default(),
            last_write: 0,
            last_loss: None,
            tasks: BTreeMap::new(),
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            offers: BTreeMap::new(),
        }
    }

    /// Whether its loop runs.
    pub fn decides(&self) -> bool {
        matches!(self.stage, Stage::Deciding(_))
    }

    /// It has not ended, as far as it knows.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Over)
    }

    /// Nothing is left of it.
    pub fn is_over(&self) -> bool {
        !self.is_under_way() && self.writer.is_idle()
    }

    /// Whether the tenure holds.
    pub fn holds(&self, now: Time) -> bool {
        now < self.until
    }

    pub fn extend(&mut self, until: Time) {
        if self.is_under_way() {
            self.until = self.until.max(until);
        }
    }

    /// When its core or its writer wants to go on.
    pub fn next(&self) -> Option<Time> {
        [self.core_deadline(), self.writer.next()].into_iter().flatten().min()
    }

    fn core_deadline(&self) -> Option<Time> {
        match &self.stage {
            Stage::Deciding(core) => core.next_deadline(),
            Stage::Loading | Stage::Over => None,
        }
    }

    fn is_due(&self, now: Time) -> bool {
        self.core_deadline().is_some_and(|at| at <= now)
    }

    /// Whether these operations give agents up sooner after one another than they may.
    fn losses_too_soon(&mut self, now: Time, ops: &[RegistryOp], options: &CoreOptions) -> bool {
        let at = Some(now.to_proto());
        let lost = |op: &&RegistryOp| match op {
            RegistryOp::PutAgent(record) => record.unreachable_time == at,
            _ => false,
        };
        let lost = ops.iter().filter(lost).count();
        let interval = options.agent_removal_rate_limit.map(|rate| rate.interval());
        if lost == 0 {
            return false;
        }
        let last = self.last_loss.replace(now);
        interval
            .is_some_and(|interval| lost > 1 || last.is_some_and(|last| now.since(last) < interval))
    }

    fn changed(&mut self, change: Change) {
        let id = |id: &Option<v1::FrameworkId>| id.clone().unwrap_or_default().value;
        match change {
            Change::Agent(agent) => {
                let id = agent.record.agent.id.clone().unwrap_or_default().value;
                self.agents.insert(id, agent.record);
            }
            Change::AgentRemoved(id) | Change::AgentGone(id) => {
                self.agents.remove(id.as_str());
            }
            Change::Framework(state) => _ = self.frameworks.insert(id(&state.framework.id), *state),
            Change::FrameworkRemoved(id) => _ = self.frameworks.remove(id.as_str()),
            Change::Task(task) => {
                let key = (task.framework.to_string(), task.id.to_string());
                self.tasks.insert(key, task.decode());
            }
            Change::TaskRemoved(framework, task) => {
                self.tasks.remove(&(framework.to_string(), task.to_string()));
            }
            Change::Executor(..) | Change::ExecutorRemoved(..) | Change::Weight(..) => {}
            Change::Offer(offer) => _ = self.offers.insert(offer.offer.id.value.clone(), *offer),
            Change::OfferRemoved(id) => _ = self.offers.remove(id.as_str()),
        }
    }
}
