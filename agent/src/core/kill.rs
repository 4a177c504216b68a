//! Ending tasks, executors and frameworks on request (behaviour rules 39, 42
//! and 59).

use std::{collections::VecDeque, time::Duration};

use mezz_proto::{
    ids::{ExecutorId, FrameworkId, TaskId},
    labels,
    mezz::v1 as mezz,
    time::Time,
    v1::{self, TaskState, framework_info::capability::Type as Capability, task_status::Reason},
};

use super::{
    Core, Effect, Effects, ExecutorKey, TaskKey,
    admission::is_docker,
    environment::nanoseconds,
    state::{Home, KillCause, Stage},
    timers::Timer,
    update::Verdict,
};
use crate::containerizer::Addressee;

/// On every machine that we run on.
const SIGTERM: i32 = 15;

/// Rule 59.
const DOCKER_GRACE: Duration = Duration::from_secs(5);

/// Whom the first signal of a kill goes to, as the task's label says.
pub(super) fn addressee(task: &v1::TaskInfo) -> Result<Addressee, String> {
    match labels::find(task.labels.as_ref(), labels::KILL_SIGNAL) {
        None | Some(labels::KILL_SIGNAL_TREE) => Ok(Addressee::Tree),
        Some(labels::KILL_SIGNAL_FIRST_PROCESS) => Ok(Addressee::FirstProcess),
        Some(other) => Err(format!(
            "labels: {} is `{other}`; it must be {} or {}",
            labels::KILL_SIGNAL,
            labels::KILL_SIGNAL_TREE,
            labels::KILL_SIGNAL_FIRST_PROCESS
        )),
    }
}

impl Core {
    pub(super) fn on_kill_task(&mut self, now: Time, kill: &mezz::KillTask, out: &mut Effects) {
        let key = TaskKey {
            framework: FrameworkId::from(&kill.framework_id),
            task: TaskId::from(&kill.task_id),
        };
        self.kill(now, &key, KillCause::Request, kill.kill_policy.as_ref(), out);
    }

    pub(super) fn kill(
        &mut self,
        now: Time,
        key: &TaskKey,
        cause: KillCause,
        policy: Option<&v1::KillPolicy>,
        out: &mut Effects,
    ) {
        let Some(task) = self.tasks.get(key).filter(|task| task.is_live()) else { return };
        match (task.home.clone(), task.stage) {
            (Home::Command(_) | Home::Member { .. }, Stage::Running) => {
                let policy_of = policy.or(task.info.kill_policy.as_ref());
                let grace = self.kill_grace(&task.info, policy_of);
                self.kill_command(now, key, cause, policy, grace, out);
            }
            (Home::Member { executor, .. }, Stage::Queued) => {
                self.kill_queued(now, key, &executor, cause, out);
            }
            (Home::Command(_) | Home::Member { .. }, _) => {
                self.kill_command(now, key, cause, policy, Duration::ZERO, out);
            }
            (Home::Executor(id), Stage::Queued) => self.kill_queued(now, key, &id, cause, out),
            (Home::Executor(id), _) => {
                self.mark_kill(key, cause, policy, None, out);
                self.ask_executor_to_kill(&key.executor(&id), key, out);
            }
            (Home::None, _) => {}
        }
    }

    /// Between SIGTERM and SIGKILL: what the policy says, or the default, which is
    /// longer for Docker (rule 59).
    pub(super) fn kill_grace(
        &self,
        task: &v1::TaskInfo,
        policy: Option<&v1::KillPolicy>,
    ) -> Duration {
        let given = policy.and_then(|policy| policy.grace_period.as_ref()).map(nanoseconds);
        given.unwrap_or_else(|| match is_docker(task.container.as_ref()) {
            true => self.options.kill_grace.max(DOCKER_GRACE),
            false => self.options.kill_grace,
        })
    }

