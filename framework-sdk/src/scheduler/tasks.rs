//! The tasks that the driver knows to be alive, and which of them still wait
//! for an answer to reconciliation.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{
    ids::{AgentId, TaskId},
    time::Time,
    v1::TaskState,
};

/// First pause before unanswered tasks are asked for again; it doubles. A master
/// is silent about a task while its agent has not come back (behaviour rule 38).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before unanswered tasks are asked for again.
const LAST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// Launched or heard of, and not ended. With the agent, if that is known.
    live: BTreeMap<TaskId, Option<AgentId>>,
    /// To be asked for until something is heard of them.
    unanswered: BTreeMap<TaskId, Option<AgentId>>,
    /// When to ask again; only while there is something unanswered.
    due: Option<Time>,
    pause: Duration,
}

impl Tasks {
    /// A launch of this task was sent.
    pub fn launched(&mut self, task: TaskId, agent: AgentId) {
        self.live.insert(task, Some(agent));
    }

    /// Something was heard of the task.
    pub fn updated(&mut self, task: &TaskId, agent: Option<AgentId>, state: TaskState) {
        self.unanswered.remove(task);
        if self.unanswered.is_empty() {
            self.due = None;
        }
        if state.is_terminal() {
            self.live.remove(task);
        } else if state != TaskState::TaskUnknown || self.live.contains_key(task) {
            // A task that nobody knows must not be asked for ever after.
            let known = self.live.entry(task.clone()).or_default();
            *known = agent.or_else(|| known.take());
        }
    }

    /// These tasks are to be asked for, from now on.
    pub fn ask(&mut self, now: Time, tasks: impl IntoIterator<Item = (TaskId, Option<AgentId>)>) {
        for (task, agent) in tasks {
            let agent = agent.or_else(|| self.live.get(&task).cloned().flatten());
            self.unanswered.insert(task, agent);
        }
        self.restart(now);
    }

    /// This task is to be asked for if nothing is heard of it soon; one that is live
    /// is asked for anyway whenever the master may have forgotten it.
    pub fn ask_unless_live(&mut self, now: Time, task: TaskId, agent: Option<AgentId>) {
        if self.live.contains_key(&task) {
            return;
        }
        self.unanswered.insert(task, agent);
        self.pause = FIRST_PAUSE;
        let soon = now + FIRST_PAUSE;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// All live tasks are to be asked for, besides what was asked for already.
    pub fn ask_all(&mut self, now: Time) {
        self.unanswered.extend(self.live.iter().map(|(t, a)| (t.clone(), a.clone())));
        self.restart(now);
    }

    /// Nobody can be asked.
    pub fn disconnected(&mut self) {
        self.due = None;
    }

    /// When [`take_due`](Self::take_due) will have something.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// The tasks to ask for now; empty if it is not yet time.
    pub fn take_due(&mut self, now: Time) -> Vec<(TaskId, Option<AgentId>)> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        self.unanswered.iter().map(|(t, a)| (t.clone(), a.clone())).collect()
    }

    fn restart(&mut self, now: Time) {
        self.pause = FIRST_PAUSE;
        self.due = (!self.unanswered.is_empty()).then_some(now);
    }
}
