//! A core with a clock, a store and peers that only remember.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use mezz_proto::{
    ids::{ContainerId, FrameworkId},
    mezz::v1::{self as mezz, agent_message, master_message},
    time::Time,
    v1::{
        self, TaskState, TaskStatus,
        executor::{Call, Event as ExecutorEvent},
    },
};
use prost::Message;

pub(super) use super::builders::*;
use crate::{
    containerizer::{ContainerSpec, Termination},
    core::{
        Abilities, ConnectionId, Core, CoreOptions, Effect, Effects, Event, ExecutorKey,
        ExecutorRecord, LinkId, Proof, Recovered, SandboxRecord, StoreOp, TaskKey, TaskRecord,
        TaskStateRecord,
    },
};

pub(super) const AGENT: &str = "S0";

/// What the store would hold.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeStore {
    pub(super) agent: Option<v1::AgentInfo>,
    pub(super) starts: u64,
    pub(super) frameworks: BTreeMap<FrameworkId, v1::FrameworkInfo>,
    pub(super) executors: BTreeMap<ExecutorKey, ExecutorRecord>,
    pub(super) tasks: BTreeMap<TaskKey, TaskRecord>,
    pub(super) states: BTreeMap<TaskKey, TaskStateRecord>,
    pub(super) sandboxes: BTreeMap<String, SandboxRecord>,
}

impl FakeStore {
    fn apply(&mut self, op: StoreOp) {
        match op {
            StoreOp::PutAgent(info) => self.agent = Some(*info),
            StoreOp::PutBootId(_) | StoreOp::PutSandboxTask(..) => {}
            StoreOp::PutStarts(starts) => self.starts = starts,
            StoreOp::PutFramework(id, info) => {
                self.frameworks.insert(id, *info);
            }
            StoreOp::RemoveFramework(id) => {
                self.frameworks.remove(&id);
            }
            StoreOp::PutExecutor(key, record) => {
                assert_eq!(key, record.key());
                // As it comes back from the disk.
                let bytes = record.encode_to_vec();
                self.executors.insert(key, ExecutorRecord::decode(&*bytes).unwrap());
            }
            StoreOp::RemoveExecutor(key) => {
                self.executors.remove(&key);
            }
            StoreOp::PutTask(key, record) => {
                assert_eq!(key, record.key());
                let bytes = record.encode_to_vec();
                self.tasks.insert(key, TaskRecord::decode(&*bytes).unwrap());
            }
            StoreOp::PutTaskState(key, record) => {
                assert!(self.tasks.contains_key(&key), "a state without its task");
                let bytes = record.encode_to_vec();
                self.states.insert(key, TaskStateRecord::decode(&*bytes).unwrap());
            }
            StoreOp::RemoveTask(key) => {
                self.tasks.remove(&key);
                self.states.remove(&key);
            }
            StoreOp::PutSandbox(record) => {
                self.sandboxes.insert(record.container_id.clone(), record);
            }
            StoreOp::RemoveSandbox(id) => {
                self.sandboxes.remove(id.as_str());
            }
        }
    }
}

pub(super) struct TestEnv {
    pub(super) core: Core,
    pub(super) now: Time,
    pub(super) store: FakeStore,
    /// Containers that were launched and not removed.
    pub(super) containers: BTreeSet<ContainerId>,
    pub(super) link: LinkId,
    pub(super) log: Vec<Effect>,
    /// 0: the master never pings.
    pub(super) ping_interval_ms: u64,
    /// The agent dies before what comes next is stored: only what may go out at
    /// once does.
    pub(super) dies: bool,
    restarts: u8,
}

pub(super) fn options() -> CoreOptions {
    CoreOptions {
        agent: v1::AgentInfo { hostname: "host".into(), ..Default::default() },
        version: "1".into(),
        boot_id: Some("boot".into()),
        api_address: "host:5051".into(),
        work_dir: PathBuf::from("/work"),
        native_library: None,
        switch_user: true,
        abilities: Abilities::default(),
        kill_grace: Duration::from_secs(3),
        executor_registration_timeout: Duration::from_secs(60),
        executor_reregistration_timeout: Duration::from_secs(2),
        executor_shutdown_grace: Duration::from_secs(5),
        authenticate_executors: false,
        executor_ip: None,
        update_retry: (Duration::from_secs(10), Duration::from_secs(600)),
        max_tasks: 100,
        seed: [7; 32],
    }
}

