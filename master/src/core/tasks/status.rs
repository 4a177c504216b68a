//! Statuses that the master itself makes.

use mezz_proto::{
    ids::{AgentId, ExecutorId, TaskId},
    time::Time,
    v1::{
        self, TaskState,
        task_status::{Reason, Source},
    },
};

use crate::{
    allocator::FrameworkKey,
    core::{
        Core, Effects,
        frameworks::events,
        state::{StatusRecord, TaskKey},
    },
};

/// What the master says of a task. It has no uuid, so nobody acknowledges it
/// (rule 35).
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct MasterStatus<'a> {
    pub state: TaskState,
    pub reason: Reason,
    pub message: &'a str,
    /// For tasks of unreachable agents.
    pub unreachable_since: Option<Time>,
}

impl<'a> MasterStatus<'a> {
    pub fn new(state: TaskState, reason: Reason, message: &'a str) -> Self {
        Self { state, reason, message, unreachable_since: None }
    }

    fn to_wire(self, now: Time, task: NoTask) -> v1::TaskStatus {
        v1::TaskStatus {
            task_id: task.id.into(),
            state: self.state as i32,
            message: (!self.message.is_empty()).then(|| self.message.to_owned()),
            agent_id: task.agent.map(Into::into),
            timestamp: Some(now.as_secs_f64()),
            executor_id: task.executor.map(Into::into),
            source: Some(Source::Master as i32),
            reason: Some(self.reason as i32),
            unreachable_time: self.unreachable_since.map(Time::to_proto),
            ..Default::default()
        }
    }
}

/// The ids of a task that the master does not keep.
#[derive(Clone, Debug)]
pub(in crate::core) struct NoTask {
    pub id: TaskId,
    pub agent: Option<AgentId>,
    pub executor: Option<ExecutorId>,
}

impl NoTask {
    /// A task that was to be launched.
    pub fn of(info: &v1::TaskInfo) -> Self {
        Self {
            id: (&info.task_id).into(),
            agent: Some((&info.agent_id).into()),
            executor: info.executor.as_ref().map(|e| (&e.executor_id).into()),
        }
    }
}

impl Core {
    /// Tells the framework of a task that is not (any more) in the list.
    pub(in crate::core) fn tell_about_no_task(
        &self,
        now: Time,
        framework: FrameworkKey,
        task: NoTask,
        status: MasterStatus<'_>,
        out: &mut Effects,
    ) {
        if let Some(connection) = self.frameworks[framework].connection() {
            out.event(connection, events::update(status.to_wire(now, task)));
        }
    }

    /// Remembers the status, and tells the framework if it is there.
    pub(in crate::core) fn tell_status(
        &mut self,
        now: Time,
        key: TaskKey,
        status: MasterStatus<'_>,
        out: &mut Effects,
    ) {
        let wire = self.status_to_wire(now, key, status);
        self.tasks[key].remember(StatusRecord::new(status.state, &wire));
        if let Some(connection) = self.frameworks[self.tasks[key].framework].connection() {
            out.event(connection, events::update(wire));
        }
    }

    pub(super) fn status_to_wire(
        &self,
        now: Time,
        key: TaskKey,
        status: MasterStatus<'_>,
    ) -> v1::TaskStatus {
        let task = &self.tasks[key];
        let ids = NoTask {
            id: task.id.clone(),
            agent: Some(self.agents[task.agent].id.clone()),
            executor: task.executor.clone(),
        };
        status.to_wire(now, ids)
    }

    /// TASK_LOST for frameworks without PARTITION_AWARE, else `precise`.
    pub(in crate::core) fn lost_state(
        &self,
        framework: FrameworkKey,
        precise: TaskState,
    ) -> TaskState {
        if self.frameworks[framework].abilities.partition_aware {
            precise
        } else {
            TaskState::TaskLost
        }
    }

    /// How the framework sees a task of an unreachable agent (rule 47).
    pub(in crate::core) fn unreachable_state(&self, framework: FrameworkKey) -> TaskState {
        self.lost_state(framework, TaskState::TaskUnreachable)
    }
}
