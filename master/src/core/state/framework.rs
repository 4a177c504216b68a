//! A framework as the master knows it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use mezz_proto::{
    ids::{AgentId, ExecutorId, FrameworkId, TaskId},
    mezz::v1 as mezz,
    resources::Dialect,
    time::Time,
    v1::{self, scheduler::call::reconcile},
};

use super::{OfferKey, TaskKey};
use crate::{
    allocator::{AgentKey, FrameworkCapabilities, FrameworkSpec, MinAllocatable},
    core::ConnectionId,
};

/// What a framework is still to be told of its tasks.
#[derive(Debug)]
pub(in crate::core) struct Reconciling {
    /// When the next bit is due: an entry in the timers.
    pub at: Time,
    /// Tasks that it has named.
    pub named: VecDeque<reconcile::Task>,
    /// How far it is told of all, if it has asked for them.
    pub all: Option<AllTasks>,
}

/// How far a framework is told of all its tasks.
#[derive(Debug, Default)]
pub(in crate::core) struct AllTasks {
    /// The task after which the next bit begins.
    pub last: Option<TaskId>,
    /// It has asked again meanwhile.
    pub again: bool,
}

/// A framework that has not ended.
#[derive(Debug)]
pub(in crate::core) struct Framework {
    /// Its id, for as long as it lives.
    pub id: FrameworkId,
    /// As it described itself; `id` set.
    pub info: v1::FrameworkInfo,
    /// Sorted, each once.
    pub roles: Vec<Arc<str>>,
    /// Those of its roles that it wants no offers for.
    pub suppressed: BTreeSet<Arc<str>>,
    /// Its own smallest offers.
    pub min_allocatable: BTreeMap<Arc<str>, Vec<MinAllocatable>>,
    /// Which agents it takes, by role.
    pub constraints: BTreeMap<Arc<str>, v1::scheduler::offer_constraints::RoleConstraints>,
    /// What it understands.
    pub abilities: Abilities,
    /// How long it may be away.
    pub failover_timeout: Duration,
    /// Where it stands.
    pub link: FrameworkLink,
    /// First seen by this master.
    pub registered: Option<Time>,
    /// Last return.
    pub reregistered: Option<Time>,
    /// Its tasks that have not left the live list, unreachable ones included.
    pub tasks: BTreeMap<TaskId, TaskKey>,
    /// While it is told of all its tasks, bit by bit.
    pub reconciling: Option<Reconciling>,
    /// Its executors.
    pub executors: BTreeSet<(AgentKey, ExecutorId)>,
    /// Its outstanding offers.
    pub offers: BTreeSet<OfferKey>,
    /// Its ended tasks that are still remembered.
    pub completed: BTreeMap<TaskId, CompletedTask>,
    /// The order in which they ended. An entry whose number is not that of the
    /// task of its id is stale: the id was used again.
    pub completed_order: VecDeque<(u64, TaskId)>,
    /// Offers ever sent.
    pub offers_sent: u64,
    /// Offers ever accepted with at least one launch.
    pub offers_accepted: u64,
}

/// Where a framework stands. Only a connected one is offered.
#[derive(Debug)]
pub(in crate::core) enum FrameworkLink {
    /// Subscribed.
    Connected {
        /// Its subscription.
        connection: ConnectionId,
        /// Entry in the timers.
        heartbeat: Time,
    },
    /// Its connection ended; removed at `until`.
    Disconnected {
        /// Entry in the timers.
        until: Time,
    },
    /// Known from the registry or an agent since this master started, and not
    /// yet back; removed at `until`.
    Recovered {
        /// Entry in the timers.
        until: Time,
        /// The deadline was set before the master started, for it was away
        /// already.
        was_away: bool,
    },
}

/// What a framework understands (rule 21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Abilities {
    /// Sees `allocation_info` and uses `roles`.
    pub multi_role: bool,
    /// Is told of unreachable tasks as such.
    pub partition_aware: bool,
    /// What the allocator looks at.
    pub offers: FrameworkCapabilities,
}

