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

impl Core {
    pub(super) fn on_run_tasks(&mut self, now: Time, run: mezz::RunTasks, out: &mut Effects) {
        let Some(id) = run.framework.id.as_ref().map(FrameworkId::from) else { return };
        self.put_framework(&id, run.framework, out);
        match run.group_executor {
            Some(executor) => self.launch_group(now, &id, run.tasks, executor, out),
            None => {
                for info in run.tasks {
                    self.launch_task(now, &id, info, out);
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
                self.launch_on_executor(now, framework, vec![info.clone()], executor, false, out)
            }
        };
        if let Err(verdict) = launched {
            self.refuse(now, &key, info, verdict, out);
        }
    }

    /// All of the tasks start, or none does.
    fn launch_group(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        tasks: Vec<v1::TaskInfo>,
        executor: v1::ExecutorInfo,
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
        if let Err(verdict) =
            self.launch_on_executor(now, framework, tasks.clone(), executor, true, out)
        {
            for info in tasks {
                self.refuse(now, &key(&info), info, verdict.clone(), out);
            }
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
