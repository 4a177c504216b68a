//! Tasks that run with an executor, and starting it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mezz_proto::{
    ids::{ExecutorId, FrameworkId, TaskId},
    resources::Resources,
    time::Time,
    v1::{self, TaskState, task_status::Reason},
};

use super::{
    Change, Core, Effect, Effects, ExecutorKey, Launch,
    admission::{is_docker, parse},
    check,
    environment::{Inhabitant, image_program, program, uris, variables},
    kill::addressee,
    pod::{check_member, is_default},
    state::{Executor, Home, Limits, Owner, Pending, Stage, Task, Token},
    update::Verdict,
};
use crate::containerizer::{ContainerSpec, Program};

impl Core {
    /// Hands tasks to their executor, which is started first if need be.
    pub(super) fn launch_on_executor(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        tasks: Vec<v1::TaskInfo>,
        executor: v1::ExecutorInfo,
        group: bool,
        out: &mut Effects,
    ) -> Result<(), Verdict> {
        self.admit(framework, &tasks)?;
        let pod = is_default(&executor);
        if pod && !group {
            return Err(Verdict::new(
                TaskState::TaskError,
                Reason::TaskInvalid,
                "executor.type: DEFAULT runs groups only; use LAUNCH_GROUP",
            ));
        }
        let id = ExecutorId::from(&executor.executor_id);
        let key = ExecutorKey { framework: framework.clone(), executor: id.clone() };
        let parsed: Vec<Resources> =
            tasks.iter().map(|task| parse(&task.resources)).collect::<Result<_, _>>()?;
        let checks = match pod {
            true => self.check_members(&tasks)?,
            false => tasks.iter().map(|_| None).collect(),
        };
        if self.executors.get(&key).is_some_and(|executor| executor.doom.is_some()) {
            return Err(Verdict::new(
                self.lost_or(framework, TaskState::TaskDropped),
                Reason::ExecutorTerminated,
                format!("executor {id} is ending"),
            ));
        }
        let new = !self.executors.contains_key(&key);
        let launch = match !new {
            true => None,
            false => Some(self.prepare_executor(&key, &executor, &tasks)?),
        };
        let mut ids = Vec::with_capacity(tasks.len());
        let mut group_name = None;
        for ((info, resources), checks) in tasks.into_iter().zip(parsed).zip(checks) {
            let task_key = key.task(&TaskId::from(&info.task_id));
            ids.push(task_key.task.clone());
            let home = match pod {
                true => Home::Member { executor: id.clone(), container: self.ids.container() },
                false => Home::Executor(id.clone()),
            };
            let mut task = Task::new(info, resources, home, Stage::Queued);
            if let Some(first) = task.home.container() {
                task.group = Some(group_name.get_or_insert_with(|| first.to_string()).clone());
            }
            task.checks = checks;
            self.add_task(&task_key, task, out);
        }
        if let Some((executor, launch)) = launch {
            self.start_executor(&key, executor, ids.clone(), launch, out);
        } else if let Some(executor) = self.executors.get_mut(&key) {
            executor.tasks.extend(ids.iter().cloned());
        }
        if let Some(executor) = self.executors.get_mut(&key) {
            let container = executor.container.clone();
            executor.pending.push_back(Pending { group, tasks: ids.clone() });
            // A member gets a sandbox of its own. An executor may run any number of tasks,
            // and is found by those that it began with.
            for task in ids.iter().filter(|_| !pod).map(|id| key.task(id)) {
                match new {
                    true => self.place(&task, &container, out),
                    false => out.now.push(Effect::Change(Change::TaskAdded {
                        task,
                        container: container.clone(),
                        passing: true,
                    })),
                }
            }
        }
        self.update_limits(&key, out);
        self.deliver_pending(&key, out);
        self.start_members(now, &key, out);
        Ok(())
    }

    /// All that can be wrong with a pod's members is found before any of them starts.
    fn check_members(
        &self,
        tasks: &[v1::TaskInfo],
    ) -> Result<Vec<Option<Box<check::Checks>>>, Verdict> {
        let look = |task: &v1::TaskInfo| {
            let invalid = |message: String| {
                let message = format!("task {}: {message}", task.task_id.value);
                Verdict::new(TaskState::TaskError, Reason::TaskGroupInvalid, message)
            };
            check_member(task)?;
            self.check_container(task.container.as_ref())?;
            let command = task.command.clone().unwrap_or_default();
            program(&command).map_err(invalid)?;
            variables(&command).map_err(invalid)?;
            addressee(task).map_err(invalid)?;
            check::parse(task).map_err(invalid)
        };
        tasks.iter().map(look).collect()
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
        self.check_container(info.container.as_ref())?;
        let resources = parse(&info.resources)?;
        let pod = is_default(info);
        let nothing = v1::CommandInfo::default();
        let command = match &info.command {
            Some(command) if !pod => command,
            None if pod => &nothing,
            Some(_) => {
                return Err(failed("executor.command must not be set for type DEFAULT".to_owned()));
            }
            None => return Err(failed("executor.command is not set: nothing to run".to_owned())),
        };
        let program = match pod {
            true if is_docker(info.container.as_ref()) => {
                return Err(failed(
                    "executor.container.type: DOCKER is not possible for a group".to_owned(),
                ));
            }
            true => Program::Hold,
            false if is_docker(info.container.as_ref()) => {
                image_program(command).map_err(|error| failed(format!("executor.{error}")))?
            }
            false => program(command).map_err(|error| failed(format!("executor.{error}")))?,
        };
        let Some(framework) = self.frameworks.get(&key.framework) else {
            return Err(failed("the framework is not known to the agent".to_owned()));
        };
        let id = self.ids.container();
        let token = Token(self.ids.token());
        let sandbox = self.sandbox(&key.framework, key.executor.as_str(), &id);
        let of = tasks.first().map_or(&info.resources, |task| &task.resources);
        let inhabitant = match pod {
            true => Inhabitant::Pod(&key.executor),
            false => Inhabitant::Executor(&key.executor, info, &token),
        };
        let environment = self
            .environment(
                &framework.info,
                &inhabitant,
                of,
                info.container.as_ref(),
                command,
                &sandbox,
            )
            .map_err(|error| failed(format!("executor.{error}")))?;
        let spec = ContainerSpec {
            id: id.clone(),
            program,
            environment,
            // What holds a pod is the agent's own, and so is the folder that all of its
            // members' sandboxes are in.
            user: self.user(&framework.info, command).filter(|_| !pod),
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
            proven: false,
            behind: false,
            pending: VecDeque::new(),
            tasks: BTreeSet::new(),
            doom: None,
            gone: None,
        };
        Ok((
            executor,
            Launch { spec, framework: key.framework.clone(), uris: uris(command), link: None },
        ))
    }

    fn start_executor(
        &mut self,
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
        self.add_container(key, owner, &launch.spec, out);
        self.announce_executor(key, out);
        out.now.push(Effect::Launch(Box::new(launch)));
    }
}
