//! An agent's process: the real core, its effects held back by the real `Outgoing`,
//! its link by the real `Search` (as `agent/src/shell/owner.rs` and `link.rs`).

mod link;

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use mezz_agent::{
    core::{Abilities, Core, CoreOptions, Effect, Effects, Event, LinkId, StoreOp},
    simulation::Outgoing,
};
use mezz_proto::{
    resources::{Dialect, Resources},
    search::Search,
    time::Time,
    v1,
};
use rand::RngExt as _;

use crate::{
    machine::Machine,
    master::address,
    net::{End, Packet, Stream},
    sabotage::Sabotage,
    store::Store,
    world::{Node, What, World},
};

/// What every agent has.
pub const RESOURCES: &str = "cpus:4;mem:1024";

/// How the link stands.
#[derive(Debug)]
enum Link {
    None,
    Dialing {
        stream: Stream,
        master: usize,
    },
    Up {
        stream: Stream,
        master: usize,
        link: LinkId,
        answered: bool,
        registered: bool,
        refused: bool,
    },
}

/// One agent: what is on its machine, and the process that is there.
pub struct Agent {
    pub store: Store,
    pub machine: Machine,
    core: Option<Core>,
    effects: Effects,
    outgoing: Outgoing,
    /// Batches that the disk has not got.
    unwritten: VecDeque<(u64, Vec<StoreOp>)>,
    last_batch: u64,
    written: u64,
    /// The disk writes everything up to this one.
    writing: Option<u64>,
    link: Link,
    links: u64,
    search: Search,
    /// When the master of the link was asked.
    asked: Time,
    /// When the search goes on, or the answer must be there.
    due: Option<Time>,
    /// Ended by the core.
    closed: Option<(LinkId, usize)>,
}

impl Agent {
    pub fn new() -> Self {
        Self {
            store: Store::default(),
            machine: Machine::default(),
            core: None,
            effects: Effects::default(),
            outgoing: Outgoing::default(),
            unwritten: VecDeque::new(),
            last_batch: 0,
            written: 0,
            writing: None,
            link: Link::None,
            links: 0,
            search: Search::new(Vec::new(), link::BACKOFF),
            asked: Time::ZERO,
            due: None,
            closed: None,
        }
    }

    /// Its id, as its core has it.
    pub fn core_id(&self) -> Option<String> {
        self.core.as_ref()?.agent_id().map(ToString::to_string)
    }

    /// Linked and taken in, as it thinks itself.
    pub fn is_registered(&self) -> bool {
        matches!(self.link, Link::Up { registered: true, .. })
    }

    /// Tasks that have not ended, as its core sees it.
    pub fn live_tasks(&self) -> usize {
        self.core.as_ref().map_or(0, Core::live_tasks)
    }
}

fn options(n: usize, boot_id: String, seed: [u8; 32]) -> CoreOptions {
    let resources = Resources::parse(RESOURCES).expect("resources");
    CoreOptions {
        agent: v1::AgentInfo {
            hostname: format!("host{n}"),
            port: Some(5051),
            resources: resources.to_proto(Dialect::Refined, None),
            ..Default::default()
        },
        version: "1".to_owned(),
        boot_id: Some(boot_id),
        api_address: format!("host{n}:5051"),
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
        update_retry: (Duration::from_secs(5), Duration::from_secs(30)),
        max_tasks: 1_000,
        seed,
    }
}

impl World {
    pub fn start_agent(&mut self, n: usize) {
        let node = Node::Agent(n);
        self.started(node);
        self.reset_streams_of(node);
        let before = std::mem::replace(&mut self.agents[n], Agent::new());
        let mut agent = Agent { store: before.store, machine: before.machine, ..Agent::new() };
        let masters = (0..self.plan.masters).map(address).collect();
        agent.search = Search::new(masters, link::BACKOFF);
        let boot = agent.machine.boot_id();
        let mut recovered = agent.store.recovered(&boot);
        let known = recovered.containers();
        recovered.found = agent.machine.recover(&known);
        let now = self.local(node);
        agent.core = Some(Core::new(options(n, boot, self.rng.random()), recovered, now));
        self.agents[n] = agent;
        self.agent_event(n, Event::Started);
        self.agent_searches(n);
        self.agent_wakes(n);
    }

    /// The process is gone. What the disk was just writing may be there.
    pub fn end_agent(&mut self, n: usize) {
        let wrote = self.rng.random_bool(0.5);
        let agent = &mut self.agents[n];
        if let Some(upto) = agent.writing.filter(|_| wrote) {
            agent.write(upto);
        }
        let store = std::mem::take(&mut agent.store);
        let machine = std::mem::take(&mut agent.machine);
        self.agents[n] = Agent { store, machine, ..Agent::new() };
        self.executors_lose_agent(n);
    }

    pub fn agent_woken(&mut self, n: usize) {
        let now = self.local(Node::Agent(n));
        let agent = &mut self.agents[n];
        if let Some(core) = &mut agent.core
            && core.next_deadline().is_some_and(|at| at <= now)
        {
            core.on_deadline(now, &mut agent.effects);
            self.agent_carries_out(n);
        }
        if self.agents[n].due.is_some_and(|at| at <= now) {
            self.agents[n].due = None;
            match self.agents[n].link {
                Link::None => self.agent_searches(n),
                Link::Up { stream, answered: false, .. } => {
                    self.hang_up(stream, End::Client);
                    self.agent_link_over(n, None);
                }
                Link::Dialing { .. } | Link::Up { .. } => {}
            }
        }
        self.agent_wakes(n);
    }

