//! Taking up what an earlier run of the agent left (behaviour rule 52).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_proto::{
    ids::{AgentId, ContainerId, ExecutorId, FrameworkId},
    resources::Resources,
    time::Time,
    v1::{self, TaskState, task_status::Reason},
};

use super::{
    Change, Core, CoreOptions, Effect, Effects, ExecutorKey, ExecutorRecord, SandboxRecord,
    StoreOp, TaskKey, TaskRecord, TaskStateRecord,
    backlog::Backlog,
    check,
    environment::nanoseconds,
    ids::IdSource,
    link::Link,
    pod::is_default,
    sandbox,
    state::{
        Container, Doom, Executor, Framework, Home, KillCause, Limits, Owner, Stage, Task, Token,
    },
    timers::{Timer, Timers},
    update::Verdict,
};

/// What the store held, and what the containerizer found of it.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The agent's id, once a master gave one.
    pub agent_id: Option<AgentId>,
    /// How often the agent was started.
    pub starts: u64,
    /// With `id`.
    pub frameworks: Vec<v1::FrameworkInfo>,
    /// Live executors.
    pub executors: Vec<ExecutorRecord>,
    /// Tasks without their last acknowledgement.
    pub tasks: Vec<(TaskRecord, TaskStateRecord)>,
    /// Containers of those that the containerizer found, running or ended. The
    /// others never started, or are gone with the boot.
    pub found: BTreeSet<ContainerId>,
    /// The machine was booted since.
    pub rebooted: bool,
}

impl Recovered {
    /// The containers that should exist.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerId> {
        let executors = self.executors.iter().map(|record| ContainerId::new(&record.container_id));
        let tasks = self.tasks.iter().filter_map(|(record, state)| {
            let live = !TaskState::try_from(state.latest).ok()?.is_terminal();
            record.container_id.as_ref().filter(|_| live).map(ContainerId::new)
        });
        executors.chain(tasks).collect()
    }
}

/// What [`Started`](super::Event::Started) looks at.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Containers that were not found.
    containers: Vec<ContainerId>,
    rebooted: bool,
}

impl Core {
    /// The agent as the store knows it. [`Event::Started`](super::Event::Started)
    /// comes next.
    #[must_use]
    pub fn new(options: CoreOptions, recovered: Recovered, now: Time) -> Core {
        let mut core = Core {
            ids: IdSource::new(options.seed),
            options,
            agent_id: recovered.agent_id,
            starts: recovered.starts,
            link: Link::Down,
            frameworks: BTreeMap::new(),
            tasks: BTreeMap::new(),
            executors: BTreeMap::new(),
            containers: BTreeMap::new(),
            connections: BTreeMap::new(),
            timers: Timers::default(),
            backlog: Backlog::default(),
            live_tasks: 0,
            last_probe: 0,
            draining: None,
            leaving: None,
            lost: Lost { containers: Vec::new(), rebooted: recovered.rebooted },
        };
        for info in recovered.frameworks {
            let id = FrameworkId::from(info.id.clone().unwrap_or_default());
            core.frameworks.insert(id, Framework { info, shutting_down: false });
        }
        for record in recovered.executors {
            core.recover_executor(record, &recovered.found, now);
        }
        for (record, state) in recovered.tasks {
            core.recover_task(&record, state, &recovered.found, now);
        }
        core.backlog = core.count_backlog();
        // What is held is not known: told anew at the first change.
        core
    }

    fn recover_executor(
        &mut self,
        record: ExecutorRecord,
        found: &BTreeSet<ContainerId>,
        now: Time,
    ) {
        let key = record.key();
        let subscribed = record.subscribed.unwrap_or(true);
        let container = ContainerId::from(record.container_id);
        self.recover_container(Owner::Executor(key.clone()), &key, None, &container, found);
        let doom = record.doom.map(Doom::from_record).map(|mut doom| {
            // A wall clock that was set back gives no more than the whole grace.
            doom.at = doom.at.min(now + self.shutdown_grace(&record.info));
            doom
        });
        let timer = match &doom {
            Some(doom) => Some((Timer::Shutdown(key.clone()), doom.at)),
            None if is_default(&record.info) => None,
            // It was just being started, and goes on with that.
            None if !subscribed && found.contains(&container) => {
                let timeout = now + self.options.executor_registration_timeout;
                Some((Timer::Registration(key.clone()), timeout))
            }
            // Ended as soon as the core starts.
            None if !subscribed => None,
            None => {
                let timeout = now + self.options.executor_reregistration_timeout;
                Some((Timer::Reregistration(key.clone()), timeout))
            }
        };
        if let Some((timer, at)) = timer {
            self.timers.set(timer, at);
        }
        let executor = Executor {
            resources: Resources::from_proto(&record.info.resources).unwrap_or_default(),
            info: record.info,
            held: Limits::default(),
            container,
            token: Token(record.token),
            connection: None,
            subscribed_once: subscribed,
            proven: record.proven.unwrap_or_default(),
            behind: false,
            pending: Default::default(),
            tasks: BTreeSet::new(),
            doom,
            gone: None,
        };
        self.executors.insert(key, executor);
    }

