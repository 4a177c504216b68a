//! An agent as the master knows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mezz_proto::{
    ids::{AgentId, ExecutorId},
    mezz::v1 as mezz,
    resources::{Dialect, Resources},
    time::Time,
    v1,
};

use super::{OfferKey, TaskKey};
use crate::{
    allocator::{AgentKey, AgentSpec, FrameworkKey},
    core::{ConnectionId, ShownAgent, validate::agent::Described},
};

/// A known agent.
#[derive(Debug)]
pub(in crate::core) struct Agent {
    /// Its id, for as long as it lives.
    pub id: AgentId,
    /// As it described itself; `id` set, `resources` empty (see `total`).
    pub info: v1::AgentInfo,
    /// All that it has.
    pub total: Resources,
    /// Its program's version; empty while it has not been heard of.
    pub version: String,
    /// host:port of its own API; empty while it has not been heard of.
    pub api_address: String,
    /// First seen by this master.
    pub registered: Option<Time>,
    /// Last return.
    pub reregistered: Option<Time>,
    /// Where it stands.
    pub link: AgentLink,
    /// What an operator wants of it.
    pub duty: Duty,
    /// The number of its last order to drain; 0 before the first.
    pub drain_order: u64,
    /// When it heard of the drain that its duty has, from this master.
    pub drain_started: Option<Time>,
    /// It has said that nothing is left on it since that order. Until then tasks
    /// may run that nobody here knows any more: those of removed frameworks.
    pub emptied: bool,
    /// It has said something under its id: it knows it.
    pub heard: bool,
    /// The start and the link of its last return, if it counts them: what is older
    /// comes late.
    pub attempt: Option<(u64, u64)>,
    /// At its last return it had more in use than it has. That happens when the
    /// resources of a torn down framework were offered before its tasks had
    /// ended, and the master restarted; or when an agent came back smaller.
    pub overcommitted: bool,
    /// Its tasks that have not left the live list.
    pub tasks: BTreeSet<TaskKey>,
    /// Its executors; each is charged once.
    pub executors: BTreeMap<(FrameworkKey, ExecutorId), Executor>,
    /// Outstanding offers of it.
    pub offers: BTreeSet<OfferKey>,
}

/// What an operator wants of an agent (rule 50). Kept by the registry.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::core) enum Duty {
    /// To be offered while it is connected.
    Active,
    /// Not to be offered.
    Deactivated,
    /// Not to be offered, and to be emptied; or it is empty.
    Draining(v1::DrainInfo),
}

impl Duty {
    /// As the registry has it.
    pub fn from_record(record: &mezz::AgentRecord) -> Self {
        match record.drain {
            Some(drain) => Self::Draining(drain),
            None if record.deactivated() => Self::Deactivated,
            None => Self::Active,
        }
    }

    /// It was drained, and has nothing left.
    pub fn is_drained(&self) -> bool {
        matches!(self, Self::Draining(drain) if drain.state() == v1::DrainState::Drained)
    }

    /// What the agent is to do about it.
    fn order(&self, number: u64) -> Option<mezz::Drain> {
        let Self::Draining(drain) = self else { return None };
        let v1::DrainConfig { max_grace_period, mark_gone } = drain.config;
        Some(mezz::Drain { max_grace_period, mark_gone, number })
    }

    fn drain(&self) -> Option<v1::DrainInfo> {
        match self {
            Self::Draining(drain) => Some(*drain),
            _ => None,
        }
    }

    fn deactivated(&self) -> Option<bool> {
        (*self == Self::Deactivated).then_some(true)
    }
}

/// Where an agent stands. Only a connected one is offered.
#[derive(Debug)]
pub(in crate::core) enum AgentLink {
    /// Linked, and answering pings so far.
    Connected {
        /// Its link.
        connection: ConnectionId,
        /// The state of its pings.
        ping: Ping,
    },
    /// Its link broke; unreachable from `until` on, or at its turn after it.
    Disconnected {
        /// Entry in the timers, or in the removals.
        until: Time,
    },
    /// Known from the registry and not yet back; unreachable likewise.
    Recovering {
        /// Entry in the timers, or in the removals.
        until: Time,
    },
    /// Its time was up. The allocator does not know it.
    Unreachable {
        /// Since when; `unreachable_retention` later it is given up.
        since: Time,
    },
}

