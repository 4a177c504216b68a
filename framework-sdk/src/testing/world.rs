//! The task that owns the master's core and the agents.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use mezz_master::{
    allocator::DrfAllocator,
    core::{CallError, ConnectionId, Core, Effect, Effects, Event},
    options::CoreOptions,
};
use mezz_proto::{
    mezz::v1::{self as mezz, agent_message},
    resources::Resources,
    time::Time,
    v1::{self, scheduler::Call},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{AgentTask, Behaviour, agent::FakeAgent, registry::Registry};
use crate::drive::LinkEnd;

/// The master's address, for those that ask.
pub(super) const ADDRESS: &str = "test-cluster:5050";
/// The world begins at this time; any would do.
const START: Time = Time::from_secs(1_700_000_000);
/// How long agents take to find a new master.
const AGENT_RECONNECT: Duration = Duration::from_secs(1);

type SchedulerEvents = mpsc::UnboundedSender<Result<v1::scheduler::Event, LinkEnd>>;

/// What tasks do.
pub(super) struct Script(pub Box<dyn FnMut(&v1::TaskInfo) -> Behaviour + Send>);

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

#[derive(Debug)]
pub(super) enum Input {
    AddAgent {
        hostname: String,
        resources: Resources,
        attributes: Vec<v1::Attribute>,
    },
    Script(Script),
    EndTask {
        task_id: String,
        state: v1::TaskState,
        message: String,
    },
    KillAgent(String),
    Partition(String, bool),
    StopMaster,
    StartMaster,
    Tasks(oneshot::Sender<Vec<AgentTask>>),
    Connect {
        first: Box<Call>,
        events: SchedulerEvents,
        reply: oneshot::Sender<Result<ConnectionId, LinkEnd>>,
    },
    Call {
        connection: ConnectionId,
        call: Box<Call>,
    },
    CallsEnded(ConnectionId),
}

#[derive(Debug)]
pub(super) struct World {
    clock: Instant,
    options: CoreOptions,
    registry: Registry,
    /// Masters that were started.
    masters: u32,
    core: Option<Core>,
    connections: u64,
    schedulers: BTreeMap<ConnectionId, SchedulerEvents>,
    agents: Vec<FakeAgent>,
    agents_made: u64,
    script: Script,
    /// For the core.
    events: VecDeque<Event>,
}

impl World {
    pub fn new(options: CoreOptions) -> Self {
        let mut world = Self {
            clock: Instant::now(),
            options: CoreOptions { address: ADDRESS.to_owned(), ..options },
            registry: Registry::default(),
            masters: 0,
            core: None,
            connections: 0,
            schedulers: BTreeMap::new(),
            agents: Vec::new(),
            agents_made: 0,
            script: Script(Box::new(|_| Behaviour::run())),
            events: VecDeque::new(),
        };
        world.start_master();
        world
    }

    /// Until the cluster is dropped.
    pub async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        loop {
            let deadline = self.next_deadline().map(|t| self.clock + t.since(START));
            let due = futures_util::future::OptionFuture::from(deadline.map(sleep_until));
            tokio::select! {
                biased;
                input = inputs.recv() => match input {
                    Some(input) => self.on_input(input),
                    None => return,
                },
                Some(()) = due => self.on_deadline(),
            }
            self.settle();
        }
    }

    fn now(&self) -> Time {
        START + self.clock.elapsed()
    }

    fn next_deadline(&self) -> Option<Time> {
        let core = self.core.as_ref().and_then(Core::next_deadline);
        let up = self.core.is_some();
        let agents = self.agents.iter().filter_map(|a| {
            // Without a master there is nothing to reconnect to.
            a.next_deadline().filter(|&t| up || a.reconnect != Some(t))
        });
        agents.chain(core).min()
    }

    fn on_input(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::AddAgent { hostname, resources, attributes } => {
                self.agents_made += 1;
                let number = self.agents_made;
                self.agents.push(FakeAgent::new(number, hostname, resources, attributes, now));
            }
            Input::Script(script) => self.script = script,
            Input::EndTask { task_id, state, message } => {
                self.each_agent(|agent, out| agent.end_by_id(now, &task_id, state, &message, out));
            }
            Input::KillAgent(hostname) => {
                for agent in self.agents.extract_if(.., |a| a.hostname == hostname) {
                    let ended = agent.link.map(|c| Event::AgentDisconnected { connection: c });
                    self.events.extend(ended);
                }
            }
            Input::Partition(hostname, partitioned) => {
                for agent in self.agents.iter_mut().filter(|a| a.hostname == hostname) {
                    agent.partitioned = partitioned;
                    if agent.link.is_none() {
                        agent.reconnect = Some(now);
                    }
                }
            }
            Input::StopMaster => self.stop_master(),
            Input::StartMaster => self.start_master(),
            Input::Tasks(reply) => {
                let mut tasks: Vec<_> = self.agents.iter().flat_map(FakeAgent::tasks).collect();
                tasks.sort_by(|a, b| (&a.hostname, &a.task_id).cmp(&(&b.hostname, &b.task_id)));
                let _ = reply.send(tasks);
            }
            Input::Connect { first, events, reply } => {
                if self.core.is_none() {
                    let refused = LinkEnd::Lost("the master is stopped".to_owned());
                    let _ = reply.send(Err(refused));
                    return;
                }
                let connection = self.new_connection();
                self.schedulers.insert(connection, events);
                let _ = reply.send(Ok(connection));
                self.events.push_back(Event::SchedulerCall { connection, call: first });
            }
            Input::Call { connection, call } => {
                if self.schedulers.contains_key(&connection) {
                    self.events.push_back(Event::SchedulerCall { connection, call });
                }
            }
            Input::CallsEnded(connection) => {
                if self.schedulers.remove(&connection).is_some() {
                    self.events.push_back(Event::SchedulerDisconnected { connection });
                }
            }
        }
    }

    fn on_deadline(&mut self) {
        let now = self.now();
        self.each_agent(|agent, out| agent.on_deadline(now, out));
        if let Some(core) = &mut self.core
            && core.next_deadline().is_some_and(|t| t <= now)
        {
            let mut out = Effects::default();
            core.on_deadline(now, &mut out);
            self.carry_out(out);
        }
    }

    /// Until nothing more happens at this moment.
    fn settle(&mut self) {
        loop {
            self.connect_agents();
            let Some(event) = self.events.pop_front() else { return };
            let now = self.now();
            let Some(core) = &mut self.core else { continue };
            let mut out = Effects::default();
            core.handle(now, event, &mut out);
            self.carry_out(out);
        }
    }

    fn carry_out(&mut self, out: Effects) {
        if let Some(core) = &self.core
            && let Err(violation) = core.check_invariants()
        {
            panic!("the master's state is wrong: {violation}");
        }
        for op in out.persist {
            self.registry.apply(op);
        }
        for effect in out.after_persist.into_iter().chain(out.now) {
            match effect {
                Effect::SendScheduler { connection, event } => {
                    if let Some(events) = self.schedulers.get(&connection) {
                        let _ = events.send(Ok(*event));
                    }
                }
                Effect::CloseScheduler { connection, error } => {
                    if let (Some(events), Some(error)) =
                        (self.schedulers.remove(&connection), error)
                    {
                        let _ = events.send(Err(link_end(&error)));
                    }
                }
                Effect::SendAgent { connection, message } => {
                    self.tell_agent(connection, *message);
                }
                Effect::CloseAgent { connection } => {
                    let reconnect = Some(self.now() + AGENT_RECONNECT);
                    for agent in self.agents.iter_mut().filter(|a| a.link == Some(connection)) {
                        (agent.link, agent.reconnect) = (None, reconnect);
                    }
                }
                Effect::Reply { .. } | Effect::Answer { .. } | Effect::Change(_) => {}
            }
        }
    }

    fn tell_agent(&mut self, connection: ConnectionId, message: mezz::MasterMessage) {
        let now = self.now();
        let Some(i) = self.agents.iter().position(|a| a.link == Some(connection)) else { return };
        let Some(message) = message.message else { return };
        if self.agents[i].partitioned {
            return;
        }
        let mut out = Vec::new();
        self.agents[i].on_message(now, message, &mut self.script, &mut out);
        self.hear_agent(i, out);
    }

    fn hear_agent(&mut self, i: usize, messages: Vec<agent_message::Message>) {
        let Some(connection) = self.agents[i].link.filter(|_| !self.agents[i].partitioned) else {
            return;
        };
        self.events.extend(messages.into_iter().map(|message| Event::AgentMessage {
            connection,
            message: Box::new(mezz::AgentMessage { message: Some(message) }),
        }));
    }

    fn each_agent(&mut self, f: impl Fn(&mut FakeAgent, &mut Vec<agent_message::Message>)) {
        for i in 0..self.agents.len() {
            let mut out = Vec::new();
            f(&mut self.agents[i], &mut out);
            self.hear_agent(i, out);
        }
    }

    fn connect_agents(&mut self) {
        let now = self.now();
        if self.core.is_none() {
            return;
        }
        for i in 0..self.agents.len() {
            let agent = &mut self.agents[i];
            if agent.reconnect.is_none_or(|t| t > now) {
                continue;
            }
            agent.reconnect = None;
            // `heal_agent` tries again.
            if !agent.partitioned {
                let connection = self.new_connection();
                self.agents[i].link = Some(connection);
                let hello = self.agents[i].hello();
                self.hear_agent(i, vec![hello]);
            }
        }
    }

    fn stop_master(&mut self) {
        self.core = None;
        self.events.clear();
        for (_, events) in std::mem::take(&mut self.schedulers) {
            let _ = events.send(Err(LinkEnd::Lost("the master was stopped".to_owned())));
        }
        for agent in &mut self.agents {
            (agent.link, agent.reconnect) = (None, None);
        }
    }

    fn start_master(&mut self) {
        if self.core.is_some() {
            return;
        }
        let now = self.now();
        self.masters += 1;
        let options = CoreOptions {
            master_id: format!("00000000-0000-4000-8000-{:012}", self.masters),
            ..self.options.clone()
        };
        let allocator = Box::new(DrfAllocator::new(options.allocator.clone()));
        self.core = Some(Core::new(options, allocator, self.registry.snapshot(), now));
        for agent in &mut self.agents {
            agent.reconnect = Some(now + AGENT_RECONNECT);
        }
    }

    fn new_connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(self.connections)
    }
}

/// As the gRPC service answers.
fn link_end(error: &CallError) -> LinkEnd {
    match error {
        CallError::Invalid(_) | CallError::NotAllowed(_) => LinkEnd::Refused(error.to_string()),
        CallError::LimitReached(_) => LinkEnd::Lost(error.to_string()),
    }
}
