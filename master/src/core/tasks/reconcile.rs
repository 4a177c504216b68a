//! RECONCILE (rule 38).

use std::{collections::VecDeque, ops::Bound, time::Duration};

use mezz_proto::{
    ids::{AgentId, TaskId},
    time::Time,
    v1::{self, TaskState, scheduler::call::reconcile, task_status::Reason},
};

use super::{MasterStatus, NoTask};
use crate::{
    allocator::FrameworkKey,
    core::{
        Core, Effects,
        frameworks::events,
        state::{AgentLink, AllTasks, Reconciling, TaskKey, Timer},
    },
};

/// Between a page of answers and the next one.
const ANSWERS_PAUSE: Duration = Duration::from_millis(100);

/// Tasks that a framework has named and that wait for their answers. Of more each is answered
/// at once.
const MAX_WAITING: usize = 50_000;

impl Core {
    /// Explicit when tasks are named; else everything live, including ended
    /// tasks that are not acknowledged, and not unreachable ones. Many are answered bit
    /// by bit.
    pub(in crate::core) fn reconcile(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        mut tasks: Vec<reconcile::Task>,
        out: &mut Effects,
    ) {
        let page = self.options.reconciliation_page.max(1);
        let under_way = self.frameworks[framework].reconciling.as_mut();
        if tasks.is_empty() {
            match under_way {
                // Begun again at once, it would never come to the last tasks of a framework
                // that asks often.
                Some(Reconciling { all: Some(all), .. }) => all.again = true,
                Some(under_way) => under_way.all = Some(AllTasks::default()),
                None => {
                    let all = Some(AllTasks::default());
                    self.answer_page(now, framework, VecDeque::new(), all, out);
                }
            }
            return;
        }
        match under_way {
            Some(under_way) if tasks.len() > page || !under_way.named.is_empty() => {
                let room = MAX_WAITING.saturating_sub(under_way.named.len());
                let beyond = tasks.split_off(room.min(tasks.len()));
                under_way.named.extend(tasks);
                tasks = beyond;
            }
            None if tasks.len() > page => {
                return self.answer_page(now, framework, tasks.into(), None, out);
            }
            _ => {}
        }
        for task in tasks {
            self.reconcile_one(now, framework, task.task_id.into(), task.agent_id, out);
        }
    }

    /// The next answers to a framework that has asked for many.
    pub(in crate::core) fn reconciliation_due(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        out: &mut Effects,
    ) {
        if let Some(Reconciling { named, all, .. }) = self.frameworks[framework].reconciling.take()
        {
            self.answer_page(now, framework, named, all, out);
        }
    }

    /// No more answers are due to this framework.
    pub(in crate::core) fn end_reconciliation(&mut self, framework: FrameworkKey) {
        if let Some(Reconciling { at, .. }) = self.frameworks[framework].reconciling.take() {
            self.timers.clear(at, Timer::Reconcile(framework));
        }
    }

    /// Answers as many as may be answered at once; the rest is due after a pause.
    fn answer_page(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        mut named: VecDeque<reconcile::Task>,
        mut all: Option<AllTasks>,
        out: &mut Effects,
    ) {
        let page = self.options.reconciliation_page.max(1);
        let count = page.min(named.len());
        for task in named.drain(..count) {
            self.reconcile_one(now, framework, task.task_id.into(), task.agent_id, out);
        }
        if count < page
            && let Some(AllTasks { last, again }) = all.take()
        {
            let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            all = match self.answer_after(now, framework, from, page - count, out) {
                Some(last) => Some(AllTasks { last: Some(last), again }),
                None => again.then(AllTasks::default),
            };
        }
        if !named.is_empty() || all.is_some() {
            let at = now + ANSWERS_PAUSE;
            self.frameworks[framework].reconciling = Some(Reconciling { at, named, all });
            self.timers.set(at, Timer::Reconcile(framework));
        }
    }

