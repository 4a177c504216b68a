//! Emptying the agent for its operator (behaviour rule 50).
//!
//! That the agent drains lasts as long as its registration: the master, which has it
//! on record, says it again after each. What was begun of it, the kills, is stored
//! with the tasks and goes on without a master.

use std::time::Duration;

use mezz_proto::{
    mezz::v1 as mezz,
    time::Time,
    v1::{
        self, TaskState, TaskStatus, framework_info::capability::Type as Capability,
        task_status::Reason,
    },
};

use super::{
    Core, Effects, TaskKey,
    environment::nanoseconds,
    state::{Home, KillCause},
};

impl Core {
    /// Ends every task; none is taken in any more.
    pub(super) fn on_drain(&mut self, now: Time, drain: &mezz::Drain, out: &mut Effects) {
        self.draining = true;
        let longest = drain.max_grace_period.as_ref().map(nanoseconds);
        let cause = match drain.mark_gone() {
            true => KillCause::Gone,
            false => KillCause::Drain,
        };
        let tasks: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.is_live() && task.home != Home::None)
            .map(|(key, _)| key.clone())
            .collect();
        for key in tasks {
            let policy = longest.map(|longest| self.shortened(&key, longest));
            self.kill(now, &key, cause, policy.as_ref(), out);
        }
    }

    /// What an executor says of a task that the drain ends.
    pub(super) fn say_drained(&self, key: &TaskKey, status: &mut TaskStatus) {
        let ends = matches!(status.state(), TaskState::TaskKilling | TaskState::TaskKilled);
        let cause = self.tasks.get(key).and_then(|task| task.kill);
        if ends && let Some(cause @ (KillCause::Drain | KillCause::Gone)) = cause {
            status.reason = Some(Reason::AgentDraining.into());
            if status.state() == TaskState::TaskKilled {
                status.state = self.drained_state(key, cause).into();
            }
        }
    }

    /// How a task ends that the drain ended: for whoever can know, it is gone with an
    /// agent that does not come back.
    pub(super) fn drained_state(&self, key: &TaskKey, cause: KillCause) -> TaskState {
        let aware = self
            .frameworks
            .get(&key.framework)
            .is_some_and(|framework| framework.has(Capability::PartitionAware));
        match cause {
            KillCause::Gone if aware => TaskState::TaskGoneByOperator,
            _ => TaskState::TaskKilled,
        }
    }

    /// The task's own policy, with no more grace than `longest`.
    pub(super) fn shortened(&self, key: &TaskKey, longest: Duration) -> v1::KillPolicy {
        let own = self.tasks.get(key).map_or(longest, |task| {
            let policy = task.kill_policy.as_ref().or(task.info.kill_policy.as_ref());
            self.kill_grace(&task.info, policy)
        });
        let nanoseconds = i64::try_from(own.min(longest).as_nanos()).unwrap_or(i64::MAX);
        v1::KillPolicy { grace_period: Some(v1::DurationInfo { nanoseconds }) }
    }
}
