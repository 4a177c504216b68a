//! LAUNCH and LAUNCH_GROUP (rules 27 and 28).

use std::{collections::BTreeSet, sync::Arc};

use mezz_proto::{
    ids::{ExecutorId, TaskId},
    mezz::v1::{self as mezz, master_message::Message},
    resources::{Dialect, Resources},
    time::Time,
    v1::{self, TaskState, offer::operation::LaunchGroup, task_status::Reason},
};

use prost::Message as _;

use crate::{
    allocator::{AgentKey, FrameworkKey},
    core::{
        Change, Core, Effects,
        state::{Charge, Executor, Task, TaskExtra},
        tasks::{MasterStatus, NoTask},
        validate::{
            brief,
            ids::MAX_ID,
            task::{self as validate, CheckedExecutor, CheckedTask, LaunchContext},
        },
    },
};

/// Bytes of tasks that go to an agent in one message, about.
const RUN_BYTES: usize = 1 << 20;

/// Longest reason that all tasks of a group are told, in bytes: it may repeat what the
/// framework said.
const MAX_REASON: usize = 1024;

/// One ACCEPT: where its tasks go and what is left for them.
pub(super) struct Launch {
    pub now: Time,
    pub framework: FrameworkKey,
    pub agent: AgentKey,
    pub role: Arc<str>,
    /// What the offers have left.
    pub pool: Resources,
    /// Tasks launched so far.
    pub launched: u64,
    /// Those of them that the agent is not told of yet, each by itself.
    runs: Vec<v1::TaskInfo>,
    /// What these take, encoded.
    runs_bytes: usize,
}

impl Launch {
    /// Nothing launched yet.
    pub fn new(
        now: Time,
        framework: FrameworkKey,
        agent: AgentKey,
        role: Arc<str>,
        pool: Resources,
    ) -> Self {
        let runs = Vec::new();
        Self { now, framework, agent, role, pool, launched: 0, runs, runs_bytes: 0 }
    }
}

impl Core {
    /// Bad tasks are refused each by itself; the others start.
    pub(super) fn launch(&mut self, at: &mut Launch, tasks: Vec<v1::TaskInfo>, out: &mut Effects) {
        for info in tasks {
            let checked = validate::task(&info, &self.context(at)).and_then(|(task, executor)| {
                self.fits(at, &task, executor.as_ref()).map(|()| (task, executor))
            });
            match checked {
                Ok((task, executor)) => {
                    let executor = executor.map(|executor| self.use_executor(at, executor, out));
                    self.start(at, &info, task, executor, out);
                    self.add_run(at, info, out);
                }
                Err(text) => self.refuse_task(at, &info, Reason::TaskInvalid, &text, out),
            }
        }
    }

    /// All tasks of a group start, or none does.
    pub(super) fn launch_group(&mut self, at: &mut Launch, group: LaunchGroup, out: &mut Effects) {
        let (executor, tasks) = (group.executor, group.task_group.tasks);
        match self.check_group(at, &executor, &tasks) {
            Ok((checked_executor, checked)) => {
                let id = self.use_executor(at, checked_executor, out);
                for (info, task) in tasks.iter().zip(checked) {
                    self.start(at, info, task, Some(id.clone()), out);
                }
                self.send_runs(at, out);
                self.send_group(at, tasks, executor, out);
            }
            Err(text) => {
                let text = brief(text, MAX_REASON);
                self.refuse_tasks(at, &tasks, Reason::TaskGroupInvalid, &text, out);
            }
        }
    }

    /// Tells of each that it is not launched.
    pub(super) fn refuse_tasks(
        &mut self,
        at: &Launch,
        tasks: &[v1::TaskInfo],
        reason: Reason,
        text: &str,
        out: &mut Effects,
    ) {
        for info in tasks {
            self.refuse_task(at, info, reason, text, out);
        }
    }