    fn agent_wakes(&mut self, n: usize) {
        let agent = &self.agents[n];
        let core = agent.core.as_ref().and_then(Core::next_deadline);
        let next = [core, agent.due].into_iter().flatten().min();
        self.wake_at(Node::Agent(n), next);
    }

    pub fn agent_event(&mut self, n: usize, event: Event) {
        let now = self.local(Node::Agent(n));
        let agent = &mut self.agents[n];
        let Some(core) = &mut agent.core else { return };
        core.handle(now, event, &mut agent.effects);
        self.agent_carries_out(n);
        self.agent_wakes(n);
    }

    fn agent_carries_out(&mut self, n: usize) {
        if let Some(Err(violation)) = self.agents[n].core.as_ref().map(Core::check_invariants) {
            return self.broken_rule(format!("agent{n}: {violation}"));
        }
        loop {
            let agent = &mut self.agents[n];
            let Effects { now, persist, after_persist } = std::mem::take(&mut agent.effects);
            let nothing = now.is_empty() && persist.is_empty() && after_persist.is_empty();
            if nothing {
                break;
            }
            if !persist.is_empty() {
                agent.last_batch += 1;
                agent.unwritten.push_back((agent.last_batch, persist));
                self.write_on(n);
            }
            for effect in now {
                if let Some(effect) = self.agents[n].outgoing.pass(effect) {
                    self.agent_acts(n, effect);
                }
            }
            let agent = &mut self.agents[n];
            for effect in after_persist {
                agent.outgoing.hold(agent.last_batch, effect);
            }
            while let Some(effect) = self.agents[n].pop() {
                self.agent_acts(n, effect);
            }
        }
        if let Some((link, master)) = self.agents[n].closed.take() {
            self.agent_event(n, Event::LinkDown { link });
            self.agents[n].search.failed(address(master));
            self.agent_searches(n);
        }
    }

    // --- the disk ---------------------------------------------------------

    /// Begins to write all that waits, unless something is being written.
    fn write_on(&mut self, n: usize) {
        let slow = self.rng.random_ratio(1, 200);
        let most = if slow { 2_000_000 } else { 8_000 };
        let wait = Duration::from_micros(self.rng.random_range(100..most));
        let agent = &mut self.agents[n];
        if agent.writing.is_none() && !agent.unwritten.is_empty() {
            agent.writing = Some(agent.last_batch);
            self.later(wait, Some(Node::Agent(n)), What::Stored);
        }
    }

    pub fn stored(&mut self, n: usize) {
        let forgets = self.sabotage == Sabotage::Forgetful && self.rng.random_ratio(1, 10);
        let agent = &mut self.agents[n];
        let Some(upto) = agent.writing.take() else { return };
        if forgets {
            agent.unwritten.retain(|(number, _)| *number > upto);
        }
        agent.write(upto);
        agent.written = upto;
        self.write_on(n);
        while let Some(effect) = self.agents[n].pop() {
            self.agent_acts(n, effect);
        }
        self.agent_carries_out(n);
        self.agent_wakes(n);
    }

    // --- effects ----------------------------------------------------------

    fn agent_acts(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::SendMaster { link, message } => {
                if let Link::Up { stream, link: current, master, .. } = self.agents[n].link
                    && current == link
                {
                    self.check_report(n, &message);
                    self.echo_later(n, master, &message);
                    self.send(stream, End::Client, Packet::FromAgent(message));
                }
            }
            Effect::CloseLink { link } => {
                if let Link::Up { stream, link: current, master, .. } = self.agents[n].link
                    && current == link
                {
                    self.hang_up(stream, End::Client);
                    self.agents[n].link = Link::None;
                    self.agents[n].due = None;
                    self.agents[n].closed = Some((link, master));
                }
            }
            Effect::Refused { reason } | Effect::Gone { reason, .. } => {
                self.broken_rule(format!("agent{n} is refused for good: {reason}"));
            }
            Effect::Alarm { message } => self.broken_rule(format!("agent{n}: {message}")),
            Effect::Launch(launch) => self.launch(n, *launch),
            Effect::Watch { container, .. } => self.watch(n, &container),
            Effect::Signal { container, signal, .. } => self.signal(n, &container, signal),
            Effect::Destroy { container } => self.destroy(n, &container),
            Effect::Remove { container } => self.forget_container(n, &container),
            Effect::SendExecutor { connection, event } => {
                self.tell_executor(n, connection, Some(event));
            }
            Effect::CloseExecutor { connection, .. } => self.tell_executor(n, connection, None),
            Effect::Update { container, resources, .. } => self.hold(n, &container, resources),
            // There are no checks here, nobody reads, and updates are few, so that no gate closes.
            Effect::Probe { .. } | Effect::Change(_) => {}
        }
    }
}

impl Agent {
    /// The next effect that rests on nothing unwritten.
    fn pop(&mut self) -> Option<Effect> {
        self.outgoing.pop(self.written)
    }

    /// The disk has everything up to this batch.
    fn write(&mut self, upto: u64) {
        while self.unwritten.front().is_some_and(|(number, _)| *number <= upto) {
            for op in self.unwritten.pop_front().map(|(_, ops)| ops).unwrap_or_default() {
                self.store.apply(op);
            }
        }
    }
}
