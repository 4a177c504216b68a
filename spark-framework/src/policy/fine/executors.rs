//! What becomes of tasks and executors.

use mezz_proto::{ids::AgentId, time::Time};

use super::{
    Executor, FIRST_REMINDER, FineAction, FinePolicy, LAST_REMINDER, MAX_REMINDED, Progress,
    REMINDED_FOR, Reminder, Seen, Task, TaskNo,
};
use crate::policy::{
    ExecutorNo, Exit, ExitKind,
    doubt::NOT_BACK,
    failures::{self, Ended, MAX_LAUNCH_FAILURES},
};

impl FinePolicy {
    pub(super) fn running(
        &mut self,
        now: Time,
        task: TaskNo,
        (executor, agent): (ExecutorNo, AgentId),
        out: &mut Vec<FineAction>,
    ) {
        if self.tasks.get(&task).is_some_and(|t| t.executor == executor) {
            self.heard_of(now, &agent, out);
        }
        self.alive(task, (executor, agent), out);
    }

    /// An executor that was given up before must go: its tasks run elsewhere by now.
    pub(super) fn alive(
        &mut self,
        task: TaskNo,
        (executor, agent): (ExecutorNo, AgentId),
        out: &mut Vec<FineAction>,
    ) {
        if self.executors.get(&agent).is_none_or(|e| e.no != executor) {
            out.push(FineAction::ShutDown { executor, agent });
        } else if self.tasks.get(&task).is_some_and(|t| t.executor == executor) {
            self.doubts.settle(&task);
        }
    }

    /// An executor that is up and not there any more ended while nobody told us. Of one
    /// that was just launched the offer may be older. One that is there and was given up
    /// must go.
    pub(super) fn present(
        &mut self,
        now: Time,
        agent: &AgentId,
        there: &[ExecutorNo],
        out: &mut Vec<FineAction>,
    ) {
        let up = |e: &&Executor| matches!(e.progress, Progress::Up(_));
        let missing = self.executors.get(agent).filter(up).filter(|e| !there.contains(&e.no));
        if let Some(no) = missing.map(|e| e.no) {
            let exit = Exit::lost("it ended while the master was away; nobody saw how");
            self.executor_ended(now, no, exit, Seen::Yes, out);
        }
        let own = self.executors.get(agent).map(|e| e.no);
        for executor in there.iter().copied().filter(|no| own != Some(*no)) {
            self.abandoned.remove(&(agent.clone(), executor));
            out.push(FineAction::ShutDown { executor, agent: agent.clone() });
        }
    }

    /// Tasks that nobody has brought back in time, with their executors.
    pub(super) fn give_up_doubted(&mut self, now: Time, out: &mut Vec<FineAction>) {
        while let Some(task) = self.doubts.take_due(now) {
            if let Some(executor) = self.tasks.get(&task).map(|t| t.executor) {
                self.executor_ended(now, executor, Exit::lost(NOT_BACK), Seen::No, out);
            }
        }
    }

    /// Tells executors again that they are to go.
    pub(super) fn remind(&mut self, now: Time, out: &mut Vec<FineAction>) {
        self.abandoned.retain(|_, reminder| now.since(reminder.since) < REMINDED_FOR);
        for ((agent, executor), reminder) in &mut self.abandoned {
            if reminder.at <= now {
                reminder.pause = (reminder.pause * 2).min(LAST_REMINDER);
                reminder.at = now + reminder.pause;
                out.push(FineAction::ShutDown { executor: *executor, agent: agent.clone() });
            }
        }
    }

    pub(super) fn done(&mut self, now: Time, task: TaskNo, out: &mut Vec<FineAction>) {
        let Some(Task { agent, executor, .. }) = self.forget(task) else { return };
        if let Some(e) = self.executors.get_mut(&agent).filter(|e| e.no == executor) {
            e.done |= task.is_sparks();
        }
        self.heard_of(now, &agent, out);
    }

    pub(super) fn undone(
        &mut self,
        now: Time,
        task: TaskNo,
        by_app: bool,
        reason: String,
        out: &mut Vec<FineAction>,
    ) {
        let Some(Task { executor, agent, .. }) = self.forget(task) else { return };
        // An executor that was never heard of has not begun when none of its tasks
        // is on the way.
        let began = self.executors.get(&agent).is_some_and(|e| e.progress != Progress::Launched);
        if began || self.tasks.values().any(|t| t.executor == executor) {
            out.push(FineAction::Undone { tasks: vec![task], executor, by_app, reason });
        } else {
            let mut exit = Exit { by_app, ..Exit::lost(reason) };
            if by_app {
                // It could not be started, and nobody but the application is to blame.
                exit.kind = ExitKind::Failed;
            }
            let tasks = vec![task];
            let reason = exit.reason.clone();
            out.push(FineAction::Undone { tasks, executor, by_app, reason });
            self.end(now, &agent, exit, Seen::Yes, out);
        }
    }

