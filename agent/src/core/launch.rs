//! Taking tasks in.

use std::collections::BTreeSet;

use mezz_proto::{
    ids::{ContainerId, ExecutorId, FrameworkId, TaskId},
    mezz::v1 as mezz,
    time::Time,
    v1::{self, TaskState, task_status::Reason},
};

use super::{
    Change, Core, Effect, Effects, ExecutorKey, Launch, SandboxRecord, StoreOp, TaskKey,
    admission::{is_docker, parse},
    check,
    environment::{Inhabitant, image_program, program, uris},
    kill::addressee,
    limits::limits,
    sandbox,
    state::{Container, Framework, Home, Owner, Stage, Task},
    update::Verdict,
};
use crate::containerizer::ContainerSpec;

/// The status of an executor that never was: Mesos' word for none.
const NOT_STARTED: i32 = -1;

impl Core {
    pub(super) fn on_run_tasks(&mut self, now: Time, run: mezz::RunTasks, out: &mut Effects) {
        let Some(id) = run.framework.id.as_ref().map(FrameworkId::from) else { return };
        self.put_framework(&id, run.framework, out);
        let mut running = run.running_executors.iter().map(ExecutorId::from).collect();
        match run.group_executor {
            Some(executor) => self.launch_group(now, &id, run.tasks, executor, &mut running, out),
            None => {
                for info in run.tasks {
                    self.launch_task(now, &id, info, &mut running, out);
                }
            }
        }
        self.forget_idle_framework(&id, out);
    }

    /// Also tells that a framework is back, which wants its updates at once.
    pub(super) fn on_update_framework(
        &mut self,
        now: Time,
        info: v1::FrameworkInfo,
        out: &mut Effects,
    ) {
        let Some(id) = info.id.as_ref().map(FrameworkId::from) else { return };
        if self.frameworks.contains_key(&id) {
            self.put_framework(&id, info, out);
            self.send_again(now, &id, out);
        }
    }

    fn put_framework(&mut self, id: &FrameworkId, info: v1::FrameworkInfo, out: &mut Effects) {
        match self.frameworks.get_mut(id) {
            Some(known) if known.info == info => return,
            Some(known) => known.info = info.clone(),
            None => {
                let framework = Framework { info: info.clone(), shutting_down: false };
                self.frameworks.insert(id.clone(), framework);
            }
        }
        out.now.push(Effect::Change(Change::Framework(Box::new(info.clone()))));
        out.persist.push(StoreOp::PutFramework(id.clone(), Box::new(info)));
    }

    fn launch_task(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        info: v1::TaskInfo,
        running: &mut BTreeSet<ExecutorId>,
        out: &mut Effects,
    ) {
        let key = TaskKey { framework: framework.clone(), task: TaskId::from(&info.task_id) };
        if self.tasks.contains_key(&key) {
            // Sent again; task ids are used again only after the acknowledgement
            // of the last update.
            return;
        }
        let launched = match info.executor.clone() {
            None => self.launch_command(&key, &info, out),
            Some(executor) => {
                let tasks = vec![info.clone()];
                self.still_runs(framework, &executor, running).and_then(|()| {
                    self.launch_on_executor(now, framework, tasks, executor, false, out)
                })
            }
        };
        if let Err(verdict) = launched {
            let executor = info.executor.clone();
            self.refuse(now, &key, info, verdict, out);
            if let Some(executor) = executor {
                self.tell_not_started(framework, &executor, running, out);
            }
        }
    }

    /// All of the tasks start, or none does.
    fn launch_group(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        tasks: Vec<v1::TaskInfo>,
        executor: v1::ExecutorInfo,
        running: &mut BTreeSet<ExecutorId>,
        out: &mut Effects,
    ) {
        let key = |info: &v1::TaskInfo| TaskKey {
            framework: framework.clone(),
            task: TaskId::from(&info.task_id),
        };
        let fresh: BTreeSet<TaskKey> =
            tasks.iter().map(key).filter(|key| !self.tasks.contains_key(key)).collect();
        if fresh.len() != tasks.len() || tasks.is_empty() {
            return;
        }
        let launched = self.still_runs(framework, &executor, running).and_then(|()| {
            self.launch_on_executor(now, framework, tasks.clone(), executor.clone(), true, out)
        });
        if let Err(verdict) = launched {
            for info in tasks {
                self.refuse(now, &key(&info), info, verdict.clone(), out);
            }
            self.tell_not_started(framework, &executor, running, out);
        }
    }

    /// One that the master counts as running and that has ended here is not started again
    /// (Mesos' `launch_executor`, MESOS-1720).
    fn still_runs(
        &self,
        framework: &FrameworkId,
        executor: &v1::ExecutorInfo,
        running: &BTreeSet<ExecutorId>,
    ) -> Result<(), Verdict> {
        let id = ExecutorId::from(&executor.executor_id);
        let key = ExecutorKey { framework: framework.clone(), executor: id };
        if !running.contains(&key.executor) || self.executors.contains_key(&key) {
            return Ok(());
        }
        Err(Verdict::new(
            self.lost_or(framework, TaskState::TaskDropped),
            Reason::ExecutorTerminated,
            format!("executor {} has ended", key.executor),
        ))
    }

