//! The core's own news: every change of state that readers may want, whole
//! records rather than differences, so that a reader can join at any time.

use std::sync::Arc;

use mezz_proto::{
    ids::{AgentId, ExecutorId, FrameworkId, OfferId, TaskId},
    mezz::v1 as mezz,
    resources::Resources,
    v1,
};
use prost::Message;

/// One change of state. What is large in it is behind a pointer: after a failover there is one
/// for each task, and they are moved several times.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An agent is new or changed.
    Agent(Box<ShownAgent>),
    /// An agent is forgotten.
    AgentRemoved(AgentId),
    /// An agent is forgotten that an operator has marked gone (rule 81: operators that listen
    /// are not told).
    AgentGone(AgentId),
    /// A framework is new or changed. Its `allocated`, `offered`, `tasks` and
    /// `dominant_share` are left empty here: the read model sums them up.
    Framework(Box<mezz::FrameworkState>),
    /// A framework that had ended is forgotten.
    FrameworkRemoved(FrameworkId),
    /// A task is new or changed.
    Task(ShownTask),
    /// A task's record is dropped.
    TaskRemoved(FrameworkId, TaskId),
    /// An executor is new on an agent, or holds something else: what it holds
    /// itself, beside its tasks, its description with what is secret in it, and the role
    /// that it is charged to.
    Executor(AgentId, FrameworkId, ExecutorId, Arc<Resources>, Arc<v1::ExecutorInfo>, Arc<str>),
    /// An executor is gone.
    ExecutorRemoved(AgentId, FrameworkId, ExecutorId),
    /// An offer was made.
    Offer(Box<mezz::OfferRecord>),
    /// An offer was used, declined, rescinded or withdrawn.
    OfferRemoved(OfferId),
    /// A role's weight was set.
    Weight(String, f64),
}

/// An agent for readers.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownAgent {
    /// Its record. `total` and the description's `resources` are left empty, for as messages
    /// they take five times as much; `allocated`, `offered` and `tasks` are, too: the read
    /// model sums them up.
    pub record: mezz::AgentState,
    /// All that it has.
    pub total: Resources,
}

/// A task for readers. Its record is encoded: decoded it takes several times as much, and it
/// would be another thread that has to take all of that apart.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownTask {
    /// Whose.
    pub framework: FrameworkId,
    /// Unique in its framework.
    pub id: TaskId,
    /// Where.
    pub agent: AgentId,
    /// The newest.
    pub state: v1::TaskState,
    /// Its last update is not acknowledged.
    pub waits: bool,
    /// What it holds while its state says that it holds anything.
    pub resources: Arc<Resources>,
    /// The role that it is charged to.
    pub role: Arc<str>,
    /// The whole [`v1::Task`].
    pub record: Arc<[u8]>,
}

impl ShownTask {
    /// The record again.
    pub fn decode(&self) -> v1::Task {
        // The bytes are our own.
        v1::Task::decode(&*self.record).unwrap_or_default()
    }
}
