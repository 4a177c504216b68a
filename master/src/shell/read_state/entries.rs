//! What is kept of each agent, framework, task and executor.

use std::sync::Arc;

use mezz_proto::{
    ids::{AgentId, ExecutorId, FrameworkId, TaskId},
    mezz::v1 as mezz,
    pages::hide_in_executor,
    resources::{Dialect, Resources},
    v1,
};
use prost::Message;

use crate::{
    core::{ShownAgent, ShownTask},
    shell::{limits::MAX_SHOWN_EXECUTOR, read_model::wire},
};

/// Held by one agent's or one framework's tasks and offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Of executors, and of tasks that hold their resources.
    pub allocated: Resources,
    /// Of outstanding offers.
    pub offered: Resources,
    /// Tasks that have not ended.
    pub tasks: u32,
}

/// A task as it is kept: encoded, for the decoded message takes several times as
/// much and there may be millions.
#[derive(Clone, Debug)]
pub struct TaskEntry {
    /// Unique in its framework.
    pub id: TaskId,
    pub(super) encoded: Arc<[u8]>,
    /// Where it runs.
    pub agent: AgentId,
    /// The newest.
    pub state: v1::TaskState,
    /// Its last update is not acknowledged.
    pub waits: bool,
    /// Counts up; tells which is newer.
    pub number: u64,
}

impl TaskEntry {
    /// It has ended, and its framework knows.
    pub fn is_completed(&self) -> bool {
        self.state.is_terminal() && !self.waits
    }

    /// Its agent is away, and the task with it.
    pub fn is_unreachable(&self) -> bool {
        self.state == v1::TaskState::TaskUnreachable
    }

    /// Its framework may still hear of it.
    pub fn is_live(&self) -> bool {
        !self.is_completed() && !self.is_unreachable()
    }

    /// Whether this is news of the same task. An id may be used again once its task has
    /// ended and its framework knows (rule 28), and a task never moves.
    pub(super) fn is_of(&self, task: &ShownTask) -> bool {
        let used_again = self.is_completed() && !task.state.is_terminal();
        self.agent == task.agent && !used_again
    }

    /// The message again. Never `None`, for the bytes are our own.
    pub fn decode(&self) -> Option<v1::Task> {
        v1::Task::decode(&*self.encoded).ok()
    }
}

/// An agent as it is kept: what it has not as messages, which take five times as
/// much, and the record says it twice.
#[derive(Debug)]
pub struct AgentEntry {
    /// Its `total` and its description's `resources` are left empty.
    rest: mezz::AgentState,
    total: Resources,
}

impl AgentEntry {
    pub(super) fn new(ShownAgent { record, total }: ShownAgent) -> Self {
        Self { rest: record, total }
    }

    /// The record with no resources in it.
    pub fn rest(&self) -> &mezz::AgentState {
        &self.rest
    }

    /// All that it has.
    pub fn total(&self) -> &Resources {
        &self.total
    }

    /// The record again, with these sums.
    pub fn record(&self, sums: &Sums) -> mezz::AgentState {
        let mut record = self.rest.clone();
        record.total = wire(&self.total);
        record.agent.resources = record.total.clone();
        record.allocated = wire(&sums.allocated);
        record.offered = wire(&sums.offered);
        record.tasks = sums.tasks;
        record
    }
}

/// A record, once it is known, and the sums, which may come before it.
#[derive(Debug)]
pub(super) struct Entry<R> {
    pub(super) record: Option<Arc<R>>,
    /// Shared with snapshots.
    pub(super) sums: Arc<Sums>,
}

impl<R> Default for Entry<R> {
    fn default() -> Self {
        Self { record: None, sums: Arc::default() }
    }
}

impl<R> Entry<R> {
    pub(super) fn is_empty(&self) -> bool {
        self.record.is_none() && *self.sums == Sums::default()
    }
}

/// Where an executor is, whose, and its name.
pub type ExecutorKey = (AgentId, FrameworkId, ExecutorId);

/// An executor as it is kept: encoded, like tasks.
#[derive(Clone, Debug)]
pub struct ExecutorEntry {
    pub(super) encoded: Arc<[u8]>,
    pub(super) resources: Arc<Resources>,
    pub(super) role: Arc<str>,
}

impl ExecutorEntry {
    /// Without what is secret, and of a very long description only what it is and holds:
    /// there may be one for each task.
    pub(super) fn new(info: &v1::ExecutorInfo, resources: Arc<Resources>, role: Arc<str>) -> Self {
        let mut shown = if info.encoded_len() - info.data().len() > MAX_SHOWN_EXECUTOR {
            v1::ExecutorInfo {
                r#type: info.r#type,
                executor_id: info.executor_id.clone(),
                framework_id: info.framework_id.clone(),
                name: info.name.clone(),
                ..Default::default()
            }
        } else {
            // The opaque part may be long, and is never shown.
            v1::ExecutorInfo { data: None, ..info.clone() }
        };
        shown.resources = resources.to_proto(Dialect::Refined, Some(&role));
        hide_in_executor(&mut shown);
        Self { encoded: shown.encode_to_vec().into(), resources, role }
    }

    /// The message again. Never `None`, for the bytes are our own.
    pub fn decode(&self) -> Option<v1::ExecutorInfo> {
        v1::ExecutorInfo::decode(&*self.encoded).ok()
    }
}