    /// The first task of a new executor was refused: the master gives back what it holds for
    /// it, and no other of these tasks starts it.
    fn tell_not_started(
        &mut self,
        framework: &FrameworkId,
        executor: &v1::ExecutorInfo,
        running: &mut BTreeSet<ExecutorId>,
        out: &mut Effects,
    ) {
        let executor = ExecutorId::from(&executor.executor_id);
        let key = ExecutorKey { framework: framework.clone(), executor };
        let counted = !self.is_shutting_down(framework) && !self.executors.contains_key(&key);
        if counted && running.insert(key.executor.clone()) {
            let terminated = mezz::ExecutorTerminated {
                framework_id: framework.into(),
                executor_id: (&key.executor).into(),
                status: NOT_STARTED,
            };
            self.tell_executor_terminated(terminated, out);
        }
    }

    pub(super) fn add_task(&mut self, key: &TaskKey, task: Task, out: &mut Effects) {
        let record = Box::new(task.record(&key.framework));
        out.persist.push(StoreOp::PutTask(key.clone(), record));
        out.persist.push(StoreOp::PutTaskState(key.clone(), task.state_record()));
        self.live_tasks += 1;
        self.announce_task(key, &task, out);
        self.tasks.insert(key.clone(), task);
    }

    fn launch_command(
        &mut self,
        key: &TaskKey,
        info: &v1::TaskInfo,
        out: &mut Effects,
    ) -> Result<(), Verdict> {
        self.admit(&key.framework, std::slice::from_ref(info))?;
        let invalid =
            |message: String| Verdict::new(TaskState::TaskError, Reason::TaskInvalid, message);
        let command = info.command.as_ref().ok_or_else(|| {
            invalid("neither command nor executor is set: there is nothing to run".to_owned())
        })?;
        self.check_container(info.container.as_ref())?;
        let resources = parse(&info.resources)?;
        let program = match is_docker(info.container.as_ref()) {
            true => image_program(command),
            false => program(command),
        };
        let program = program.map_err(invalid)?;
        let checks = check::parse(info).map_err(invalid)?;
        addressee(info).map_err(invalid)?;
        let Some(framework) = self.frameworks.get(&key.framework) else { return Ok(()) };
        let id = self.ids.container();
        let sandbox = self.sandbox(&key.framework, key.task.as_str(), &id);
        let environment = self
            .environment(
                &framework.info,
                &Inhabitant::Task(&key.task),
                &info.resources,
                info.container.as_ref(),
                command,
                &sandbox,
            )
            .map_err(invalid)?;
        let spec = ContainerSpec {
            id: id.clone(),
            program,
            environment,
            user: self.user(&framework.info, command),
            sandbox: sandbox.clone(),
            resources: resources.clone(),
            limits: limits(info),
            info: info.container.clone().map(Box::new),
            pod: None,
        };
        let home = Home::Command(id.clone());
        let task = Task::new(info.clone(), resources, home, Stage::Launching);
        self.add_task(key, Task { checks, ..task }, out);
        let filed = key.executor(&ExecutorId::new(key.task.as_str()));
        self.add_container(&filed, Owner::Task(key.clone()), &spec, out);
        self.place(key, &id, out);
        let uris = uris(command);
        let framework = key.framework.clone();
        out.now.push(Effect::Launch(Box::new(Launch { spec, framework, uris, link: None })));
        Ok(())
    }

    pub(super) fn sandbox(
        &self,
        framework: &FrameworkId,
        executor: &str,
        container: &ContainerId,
    ) -> std::path::PathBuf {
        // Tasks come only from a master, which gave the id before.
        let agent = self.agent_id.clone().unwrap_or_else(|| "".into());
        sandbox::path(&self.options.work_dir, &agent, framework, executor, container)
    }

    pub(super) fn add_container(
        &mut self,
        filed: &ExecutorKey,
        owner: Owner,
        spec: &ContainerSpec,
        out: &mut Effects,
    ) {
        let record = SandboxRecord {
            container_id: spec.id.to_string(),
            framework_id: filed.framework.to_string(),
            executor_id: filed.executor.to_string(),
            path: spec.sandbox.display().to_string(),
            ended_at: None,
        };
        let sandbox = spec.sandbox.clone();
        let executor = filed.clone();
        let container = Container { owner, executor, sandbox, running: false, rebooted: false };
        self.containers.insert(spec.id.clone(), container);
        out.persist.push(StoreOp::PutSandbox(record.clone()));
        out.now.push(Effect::Change(Change::ContainerAdded(record)));
    }

    /// Tells where a task's files are, for as long as the sandbox is there.
    pub(super) fn place(&self, key: &TaskKey, container: &ContainerId, out: &mut Effects) {
        out.persist.push(StoreOp::PutSandboxTask(container.clone(), key.clone()));
        let (task, container) = (key.clone(), container.clone());
        out.now.push(Effect::Change(Change::TaskAdded { task, container, passing: false }));
    }
}
