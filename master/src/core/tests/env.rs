//! A core, a clock, a registry, and the other ends of all connections.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    time::Duration,
};

use mezz_proto::{
    LINK_PROTOCOL,
    mezz::v1::{self as mezz, agent_message, master_message},
    resources::{Dialect, Resources},
    time::Time,
    v1::{
        self,
        framework_info::{Capability, capability},
        offer::{Operation, operation},
        scheduler::{self, Call, call},
    },
};

use crate::{
    allocator::DrfAllocator,
    core::{
        CallError, CallReply, Change, ConnectionId, Core, Effect, Effects, Event, OperatorCommand,
        OperatorError, OperatorReply, RequestId,
    },
    options::CoreOptions,
    registry::{RegistryOp, RegistrySnapshot},
};

pub type SchedulerEvent = scheduler::event::Type;

/// An agent's side of its link.
#[derive(Default, Clone)]
pub struct AgentSide {
    pub id: Option<String>,
    pub info: v1::AgentInfo,
    pub connection: Option<ConnectionId>,
    pub inbox: VecDeque<master_message::Message>,
    /// What it would report: its tasks, frameworks and executors.
    pub tasks: BTreeMap<(String, String), v1::Task>,
    pub frameworks: BTreeMap<String, v1::FrameworkInfo>,
    pub executors: BTreeMap<(String, String), v1::ExecutorInfo>,
    pub answers_pings: bool,
    /// The master will not have it back.
    pub refused: bool,
    /// The order to drain that it has not answered yet.
    pub drain: Option<u64>,
    /// Containers of removed frameworks are in their grace there.
    pub lingers: bool,
}

/// A framework's side of its subscription.
#[derive(Default, Clone)]
pub struct FrameworkSide {
    pub info: v1::FrameworkInfo,
    pub suppressed: Vec<String>,
    pub connection: Option<ConnectionId>,
    pub inbox: VecDeque<scheduler::Event>,
    /// Why the master ended the last connection, if it did.
    pub closed: Option<Option<CallError>>,
}

pub struct Env {
    pub core: Core,
    pub options: CoreOptions,
    pub now: Time,
    pub registry: RegistrySnapshot,
    /// Operations on the registry so far.
    pub writes: usize,
    pub agents: BTreeMap<String, AgentSide>,
    pub frameworks: BTreeMap<String, FrameworkSide>,
    pub changes: Vec<Change>,
    replies: Vec<(RequestId, Result<OperatorReply, OperatorError>)>,
    pub answers: Vec<(RequestId, Result<CallReply, CallError>)>,
    next_connection: u64,
    next_uuid: u64,
    masters: u64,
    /// The text of every effect, for comparing runs.
    pub log: Option<String>,
}

fn options() -> CoreOptions {
    CoreOptions {
        master_id: "m1".to_owned(),
        address: "127.0.0.1:5050".to_owned(),
        allocation_batch: Duration::from_millis(2),
        ..CoreOptions::default()
    }
}