/// The pings of one link.
#[derive(Debug)]
pub(in crate::core) struct Ping {
    /// Number of the last one sent; 0 before the first.
    pub number: u64,
    /// How many in a row were not answered in time.
    pub missed: u32,
    /// Whether the last one is still to be answered.
    pub waiting: bool,
    /// Entry in the timers.
    pub next: Time,
}

/// An executor on an agent.
#[derive(Debug)]
pub(in crate::core) struct Executor {
    /// `framework_id` set; the resources without `allocation_info`.
    pub info: Arc<v1::ExecutorInfo>,
    /// The role that it is charged to.
    pub role: Arc<str>,
    /// What it holds itself, beside its tasks.
    pub resources: Arc<Resources>,
}

impl Agent {
    /// The link, if there is one.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self.link {
            AgentLink::Connected { connection, .. } => Some(connection),
            _ => None,
        }
    }

    /// Its entry among the places, if it has one.
    pub fn place(&self, key: AgentKey) -> Option<(String, i32, AgentKey)> {
        Some((self.info.hostname.clone(), self.info.port?, key))
    }

    /// A new order to drain, if it is to.
    pub fn order_drain(&mut self) -> Option<mezz::Drain> {
        let order = self.duty.order(self.drain_order + 1)?;
        self.drain_order = order.number;
        self.emptied = false;
        Some(order)
    }

    /// Whether the allocator knows it.
    pub fn is_allocated(&self) -> bool {
        matches!(self.link, AgentLink::Connected { .. } | AgentLink::Disconnected { .. })
    }

    /// For the allocator.
    pub fn spec(&self) -> AgentSpec {
        AgentSpec {
            id: self.id.clone(),
            hostname: self.info.hostname.clone(),
            attributes: self.info.attributes.clone(),
            domain: self.info.domain.clone(),
            total: self.total.clone(),
        }
    }

    /// Whether the registry has all that it would have of this agent, once it is back with
    /// this description.
    pub fn is_recorded(&self, now: &Described) -> bool {
        let Described { info, total, .. } = now;
        let known = v1::AgentInfo { id: None, ..self.info.clone() };
        !matches!(self.link, AgentLink::Unreachable { .. })
            && known == *info
            && self.total == *total
    }

    /// For the registry.
    pub fn record(&self) -> mezz::AgentRecord {
        let unreachable_time = match self.link {
            AgentLink::Unreachable { since } => Some(since.to_proto()),
            _ => None,
        };
        mezz::AgentRecord {
            agent: self.full_info(),
            unreachable_time,
            drain: self.duty.drain(),
            deactivated: self.duty.deactivated(),
            gone_time: None,
            given_up_time: None,
        }
    }

    /// For readers.
    pub fn shown(&self) -> ShownAgent {
        use mezz::agent_state::Status;
        let status = match self.link {
            AgentLink::Connected { .. } => Status::Active,
            AgentLink::Disconnected { .. } => Status::Disconnected,
            AgentLink::Recovering { .. } => Status::Recovering,
            AgentLink::Unreachable { .. } => Status::Unreachable,
        };
        let text = |s: &String| (!s.is_empty()).then(|| s.clone());
        let record = mezz::AgentState {
            agent: self.info.clone(),
            status: status as i32,
            version: text(&self.version),
            api_address: text(&self.api_address),
            registered_time: self.registered.map(Time::as_secs_f64),
            reregistered_time: self.reregistered.map(Time::as_secs_f64),
            drain: self.duty.drain(),
            drain_start_time: self.duty.drain().and(self.drain_started).map(Time::as_secs_f64),
            deactivated: self.duty.deactivated(),
            ..Default::default()
        };
        ShownAgent { record, total: self.total.clone() }
    }

    /// The description with its resources.
    fn full_info(&self) -> v1::AgentInfo {
        v1::AgentInfo {
            resources: self.total.to_proto(Dialect::Refined, None),
            ..self.info.clone()
        }
    }
}