    /// Notes a kill, so that it goes on after a restart of the agent.
    fn mark_kill(
        &mut self,
        key: &TaskKey,
        cause: KillCause,
        policy: Option<&v1::KillPolicy>,
        at: Option<Time>,
        out: &mut Effects,
    ) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let before = (task.kill, task.kill_policy, task.kill_at);
        task.kill.get_or_insert(cause);
        task.kill_policy = policy.copied().or(task.kill_policy);
        task.kill_at = at.or(task.kill_at);
        if before != (task.kill, task.kill_policy, task.kill_at) {
            self.persist_state(key, out);
        }
    }

    /// A repeated kill may only bring the end nearer (rule 59).
    pub(super) fn kill_command(
        &mut self,
        now: Time,
        key: &TaskKey,
        cause: KillCause,
        policy: Option<&v1::KillPolicy>,
        grace: Duration,
        out: &mut Effects,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        let (first, running, at) = (task.kill.is_none(), task.stage == Stage::Running, now + grace);
        if task.kill_at.is_some_and(|before| before <= at) {
            return;
        }
        self.mark_kill(key, cause, policy, Some(at), out);
        self.stop_checks(key);
        let tells = first
            && running
            && cause.is_told()
            && self
                .frameworks
                .get(&key.framework)
                .is_some_and(|framework| framework.has(Capability::TaskKillingState));
        if tells {
            let reason = matches!(cause, KillCause::Drain | KillCause::Gone)
                .then_some(Reason::AgentDraining);
            let verdict = Verdict { state: TaskState::TaskKilling, reason, message: String::new() };
            self.report(now, key, verdict, out);
        }
        if first || at <= now {
            self.terminate(now, key, at, out);
        } else {
            self.timers.set(Timer::Kill(key.clone()), at);
        }
    }

    /// SIGTERM, and SIGKILL at `at`. Both behind the store: a task that is gone by
    /// them must not be found failed by the next agent.
    pub(super) fn terminate(&mut self, now: Time, key: &TaskKey, at: Time, out: &mut Effects) {
        let task = self.tasks.get(key);
        let Some(container) = task.and_then(|task| task.home.container()).cloned() else { return };
        if at <= now {
            self.timers.cancel(&Timer::Kill(key.clone()));
            out.after_persist.push(Effect::Destroy { container });
        } else {
            self.timers.set(Timer::Kill(key.clone()), at);
            let to = task.and_then(|task| addressee(&task.info).ok()).unwrap_or_default();
            out.after_persist.push(Effect::Signal { container, signal: SIGTERM, to });
        }
    }

    pub(super) fn on_kill_grace_over(&mut self, key: &TaskKey, out: &mut Effects) {
        if let Some(container) = self.tasks.get(key).and_then(|task| task.home.container()) {
            out.after_persist.push(Effect::Destroy { container: container.clone() });
        }
    }

    pub(super) fn on_max_completion(&mut self, now: Time, key: &TaskKey, out: &mut Effects) {
        let Some(task) = self.tasks.get(key).filter(|task| task.is_live()) else { return };
        if task.kill.is_none() && task.home.container().is_some() {
            self.kill_command(now, key, KillCause::MaxCompletion, None, Duration::ZERO, out);
        }
    }

    /// The task has not reached its executor: it ends here, with its group.
    fn kill_queued(
        &mut self,
        now: Time,
        key: &TaskKey,
        id: &ExecutorId,
        cause: KillCause,
        out: &mut Effects,
    ) {
        let executor_key = key.executor(id);
        let Some(executor) = self.executors.get_mut(&executor_key) else { return };
        let at = executor.pending.iter().position(|pending| pending.tasks.contains(&key.task));
        let Some(pending) = at.and_then(|at| executor.pending.remove(at)) else { return };
        // They end for this cause, each on its own: none ends the others.
        for task in &pending.tasks {
            if let Some(task) = self.tasks.get_mut(&executor_key.task(task)) {
                task.group = None;
            }
        }
        for task in pending.tasks {
            let key = executor_key.task(&task);
            let verdict = match cause {
                KillCause::Executor => self.doom_of(&key),
                cause => self.killed(&key, cause, false),
            };
            self.report(now, &key, verdict, out);
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
            task.retry = None;
            let home = task.home.clone();
            self.change_updates(&key, out, VecDeque::clear);
            self.timers.cancel(&Timer::Retry(key.clone()));
            // An executor ends its own tasks when it is told to shut down.
            if home.container().is_some() {
                self.kill(now, &key, KillCause::Framework, None, out);
            }
        }
        let executors: Vec<ExecutorKey> = self.executors_of(id).cloned().collect();
        for key in executors {
            self.end_executor(now, &key, "its framework was removed", out);
        }
    }
}