    fn check_group(
        &self,
        at: &Launch,
        executor: &v1::ExecutorInfo,
        tasks: &[v1::TaskInfo],
    ) -> Result<(CheckedExecutor, Vec<CheckedTask>), String> {
        let context = self.context(at);
        if tasks.is_empty() {
            return Err("task_group.tasks: must not be empty".to_owned());
        }
        self.room_for_tasks(tasks.len())?;
        let executor = validate::group_executor(executor, &context)?;
        let executor_needs = self.executor_needs(at, &executor)?;
        let mut ids: BTreeSet<TaskId> = BTreeSet::new();
        let mut checked = Vec::with_capacity(tasks.len());
        for info in tasks {
            let named =
                |text: String| format!("task `{}`: {text}", brief(&info.task_id.value, MAX_ID));
            let task = validate::group_task(info, &executor, &context).map_err(named)?;
            self.unused_id(at, &task.id).map_err(named)?;
            if !ids.insert(task.id.clone()) {
                return Err(named("task_id: is used twice in the group".to_owned()));
            }
            checked.push(task);
        }
        let parts = checked.iter().map(|task| &task.resources).chain([&executor_needs]);
        let needed: Resources = parts.flatten().cloned().collect();
        if !at.pool.contains(&needed) {
            return Err(validate::beyond("resources of the group", &needed, &at.pool));
        }
        Ok((executor, checked))
    }

    fn context<'a>(&'a self, at: &'a Launch) -> LaunchContext<'a> {
        LaunchContext {
            framework: &self.frameworks[at.framework].id,
            agent: &self.agents[at.agent].id,
            role: &at.role,
        }
    }

    /// What depends on other tasks and on what is left.
    fn fits(
        &self,
        at: &Launch,
        task: &CheckedTask,
        executor: Option<&CheckedExecutor>,
    ) -> Result<(), String> {
        self.unused_id(at, &task.id)?;
        self.room_for_tasks(1)?;
        let executor = match executor {
            Some(executor) => self.executor_needs(at, executor)?,
            None => Resources::new(),
        };
        let needed = executor + &task.resources;
        if !at.pool.contains(&needed) {
            return Err(validate::beyond("resources", &needed, &at.pool));
        }
        Ok(())
    }

    /// Rule 28: also the ids of unreachable tasks are in use.
    fn unused_id(&self, at: &Launch, id: &TaskId) -> Result<(), String> {
        match self.frameworks[at.framework].tasks.get(id) {
            Some(_) => Err(format!("task_id: `{id}` is the id of another task that has not ended")),
            None => Ok(()),
        }
    }

    /// Tasks of unreachable agents do not count: nothing of them may run.
    fn room_for_tasks(&self, count: usize) -> Result<(), String> {
        let unreachable = usize::try_from(self.counters.tasks_unreachable).unwrap_or(usize::MAX);
        let tasks = self.tasks.len().saturating_sub(unreachable);
        if tasks + count <= self.options.max_tasks {
            return Ok(());
        }
        Err(format!(
            "this master has {tasks} tasks and takes at most {} (option max_tasks); try again when some have ended",
            self.options.max_tasks
        ))
    }

    /// What the executor takes from the pool: nothing when it is on the agent
    /// already, and then it must be the same one.
    fn executor_needs(&self, at: &Launch, executor: &CheckedExecutor) -> Result<Resources, String> {
        let known = self.agents[at.agent].executors.get(&(at.framework, executor.id.clone()));
        match known {
            None => Ok(executor.resources.clone()),
            Some(known) if *known.info == executor.info => Ok(Resources::new()),
            Some(_) => Err(format!(
                "executor: differs from executor `{}` that is on the agent already; use another executor_id",
                executor.id
            )),
        }
    }

    /// Takes what the executor needs out of the pool, unless it is on the agent already.
    fn use_executor(
        &mut self,
        at: &mut Launch,
        executor: CheckedExecutor,
        out: &mut Effects,
    ) -> ExecutorId {
        let CheckedExecutor { id, info, resources } = executor;
        let place = (at.framework, id.clone());
        if !self.agents[at.agent].executors.contains_key(&place) {
            at.pool.saturating_sub(&resources);
            let role = Arc::clone(&at.role);
            let resources = self.interner.resources(resources);
            let info = Arc::new(info);
            out.change(Change::Executor(
                self.agents[at.agent].id.clone(),
                self.frameworks[at.framework].id.clone(),
                id.clone(),
                Arc::clone(&resources),
                Arc::clone(&info),
                Arc::clone(&role),
            ));
            self.agents[at.agent].executors.insert(place, Executor { info, role, resources });
            self.frameworks[at.framework].executors.insert((at.agent, id.clone()));
        }
        id
    }

