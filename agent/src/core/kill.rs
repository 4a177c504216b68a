//! Ending tasks, executors and frameworks on request (behaviour rules 39, 42
//! and 59).

use std::time::Duration;

use mezz_proto::{
    ids::{ExecutorId, FrameworkId, TaskId},
    mezz::v1 as mezz,
    time::Time,
    v1::{self, TaskState, framework_info::capability::Type as Capability, task_status::Reason},
};

use super::{
    Core, Effect, Effects, ExecutorKey, TaskKey,
    environment::nanoseconds,
    state::{Doom, Home, KillCause, Stage},
    timers::Timer,
    update::Verdict,
};

/// On every machine that we run on.
const SIGTERM: i32 = 15;

impl Core {
    pub(super) fn on_kill_task(&mut self, now: Time, kill: &mezz::KillTask, out: &mut Effects) {
        let key = TaskKey {
            framework: FrameworkId::from(&kill.framework_id),
            task: TaskId::from(&kill.task_id),
        };
        self.kill(now, &key, KillCause::Request, kill.kill_policy.as_ref(), out);
    }

    fn kill(
        &mut self,
        now: Time,
        key: &TaskKey,
        cause: KillCause,
        policy: Option<&v1::KillPolicy>,
        out: &mut Effects,
    ) {
        let Some(task) = self.tasks.get(key).filter(|task| task.is_live()) else { return };
        match (task.home.clone(), task.stage) {
            (Home::Command(container), Stage::Running) => {
                let grace = policy
                    .or(task.info.kill_policy.as_ref())
                    .and_then(|policy| policy.grace_period.as_ref())
                    .map_or(self.options.kill_grace, nanoseconds);
                if task.kill.is_none() {
                    self.begin_kill(now, key, cause, out);
                    self.terminate(now, key, grace, out);
                } else {
                    self.shorten(now, key, &container, grace, out);
                }
            }
            (Home::Command(container), _) => {
                self.mark_kill(key, cause, policy, out);
                out.now.push(Effect::Destroy { container });
            }
            (Home::Executor(id), Stage::Queued) => self.kill_queued(now, key, &id, out),
            (Home::Executor(id), _) => {
                self.mark_kill(key, cause, policy, out);
                self.ask_executor_to_kill(&key.executor(&id), key, out);
            }
            (Home::None, _) => {}
        }
    }

