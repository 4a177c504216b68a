//! The default executor: groups of tasks that the agent runs itself (behaviour
//! rules 56 and 60).
//!
//! There is no executor's process: its container holds what the members share, and
//! each member has a container of its own, held to its own resources.

use std::time::Duration;

use mezz_proto::{
    time::Time,
    v1::{self, TaskState, container_info, executor_info, task_status::Reason},
};

use super::{
    Change, Core, Effect, Effects, ExecutorKey, Launch, TaskKey,
    environment::{Inhabitant, program, uris},
    limits::limits,
    sandbox,
    state::{Doom, Home, KillCause, Owner, Stage},
    timers::Timer,
    update::Verdict,
};
use crate::containerizer::ContainerSpec;

pub(super) fn is_default(info: &v1::ExecutorInfo) -> bool {
    info.r#type() == executor_info::Type::Default
}

/// What only a member of a pod must obey.
pub(super) fn check_member(info: &v1::TaskInfo) -> Result<(), Verdict> {
    let invalid =
        |message: &str| Verdict::new(TaskState::TaskError, Reason::TaskGroupInvalid, message);
    let container = info.container.as_ref();
    if container.is_some_and(|container| container.r#type() == container_info::Type::Docker) {
        return Err(invalid("container.type: DOCKER is not possible in a group"));
    }
    match &info.command {
        Some(_) => Ok(()),
        None => Err(invalid("command: must be set for a task of the DEFAULT executor")),
    }
}