    /// Takes what the task needs out of the pool; it has been found to be there.
    /// The allocator counts it as held since it was offered.
    fn start(
        &mut self,
        at: &mut Launch,
        info: &v1::TaskInfo,
        checked: CheckedTask,
        executor: Option<ExecutorId>,
        out: &mut Effects,
    ) {
        let CheckedTask { id, resources } = checked;
        at.pool.saturating_sub(&resources);
        let resources = self.interner.resources(resources);
        let extra = TaskExtra {
            labels: info.labels.clone(),
            discovery: info.discovery.clone().map(Box::new),
            container: info.container.clone().map(Box::new),
            user: info.command.as_ref().and_then(|c| c.user.clone()),
            health_check: info.health_check.clone().map(Box::new),
            kill_policy: info.kill_policy,
            limits: info.limits.clone(),
        };
        let key = self.insert_task(Task {
            id,
            framework: at.framework,
            agent: at.agent,
            name: info.name.as_str().into(),
            role: Arc::clone(&at.role),
            resources,
            executor,
            state: TaskState::TaskStaging,
            charge: Charge::Held,
            recovered: false,
            pending: None,
            kill_asked: None,
            statuses: Vec::new(),
            extra: extra.boxed(),
        });
        at.launched += 1;
        self.counters.tasks_launched += 1;
        self.publish_task(key, out);
    }

    /// Puts a task to those that the agent is told of next. Together, for each message has
    /// the framework's description.
    fn add_run(&self, at: &mut Launch, mut task: v1::TaskInfo, out: &mut Effects) {
        self.complete_task(at, &mut task);
        let bytes = task.encoded_len();
        if at.runs_bytes + bytes > RUN_BYTES {
            self.send_runs(at, out);
        }
        at.runs_bytes += bytes;
        at.runs.push(task);
    }

    /// Tells the agent of the tasks that it is not told of yet.
    pub(super) fn send_runs(&self, at: &mut Launch, out: &mut Effects) {
        at.runs_bytes = 0;
        let tasks = std::mem::take(&mut at.runs);
        if !tasks.is_empty() {
            self.send(at, tasks, None, out);
        }
    }

    fn send_group(
        &self,
        at: &Launch,
        mut tasks: Vec<v1::TaskInfo>,
        mut executor: v1::ExecutorInfo,
        out: &mut Effects,
    ) {
        for task in &mut tasks {
            self.complete_task(at, task);
        }
        self.complete_executor(at, &mut executor);
        self.send(at, tasks, Some(executor), out);
    }

    fn send(
        &self,
        at: &Launch,
        tasks: Vec<v1::TaskInfo>,
        group_executor: Option<v1::ExecutorInfo>,
        out: &mut Effects,
    ) {
        let Some(connection) = self.agents[at.agent].connection() else { return };
        let framework = self.frameworks[at.framework].info.clone();
        let message = mezz::RunTasks { framework, tasks, group_executor };
        out.agent(connection, Message::RunTasks(message));
    }

    fn complete_task(&self, at: &Launch, task: &mut v1::TaskInfo) {
        refine(&mut task.resources, &at.role);
        if let Some(executor) = &mut task.executor {
            self.complete_executor(at, executor);
        }
    }

    fn complete_executor(&self, at: &Launch, executor: &mut v1::ExecutorInfo) {
        executor.framework_id = Some((&self.frameworks[at.framework].id).into());
        refine(&mut executor.resources, &at.role);
    }

    fn refuse_task(
        &mut self,
        at: &Launch,
        info: &v1::TaskInfo,
        reason: Reason,
        text: &str,
        out: &mut Effects,
    ) {
        self.counters.tasks_refused += 1;
        let status = MasterStatus::new(TaskState::TaskError, reason, text);
        self.tell_about_no_task(at.now, at.framework, NoTask::of(info), status, out);
    }
}

/// Agents get resources in the refined form, with the role.
fn refine(wire: &mut Vec<v1::Resource>, role: &str) {
    if let Ok(resources) = Resources::from_proto(wire) {
        *wire = resources.to_proto(Dialect::Refined, Some(role));
    }
}
