//! A task as the master knows it: small, for there are millions.

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::{
    ids::{AgentId, ExecutorId, FrameworkId, TaskId},
    resources::Resources,
    v1,
};
use prost::Message;

use super::SlotKey;
use crate::allocator::{AgentKey, FrameworkKey};

/// A task's slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::core) struct TaskKey(pub u32);

impl SlotKey for TaskKey {
    fn from_slot(slot: u32) -> Self {
        Self(slot)
    }
    fn slot(self) -> u32 {
        self.0
    }
}

/// Statuses kept for a task: one for each state, and few states are passed.
const MAX_STATUSES: usize = 5;

/// Longest message kept of a status, in bytes; the framework gets all of it.
const MAX_MESSAGE: usize = 4 * 1024;

/// Longest container status kept, in bytes, encoded; the framework gets longer
/// ones.
const MAX_CONTAINER_STATUS: usize = 4 * 1024;

/// A task that has not left the live list: its agent may run it, or its last
/// update is not acknowledged, or its agent is unreachable.
#[derive(Debug)]
pub(in crate::core) struct Task {
    /// Unique in its framework.
    pub id: TaskId,
    /// Whose.
    pub framework: FrameworkKey,
    /// Where.
    pub agent: AgentKey,
    /// For people.
    pub name: Box<str>,
    /// The role that it is charged to.
    pub role: Arc<str>,
    /// What it holds while it is charged.
    pub resources: Arc<Resources>,
    /// Its executor; none for command tasks.
    pub executor: Option<ExecutorId>,
    /// The newest state that its agent knows, or TASK_UNREACHABLE while the agent
    /// is. A terminal one has freed the resources (rule 36).
    pub state: v1::TaskState,
    /// Whether the allocator counts its resources as held.
    pub charge: Charge,
    /// Another master launched it; this one knows of it from its agent.
    pub recovered: bool,
    /// State and uuid of the oldest update that is not acknowledged; what
    /// reconciliation answers (rule 38).
    pub pending: Option<(v1::TaskState, [u8; 16])>,
    /// A kill was asked for, with the last policy that was given (rule 39). It is
    /// sent again whenever the agent comes back, until the task ends, for nobody
    /// knows whether a link that breaks has carried it. A new master does not
    /// know of it: the framework asks again when it hears that the task runs.
    pub kill_asked: Option<Option<v1::KillPolicy>>,
    /// What was said of it, oldest first, one for each state.
    pub statuses: Vec<StatusRecord>,
    /// What most tasks do not have.
    pub extra: Option<Box<TaskExtra>>,
}

/// Whether a task's resources are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum Charge {
    /// No: its state is terminal or its agent unreachable.
    Free,
    /// Yes. A returning agent may report more in use than it has; that is held,
    /// too, so that nothing of it is offered before it is free.
    Held,
}

/// A status in short.
#[derive(Debug)]
pub(in crate::core) struct StatusRecord {
    /// The state.
    pub state: v1::TaskState,
    /// Seconds since the epoch.
    pub timestamp: f64,
    /// `TaskStatus.source`.
    pub source: Option<i32>,
    /// `TaskStatus.reason`.
    pub reason: Option<i32>,
    /// For people.
    pub message: Option<Box<str>>,
    /// The result of its health check.
    pub healthy: Option<bool>,
    /// Addresses and the like, where the agent tells them.
    pub container: Option<Box<v1::ContainerStatus>>,
    /// The result of its check.
    pub check: Option<Box<v1::CheckStatusInfo>>,
}

/// Rare fields of a task, for readers only.
#[derive(Debug, Default, PartialEq)]
pub(in crate::core) struct TaskExtra {
    pub labels: Option<v1::Labels>,
    pub discovery: Option<Box<v1::DiscoveryInfo>>,
    pub container: Option<Box<v1::ContainerInfo>>,
    pub user: Option<String>,
    pub health_check: Option<Box<v1::HealthCheck>>,
    pub kill_policy: Option<v1::KillPolicy>,
    pub limits: BTreeMap<String, v1::value::Scalar>,
}

