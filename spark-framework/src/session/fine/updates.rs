//! What the states of tasks mean.

use mezz_proto::{
    ids::AgentId,
    time::Time,
    v1::{
        self, TaskState,
        task_status::{Reason, Source},
    },
};
use tracing::warn;

use super::{FineSession, Shown, running};
use crate::{
    policy::fine::{FineEvent, TaskNo},
    protocol::ToDriver,
    session::{Output, exit, number},
};

impl FineSession {
    pub(super) fn update(&mut self, now: Time, status: v1::TaskStatus, out: &mut Vec<Output>) {
        let Some(task) = TaskNo::parse(&status.task_id.value) else {
            warn!(task = status.task_id.value, "a status of a task that is not ours");
            return;
        };
        let state = status.state();
        let known = self.policy.place_of(task).is_some();
        let executor = status.executor_id.as_ref().and_then(|e| number(&e.value));
        let on = executor.zip(status.agent_id.as_ref().map(AgentId::from));
        if status.source() == Source::Executor
            && known
            && let Some(spark) = spark_state(state)
        {
            let data = status.data.unwrap_or_default();
            self.decide(now, FineEvent::Done(task), Shown::default(), out);
            if task.is_sparks() {
                let status = ToDriver::Status { tid: task.0, state: spark, data };
                out.push(Output::Driver(status));
            }
            return;
        }
        let event = match (state, on) {
            (TaskState::TaskRunning | TaskState::TaskKilling, Some(on)) => {
                if known && state == TaskState::TaskRunning {
                    out.extend(running(task));
                }
                FineEvent::Running { task, on }
            }
            (TaskState::TaskStaging | TaskState::TaskStarting, Some(on)) => {
                FineEvent::Alive { task, on }
            }
            // An end that its executor tells, of one that was given up: Spark knows better
            // by now.
            (_, Some(on)) if status.source() == Source::Executor => FineEvent::Alive { task, on },
            _ if status.source() == Source::Executor => return,
            _ => match self.end_of(task, &status) {
                Some(event) => event,
                None => return,
            },
        };
        self.decide(now, event, Shown::default(), out);
    }

    /// What an end means that the master or the agent tells.
    fn end_of(&self, task: TaskNo, status: &v1::TaskStatus) -> Option<FineEvent> {
        let state = status.state();
        let reason = || {
            let text = status.message.as_deref().unwrap_or("").trim();
            if text.is_empty() { state.as_str_name().to_owned() } else { text.to_owned() }
        };
        Some(match state {
            TaskState::TaskDropped | TaskState::TaskKilled => {
                FineEvent::Undone { task, by_app: false, reason: reason() }
            }
            TaskState::TaskError => {
                let reason = format!("the master refused it: {}", reason());
                FineEvent::Undone { task, by_app: true, reason }
            }
            // A start has no result that could be lost.
            TaskState::TaskFinished if !task.is_sparks() => FineEvent::Done(task),
            // An end that the executor told while nobody listened: the master has
            // its state and not its result. The executor lives on.
            TaskState::TaskFinished | TaskState::TaskFailed
                if status.reason() == Reason::Reconciliation =>
            {
                let reason = "its result was lost with the connection".to_owned();
                FineEvent::Undone { task, by_app: false, reason }
            }
            _ => match exit::meaning(status, Some(self.settings.mem)) {
                exit::Meaning::Gone(exit) => FineEvent::LostWith { task, exit },
                exit::Meaning::Unknown => FineEvent::Unknown(task),
                exit::Meaning::Alive | exit::Meaning::Nothing => return None,
            },
        })
    }
}

/// Spark's name of an end that a task's executor reports.
fn spark_state(state: TaskState) -> Option<&'static str> {
    match state {
        TaskState::TaskFinished => Some("FINISHED"),
        TaskState::TaskFailed => Some("FAILED"),
        TaskState::TaskKilled => Some("KILLED"),
        _ => None,
    }
}