    fn forget(&mut self, task: TaskNo) -> Option<Task> {
        let gone = self.tasks.remove(&task)?;
        self.doubts.settle(&task);
        self.held = self.held.saturating_sub(gone.cpus);
        Some(gone)
    }

    fn heard_of(&mut self, now: Time, agent: &AgentId, out: &mut Vec<FineAction>) {
        if let Some(e) = self.executors.get_mut(agent)
            && e.progress == Progress::Launched
        {
            e.progress = Progress::Up(now);
            out.push(FineAction::Up(e.no));
            self.failures.started();
        }
    }

    pub(super) fn executor_ended(
        &mut self,
        now: Time,
        executor: ExecutorNo,
        exit: Exit,
        seen: Seen,
        out: &mut Vec<FineAction>,
    ) {
        let there = self.executors.iter().find(|(_, e)| e.no == executor);
        if let Some(agent) = there.map(|(agent, _)| agent.clone()) {
            self.end(now, &agent, exit, seen, out);
        }
    }

    /// The executor of this agent is gone, for us.
    pub(super) fn end(
        &mut self,
        now: Time,
        agent: &AgentId,
        exit: Exit,
        seen: Seen,
        out: &mut Vec<FineAction>,
    ) {
        let Some(e) = self.executors.remove(agent) else { return };
        let registered = match e.progress {
            // Nobody has seen it but the driver, in offers that are gone now.
            Progress::Proposed => return,
            Progress::Launched => None,
            Progress::Up(since) => Some(since),
        };
        let with_it: Vec<TaskNo> =
            self.tasks.iter().filter(|(_, t)| t.executor == e.no).map(|(no, _)| *no).collect();
        for task in &with_it {
            self.forget(*task);
        }
        let ran = if exit.by_app && registered.is_some() { with_it } else { Vec::new() };
        let (no, last, done, kind) = (e.launch, self.last_launch, e.done, exit.kind);
        let hostname = e.hostname.as_str();
        let ended = Ended { no, agent, hostname, registered, done, kind, last };
        self.failures.ended(now, &ended);
        // Tasks on their way would start it again; and it may only seem to be gone.
        out.push(FineAction::ShutDown { executor: e.no, agent: agent.clone() });
        if seen == Seen::No {
            self.abandon(now, agent.clone(), e.no);
        }
        if self.failures.hopeless(self.any_hope(), self.any_works(now)) && !self.given_up {
            self.given_up = true;
            out.push(FineAction::GiveUp {
                message: format!(
                    "{MAX_LAUNCH_FAILURES} attempts in a row to start executors failed; the last \
                     was executor {} on {} (agent {agent}): {}. Its standard error, in the \
                     agent's sandbox, says more",
                    e.no, e.hostname, exit.reason
                ),
            });
        }
        if !self.given_up
            && let Some(message) = self.limit.ended(now, e.no, (agent, &e.hostname), &exit)
        {
            self.given_up = true;
            out.push(FineAction::GiveUp { message });
        }
        out.push(FineAction::Ended { executor: e.no, exit, ran });
    }

    /// It is told from time to time to go. The oldest make room.
    fn abandon(&mut self, now: Time, agent: AgentId, executor: ExecutorNo) {
        if self.abandoned.len() >= MAX_REMINDED {
            let oldest = self.abandoned.iter().min_by_key(|(_, r)| r.since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.abandoned.remove(&oldest);
            }
        }
        let (at, pause) = (now + FIRST_REMINDER, FIRST_REMINDER);
        self.abandoned.insert((agent, executor), Reminder { since: now, at, pause });
    }

    /// Says on which agents executors fail.
    pub(super) fn say_avoided(&mut self, out: &mut Vec<FineAction>) {
        let avoided = self.failures.take_avoided();
        if !self.given_up {
            out.extend(avoided.into_iter().map(FineAction::Avoid));
        }
    }

    /// Whether some executor is up, or may come up yet.
    fn any_hope(&self) -> bool {
        self.executors.values().any(|e| e.progress != Progress::Proposed)
    }

    /// Whether some executor does not just begin.
    fn any_works(&self, now: Time) -> bool {
        let works = |e: &Executor| match e.progress {
            Progress::Up(since) => e.done || failures::worked(now, since),
            Progress::Proposed | Progress::Launched => false,
        };
        self.executors.values().any(works)
    }

    pub(super) fn any_up(&self) -> bool {
        self.executors.values().any(|e| matches!(e.progress, Progress::Up(_)))
    }
}
