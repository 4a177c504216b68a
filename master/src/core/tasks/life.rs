//! The one place where tasks enter and leave the list, and change their state:
//! what they hold, the indexes and the counts follow here.

use mezz_proto::{
    ids::{FrameworkId, TaskId},
    time::Time,
    v1::{TaskState, task_status::Reason},
};

use super::MasterStatus;
use crate::core::{
    Change, Core, Effects,
    state::{Charge, CompletedTask, Duty, StatusRecord, Task, TaskKey},
};

impl Core {
    /// Puts a task into the list. Its `charge` says whether the allocator counts
    /// its resources already.
    pub(in crate::core) fn insert_task(&mut self, task: Task) -> TaskKey {
        let (framework, agent, id) = (task.framework, task.agent, task.id.clone());
        let key = self.tasks.insert_with(|_| task);
        let framework = &mut self.frameworks[framework];
        // A used id ends the record of its former task (rule 28).
        framework.completed.remove(&id);
        framework.tasks.insert(id, key);
        self.agents[agent].tasks.insert(key);
        key
    }

    /// Counts the task's resources as held, if its state says that it uses them.
    pub(in crate::core) fn charge_task(&mut self, key: TaskKey) {
        let task = &mut self.tasks[key];
        if task.charge != Charge::Free || !uses_resources(task.state) {
            return;
        }
        task.charge = Charge::Held;
        let agent = &mut self.agents[task.agent];
        let left = self.allocator.available(task.agent);
        agent.overcommitted |= !left.is_some_and(|left| left.contains(&task.resources));
        self.allocator.hold(task.agent, task.framework, &task.role, &task.resources);
    }

    /// Gives the task's resources back, if they are held.
    pub(in crate::core) fn uncharge_task(&mut self, now: Time, key: TaskKey) {
        let task = &mut self.tasks[key];
        if std::mem::replace(&mut task.charge, Charge::Free) == Charge::Held {
            self.allocator.recover(task.agent, task.framework, &task.role, &task.resources);
            self.wake_allocator(now);
        }
    }

    /// Changes the newest known state; one that uses no resources frees them.
    pub(in crate::core) fn set_task_state(&mut self, now: Time, key: TaskKey, state: TaskState) {
        let task = &mut self.tasks[key];
        let before = std::mem::replace(&mut task.state, state);
        if before == TaskState::TaskUnreachable {
            self.counters.tasks_unreachable -= 1;
        }
        if state == TaskState::TaskUnreachable {
            self.counters.tasks_unreachable += 1;
        }
        if !uses_resources(state) {
            self.uncharge_task(now, key);
        }
    }

    /// The master ends the task: the framework is told, and the task leaves the
    /// list at once, for nothing more will come of it.
    pub(in crate::core) fn end_task(
        &mut self,
        now: Time,
        key: TaskKey,
        status: MasterStatus<'_>,
        out: &mut Effects,
    ) {
        self.set_task_state(now, key, status.state);
        self.tasks[key].pending = None;
        self.tell_status(now, key, status, out);
        self.retire_task(key, out);
    }

    /// Ends a task whose agent will not speak of it any more. One that has ended
    /// by itself and was not acknowledged keeps its end, and what its agent said
    /// of it; the others are `lost`.
    pub(in crate::core) fn end_task_of_lost_agent(
        &mut self,
        now: Time,
        key: TaskKey,
        lost: MasterStatus<'_>,
        out: &mut Effects,
    ) {
        let task = &self.tasks[key];
        if !task.state.is_terminal() {
            return self.end_task(now, key, lost, out);
        }
        let last = task.statuses.iter().find(|status| status.state == task.state);
        let reason = last.and_then(|last| Reason::try_from(last.reason?).ok());
        let message = last.and_then(|last| last.message.clone());
        let status = MasterStatus::new(
            task.state,
            reason.unwrap_or(lost.reason),
            message.as_deref().unwrap_or(lost.message),
        );
        self.end_task(now, key, status, out);
    }

    /// Like `end_task`, but without an update (rule 16).
    pub(in crate::core) fn end_task_silently(
        &mut self,
        now: Time,
        key: TaskKey,
        status: MasterStatus<'_>,
        out: &mut Effects,
    ) {
        self.set_task_state(now, key, status.state);
        self.tasks[key].pending = None;
        let wire = self.status_to_wire(now, key, status);
        self.tasks[key].remember(StatusRecord::new(status.state, &wire));
        self.retire_task(key, out);
    }

    /// A task that has ended by itself leaves the list as it is, for nobody will
    /// acknowledge its last update.
    pub(in crate::core) fn retire_ended(&mut self, key: TaskKey, out: &mut Effects) {
        self.tasks[key].pending = None;
        self.retire_task(key, out);
    }

    /// An ended task leaves the list and is remembered as completed.
    pub(super) fn retire_task(&mut self, key: TaskKey, out: &mut Effects) {
        self.publish_task(key, out);
        let Some(task) = self.tasks.remove(key) else { return };
        debug_assert!(task.state.is_terminal() && task.charge == Charge::Free);
        self.counters.tasks_ended.count(task.state);
        let agent = &mut self.agents[task.agent];
        agent.tasks.remove(&key);
        if agent.tasks.is_empty() && matches!(agent.duty, Duty::Draining(_)) {
            self.perhaps_drained.push(task.agent);
        }
        let ended = CompletedTask {
            number: self.next_completed,
            state: task.state,
            agent: agent.id.clone(),
            message: task.statuses.into_iter().next_back().and_then(|s| s.message),
        };
        self.next_completed += 1;
        let framework = &mut self.frameworks[task.framework];
        framework.tasks.remove(&task.id);
        framework.completed_order.push_back((ended.number, task.id.clone()));
        framework.completed.insert(task.id, ended);
        let limit = self.options.max_completed_tasks;
        let gone = forget_oldest(
            &framework.id,
            &mut framework.completed,
            &mut framework.completed_order,
            limit,
        );
        for (framework, task) in gone {
            out.change(Change::TaskRemoved(framework, task));
        }
    }

    pub(in crate::core) fn publish_task(&mut self, key: TaskKey, out: &mut Effects) {
        let task = &self.tasks[key];
        let (framework, agent) = (&self.frameworks[task.framework], &self.agents[task.agent]);
        out.change(Change::Task(self.records.shown(task, &framework.id, &agent.id)));
    }
}

/// Neither ended nor out of reach.
fn uses_resources(state: TaskState) -> bool {
    !state.is_terminal() && state != TaskState::TaskUnreachable
}

type Completed = std::collections::BTreeMap<TaskId, CompletedTask>;
type Order = std::collections::VecDeque<(u64, TaskId)>;

/// Drops the oldest records down to `limit`. Stale entries of the order go with
/// them, so that it grows no longer than twice the limit.
fn forget_oldest(
    framework: &FrameworkId,
    completed: &mut Completed,
    order: &mut Order,
    limit: usize,
) -> Vec<(FrameworkId, TaskId)> {
    let mut gone = Vec::new();
    let is_current = |completed: &Completed, number: u64, id: &TaskId| {
        completed.get(id).is_some_and(|task| task.number == number)
    };
    while completed.len() > limit || order.len() > limit.saturating_mul(2) {
        let Some((number, id)) = order.pop_front() else { break };
        if is_current(completed, number, &id) {
            completed.remove(&id);
            gone.push((framework.clone(), id));
        }
    }
    gone
}