impl TaskExtra {
    /// Nothing at all when every field is empty.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

impl StatusRecord {
    /// Of this status.
    pub fn new(state: v1::TaskState, status: &v1::TaskStatus) -> Self {
        Self {
            state,
            timestamp: status.timestamp.unwrap_or(0.0),
            source: status.source,
            reason: status.reason,
            message: status
                .message
                .as_deref()
                .filter(|m| !m.is_empty())
                .map(|m| m[..m.floor_char_boundary(MAX_MESSAGE)].into()),
            healthy: status.healthy,
            container: status
                .container_status
                .as_ref()
                .filter(|container| container.encoded_len() <= MAX_CONTAINER_STATUS)
                .map(|container| Box::new(container.clone())),
            check: status.check_status.map(Box::new),
        }
    }
}

impl Task {
    /// What reconciliation answers: the oldest state that is not acknowledged,
    /// else the newest (rule 38).
    pub fn known_state(&self) -> v1::TaskState {
        self.pending.map_or(self.state, |(state, _)| state)
    }

    /// Remembers a status in place of the former one of its state.
    pub fn remember(&mut self, record: StatusRecord) {
        self.statuses.retain(|s| s.state != record.state);
        if self.statuses.len() >= MAX_STATUSES {
            self.statuses.remove(0);
        }
        // Most tasks have one or two; a vector's own first step is four.
        self.statuses.reserve_exact(1);
        self.statuses.push(record);
    }

    /// For readers, but for its resources; with all that is secret.
    pub(super) fn record(&self, framework: &FrameworkId, agent: &AgentId) -> v1::Task {
        let mut task = v1::Task {
            name: self.name.to_string(),
            task_id: (&self.id).into(),
            framework_id: framework.into(),
            executor_id: self.executor.as_ref().map(Into::into),
            agent_id: agent.into(),
            state: self.state as i32,
            statuses: self.statuses.iter().map(|s| self.status(s)).collect(),
            ..Default::default()
        };
        if let Some((state, uuid)) = self.pending {
            task.status_update_state = Some(state as i32);
            task.status_update_uuid = Some(uuid.to_vec());
        }
        if let Some(extra) = self.extra.as_deref() {
            task.labels = extra.labels.clone();
            task.discovery = extra.discovery.clone();
            task.container = extra.container.clone();
            task.user = extra.user.clone();
            task.health_check = extra.health_check.clone();
            task.kill_policy = extra.kill_policy;
            task.limits = extra.limits.clone();
        }
        task
    }

    fn status(&self, s: &StatusRecord) -> v1::TaskStatus {
        v1::TaskStatus {
            task_id: (&self.id).into(),
            state: s.state as i32,
            timestamp: Some(s.timestamp),
            source: s.source,
            reason: s.reason,
            message: s.message.as_deref().map(str::to_owned),
            healthy: s.healthy,
            container_status: s.container.as_deref().cloned(),
            check_status: s.check.as_deref().copied(),
            ..Default::default()
        }
    }
}

/// The state of this number, if there is one.
pub(in crate::core) fn state_from_wire(state: i32) -> Option<v1::TaskState> {
    v1::TaskState::try_from(state).ok()
}

/// The state of this number, if agents may report it: that a task is unreachable
/// or unknown only the master says.
pub(in crate::core) fn reported_state(state: i32) -> Option<v1::TaskState> {
    use v1::TaskState::{TaskUnknown, TaskUnreachable};
    state_from_wire(state).filter(|s| !matches!(s, TaskUnreachable | TaskUnknown))
}

/// `TASK_RUNNING`.
pub(in crate::core) fn state_name(state: v1::TaskState) -> &'static str {
    state.as_str_name()
}

#[cfg(test)]
mod tests {
    use super::{StatusRecord, Task};

    /// Two KiB for a running task, with its two statuses, its ids and its places
    /// in the indexes: the fixed part must stay far below.
    #[test]
    fn tasks_are_small() {
        assert!(size_of::<Task>() <= 192, "{}", size_of::<Task>());
        assert!(size_of::<StatusRecord>() <= 96, "{}", size_of::<StatusRecord>());
    }
}