    fn recover_task(
        &mut self,
        record: &TaskRecord,
        state: TaskStateRecord,
        found: &BTreeSet<ContainerId>,
        now: Time,
    ) {
        let key = record.key();
        let latest = state.latest();
        let home = match (&record.container_id, &record.executor_id) {
            (Some(container), Some(executor)) => Home::Member {
                executor: ExecutorId::new(executor),
                container: ContainerId::new(container),
            },
            (Some(container), None) => Home::Command(ContainerId::new(container)),
            (None, Some(executor)) => Home::Executor(ExecutorId::new(executor)),
            (None, None) => Home::None,
        };
        let stage = match latest {
            latest if latest.is_terminal() => Stage::Ended,
            TaskState::TaskStaging => Stage::Launching,
            TaskState::TaskStarting if home.container().is_some() => Stage::Launching,
            _ => Stage::Running,
        };
        let resources = Resources::from_proto(&record.info.resources).unwrap_or_default();
        let mut task = Task::new(record.info.clone(), resources, home, stage);
        task.latest = latest;
        task.updates = state.updates.into();
        task.acknowledged = state.acknowledged.into();
        task.kill = state.kill.map(KillCause::from_record);
        task.kill_policy = state.kill_policy;
        task.kill_at = task.kill.filter(|_| task.home.container().is_some()).map(|cause| {
            let grace = match cause {
                KillCause::MaxCompletion | KillCause::Executor | KillCause::Limitation => {
                    Duration::ZERO
                }
                _ => {
                    let policy = task.kill_policy.as_ref().or(task.info.kill_policy.as_ref());
                    self.kill_grace(&task.info, policy)
                }
            };
            // A wall clock that was set back gives no more than the whole grace.
            let whole = now + grace;
            state.kill_at.map_or(whole, |at| whole.min(Time::from_nanos(at)))
        });
        // A wall clock that was set back gives no more than the whole time.
        task.running_since = state.running_since.map(|since| now.min(Time::from_nanos(since)));
        task.group = record.group.clone();
        task.limitation = state.limitation.map(|record| record.limitation());
        if task.home.container().is_some() {
            // What is stored was looked at when it was taken in.
            task.checks = check::parse(&record.info).unwrap_or_default();
        }
        if let Some(checks) = &mut task.checks {
            checks.restore(state.check_status, state.healthy, state.health_failures);
        }
        if task.is_live() {
            self.live_tasks += 1;
            match &task.home {
                Home::Command(container) => {
                    let owner = Owner::Task(key.clone());
                    let filed = key.executor(&ExecutorId::new(key.task.as_str()));
                    self.recover_container(owner, &filed, None, container, found);
                }
                Home::Member { executor, container } => {
                    let filed = key.executor(executor);
                    let holder = self.executors.get_mut(&filed).map(|executor| {
                        executor.tasks.insert(key.task.clone());
                        executor.container.clone()
                    });
                    let owner = Owner::Task(key.clone());
                    self.recover_container(owner, &filed, holder.as_ref(), container, found);
                }
                Home::Executor(id) => {
                    if let Some(executor) = self.executors.get_mut(&key.executor(id)) {
                        executor.tasks.insert(key.task.clone());
                    }
                }
                Home::None => {}
            }
            let longest = task.info.max_completion_time.as_ref().map(nanoseconds);
            if let (Some(since), Some(longest)) = (task.running_since, longest) {
                self.timers.set(Timer::Completion(key.clone()), (since + longest).max(now));
            }
        }
        self.tasks.insert(key, task);
    }

    fn recover_container(
        &mut self,
        owner: Owner,
        filed: &ExecutorKey,
        pod: Option<&ContainerId>,
        container: &ContainerId,
        found: &BTreeSet<ContainerId>,
    ) {
        let of = |id: &ContainerId| self.sandbox(&filed.framework, filed.executor.as_str(), id);
        let sandbox = match pod {
            Some(pod) => sandbox::member(&of(pod), container),
            None => of(container),
        };
        let exists = found.contains(container);
        if !exists {
            self.lost.containers.push(container.clone());
        }
        let rebooted = self.lost.rebooted;
        let executor = filed.clone();
        let entry = Container { owner, executor, sandbox, running: exists, rebooted };
        self.containers.insert(container.clone(), entry);
    }

