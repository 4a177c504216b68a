//! The read model at one moment, for answers that take a while to write.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mezz_proto::{ids::FrameworkId, mezz::v1 as mezz};

use super::{
    read_state::{AgentEntry, ExecutorEntry, ExecutorKey, Sums, TaskEntry},
    view::{agent_id, framework_id},
};

/// What a snapshot has beside agents, frameworks, roles and weights: what there may be
/// much of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// Tasks, ended ones that are remembered, too.
    pub tasks: bool,
    /// Executors.
    pub executors: bool,
    /// Outstanding offers.
    pub offers: bool,
}

impl Include {
    /// Nothing of it.
    pub const NONE: Self = Self { tasks: false, executors: false, offers: false };
    /// All of it.
    pub const ALL: Self = Self { tasks: true, executors: true, offers: true };
}

/// Records as they were at one moment. Cheap to take: what is large is shared.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Oldest first.
    pub agents: Vec<(Arc<AgentEntry>, Arc<Sums>)>,
    /// Oldest first, ended ones that are remembered, too.
    pub frameworks: Vec<(Arc<mezz::FrameworkState>, Arc<Sums>)>,
    /// By framework, oldest first.
    pub tasks: HashMap<FrameworkId, Vec<TaskEntry>>,
    /// By framework.
    pub executors: HashMap<FrameworkId, Vec<(ExecutorKey, ExecutorEntry)>>,
    /// By framework.
    pub offers: HashMap<FrameworkId, Vec<Arc<mezz::OfferRecord>>>,
    /// What is held and offered of each role that holds or is offered anything.
    pub roles: BTreeMap<Arc<str>, Arc<Sums>>,
    /// Those that were set.
    pub weights: Arc<BTreeMap<String, f64>>,
}

impl Snapshot {
    /// Sorts what is told in an order.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.agents
            .sort_by(|(a, _), (b, _)| by_age(agent_id(&a.rest().agent), agent_id(&b.rest().agent)));
        self.frameworks.sort_by(|(a, _), (b, _)| {
            by_age(framework_id(&a.framework), framework_id(&b.framework))
        });
        for tasks in self.tasks.values_mut() {
            tasks.sort_unstable_by_key(|task| task.number);
        }
        self
    }

    /// The tasks of a framework.
    pub fn tasks_of(&self, framework: &str) -> &[TaskEntry] {
        self.tasks.get(framework).map_or(&[], Vec::as_slice)
    }

    /// The executors of a framework.
    pub fn executors_of(&self, framework: &str) -> &[(ExecutorKey, ExecutorEntry)] {
        self.executors.get(framework).map_or(&[], Vec::as_slice)
    }

    /// The outstanding offers of a framework.
    pub fn offers_of(&self, framework: &str) -> &[Arc<mezz::OfferRecord>] {
        self.offers.get(framework).map_or(&[], Vec::as_slice)
    }
}

/// Ids count up, `…-S9` before `…-S10`.
fn by_age(a: &str, b: &str) -> std::cmp::Ordering {
    (a.len(), a).cmp(&(b.len(), b))
}
