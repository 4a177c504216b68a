//! Emptying the agent for its operator (behaviour rule 50).
//!
//! That the agent drains lasts as long as its registration: the master, which has it
//! on record, says it again after each. What was begun of it, the kills, is stored
//! with the tasks and goes on without a master.
//!
//! The master cannot see when the agent is empty: tasks of frameworks that it removed
//! end unseen. So the agent says it, once for each order.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message},
    time::Time,
    v1::{
        self, TaskState, TaskStatus, framework_info::capability::Type as Capability,
        task_status::Reason,
    },
};

use super::{
    Change, Core, Effect, Effects, ExecutorKey, TaskKey, environment::nanoseconds,
    gone::LONGEST_GRACE, state::KillCause,
};

/// An order to drain that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draining {
    number: u64,
    /// What executors have at most.
    longest: Duration,
    /// The master was told that nothing is left.
    told: bool,
    /// When the agent first heard of it.
    pub(super) since: Time,
}

impl Core {
    /// Ends every task, and executors with their last one; none is taken in any more.
    /// One that the master only repeats has been in force for a while: `since`.
    pub(super) fn on_drain(
        &mut self,
        now: Time,
        since: Time,
        drain: &mezz::Drain,
        out: &mut Effects,
    ) {
        let longest = drain.max_grace_period.as_ref().map(nanoseconds);
        let of_executors = longest.unwrap_or(LONGEST_GRACE);
        let number = drain.number;
        self.draining = Some(Draining { number, longest: of_executors, told: false, since });
        let mezz::Drain { max_grace_period, mark_gone, .. } = *drain;
        let config = v1::DrainConfig { max_grace_period, mark_gone };
        out.now.push(Effect::Change(Change::Drain(Some((config, since)))));
        let cause = match drain.mark_gone() {
            true => KillCause::Gone,
            false => KillCause::Drain,
        };
        self.kill_all(now, cause, longest, out);
        let executors: Vec<ExecutorKey> = self.executors.keys().cloned().collect();
        for key in executors {
            self.hasten_executor(now, &key, of_executors, out);
            self.end_idle(now, &key, out);
        }
    }

    /// What the order in force leaves of an executor's grace, which its framework chose.
    pub(super) fn drained_grace(&self, own: Duration) -> Duration {
        self.draining.map_or(own, |draining| own.min(draining.longest))
    }

    /// Ends an executor that the drain leaves nothing to do.
    pub(super) fn end_idle(&mut self, now: Time, key: &ExecutorKey, out: &mut Effects) {
        let idle = |key| {
            let executor = self.executors.get(key)?;
            Some(executor.tasks.is_empty() && executor.gone.is_none())
        };
        if self.draining.is_some() && idle(key) == Some(true) {
            self.end_executor(now, key, "the agent is being drained", out);
        }
    }

    /// What every call ends with: the last container may have ended in it.
    pub(super) fn finish_drain(&mut self, out: &mut Effects) {
        let Some(draining) = self.draining.filter(|draining| !draining.told) else { return };
        if !self.containers.is_empty() {
            return;
        }
        let drained = mezz::Drained { number: draining.number };
        // Behind the updates and all else that was said before.
        if let Some(effect) = self.to_master(agent_message::Message::Drained(drained)) {
            self.draining = Some(Draining { told: true, ..draining });
            out.after_persist.push(effect);
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
