//! Taking tasks in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mezz_proto::{
    ids::{ContainerId, ExecutorId, FrameworkId, TaskId},
    mezz::v1 as mezz,
    resources::Resources,
    time::Time,
    v1::{self, TaskState, executor_info, task_status::Reason},
};

use super::{
    Change, Core, Effect, Effects, ExecutorKey, Launch, SandboxRecord, StoreOp, TaskKey,
    admission::{check_container, parse},
    environment::{Inhabitant, program, uris},
    limits::limits,
    sandbox,
    state::{Container, Executor, Framework, Home, Limits, Owner, Pending, Stage, Task, Token},
    timers::Timer,
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
        let resources = parse(&info.resources)?;
        let program = program(command).map_err(invalid)?;
        let Some(framework) = self.frameworks.get(&key.framework) else { return Ok(()) };
        let id = self.ids.container();
        let sandbox = self.sandbox(&key.framework, key.task.as_str(), &id);
        let environment = self
            .environment(
                &framework.info,
                &Inhabitant::Task(&key.task),
                &info.resources,
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
        self.add_task(key, Task::new(info.clone(), resources, home, Stage::Launching), out);
        let executor = key.task.as_str();
        self.add_container(&key.framework, executor, Owner::Task(key.clone()), &spec, out);
        self.place(key, &id, out);
        out.now.push(Effect::Launch(Box::new(Launch { spec, uris: uris(command) })));
        Ok(())
    }

    /// Hands tasks to their executor, which is started first if need be.
    fn launch_on_executor(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        tasks: Vec<v1::TaskInfo>,
        executor: v1::ExecutorInfo,
        group: bool,
        out: &mut Effects,
    ) -> Result<(), Verdict> {
        self.admit(framework, &tasks)?;
        let id = ExecutorId::from(&executor.executor_id);
        let key = ExecutorKey { framework: framework.clone(), executor: id.clone() };
        let parsed: Vec<Resources> =
            tasks.iter().map(|task| parse(&task.resources)).collect::<Result<_, _>>()?;
        if self.executors.get(&key).is_some_and(|executor| executor.doom.is_some()) {
            return Err(Verdict::new(
                self.lost_or(framework, TaskState::TaskDropped),
                Reason::ExecutorTerminated,
                format!("executor {id} is ending"),
            ));
        }
        let launch = match self.executors.contains_key(&key) {
            true => None,
            false => Some(self.prepare_executor(&key, &executor, &tasks)?),
        };
        let mut ids = Vec::with_capacity(tasks.len());
        for (info, resources) in tasks.into_iter().zip(parsed) {
            let task_key = key.task(&TaskId::from(&info.task_id));
            ids.push(task_key.task.clone());
            let task = Task::new(info, resources, Home::Executor(id.clone()), Stage::Queued);
            self.add_task(&task_key, task, out);
        }
        if let Some((executor, launch)) = launch {
            self.start_executor(now, &key, executor, ids.clone(), launch, out);
        } else if let Some(executor) = self.executors.get_mut(&key) {
            executor.tasks.extend(ids.iter().cloned());
        }
        if let Some(executor) = self.executors.get_mut(&key) {
            let container = executor.container.clone();
            executor.pending.push_back(Pending { group, tasks: ids.clone() });
            for task in &ids {
                self.place(&key.task(task), &container, out);
            }
        }
        self.update_limits(&key, out);
        self.deliver_pending(&key, out);
        Ok(())
    }

    /// The executor and what starts it; nothing is changed yet.
    fn prepare_executor(
        &mut self,
        key: &ExecutorKey,
        info: &v1::ExecutorInfo,
        tasks: &[v1::TaskInfo],
    ) -> Result<(Executor, Launch), Verdict> {
        let failed = |message: String| {
            Verdict::new(TaskState::TaskFailed, Reason::ContainerLaunchFailed, message)
        };
        if info.r#type() == executor_info::Type::Default {
            return Err(failed(
                "executor.type DEFAULT (task groups run by the agent itself) is not supported yet; \
                 use a CUSTOM executor, or command tasks"
                    .to_owned(),
            ));
        }
        check_container(info.container.as_ref())?;
        let resources = parse(&info.resources)?;
        let command = info
            .command
            .as_ref()
            .ok_or_else(|| failed("executor.command is not set: nothing to run".to_owned()))?;
        let program = program(command).map_err(|error| failed(format!("executor.{error}")))?;
        let Some(framework) = self.frameworks.get(&key.framework) else {
            return Err(failed("the framework is not known to the agent".to_owned()));
        };
        let id = self.ids.container();
        let token = Token(self.ids.token());
        let sandbox = self.sandbox(&key.framework, key.executor.as_str(), &id);
        let of = tasks.first().map_or(&info.resources, |task| &task.resources);
        let inhabitant = Inhabitant::Executor(&key.executor, info, &token);
        let environment = self
            .environment(&framework.info, &inhabitant, of, command, &sandbox)
            .map_err(|error| failed(format!("executor.{error}")))?;
        let spec = ContainerSpec {
            id: id.clone(),
            program,
            environment,
            user: self.user(&framework.info, command),
            sandbox,
            resources: Resources::new(),
            limits: BTreeMap::new(),
            info: info.container.clone().map(Box::new),
            pod: None,
        };
        let executor = Executor {
            info: info.clone(),
            resources,
            held: Limits::default(),
            container: id,
            token,
            connection: None,
            subscribed_once: false,
            pending: VecDeque::new(),
            tasks: BTreeSet::new(),
            doom: None,
        };
        Ok((executor, Launch { spec, uris: uris(command) }))
    }

    fn start_executor(
        &mut self,
        now: Time,
        key: &ExecutorKey,
        mut executor: Executor,
        tasks: Vec<TaskId>,
        mut launch: Launch,
        out: &mut Effects,
    ) {
        executor.tasks.extend(tasks);
        self.executors.insert(key.clone(), executor);
        self.persist_executor(key, out);
        let held = self.limits_of(key);
        launch.spec.resources = held.resources.clone();
        launch.spec.limits = held.limits.clone();
        if let Some(executor) = self.executors.get_mut(key) {
            executor.held = held;
        }
        let owner = Owner::Executor(key.clone());
        self.add_container(&key.framework, key.executor.as_str(), owner, &launch.spec, out);
        let timeout = now + self.options.executor_registration_timeout;
        self.timers.set(Timer::Registration(key.clone()), timeout);
        out.now.push(Effect::Launch(Box::new(launch)));
    }

    fn sandbox(
        &self,
        framework: &FrameworkId,
        executor: &str,
        container: &ContainerId,
    ) -> std::path::PathBuf {
        // Tasks come only from a master, which gave the id before.
        let agent = self.agent_id.clone().unwrap_or_else(|| "".into());
        sandbox::path(&self.options.work_dir, &agent, framework, executor, container)
    }

    fn add_container(
        &mut self,
        framework: &FrameworkId,
        executor: &str,
        owner: Owner,
        spec: &ContainerSpec,
        out: &mut Effects,
    ) {
        let record = SandboxRecord {
            container_id: spec.id.to_string(),
            framework_id: framework.to_string(),
            executor_id: executor.to_owned(),
            path: spec.sandbox.display().to_string(),
            ended_at: None,
        };
        let sandbox = spec.sandbox.clone();
        let container = Container { owner, sandbox, running: false, rebooted: false };
        self.containers.insert(spec.id.clone(), container);
        out.persist.push(StoreOp::PutSandbox(record.clone()));
        out.now.push(Effect::Change(Change::ContainerAdded(record)));
    }

    /// Tells where a task's files are.
    fn place(&self, key: &TaskKey, container: &ContainerId, out: &mut Effects) {
        out.persist.push(StoreOp::PutSandboxTask(container.clone(), key.clone()));
        let change = Change::TaskAdded { task: key.clone(), container: container.clone() };
        out.now.push(Effect::Change(change));
    }
}
