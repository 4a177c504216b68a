//! What the shell tells of containers.

use std::time::Duration;

use mezz_proto::{
    ids::ContainerId,
    time::Time,
    v1::{TaskState, task_status::Reason},
};

use super::{
    Change, Core, Effect, Effects, StoreOp, TaskKey,
    environment::nanoseconds,
    outcome::{self, End},
    records::SandboxRecord,
    state::{Container, KillCause, Owner, Stage},
    timers::Timer,
    update::Verdict,
};
use crate::containerizer::Limitation;

impl Core {
    pub(super) fn on_container_launched(
        &mut self,
        now: Time,
        id: &ContainerId,
        pid: u32,
        out: &mut Effects,
    ) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.running = true;
        let owner = container.owner.clone();
        let change = Change::ContainerRunning { container: id.clone(), pid };
        out.now.push(Effect::Change(change));
        match owner {
            Owner::Task(key) => self.task_runs(now, &key, out),
            // Tasks may have come while it was being started.
            Owner::Executor(key) => {
                self.await_registration(now, &key);
                self.update_limits(&key, out);
                self.start_members(now, &key, out);
            }
        }
    }

    pub(super) fn task_runs(&mut self, now: Time, key: &TaskKey, out: &mut Effects) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        // One that is to be killed was never seen running.
        if task.stage != Stage::Launching || task.kill.is_some() {
            return;
        }
        task.stage = Stage::Running;
        task.running_since = Some(now);
        let longest = task.info.max_completion_time.as_ref().map(nanoseconds);
        let verdict =
            Verdict { state: TaskState::TaskRunning, reason: None, message: String::new() };
        self.report(now, key, verdict, out);
        if let Some(longest) = longest {
            self.timers.set(Timer::Completion(key.clone()), now + longest);
        }
        self.start_checks(now, key);
    }

    pub(super) fn on_launch_failed(
        &mut self,
        now: Time,
        id: &ContainerId,
        error: String,
        out: &mut Effects,
    ) {
        let Some(container) = self.close_container(now, id, out) else { return };
        let failed = Verdict::new(TaskState::TaskFailed, Reason::ContainerLaunchFailed, error);
        self.owner_ended(now, container.owner, failed, None, out);
    }

    pub(super) fn on_container_ended(
        &mut self,
        now: Time,
        id: &ContainerId,
        end: &End,
        out: &mut Effects,
    ) {
        let Some(container) = self.close_container(now, id, out) else { return };
        let framework = &container.executor.framework;
        let wait_status = end.termination.wait_status;
        let verdict = if container.rebooted && wait_status.is_none() {
            self.rebooted(framework)
        } else if let Owner::Task(_) = container.owner {
            outcome::command(end)
        } else {
            outcome::executor(end)
        };
        self.owner_ended(now, container.owner, verdict, wait_status, out);
        out.after_persist.push(Effect::Remove { container: id.clone() });
    }

    /// It ends for what it has taken. That is stored before, as with any other kill:
    /// the next agent must not take it for one that failed.
    pub(super) fn on_container_limited(
        &mut self,
        now: Time,
        id: &ContainerId,
        limitation: Limitation,
        out: &mut Effects,
    ) {
        let Some(container) = self.containers.get(id) else { return };
        match container.owner.clone() {
            Owner::Task(key) => {
                if let Some(task) = self.tasks.get_mut(&key).filter(|task| task.kill.is_none()) {
                    task.limitation = Some(limitation);
                }
                self.kill_command(now, &key, KillCause::Limitation, None, Duration::ZERO, out);
            }
            Owner::Executor(key) => self.end_limited_executor(now, &key, &limitation, out),
        }
    }

    fn owner_ended(
        &mut self,
        now: Time,
        owner: Owner,
        verdict: Verdict,
        wait_status: Option<i32>,
        out: &mut Effects,
    ) {
        match owner {
            Owner::Task(key) => self.command_ended(now, &key, verdict, out),
            Owner::Executor(key) => self.executor_ended(now, &key, verdict, wait_status, out),
        }
    }

    pub(super) fn command_ended(
        &mut self,
        now: Time,
        key: &TaskKey,
        verdict: Verdict,
        out: &mut Effects,
    ) {
        let Some(task) = self.tasks.get(key) else { return };
        // Asked to end, and it did: killed, whatever its exit status (rule 59).
        let verdict = match task.kill {
            Some(KillCause::Executor) => self.doom_of(key),
            Some(cause) => self.killed(key, cause, task.running_since.is_some()),
            None => verdict,
        };
        self.report(now, key, verdict, out);
    }

    /// Takes an ended container out; its sandbox stays to be read.
    pub(super) fn close_container(
        &mut self,
        now: Time,
        id: &ContainerId,
        out: &mut Effects,
    ) -> Option<Container> {
        let container = self.containers.remove(id)?;
        out.persist.push(StoreOp::PutSandbox(SandboxRecord {
            container_id: id.to_string(),
            framework_id: container.executor.framework.to_string(),
            executor_id: container.executor.executor.to_string(),
            path: container.sandbox.display().to_string(),
            ended_at: Some(now.as_nanos()),
        }));
        let change = Change::ContainerEnded { container: id.clone(), at: now };
        out.now.push(Effect::Change(change));
        Some(container)
    }
}