    /// Tells of so many tasks after this one. The last of them, if there may be more.
    fn answer_after(
        &self,
        now: Time,
        framework: FrameworkKey,
        from: Bound<&TaskId>,
        count: usize,
        out: &mut Effects,
    ) -> Option<TaskId> {
        let tasks = self.frameworks[framework].tasks.range::<TaskId, _>((from, Bound::Unbounded));
        let mut told = 0;
        for (id, task) in tasks.take(count) {
            if self.tasks[*task].state != TaskState::TaskUnreachable {
                self.answer_known(now, *task, out);
            }
            told += 1;
            if told == count {
                return Some(id.clone());
            }
        }
        None
    }

    pub(super) fn reconcile_one(
        &self,
        now: Time,
        framework: FrameworkKey,
        id: TaskId,
        agent: Option<v1::AgentId>,
        out: &mut Effects,
    ) {
        if let Some(task) = self.frameworks[framework].tasks.get(&id) {
            return self.answer_known(now, *task, out);
        }
        let agent = agent.map(AgentId::from);
        let ended = self.frameworks[framework].completed.get(&id);
        if let Some(ended) = ended.filter(|e| agent.as_ref().is_none_or(|a| *a == e.agent)) {
            // Unlike in Mesos: its last update may never have reached a framework
            // that was away when the agent was removed.
            self.follows_from_writes(framework, out);
            let message = ended.message.as_deref().unwrap_or("the task has ended");
            let status = MasterStatus::new(ended.state, Reason::Reconciliation, message);
            let task = NoTask { id, agent: Some(ended.agent.clone()), executor: None };
            return self.tell_about_no_task(now, framework, task, status, out);
        }
        let link = agent
            .as_ref()
            .and_then(|id| self.agent_ids.get(id))
            .map(|agent| &self.agents[*agent].link);
        let gone = agent.as_ref().is_some_and(|id| self.is_gone(id));
        let (state, since) = match (&agent, link) {
            _ if gone => (TaskState::TaskGoneByOperator, None),
            // An agent that may still bring the task: silence.
            (Some(_), Some(AgentLink::Recovering { .. })) => return,
            (None, _) if self.counters.agents_recovering > 0 => return,
            (_, Some(AgentLink::Unreachable { since })) => {
                (TaskState::TaskUnreachable, Some(*since))
            }
            (_, Some(_)) => (TaskState::TaskGone, None),
            (_, None) => (TaskState::TaskUnknown, None),
        };
        let status = MasterStatus {
            unreachable_since: since,
            ..MasterStatus::new(
                self.lost_state(framework, state),
                Reason::Reconciliation,
                match state {
                    TaskState::TaskUnreachable => "Reconciliation: Task is unreachable",
                    TaskState::TaskGoneByOperator => "Reconciliation: Task is gone",
                    TaskState::TaskGone => "Reconciliation: Task is unknown to the agent",
                    _ => "Reconciliation: Task is unknown",
                },
            )
        };
        self.follows_from_writes(framework, out);
        self.tell_about_no_task(now, framework, NoTask { id, agent, executor: None }, status, out);
    }

    /// What is said of tasks that are not there follows from what became of their agents. A
    /// write of that may be under way, and the next leader would not know of it: the framework
    /// hears when it is durable. Those who were told at once had it held back, too.
    fn follows_from_writes(&self, framework: FrameworkKey, out: &mut Effects) {
        if let Some(connection) = self.frameworks[framework].connection() {
            out.after_all_on(connection);
        }
    }

    fn answer_known(&self, now: Time, key: TaskKey, out: &mut Effects) {
        let task = &self.tasks[key];
        let Some(connection) = self.frameworks[task.framework].connection() else { return };
        let (state, since) = match (task.state, &self.agents[task.agent].link) {
            (TaskState::TaskUnreachable, AgentLink::Unreachable { since }) => {
                self.follows_from_writes(task.framework, out);
                (self.unreachable_state(task.framework), Some(*since))
            }
            _ => (task.known_state(), None),
        };
        let status = MasterStatus {
            unreachable_since: since,
            ..MasterStatus::new(state, Reason::Reconciliation, "Reconciliation: Latest task state")
        };
        let mut wire = self.status_to_wire(now, key, status);
        if let Some(last) = task.statuses.iter().rev().find(|s| s.state == state) {
            wire.healthy = last.healthy;
            wire.container_status = last.container.as_deref().cloned();
        }
        out.event(connection, events::update(wire));
    }
}