/// An ended task.
#[derive(Debug)]
pub(in crate::core) struct CompletedTask {
    /// Its number in [`Framework::completed_order`].
    pub number: u64,
    /// How it ended.
    pub state: v1::TaskState,
    /// Where it was.
    pub agent: AgentId,
    /// What its last status said.
    pub message: Option<Box<str>>,
}

/// An ended framework: its id is burnt.
#[derive(Debug)]
pub(in crate::core) struct CompletedFramework {
    /// As it described itself; `id` set.
    pub info: v1::FrameworkInfo,
    /// When it ended.
    pub at: Time,
    /// The registry brought it, so it has this for certain.
    pub recovered: bool,
    /// Its remembered tasks.
    pub tasks: BTreeMap<TaskId, CompletedTask>,
}

impl CompletedFramework {
    /// For the registry.
    pub fn record(&self) -> mezz::FrameworkRecord {
        mezz::FrameworkRecord {
            framework: self.info.clone(),
            completed_time: Some(self.at.to_proto()),
            failover_deadline: None,
        }
    }

    /// For readers, when the registry brought it.
    pub fn state(&self) -> mezz::FrameworkState {
        mezz::FrameworkState {
            framework: self.info.clone(),
            status: mezz::framework_state::Status::Completed as i32,
            unregistered_time: Some(self.at.as_secs_f64()),
            ..Default::default()
        }
    }
}

impl Framework {
    /// The subscription, if there is one.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self.link {
            FrameworkLink::Connected { connection, .. } => Some(connection),
            _ => None,
        }
    }

    /// How it reads resources.
    pub fn dialect(&self) -> Dialect {
        if self.abilities.offers.reservation_refinement { Dialect::Refined } else { Dialect::Plain }
    }

    /// Its own copy of the role's name, if it is subscribed to it.
    pub fn role(&self, name: &str) -> Option<&Arc<str>> {
        self.roles.binary_search_by(|r| (**r).cmp(name)).ok().map(|i| &self.roles[i])
    }

    /// For the allocator.
    pub fn spec(&self) -> FrameworkSpec {
        FrameworkSpec {
            id: self.id.clone(),
            roles: self.roles.clone(),
            suppressed: self.suppressed.iter().cloned().collect(),
            capabilities: self.abilities.offers,
            min_allocatable: self.min_allocatable.clone(),
            constraints: self.constraints.clone(),
        }
    }

    /// For the registry. A framework that was not away when the master ended
    /// has no deadline there.
    pub fn record(&self) -> mezz::FrameworkRecord {
        let failover_deadline = match self.link {
            FrameworkLink::Disconnected { until }
            | FrameworkLink::Recovered { until, was_away: true } => Some(until.to_proto()),
            _ => None,
        };
        mezz::FrameworkRecord {
            framework: self.info.clone(),
            completed_time: None,
            failover_deadline,
        }
    }

    /// For readers.
    pub fn state(&self) -> mezz::FrameworkState {
        use mezz::framework_state::Status;
        let status = match self.link {
            FrameworkLink::Connected { .. } => Status::Active,
            FrameworkLink::Disconnected { .. } => Status::Disconnected,
            FrameworkLink::Recovered { .. } => Status::Recovered,
        };
        mezz::FrameworkState {
            framework: self.info.clone(),
            status: status as i32,
            registered_time: self.registered.map(Time::as_secs_f64),
            reregistered_time: self.reregistered.map(Time::as_secs_f64),
            suppressed_roles: self.suppressed.iter().map(|r| r.to_string()).collect(),
            offers_sent: self.offers_sent,
            offers_accepted: self.offers_accepted,
            offer_constraints: Some(v1::scheduler::OfferConstraints {
                role_constraints: self
                    .constraints
                    .iter()
                    .map(|(role, constraints)| (role.to_string(), constraints.clone()))
                    .collect(),
            }),
            ..Default::default()
        }
    }
}
