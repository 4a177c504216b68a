//! The end of an agent that its operator has given up (behaviour rule 50).
//!
//! Only its refusal tells it so, for good: no master will hear of its tasks any
//! more, and none will ask for their end. What still runs is ended as by a kill, in
//! bounded time, and then the agent's program ends.

use std::time::Duration;

use mezz_proto::time::Time;

use super::{
    Core, Effect, Effects, ExecutorKey, TaskKey,
    state::{Home, KillCause},
    timers::Timer,
};

/// Whatever graces tasks and executors have, they have no more than this. A drain that
/// sets no bound has this one for executors.
pub(super) const LONGEST_GRACE: Duration = Duration::from_secs(60);

/// Containers that are not gone so long after their destruction are left.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    /// The master's sentence.
    reason: String,
    /// Everything was destroyed.
    destroyed: bool,
    /// The shell was told to end.
    told: bool,
}

impl Core {
    /// Ends everything, and then the agent.
    pub(super) fn leave(&mut self, now: Time, reason: String, out: &mut Effects) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Leaving { reason, destroyed: false, told: false });
        self.timers.set(Timer::Leave, now + LONGEST_GRACE);
        self.kill_all(now, KillCause::Gone, None, out);
        let executors: Vec<ExecutorKey> = self.executors.keys().cloned().collect();
        for key in executors {
            self.end_executor(now, &key, "an operator has given the agent up", out);
        }
    }

    /// First the graces are over, and then the wait.
    pub(super) fn on_leaving_too_long(&mut self, now: Time, out: &mut Effects) {
        let Some(leaving) = &mut self.leaving else { return };
        if std::mem::replace(&mut leaving.destroyed, true) {
            self.tell_gone(out);
            return;
        }
        self.timers.set(Timer::Leave, now + LAST_WAIT);
        for container in self.containers.keys().cloned() {
            out.after_persist.push(Effect::Destroy { container });
        }
    }

    /// What every call ends with: the last container may have ended in it.
    pub(super) fn finish_leaving(&mut self, out: &mut Effects) {
        if self.containers.is_empty() {
            self.tell_gone(out);
        }
    }

    fn tell_gone(&mut self, out: &mut Effects) {
        let left = self.containers.len();
        if let Some(leaving) = self.leaving.as_mut().filter(|leaving| !leaving.told) {
            leaving.told = true;
            let reason = leaving.reason.clone();
            self.timers.cancel(&Timer::Leave);
            // Behind what is to be stored of their ends.
            out.after_persist.push(Effect::Gone { reason, left });
        }
    }

    /// Ends all tasks that run here or are to, with no more grace than `longest`.
    pub(super) fn kill_all(
        &mut self,
        now: Time,
        cause: KillCause,
        longest: Option<Duration>,
        out: &mut Effects,
    ) {
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
}