impl TestEnv {
    /// Started, but without a master.
    pub(super) fn unlinked(options: CoreOptions) -> Self {
        let now = Time::from_secs(1_000);
        let core = Core::new(options, Recovered::default(), now);
        let mut env = Self {
            core,
            now,
            store: FakeStore::default(),
            containers: BTreeSet::new(),
            link: LinkId(0),
            log: Vec::new(),
            ping_interval_ms: 15_000,
            dies: false,
            restarts: 0,
        };
        env.handle(Event::Started);
        env
    }

    /// Registered with a master.
    pub(super) fn new() -> Self {
        let mut env = Self::unlinked(options());
        env.register();
        env
    }

    pub(super) fn register(&mut self) {
        self.link_up();
        self.registered(Vec::new());
    }

    pub(super) fn link_up(&mut self) {
        self.link = LinkId(self.link.0 + 1);
        self.handle(Event::LinkUp { link: self.link, master: "master:5050".into() });
    }

    pub(super) fn registered(&mut self, completed_frameworks: Vec<v1::FrameworkId>) {
        self.master(master_message::Message::Registered(mezz::Registered {
            agent_id: v1::AgentId { value: AGENT.into() },
            master_id: "M".into(),
            ping_interval_ms: self.ping_interval_ms,
            completed_frameworks,
            drain: None,
            ..Default::default()
        }));
    }

    pub(super) fn link_down(&mut self) {
        self.handle(Event::LinkDown { link: self.link });
    }

    pub(super) fn handle(&mut self, event: Event) {
        let mut out = Effects::default();
        self.core.handle(self.now, event, &mut out);
        self.settle(out);
    }

    fn settle(&mut self, out: Effects) {
        if let Err(violation) = self.core.check_invariants() {
            panic!("{violation}");
        }
        let written = if self.dies { Effects::default() } else { out.clone() };
        for op in written.persist {
            self.store.apply(op);
        }
        for effect in out.now.into_iter().chain(written.after_persist) {
            match &effect {
                Effect::Launch(launch) => {
                    assert!(self.containers.insert(launch.spec.id.clone()), "an id twice");
                }
                Effect::Remove { container } => {
                    self.containers.remove(container);
                }
                _ => {}
            }
            self.log.push(effect);
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let mut out = Effects::default();
            self.core.on_deadline(self.now, &mut out);
            self.settle(out);
        }
        self.now = until;
    }

    /// The agent dies and starts again; `found` containers are still there.
    pub(super) fn restart(&mut self, found: impl Fn(&ContainerId) -> bool, rebooted: bool) {
        let recovered = Recovered {
            agent_id: self.store.agent.as_ref().and_then(|agent| agent.id.as_ref()).map(Into::into),
            starts: self.store.starts,
            frameworks: self.store.frameworks.values().cloned().collect(),
            executors: self.store.executors.values().cloned().collect(),
            tasks: self
                .store
                .tasks
                .iter()
                .map(|(key, record)| (record.clone(), self.store.states[key].clone()))
                .collect(),
            found: BTreeSet::new(),
            rebooted,
        };
        let known = recovered.containers();
        let found = known.into_iter().filter(found).collect();
        let mut seed = [0; 32];
        self.restarts += 1;
        seed[0] = self.restarts;
        let options = CoreOptions { seed, ..options() };
        self.core = Core::new(options, Recovered { found, ..recovered }, self.now);
        self.log.clear();
        self.dies = false;
        self.handle(Event::Started);
    }

    pub(super) fn master(&mut self, message: master_message::Message) {
        let message = Box::new(mezz::MasterMessage { message: Some(message) });
        self.handle(Event::Master { link: self.link, message });
    }

    pub(super) fn run(&mut self, tasks: Vec<v1::TaskInfo>) {
        self.run_for(framework("F", &[]), tasks, None);
    }

    pub(super) fn run_for(
        &mut self,
        framework: v1::FrameworkInfo,
        tasks: Vec<v1::TaskInfo>,
        group_executor: Option<v1::ExecutorInfo>,
    ) {
        self.master(master_message::Message::RunTasks(mezz::RunTasks {
            framework,
            tasks,
            group_executor,
            ..Default::default()
        }));
    }

    pub(super) fn kill(&mut self, task: &str, grace: Option<Duration>) {
        let kill_policy = grace.map(policy);
        self.master(master_message::Message::KillTask(mezz::KillTask {
            framework_id: v1::FrameworkId { value: "F".into() },
            task_id: v1::TaskId { value: task.into() },
            kill_policy,
        }));
    }