impl Core {
    /// Starts the members that wait, once their pod is there.
    pub(super) fn start_members(&mut self, now: Time, key: &ExecutorKey, out: &mut Effects) {
        let Some(executor) = self.executors.get_mut(key).filter(|executor| executor.is_pod())
        else {
            return;
        };
        let there =
            self.containers.get(&executor.container).is_some_and(|container| container.running);
        if !there || executor.doom.is_some() {
            return;
        }
        for pending in std::mem::take(&mut executor.pending) {
            for task in &pending.tasks {
                let key = key.task(task);
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.stage = Stage::Launching;
                    out.now.push(Effect::Change(Change::TaskLaunched(key)));
                }
            }
            for task in pending.tasks {
                let task_key = key.task(&task);
                let Err(message) = self.start_member(now, key, &task_key, out) else { continue };
                // A member without a container would never end.
                let verdict = match self.tasks.get(&task_key).and_then(|task| task.kill) {
                    Some(KillCause::Executor) => self.doom_of(&task_key),
                    Some(cause) => self.killed(&task_key, cause, false),
                    None => {
                        Verdict::new(TaskState::TaskFailed, Reason::ContainerLaunchFailed, message)
                    }
                };
                self.report(now, &task_key, verdict, out);
            }
        }
    }

    /// Its parts were looked at when it was taken in. What is wrong all the same keeps it
    /// from having a container: the caller ends it.
    fn start_member(
        &mut self,
        now: Time,
        pod: &ExecutorKey,
        key: &TaskKey,
        out: &mut Effects,
    ) -> Result<(), String> {
        let (Some(task), Some(executor), Some(framework)) =
            (self.tasks.get(key), self.executors.get(pod), self.frameworks.get(&key.framework))
        else {
            return Err("its executor or its framework is gone".to_owned());
        };
        let (Home::Member { container: id, .. }, Some(command)) = (&task.home, &task.info.command)
        else {
            return Err("it is no member of a group, or has no command".to_owned());
        };
        // With its group, while the group was being started.
        if !task.is_live() || task.kill.is_some() {
            return Err("it ended before it was started".to_owned());
        }
        let id = id.clone();
        let holder = executor.container.clone();
        let folder = self.sandbox(&pod.framework, pod.executor.as_str(), &holder);
        let sandbox = sandbox::member(&folder, &id);
        let environment = self.environment(
            &framework.info,
            &Inhabitant::Member(&pod.executor, &key.task),
            &task.info.resources,
            task.info.container.as_ref(),
            command,
            &sandbox,
        )?;
        let spec = ContainerSpec {
            id: id.clone(),
            program: program(command)?,
            environment,
            user: self.user(&framework.info, command),
            sandbox,
            resources: task.resources.clone(),
            limits: limits(&task.info),
            info: task.info.container.clone().map(Box::new),
            pod: Some(holder),
        };
        let uris = uris(command);
        let framework = pod.framework.clone();
        let link = Some(sandbox::member_link(&folder, &key.task));
        self.add_container(pod, Owner::Task(key.clone()), &spec, out);
        self.place(key, &id, out);
        let verdict =
            Verdict { state: TaskState::TaskStarting, reason: None, message: String::new() };
        self.report(now, key, verdict, out);
        out.now.push(Effect::Launch(Box::new(Launch { spec, framework, uris, link })));
        Ok(())
    }

    /// A member ended: with it the others of its group, if it failed or was killed
    /// (rule 60), and the pod with its last member.
    pub(super) fn member_ended(
        &mut self,
        now: Time,
        key: &TaskKey,
        pod: &ExecutorKey,
        state: TaskState,
        out: &mut Effects,
    ) {
        let gone = self.executors.get(pod).is_none_or(|executor| executor.gone.is_some());
        // None once the group was ended as a whole, before it was started.
        let group = self.tasks.get(key).and_then(|task| task.group.clone());
        let fatal = matches!(state, TaskState::TaskFailed | TaskState::TaskKilled);
        // With the pod gone they all end for that.
        if !gone && fatal && group.is_some() {
            let others: Vec<TaskKey> = self
                .live_tasks_of(pod)
                .into_iter()
                .filter(|other| self.tasks.get(other).is_some_and(|task| task.group == group))
                .collect();
            for other in others {
                self.kill(now, &other, KillCause::Group, None, out);
            }
        }
        let Some(executor) = self.executors.get(pod).filter(|executor| executor.tasks.is_empty())
        else {
            return;
        };
        if executor.gone.is_some() {
            self.forget_executor(pod, out);
        } else if executor.doom.is_none() {
            self.end_executor(now, pod, "it has no task any more", out);
        } else {
            out.after_persist.push(Effect::Destroy { container: executor.container.clone() });
        }
    }

    /// It is to end, and its members before it.
    pub(super) fn end_members(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        cause: KillCause,
        longest: Option<Duration>,
        out: &mut Effects,
    ) {
        for task in self.live_tasks_of(key) {
            let policy = longest.map(|longest| self.shortened(&task, longest));
            self.kill(now, &task, cause, policy.as_ref(), out);
        }
    }

    /// What the members share is gone, and so are they: whatever runs of them is
    /// ended, and told of when it has ended.
    pub(super) fn holder_ended(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        verdict: &Verdict,
        wait_status: Option<i32>,
        out: &mut Effects,
    ) {
        let Some(executor) = self.executors.get_mut(key) else { return };
        // One that was ended on purpose has done what it was there for.
        let status = if executor.doom.is_some() { 0 } else { wait_status.unwrap_or(-1) };
        executor.gone = Some(status);
        if executor.doom.is_none() {
            executor.doom = Some(Doom {
                state: verdict.state,
                reason: verdict.reason.unwrap_or(Reason::ExecutorTerminated),
                message: verdict.message.clone(),
                at: now,
            });
            self.persist_executor(key, out);
        }
        self.timers.cancel(&Timer::Shutdown(key.clone()));
        self.end_members(now, key, KillCause::Executor, Some(Duration::ZERO), out);
        let empty = self.executors.get(key).is_some_and(|executor| executor.tasks.is_empty());
        if empty {
            self.forget_executor(key, out);
        }
    }

    /// What the end of its executor is to a member.
    pub(super) fn doom_of(&self, key: &TaskKey) -> Verdict {
        let doom = self.tasks.get(key).and_then(|task| {
            let executor = self.executors.get(&key.executor(task.home.executor()?))?;
            executor.doom.as_ref()
        });
        match doom {
            Some(doom) => Verdict::new(doom.state, doom.reason, &doom.message),
            None => Verdict::new(
                TaskState::TaskFailed,
                Reason::ExecutorTerminated,
                "its executor ended",
            ),
        }
    }
}