    fn mark_kill(
        &mut self,
        key: &TaskKey,
        cause: KillCause,
        policy: Option<&v1::KillPolicy>,
        out: &mut Effects,
    ) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let first = task.kill.is_none();
        task.kill.get_or_insert(cause);
        task.kill_policy = policy.cloned();
        if first {
            self.persist_state(key, out);
        }
    }

    fn begin_kill(&mut self, now: Time, key: &TaskKey, cause: KillCause, out: &mut Effects) {
        self.mark_kill(key, cause, None, out);
        let tells = self.frameworks.get(&key.framework).is_some_and(|framework| {
            !framework.shutting_down && framework.has(Capability::TaskKillingState)
        });
        if tells {
            let verdict =
                Verdict { state: TaskState::TaskKilling, reason: None, message: String::new() };
            self.report(now, key, verdict, out);
        }
    }

    /// SIGTERM, and SIGKILL when the grace is over.
    pub(super) fn terminate(
        &mut self,
        now: Time,
        key: &TaskKey,
        grace: Duration,
        out: &mut Effects,
    ) {
        let Some(Home::Command(container)) = self.tasks.get(key).map(|task| task.home.clone())
        else {
            return;
        };
        if grace.is_zero() {
            out.now.push(Effect::Destroy { container });
        } else {
            out.now.push(Effect::Signal { container, signal: SIGTERM });
            self.timers.set(Timer::Kill(key.clone()), now + grace);
        }
    }

    /// A repeated kill may only bring the end nearer (rule 59).
    fn shorten(
        &mut self,
        now: Time,
        key: &TaskKey,
        container: &mezz_proto::ids::ContainerId,
        grace: Duration,
        out: &mut Effects,
    ) {
        let timer = Timer::Kill(key.clone());
        match self.timers.get(&timer) {
            Some(_) if grace.is_zero() => {
                self.timers.cancel(&timer);
                out.now.push(Effect::Destroy { container: container.clone() });
            }
            Some(at) if now + grace < at => self.timers.set(timer, now + grace),
            Some(_) | None => {}
        }
    }

    pub(super) fn on_kill_grace_over(&mut self, key: &TaskKey, out: &mut Effects) {
        if let Some(Home::Command(container)) = self.tasks.get(key).map(|task| &task.home) {
            out.now.push(Effect::Destroy { container: container.clone() });
        }
    }

    pub(super) fn on_max_completion(&mut self, key: &TaskKey, out: &mut Effects) {
        let Some(task) = self.tasks.get(key).filter(|task| task.is_live()) else { return };
        let Home::Command(container) = task.home.clone() else { return };
        if task.kill.is_none() {
            self.mark_kill(key, KillCause::MaxCompletion, None, out);
            out.now.push(Effect::Destroy { container });
        }
    }

    /// The task has not reached its executor: it ends here, with its group.
    fn kill_queued(&mut self, now: Time, key: &TaskKey, id: &ExecutorId, out: &mut Effects) {
        let executor_key = key.executor(id);
        let Some(executor) = self.executors.get(&executor_key) else { return };
        let group: Vec<TaskId> = executor
            .pending
            .iter()
            .find(|pending| pending.tasks.contains(&key.task))
            .map(|pending| pending.tasks.clone())
            .unwrap_or_default();
        for task in group {
            let verdict = Self::killed(KillCause::Request, false);
            self.report(now, &executor_key.task(&task), verdict, out);
        }
        let useless = self
            .executors
            .get(&executor_key)
            .is_some_and(|executor| executor.tasks.is_empty() && !executor.subscribed_once);
        if useless {
            self.end_executor(now, &executor_key, "it has no task any more", out);
        }
    }

    pub(super) fn on_shutdown_executor(
        &mut self,
        now: Time,
        shutdown: &mezz::ShutdownExecutor,
        out: &mut Effects,
    ) {
        let key = ExecutorKey {
            framework: FrameworkId::from(&shutdown.framework_id),
            executor: ExecutorId::from(&shutdown.executor_id),
        };
        self.end_executor(now, &key, "its framework asked for it", out);
    }

    /// Asks an executor to end, and makes it when the grace is over.
    fn end_executor(&mut self, now: Time, key: &ExecutorKey, why: &str, out: &mut Effects) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        if executor.doom.is_some() {
            return;
        }
        executor.doom = Some(Doom {
            state: TaskState::TaskFailed,
            reason: Reason::ExecutorTerminated,
            message: format!("the executor was shut down: {why}"),
        });
        let container = executor.container.clone();
        let Some(executor) = self.executors.get(key) else { return };
        let grace = self.shutdown_grace(&executor.info);
        self.timers.cancel(&Timer::Registration(key.clone()));
        self.timers.cancel(&Timer::Reregistration(key.clone()));
        match executor.connection {
            Some(connection) if !grace.is_zero() => {
                let event = v1::executor::Event {
                    r#type: Some(v1::executor::event::Type::Shutdown.into()),
                    ..Default::default()
                };
                // Behind the launches that still wait for the store.
                out.now.push(Effect::SendExecutor { connection, event: Box::new(event) });
                self.timers.set(Timer::Shutdown(key.clone()), now + grace);
            }
            _ => out.now.push(Effect::Destroy { container }),
        }
    }

    pub(super) fn on_shutdown_grace_over(&mut self, key: &ExecutorKey, out: &mut Effects) {
        if let Some(executor) = self.executors.get(key) {
            out.now.push(Effect::Destroy { container: executor.container.clone() });
        }
    }

    /// Ends all that a removed framework has here; nobody is told (rule 16).
    pub(super) fn shutdown_framework(&mut self, now: Time, id: &FrameworkId, out: &mut Effects) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.shutting_down = true;
        let tasks: Vec<TaskKey> = self.tasks_of(id).cloned().collect();
        for key in tasks {
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            if !task.is_live() {
                self.forget_task(&key, out);
                continue;
            }
            task.updates.clear();
            task.retry = None;
            let home = task.home.clone();
            self.timers.cancel(&Timer::Retry(key.clone()));
            // An executor ends its own tasks when it is told to shut down.
            if let Home::Command(_) = home {
                self.kill(now, &key, KillCause::Framework, None, out);
            }
        }
        let executors: Vec<ExecutorKey> = self.executors_of(id).cloned().collect();
        for key in executors {
            self.end_executor(now, &key, "its framework was removed", out);
        }
    }
}