    pub(super) fn on_started(&mut self, now: Time, out: &mut Effects) {
        let lost = std::mem::take(&mut self.lost);
        if let Some(boot) = &self.options.boot_id {
            out.persist.push(StoreOp::PutBootId(boot.clone()));
        }
        self.count_start(0, out);
        self.announce(out);
        for container in &lost.containers {
            self.never_started(now, container, lost.rebooted, out);
        }
        self.end_orphans(now, out);
        let found: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for container in found {
            self.take_up(now, &container, out);
        }
        let frameworks: Vec<FrameworkId> = self.frameworks.keys().cloned().collect();
        for framework in &frameworks {
            self.forget_idle_framework(framework, out);
        }
    }

    /// Tells readers what there is.
    fn announce(&self, out: &mut Effects) {
        for framework in self.frameworks.values() {
            out.now.push(Effect::Change(Change::Framework(Box::new(framework.info.clone()))));
        }
        for executor in self.executors.keys() {
            self.announce_executor(executor, out);
        }
        for (key, task) in &self.tasks {
            self.announce_task(key, task, out);
        }
        for (id, container) in &self.containers {
            out.now.push(Effect::Change(Change::ContainerAdded(SandboxRecord {
                container_id: id.to_string(),
                framework_id: container.executor.framework.to_string(),
                executor_id: container.executor.executor.to_string(),
                path: container.sandbox.display().to_string(),
                ended_at: None,
            })));
        }
        for (key, task) in self.tasks.iter().filter(|(_, task)| task.is_live()) {
            let container = match &task.home {
                Home::Command(container) | Home::Member { container, .. } => Some(container),
                Home::Executor(id) => {
                    self.executors.get(&key.executor(id)).map(|executor| &executor.container)
                }
                Home::None => None,
            };
            if let Some(container) = container.cloned() {
                // What the store says of its sandbox is known.
                let passing = matches!(task.home, Home::Executor(_));
                let task = key.clone();
                out.now.push(Effect::Change(Change::TaskAdded { task, container, passing }));
            }
        }
    }

    fn never_started(&mut self, now: Time, id: &ContainerId, rebooted: bool, out: &mut Effects) {
        let Some(container) = self.close_container(now, id, out) else { return };
        let verdict = |framework: &FrameworkId| match rebooted {
            true => self.rebooted(framework),
            false => Verdict::new(
                TaskState::TaskFailed,
                Reason::ExecutorTerminated,
                "the agent restarted before the container was started",
            ),
        };
        match container.owner {
            Owner::Task(key) => {
                let verdict = verdict(&key.framework);
                self.command_ended(now, &key, verdict, out);
            }
            Owner::Executor(key) => {
                let verdict = verdict(&key.framework);
                self.executor_ended(now, &key, verdict, None, out);
            }
        }
    }

    /// Live tasks whose executor is not stored can only come from a store that
    /// was tampered with or written by another version; they end.
    fn end_orphans(&mut self, now: Time, out: &mut Effects) {
        let orphans: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.is_live())
            .filter(|(key, task)| match &task.home {
                Home::Executor(id) => !self.executors.contains_key(&key.executor(id)),
                Home::Member { executor, .. } => {
                    !self.executors.contains_key(&key.executor(executor))
                }
                Home::None => true,
                Home::Command(_) => false,
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in orphans {
            let verdict = Verdict::new(
                TaskState::TaskFailed,
                Reason::ExecutorTerminated,
                "the agent restarted and has no executor for the task",
            );
            self.report(now, &key, verdict, out);
        }
    }

    /// Waits for a container again, and goes on with what was begun.
    fn take_up(&mut self, now: Time, id: &ContainerId, out: &mut Effects) {
        let Some(container) = self.containers.get(id) else { return };
        let sandbox = container.sandbox.clone();
        let resources = match &container.owner {
            Owner::Task(key) => self.tasks.get(key).map(|task| task.resources.clone()),
            Owner::Executor(key) => Some(self.limits_of(key).resources),
        };
        let resources = resources.unwrap_or_default();
        out.now.push(Effect::Watch { container: id.clone(), sandbox, resources });
        let Owner::Task(key) = container.owner.clone() else { return };
        let Some(task) = self.tasks.get(&key) else { return };
        match task.kill_at {
            Some(at) => self.terminate(now, &key, at, out),
            None if task.stage == Stage::Running => self.start_checks(now, &key),
            None => self.task_runs(now, &key, out),
        }
    }

    /// The verdict on what was running when the machine went down.
    pub(super) fn rebooted(&self, framework: &FrameworkId) -> Verdict {
        Verdict::new(
            self.lost_or(framework, TaskState::TaskGone),
            Reason::AgentRestarted,
            "the machine was rebooted",
        )
    }
}
