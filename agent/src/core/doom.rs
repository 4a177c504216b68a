//! The end of executors (behaviour rules 40, 42, 52 and 53).

use std::time::Duration;

use mezz_proto::{
    mezz::v1 as mezz,
    time::Time,
    v1::{
        TaskState,
        executor::{Event, event},
        task_status::Reason,
    },
};

use super::{
    Change, Core, Effect, Effects, ExecutorKey, StoreOp,
    environment::RECOVERY_TIMEOUT,
    executor::send,
    outcome::{is_limitation, limited},
    state::{Doom, KillCause},
    timers::Timer,
    update::Verdict,
};
use crate::containerizer::Limitation;

impl Core {
    pub(super) fn persist_executor(&self, key: &ExecutorKey, out: &mut Effects) {
        if let Some(executor) = self.executors.get(key) {
            let record = Box::new(executor.record(key));
            out.persist.push(StoreOp::PutExecutor(key.clone(), record));
        }
    }

    /// Asks an executor to end, and makes it when the grace is over.
    pub(super) fn end_executor(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        why: &str,
        out: &mut Effects,
    ) {
        let Some(executor) = self.executors.get(key) else { return };
        let connection = executor.connection;
        let members = executor.is_pod() && !executor.tasks.is_empty();
        let grace = match connection {
            // There is nobody to be asked.
            None if !members => Duration::ZERO,
            _ => self.drained_grace(self.shutdown_grace(&executor.info)),
        };
        let doom = Doom {
            state: TaskState::TaskFailed,
            reason: Reason::ExecutorTerminated,
            message: format!("the executor was shut down: {why}"),
            at: now + grace,
        };
        let doomed = self.doom(now, key, doom, out);
        if doomed && members {
            let cause = match self.is_shutting_down(&key.framework) {
                true => KillCause::Framework,
                false => KillCause::Request,
            };
            self.end_members(now, key, cause, Some(grace), out);
        }
        if doomed && let Some(connection) = connection.filter(|_| !grace.is_zero()) {
            let event = Event { r#type: Some(event::Type::Shutdown.into()), ..Event::default() };
            // Behind the launches that still wait for the store.
            out.after_persist.push(send(connection, event));
        }
    }

    /// One that is to end already has no more grace than `longest` from now on.
    pub(super) fn hasten_executor(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        longest: Duration,
        out: &mut Effects,
    ) {
        let latest = now + longest;
        let Some(executor) = self.executors.get_mut(key) else { return };
        let doom = executor.doom.as_mut().filter(|doom| doom.at > latest);
        let Some(doom) = doom.filter(|_| executor.gone.is_none()) else { return };
        doom.at = latest;
        self.persist_executor(key, out);
        self.await_executor_end(now, key, latest, out);
    }

    /// One whose container has taken more than it may ends at once, also in its grace.
    pub(super) fn end_limited_executor(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        limitation: &Limitation,
        out: &mut Effects,
    ) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        executor.doom.take_if(|doom| doom.at > now);
        let Verdict { state, reason, message } = limited(limitation);
        let reason = reason.unwrap_or(Reason::ContainerLimitation);
        self.doom(now, key, Doom { state, reason, message, at: now }, out);
    }

    pub(super) fn on_registration_timeout(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        out: &mut Effects,
    ) {
        let wait = self.options.executor_registration_timeout;
        let doom = Doom {
            state: TaskState::TaskFailed,
            reason: Reason::ExecutorRegistrationTimeout,
            message: format!("the executor did not subscribe within {wait:?} of its start"),
            at: now,
        };
        self.doom(now, key, doom, out);
    }

    pub(super) fn on_reregistration_timeout(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        out: &mut Effects,
    ) {
        let wait = self.options.executor_reregistration_timeout;
        let doom = Doom {
            state: self.lost_or(&key.framework, TaskState::TaskGone),
            reason: Reason::ExecutorReregistrationTimeout,
            message: format!("the executor did not come back within {wait:?} of the agent's start"),
            at: now,
        };
        self.doom(now, key, doom, out);
    }

    pub(super) fn on_executor_away_too_long(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        out: &mut Effects,
    ) {
        let doom = Doom {
            state: TaskState::TaskFailed,
            reason: Reason::ExecutorTerminated,
            message: format!(
                "the executor lost its connection to the agent, was still alive and did not come \
                 back within {RECOVERY_TIMEOUT:?}"
            ),
            at: now,
        };
        self.doom(now, key, doom, out);
    }

    /// Decides that an executor ends, once. Stored before anything is done about
    /// it: no restart of the agent lets it live on, or forgets why.
    fn doom(&mut self, now: Time, key: &ExecutorKey, doom: Doom, out: &mut Effects) -> bool {
        let Some(executor) = self.executors.get_mut(key) else { return false };
        if executor.doom.is_some() {
            return false;
        }
        let at = doom.at;
        executor.doom = Some(doom);
        self.persist_executor(key, out);
        self.await_executor_no_more(key);
        self.await_executor_end(now, key, at, out);
        true
    }

    fn await_executor_end(&mut self, now: Time, key: &ExecutorKey, at: Time, out: &mut Effects) {
        if at > now {
            self.timers.set(Timer::Shutdown(key.clone()), at);
        } else {
            self.timers.cancel(&Timer::Shutdown(key.clone()));
            self.on_shutdown_grace_over(now, key, out);
        }
    }

    /// A pod goes with its last member, as they need it to the end.
    pub(super) fn on_shutdown_grace_over(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        out: &mut Effects,
    ) {
        let Some(executor) = self.executors.get(key) else { return };
        if executor.is_pod() && !executor.tasks.is_empty() {
            self.end_members(now, key, KillCause::Executor, Some(Duration::ZERO), out);
        } else {
            out.after_persist.push(Effect::Destroy { container: executor.container.clone() });
        }
    }

    /// Its container is gone. Its tasks' updates come before the word of its own
    /// end, so that no framework sees a dead executor with live tasks.
    pub(super) fn executor_ended(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        verdict: Verdict,
        wait_status: Option<i32>,
        out: &mut Effects,
    ) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        let verdict = match &executor.doom {
            Some(doom) if !is_limitation(verdict.reason) => {
                Verdict::new(doom.state, doom.reason, &doom.message)
            }
            _ => verdict,
        };
        if executor.is_pod() {
            self.holder_ended(now, key, &verdict, wait_status, out);
            return;
        }
        executor.gone = Some(wait_status.unwrap_or(-1));
        executor.pending.clear();
        for task in self.live_tasks_of(key) {
            self.report(now, &task, verdict.clone(), out);
        }
        self.forget_executor(key, out);
    }

    /// It has ended, and so have its tasks.
    pub(super) fn forget_executor(&mut self, key: &ExecutorKey, out: &mut Effects) {
        let Some(executor) = self.executors.remove(key) else { return };
        if let Some(connection) = executor.connection {
            self.connections.remove(&connection);
            out.now.push(Effect::CloseExecutor { connection, error: None });
        }
        self.await_executor_no_more(key);
        self.timers.cancel(&Timer::Shutdown(key.clone()));
        out.persist.push(StoreOp::RemoveExecutor(key.clone()));
        out.now.push(Effect::Change(Change::ExecutorForgotten(key.clone())));
        if !self.is_shutting_down(&key.framework) {
            let terminated = mezz::ExecutorTerminated {
                framework_id: (&key.framework).into(),
                executor_id: (&key.executor).into(),
                status: executor.gone.unwrap_or(-1),
            };
            self.tell_executor_terminated(terminated, out);
        }
        self.forget_idle_framework(&key.framework, out);
    }
}