impl Env {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut CoreOptions)) -> Self {
        let mut options = options();
        change(&mut options);
        let now = Time::from_secs(1_000_000);
        let allocator = Box::new(DrfAllocator::new(options.allocator.clone()));
        let core = Core::new(options.clone(), allocator, RegistrySnapshot::default(), now);
        Self {
            core,
            options,
            now,
            registry: RegistrySnapshot::default(),
            writes: 0,
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            changes: Vec::new(),
            replies: Vec::new(),
            answers: Vec::new(),
            next_connection: 0,
            next_uuid: 0,
            masters: 1,
            log: None,
        }
    }

    // --- the shell's part -------------------------------------------------

    pub fn handle(&mut self, event: Event) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{:?} <- {event:?}", self.now);
        }
        let mut out = Effects::default();
        self.core.handle(self.now, event, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Effects) {
        if let Err(violation) = self.core.check_invariants() {
            panic!("{violation}");
        }
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{:?} -> {out:?}", self.now);
        }
        let waits = out.after_persist.iter().find(|e| matches!(e, Effect::Change(_)));
        assert_eq!(waits, None, "a change waits for a write: the shell would not hold it back");
        for op in out.persist {
            self.writes += 1;
            self.apply(op);
        }
        for effect in out.after_persist.into_iter().chain(out.now) {
            self.deliver(effect);
        }
        self.confirm_drains();
    }

    /// What an agent that drains does when its last task has ended: its executors
    /// end, and it says so.
    pub fn confirm_drains(&mut self) {
        let names: Vec<String> = self.agents.keys().cloned().collect();
        for name in names {
            let Some(agent) = self.agents.get_mut(&name) else { continue };
            let live = agent.tasks.values().any(|task| !terminal(task.state));
            if live || agent.lingers || agent.connection.is_none() {
                continue;
            }
            let Some(number) = agent.drain.take() else { continue };
            for (framework, executor) in std::mem::take(&mut agent.executors).into_keys() {
                let terminated = mezz::ExecutorTerminated {
                    framework_id: v1::FrameworkId { value: framework },
                    executor_id: v1::ExecutorId { value: executor },
                    status: 0,
                };
                self.agent_says(&name, agent_message::Message::ExecutorTerminated(terminated));
            }
            self.agent_says(&name, agent_message::Message::Drained(mezz::Drained { number }));
        }
    }

    fn apply(&mut self, op: RegistryOp) {
        let registry = &mut self.registry;
        let agent_id = |r: &mezz::AgentRecord| r.agent.id.clone().unwrap().value;
        let framework_id = |r: &mezz::FrameworkRecord| r.framework.id.clone().unwrap().value;
        match op {
            RegistryOp::PutAgent(record) => {
                registry.agents.retain(|r| agent_id(r) != agent_id(&record));
                registry.agents.push(record);
                registry.agents.sort_by_key(agent_id);
            }
            RegistryOp::RemoveAgent(id) => registry.agents.retain(|r| agent_id(r) != id.as_str()),
            RegistryOp::PutFramework(record) => {
                registry.frameworks.retain(|r| framework_id(r) != framework_id(&record));
                registry.frameworks.push(record);
                registry.frameworks.sort_by_key(framework_id);
            }
            RegistryOp::RemoveFramework(id) => {
                registry.frameworks.retain(|r| framework_id(r) != id.as_str());
            }
            RegistryOp::PutWeight(role, weight) => {
                registry.weights.retain(|(r, _)| *r != role);
                registry.weights.push((role, weight));
                registry.weights.sort_by(|a, b| a.0.cmp(&b.0));
            }
        }
    }

    fn deliver(&mut self, effect: Effect) {
        match effect {
            Effect::SendScheduler { connection, event } => {
                let framework =
                    self.frameworks.values_mut().find(|f| f.connection == Some(connection));
                if let Some(framework) = framework {
                    if let Some(subscribed) = &event.subscribed {
                        framework.info.id = Some(subscribed.framework_id.clone());
                    }
                    framework.inbox.push_back(*event);
                }
            }
            Effect::CloseScheduler { connection, error } => {
                for framework in self.frameworks.values_mut() {
                    if framework.connection == Some(connection) {
                        framework.connection = None;
                        framework.closed = Some(error.clone());
                    }
                }
            }
            Effect::SendAgent { connection, message } => {
                let name = self
                    .agents
                    .iter()
                    .find(|(_, a)| a.connection == Some(connection))
                    .map(|(name, _)| name.clone());
                if let (Some(name), Some(message)) = (name, message.message) {
                    self.agent_receives(&name, message);
                }
            }
            Effect::CloseAgent { connection } => {
                for agent in self.agents.values_mut() {
                    if agent.connection == Some(connection) {
                        agent.connection = None;
                    }
                }
            }
            Effect::Reply { request, reply } => self.replies.push((request, reply)),
            Effect::Answer { request, answer } => self.answers.push((request, answer)),
            Effect::Change(change) => self.changes.push(*change),
        }
    }

    /// What every agent does by itself with a message.
    fn agent_receives(&mut self, name: &str, message: master_message::Message) {
        use master_message::Message;
        let agent = self.agents.get_mut(name).unwrap();
        match &message {
            Message::Registered(m) => {
                agent.id = Some(m.agent_id.value.clone());
                agent.drain = m.drain.as_ref().map(|drain| drain.number);
                for framework in &m.completed_frameworks {
                    agent.forget(&framework.value);
                }
            }
            Message::Drain(m) => agent.drain = Some(m.number),
            Message::Refused(m) if m.permanent => agent.refused = true,
            Message::ShutdownFramework(m) => agent.forget(&m.framework_id.value),
            Message::UpdateFramework(m) => {
                let id = m.framework.id.clone().unwrap().value;
                agent.frameworks.insert(id, m.framework.clone());
            }
            Message::RunTasks(m) => {
                let id = m.framework.id.clone().unwrap();
                agent.frameworks.insert(id.value.clone(), m.framework.clone());
                for task in &m.tasks {
                    let executor = task.executor.as_ref().or(m.group_executor.as_ref());
                    if let Some(executor) = executor {
                        let key = (id.value.clone(), executor.executor_id.value.clone());
                        agent.executors.entry(key).or_insert_with(|| executor.clone());
                    }
                    agent.tasks.insert(
                        (id.value.clone(), task.task_id.value.clone()),
                        v1::Task {
                            name: task.name.clone(),
                            task_id: task.task_id.clone(),
                            framework_id: id.clone(),
                            executor_id: executor.map(|e| e.executor_id.clone()),
                            agent_id: task.agent_id.clone(),
                            state: v1::TaskState::TaskStaging as i32,
                            resources: task.resources.clone(),
                            ..Default::default()
                        },
                    );
                }
            }
            Message::Acknowledgement(m) => {
                let key = (m.framework_id.value.clone(), m.task_id.value.clone());
                if let Some(task) = agent.tasks.get_mut(&key)
                    && task.status_update_uuid.as_ref() == Some(&m.uuid)
                {
                    task.status_update_uuid = None;
                    let state = task.status_update_state.take();
                    if state.is_some_and(terminal) {
                        agent.tasks.remove(&key);
                    }
                }
            }
            _ => {}
        }
        agent.inbox.push_back(message);
    }

    /// Lets time pass, doing what falls due when it does.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut rounds = 0;
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
            rounds += 1;
            assert!(rounds < 20_000, "the core never comes to rest");
            self.now = self.now.max(at);
            let mut out = Effects::default();
            self.core.on_deadline(self.now, &mut out);
            self.carry_out(out);
            self.answer_pings();
        }
        self.now = end;
    }

    fn answer_pings(&mut self) {
        let pings: Vec<_> = self
            .agents
            .iter_mut()
            .filter(|(_, a)| a.answers_pings)
            .filter_map(|(name, a)| {
                let last = a.inbox.iter().rev().find_map(|m| match m {
                    master_message::Message::Ping(p) => Some(p.number),
                    _ => None,
                })?;
                a.inbox.retain(|m| !matches!(m, master_message::Message::Ping(_)));
                Some((name.clone(), last))
            })
            .collect();
        for (name, number) in pings {
            self.agent_says(&name, agent_message::Message::Pong(mezz::Pong { number }));
        }
    }

    /// Until the core has done what is to be done at once.
    pub fn settle(&mut self) {
        self.pass(Duration::from_millis(5));
    }

    /// The master dies; a new one starts from the registry. All links break.
    pub fn restart_master(&mut self) {
        self.restart_from(self.registry.clone());
    }

    pub fn restart_from(&mut self, registry: RegistrySnapshot) {
        self.masters += 1;
        self.options.master_id = format!("m{}", self.masters);
        let allocator = Box::new(DrfAllocator::new(self.options.allocator.clone()));
        self.registry = registry.clone();
        self.core = Core::new(self.options.clone(), allocator, registry, self.now);
        self.core.check_invariants().unwrap();
        for agent in self.agents.values_mut() {
            agent.connection = None;
        }
        for framework in self.frameworks.values_mut() {
            framework.connection = None;
        }
    }

    fn connection(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }

    // --- agents -----------------------------------------------------------

    /// A new agent with these resources registers.
    pub fn agent(&mut self, name: &str, resources: &str) -> &mut Self {
        self.describe_agent(name, resources);
        self.register(name);
        self
    }

    pub fn describe_agent(&mut self, name: &str, resources: &str) {
        let resources = Resources::parse(resources).unwrap().to_proto(Dialect::Refined, None);
        let info = v1::AgentInfo {
            hostname: format!("{name}.example"),
            port: Some(5051),
            resources,
            ..Default::default()
        };
        let side = AgentSide { info, answers_pings: true, ..Default::default() };
        self.agents.insert(name.to_owned(), side);
    }

    pub fn description(&self, name: &str) -> mezz::AgentDescription {
        let agent = &self.agents[name];
        let id = agent.id.as_ref().map(|id| v1::AgentId { value: id.clone() });
        mezz::AgentDescription {
            agent: v1::AgentInfo { id, ..agent.info.clone() },
            version: "0.1.0".to_owned(),
            protocol: LINK_PROTOCOL,
            boot_id: None,
            capabilities: Vec::new(),
            api_address: format!("{name}.example:5051"),
        }
    }

    pub fn register(&mut self, name: &str) {
        let description = self.description(name);
        self.link(name, agent_message::Message::Register(mezz::Register { description }));
    }

    /// Opens a link and says the first thing on it.
    pub fn link(&mut self, name: &str, first: agent_message::Message) {
        let connection = self.connection();
        self.agents.get_mut(name).unwrap().connection = Some(connection);
        self.agent_says(name, first);
    }

    pub fn reregister(&mut self, name: &str) {
        let description = self.description(name);
        let agent = &self.agents[name];
        let message = mezz::Reregister {
            description,
            tasks: agent.tasks.values().cloned().collect(),
            frameworks: agent.frameworks.values().cloned().collect(),
            executors: agent.executors.values().cloned().collect(),
            attempt: None,
        };
        self.link(name, agent_message::Message::Reregister(message));
    }

    pub fn agent_says(&mut self, name: &str, message: agent_message::Message) {
        let Some(connection) = self.agents[name].connection else { return };
        let message = Box::new(mezz::AgentMessage { message: Some(message) });
        self.handle(Event::AgentMessage { connection, message });
    }

    pub fn agent_link_breaks(&mut self, name: &str) {
        if let Some(connection) = self.agents.get_mut(name).unwrap().connection.take() {
            self.handle(Event::AgentDisconnected { connection });
        }
    }

    pub fn agent_id(&self, name: &str) -> String {
        self.agents[name].id.clone().expect("the agent is registered")
    }

    /// What the agent has been sent, pings aside.
    pub fn agent_inbox(&mut self, name: &str) -> Vec<master_message::Message> {
        let inbox = std::mem::take(&mut self.agents.get_mut(name).unwrap().inbox);
        inbox.into_iter().filter(|m| !matches!(m, master_message::Message::Ping(_))).collect()
    }

    /// The agent reports a task's state; the update is what the framework has not
    /// acknowledged.
    pub fn report(&mut self, agent: &str, framework: &str, task: &str, state: v1::TaskState) {
        self.report_late(agent, framework, task, state, state);
    }

    /// The same while the newest state is another one.
    pub fn report_late(
        &mut self,
        agent: &str,
        framework: &str,
        task: &str,
        state: v1::TaskState,
        latest: v1::TaskState,
    ) {
        self.next_uuid += 1;
        let mut uuid = vec![0; 8];
        uuid.extend(self.next_uuid.to_be_bytes());
        let framework_id = self.framework_id(framework);
        let agent_id = self.agent_id(agent);
        let key = (framework_id.clone(), task.to_owned());
        if let Some(known) = self.agents.get_mut(agent).unwrap().tasks.get_mut(&key) {
            known.state = latest as i32;
            known.status_update_state = Some(state as i32);
            known.status_update_uuid = Some(uuid.clone());
        }
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: task.to_owned() },
            state: state as i32,
            agent_id: Some(v1::AgentId { value: agent_id }),
            timestamp: Some(self.now.as_secs_f64()),
            source: Some(v1::task_status::Source::Executor as i32),
            uuid: Some(uuid),
            ..Default::default()
        };
        let update = mezz::StatusUpdate {
            framework_id: v1::FrameworkId { value: framework_id },
            status,
            latest_state: latest as i32,
        };
        self.agent_says(agent, agent_message::Message::StatusUpdate(update));
    }

    // --- frameworks -------------------------------------------------------

    /// A framework with a long failover timeout subscribes to this role.
    pub fn framework(&mut self, name: &str, role: &str) -> &mut Self {
        self.describe_framework(name, &[role]);
        self.subscribe(name);
        self
    }

    /// With MULTI_ROLE and PARTITION_AWARE.
    pub fn describe_framework(&mut self, name: &str, roles: &[&str]) {
        let capability = |c: capability::Type| Capability { r#type: Some(c as i32) };
        let info = v1::FrameworkInfo {
            user: "nobody".to_owned(),
            name: name.to_owned(),
            failover_timeout: Some(3600.0),
            capabilities: vec![
                capability(capability::Type::MultiRole),
                capability(capability::Type::PartitionAware),
            ],
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            ..Default::default()
        };
        self.frameworks.insert(name.to_owned(), FrameworkSide { info, ..Default::default() });
    }

    pub fn subscribe(&mut self, name: &str) {
        let side = &self.frameworks[name];
        let call = Call {
            framework_id: side.info.id.clone(),
            r#type: Some(call::Type::Subscribe as i32),
            subscribe: Some(call::Subscribe {
                framework_info: side.info.clone(),
                suppressed_roles: side.suppressed.clone(),
                offer_constraints: None,
            }),
            ..Default::default()
        };
        let connection = self.connection();
        let side = self.frameworks.get_mut(name).unwrap();
        side.connection = Some(connection);
        side.closed = None;
        self.call_on(connection, call);
    }

    pub fn call_on(&mut self, connection: ConnectionId, call: Call) {
        self.handle(Event::SchedulerCall { connection, call: Box::new(call) });
    }

    pub fn call(&mut self, name: &str, kind: call::Type, fill: impl FnOnce(&mut Call)) {
        let side = &self.frameworks[name];
        let Some(connection) = side.connection else { return };
        let mut call = Call {
            framework_id: side.info.id.clone(),
            r#type: Some(kind as i32),
            ..Default::default()
        };
        fill(&mut call);
        self.call_on(connection, call);
    }

    pub fn framework_leaves(&mut self, name: &str) {
        if let Some(connection) = self.frameworks.get_mut(name).unwrap().connection.take() {
            self.handle(Event::SchedulerDisconnected { connection });
        }
    }

    pub fn framework_id(&self, name: &str) -> String {
        self.frameworks[name].info.id.clone().expect("the framework is subscribed").value
    }

    pub fn inbox(&mut self, name: &str) -> Vec<scheduler::Event> {
        std::mem::take(&mut self.frameworks.get_mut(name).unwrap().inbox).into()
    }

    /// What has come, by type.
    pub fn event_types(&mut self, name: &str) -> Vec<SchedulerEvent> {
        self.inbox(name).iter().map(|e| e.r#type()).collect()
    }

    /// Takes all offers out of the inbox.
    pub fn offers(&mut self, name: &str) -> Vec<v1::Offer> {
        self.settle();
        let inbox = &mut self.frameworks.get_mut(name).unwrap().inbox;
        let mut offers = Vec::new();
        inbox.retain(|e| match &e.offers {
            Some(o) => {
                offers.extend(o.offers.iter().cloned());
                false
            }
            None => true,
        });
        offers
    }

    /// The only offer there is.
    pub fn offer(&mut self, name: &str) -> v1::Offer {
        let offers = self.offers(name);
        assert_eq!(offers.len(), 1, "{name} has one offer: {offers:?}");
        offers.into_iter().next().unwrap()
    }

    /// Takes all updates out of the inbox.
    pub fn updates(&mut self, name: &str) -> Vec<v1::TaskStatus> {
        let inbox = &mut self.frameworks.get_mut(name).unwrap().inbox;
        let mut updates = Vec::new();
        inbox.retain(|e| match &e.update {
            Some(u) => {
                updates.push(u.status.clone());
                false
            }
            None => true,
        });
        updates
    }

    /// The only update there is.
    pub fn update(&mut self, name: &str) -> v1::TaskStatus {
        let updates = self.updates(name);
        assert_eq!(updates.len(), 1, "{name} has one update: {updates:?}");
        updates.into_iter().next().unwrap()
    }

    pub fn accept(&mut self, name: &str, offers: &[&v1::Offer], operations: Vec<Operation>) {
        let accept = call::Accept {
            offer_ids: offers.iter().map(|o| o.id.clone()).collect(),
            operations,
            filters: Some(v1::Filters { refuse_seconds: Some(0.0) }),
        };
        self.call(name, call::Type::Accept, |c| c.accept = Some(accept));
    }

    pub fn launch(&mut self, name: &str, offer: &v1::Offer, tasks: Vec<v1::TaskInfo>) {
        self.accept(name, &[offer], vec![launch(tasks)]);
    }

    /// A task of this size runs, and its update is acknowledged.
    pub fn running(&mut self, framework: &str, agent: &str, task: &str, resources: &str) {
        let offer = self.offer(framework);
        self.launch(framework, &offer, vec![command_task(task, &offer, resources)]);
        self.report(agent, framework, task, v1::TaskState::TaskRunning);
        let update = self.update(framework);
        assert_eq!(update.state(), v1::TaskState::TaskRunning);
        self.acknowledge(framework, &update);
    }

    pub fn decline(&mut self, name: &str, offers: &[v1::Offer], refuse: Option<f64>) {
        let decline = call::Decline {
            offer_ids: offers.iter().map(|o| o.id.clone()).collect(),
            filters: refuse.map(|s| v1::Filters { refuse_seconds: Some(s) }),
        };
        self.call(name, call::Type::Decline, |c| c.decline = Some(decline));
    }

    pub fn acknowledge(&mut self, name: &str, update: &v1::TaskStatus) {
        let acknowledge = call::Acknowledge {
            agent_id: update.agent_id.clone().unwrap(),
            task_id: update.task_id.clone(),
            uuid: update.uuid.clone().expect("the update is to be acknowledged"),
        };
        self.call(name, call::Type::Acknowledge, |c| c.acknowledge = Some(acknowledge));
    }

    pub fn kill(&mut self, name: &str, task: &str) {
        let kill = call::Kill {
            task_id: v1::TaskId { value: task.to_owned() },
            agent_id: None,
            kill_policy: None,
        };
        self.call(name, call::Type::Kill, |c| c.kill = Some(kill));
    }

    pub fn reconcile(&mut self, name: &str, tasks: &[(&str, Option<&str>)]) {
        let tasks = tasks
            .iter()
            .map(|(task, agent)| call::reconcile::Task {
                task_id: v1::TaskId { value: (*task).to_owned() },
                agent_id: agent.map(|a| v1::AgentId { value: a.to_owned() }),
            })
            .collect();
        self.call(name, call::Type::Reconcile, |c| c.reconcile = Some(call::Reconcile { tasks }));
    }

    // --- operators --------------------------------------------------------

    pub fn operator(&mut self, command: OperatorCommand) -> Result<OperatorReply, OperatorError> {
        let request = RequestId(self.replies.len() as u64 + 1000);
        self.handle(Event::Operator { request, command });
        let (id, reply) = self.replies.last().unwrap();
        assert_eq!(*id, request);
        reply.clone()
    }

    /// Ids of tasks in the live list.
    pub fn live_tasks(&self) -> BTreeSet<String> {
        self.core.tasks.iter().map(|(_, t)| t.id.to_string()).collect()
    }
}

impl AgentSide {
    fn forget(&mut self, framework: &str) {
        self.tasks.retain(|(f, _), _| f != framework);
        self.executors.retain(|(f, _), _| f != framework);
        self.frameworks.remove(framework);
    }
}

pub fn terminal(state: i32) -> bool {
    v1::TaskState::try_from(state).unwrap().is_terminal()
}

pub fn launch(task_infos: Vec<v1::TaskInfo>) -> Operation {
    Operation {
        r#type: Some(operation::Type::Launch as i32),
        launch: Some(operation::Launch { task_infos }),
        ..Default::default()
    }
}

pub fn wire(resources: &str) -> Vec<v1::Resource> {
    Resources::parse(resources).unwrap().to_proto(Dialect::Plain, None)
}

pub fn text(resources: &[v1::Resource]) -> String {
    Resources::from_proto(resources).unwrap().to_string()
}

pub fn command_task(id: &str, offer: &v1::Offer, resources: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        name: id.to_owned(),
        task_id: v1::TaskId { value: id.to_owned() },
        agent_id: offer.agent_id.clone(),
        resources: wire(resources),
        command: Some(v1::CommandInfo { value: Some("true".to_owned()), ..Default::default() }),
        ..Default::default()
    }
}

pub fn executor(id: &str, resources: &str) -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        executor_id: v1::ExecutorId { value: id.to_owned() },
        resources: wire(resources),
        command: Some(v1::CommandInfo { value: Some("exec".to_owned()), ..Default::default() }),
        ..Default::default()
    }
}

pub fn executor_task(
    id: &str,
    offer: &v1::Offer,
    resources: &str,
    executor: &v1::ExecutorInfo,
) -> v1::TaskInfo {
    v1::TaskInfo {
        command: None,
        executor: Some(executor.clone()),
        ..command_task(id, offer, resources)
    }
}