    pub(super) fn ack(&mut self, status: &TaskStatus) {
        let ack = mezz::StatusUpdateAcknowledgement {
            framework_id: v1::FrameworkId { value: "F".into() },
            task_id: status.task_id.clone(),
            uuid: status.uuid.clone().unwrap(),
        };
        self.master(master_message::Message::Acknowledgement(ack));
    }

    pub(super) fn launched(&mut self, container: &ContainerId) {
        self.handle(Event::ContainerLaunched { container: container.clone(), pid: 42 });
    }

    pub(super) fn ended(&mut self, container: &ContainerId, wait_status: i32) {
        self.terminated(
            container,
            Termination { wait_status: Some(wait_status), out_of_memory: None, failure: None },
        );
    }

    pub(super) fn terminated(&mut self, container: &ContainerId, termination: Termination) {
        let stderr_tail = termination.out_of_memory.map(|_| "the tail".to_owned());
        let container = container.clone();
        self.handle(Event::ContainerEnded { container, termination, stderr_tail });
    }

    pub(super) fn call(&mut self, connection: u64, token: &str, call: Call) {
        let connection = ConnectionId(connection);
        let proof = Proof::token(token);
        self.handle(Event::ExecutorCall { connection, proof, call: Box::new(call) });
    }

    /// Over HTTP, without a token.
    pub(super) fn call_without_token(&mut self, connection: u64, local: bool, call: Call) {
        let (connection, proof) = (ConnectionId(connection), Proof::http(None, local));
        self.handle(Event::ExecutorCall { connection, proof, call: Box::new(call) });
    }

    pub(super) fn shutdown_executor(&mut self) {
        self.master(master_message::Message::ShutdownExecutor(mezz::ShutdownExecutor {
            framework_id: v1::FrameworkId { value: "F".into() },
            executor_id: v1::ExecutorId { value: "E".into() },
        }));
    }

    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.log)
            .into_iter()
            .filter(|effect| !matches!(effect, Effect::Change(_)))
            .collect()
    }

    /// What was launched since the last look, and nothing else of the rest.
    pub(super) fn launches(&mut self) -> Vec<ContainerSpec> {
        let mut specs = Vec::new();
        self.log.retain(|effect| match effect {
            Effect::Launch(launch) => {
                specs.push(launch.spec.clone());
                false
            }
            _ => true,
        });
        specs
    }

    pub(super) fn launch(&mut self) -> ContainerId {
        let specs = self.launches();
        assert_eq!(specs.len(), 1, "one launch");
        specs[0].id.clone()
    }

    /// Updates sent since the last look, as (task, state, reason, message).
    pub(super) fn updates(&mut self) -> Vec<mezz::StatusUpdate> {
        let mut updates = Vec::new();
        self.log.retain(|effect| match effect {
            Effect::SendMaster { message, .. } => match &message.message {
                Some(agent_message::Message::StatusUpdate(update)) => {
                    updates.push(update.clone());
                    false
                }
                _ => true,
            },
            _ => true,
        });
        updates
    }

    #[track_caller]
    pub(super) fn update(&mut self) -> TaskStatus {
        let updates = self.updates();
        assert_eq!(updates.len(), 1, "one update: {updates:?}");
        updates[0].status.clone()
    }

    /// The one update that is out has this state; it is acknowledged.
    #[track_caller]
    pub(super) fn expect(&mut self, state: TaskState) -> TaskStatus {
        let status = self.update();
        assert_eq!(status.state(), state, "{:?}", status.message);
        self.ack(&status);
        status
    }

    pub(super) fn events(&mut self, connection: u64) -> Vec<ExecutorEvent> {
        let mut events = Vec::new();
        self.log.retain(|effect| match effect {
            Effect::SendExecutor { connection: to, event } if to.0 == connection => {
                events.push((**event).clone());
                false
            }
            _ => true,
        });
        events
    }

    pub(super) fn event_types(&mut self, connection: u64) -> Vec<&'static str> {
        self.events(connection).iter().map(|event| event.r#type().as_str_name()).collect()
    }

    /// Launches a command task and lets it run; its updates are acknowledged.
    pub(super) fn running(&mut self, task: v1::TaskInfo) -> ContainerId {
        self.run(vec![task]);
        let container = self.launch();
        self.launched(&container);
        self.expect(TaskState::TaskRunning);
        container
    }

    pub(super) fn state_of(&self, task: &str) -> Option<TaskState> {
        Some(self.store.states.get(&key(task))?.latest())
    }
}
