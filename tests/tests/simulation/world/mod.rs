//! Time, the queue of what happens next, and who is there.

mod node;

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::time::Time;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    agent::Agent,
    books::Books,
    clock::Clock,
    etcd::Etcd,
    faults::Fault,
    framework::Framework,
    log::Log,
    master::Master,
    net::{Net, Packet, Stream},
    plan::Plan,
    sabotage::Sabotage,
};

pub use node::{Node, Status, What};

struct Happens {
    /// Only for this process, as it was started then.
    to: Option<(Node, u64)>,
    what: What,
}

pub struct World {
    pub now: Time,
    pub rng: StdRng,
    pub plan: Plan,
    pub log: Log,
    pub etcd: Etcd,
    pub net: Net,
    pub masters: Vec<Master>,
    pub agents: Vec<Agent>,
    pub frameworks: Vec<Framework>,
    pub books: Books,
    pub sabotage: Sabotage,
    /// The first rule that was broken.
    pub wrong: Option<String>,
    pub events: u64,
    statuses: BTreeMap<Node, Status>,
    queue: BTreeMap<(Time, u64), Happens>,
    last: u64,
}

/// The world begins at a wall time, so that nothing counts from the epoch.
pub const BEGIN: Time = Time::from_secs(1_000_000);

impl World {
    pub fn new(seed: u64, log: Log) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng);
        let mut world = Self {
            now: BEGIN,
            rng,
            log,
            etcd: Etcd::default(),
            net: Net::default(),
            masters: Vec::new(),
            agents: Vec::new(),
            frameworks: Vec::new(),
            books: Books::default(),
            sabotage: Sabotage::None,
            wrong: None,
            events: 0,
            statuses: BTreeMap::new(),
            queue: BTreeMap::new(),
            last: 0,
            plan,
        };
        world.masters = (0..world.plan.masters).map(|_| Master::default()).collect();
        world.agents = (0..world.plan.agents).map(|_| Agent::new()).collect();
        let frameworks = world.plan.frameworks;
        world.frameworks = (0..frameworks).map(|n| Framework::new(n, &mut world.rng)).collect();
        let mut nodes = vec![Node::Etcd];
        nodes.extend((0..world.plan.masters).map(Node::Master));
        nodes.extend((0..world.plan.agents).map(Node::Agent));
        nodes.extend((0..world.plan.frameworks).map(Node::Framework));
        for node in nodes {
            let status = Status {
                up: node == Node::Etcd,
                epoch: 0,
                paused: None,
                resumes: BEGIN,
                off: false,
                since: BEGIN,
                clock: Clock::new(BEGIN, BEGIN, 1_000_000),
                wakes: None,
            };
            world.statuses.insert(node, status);
            if node != Node::Etcd {
                let wait = Duration::from_millis(world.rng.random_range(0..2_000));
                world.later(wait, None, What::Fault(Fault::Start(node)));
            }
        }
        world.say(|| format!("seed {seed}"));
        let plan = world.plan.to_string();
        world.say(|| plan);
        world
    }

    // --- time -------------------------------------------------------------

    pub fn later(&mut self, after: Duration, to: Option<Node>, what: What) {
        let to = to.map(|node| (node, self.status(node).epoch));
        self.push(self.now + after, to, what);
    }

    pub fn at_epoch(&mut self, at: Time, node: Node, epoch: u64, what: What) {
        self.push(at, Some((node, epoch)), what);
    }

    fn push(&mut self, at: Time, to: Option<(Node, u64)>, what: What) {
        self.last += 1;
        self.queue.insert((at.max(self.now), self.last), Happens { to, what });
    }

    /// A process wants to be woken at a time of its own clock.
    pub fn wake_at(&mut self, node: Node, local: Option<Time>) {
        let Some(local) = local else { return };
        let at = self.status(node).clock.truth(local).max(self.now);
        let status = self.status_mut(node);
        if status.wakes.is_some_and(|before| before <= at) {
            return;
        }
        status.wakes = Some(at);
        let epoch = status.epoch;
        self.push(at, Some((node, epoch)), What::Wake(at));
    }

    /// What a process reads now.
    pub fn local(&self, node: Node) -> Time {
        self.status(node).clock.local(self.now)
    }

    /// Lets the world go on until then, or until a rule is broken.
    pub fn run_until(&mut self, end: Time) {
        while self.wrong.is_none() {
            let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end) else {
                self.now = end;
                return;
            };
            let ((at, number), happens) = next.remove_entry();
            self.now = at;
            if let Some((node, epoch)) = happens.to {
                let status = *self.status(node);
                if status.epoch != epoch || !status.up {
                    continue;
                }
                if status.paused.is_some() && at < status.resumes {
                    // In its order, when the process goes on.
                    self.queue.insert((status.resumes, number), happens);
                    continue;
                }
            }
            self.events += 1;
            let to = happens.to.map(|(node, _)| node);
            self.happens(to, happens.what);
        }
    }

    fn happens(&mut self, to: Option<Node>, what: What) {
        match what {
            What::Wake(at) => {
                let Some(node) = to else { return };
                let status = self.status_mut(node);
                if status.wakes == Some(at) {
                    status.wakes = None;
                    self.woken(node);
                }
            }
            What::Dialed(stream) => {
                if let Some(client) = to {
                    self.dialed(client, stream);
                }
            }
            What::DialFailed(stream) => {
                if let Some(client) = to {
                    self.dial_failed(client, stream);
                }
            }
            What::Ping(stream, end) => self.ping(stream, end),
            What::Arrives(stream, end) => self.arrives(stream, end),
            What::Cut(stream, end) => self.cut(stream, end),
            What::EtcdAsked { master, epoch, id, request } => {
                self.etcd_asked(master, epoch, id, request);
            }
            What::EtcdAnswers { id, reply } => {
                if let Some(Node::Master(n)) = to {
                    self.etcd_answered(n, id, reply);
                }
            }
            What::Stored => {
                if let Some(Node::Agent(n)) = to {
                    self.stored(n);
                }
            }
            What::Machine { agent, boot, container, step } => {
                self.machine_step(agent, boot, &container, step);
            }
            What::Container(event) => {
                if let Some(Node::Agent(n)) = to {
                    self.agent_event(n, event);
                }
            }
            What::Decide(offer) => {
                if let Some(Node::Framework(n)) = to {
                    self.decide(n, &offer);
                }
            }
            What::Acknowledge(status) => {
                if let Some(Node::Framework(n)) = to {
                    self.acknowledge(n, &status);
                }
            }
            What::Fault(fault) => self.fault(fault),
            What::Echo { agent, master, term, message } => self.echo(agent, master, term, message),
        }
    }

    // --- who is there -----------------------------------------------------

    pub fn status(&self, node: Node) -> &Status {
        &self.statuses[&node]
    }

    pub fn status_mut(&mut self, node: Node) -> &mut Status {
        self.statuses.get_mut(&node).expect("a status for every node")
    }

    /// What the status keeps of a new start of a process.
    pub fn started(&mut self, node: Node) {
        // Set right at the start, and then as good as it is.
        let off = self.rng.random_range(0..1_000_000_000);
        let speed =
            self.rng.random_range(1_000_000 - self.plan.drift..=1_000_000 + self.plan.drift);
        let now = self.now;
        let status = self.status_mut(node);
        status.epoch += 1;
        status.up = true;
        status.paused = None;
        status.off = false;
        status.since = now;
        status.wakes = None;
        status.clock = Clock::new(Time::from_nanos(now.as_nanos() + off), now, speed);
    }

    fn woken(&mut self, node: Node) {
        match node {
            Node::Master(n) => self.master_woken(n),
            Node::Agent(n) => self.agent_woken(n),
            Node::Framework(n) => self.framework_woken(n),
            Node::Etcd => {}
        }
    }

    pub fn connected(&mut self, client: Node, stream: Stream) {
        match client {
            Node::Agent(n) => self.agent_connected(n, stream),
            Node::Framework(n) => self.framework_connected(n, stream),
            Node::Master(_) | Node::Etcd => {}
        }
    }

    pub fn dial_failed(&mut self, client: Node, stream: Stream) {
        match client {
            Node::Agent(n) => self.agent_dial_failed(n, stream),
            Node::Framework(n) => self.framework_dial_failed(n, stream),
            Node::Master(_) | Node::Etcd => {}
        }
    }

    pub fn heard(&mut self, node: Node, stream: Stream, packet: Packet) {
        match node {
            Node::Master(n) => self.master_heard(n, stream, packet),
            Node::Agent(n) => self.agent_heard(n, stream, packet),
            Node::Framework(n) => self.framework_heard(n, stream, packet),
            Node::Etcd => {}
        }
    }

    pub fn stream_ended(&mut self, node: Node, stream: Stream) {
        match node {
            Node::Master(n) => self.master_stream_ended(n, stream),
            Node::Agent(n) => self.agent_stream_ended(n, stream),
            Node::Framework(n) => self.framework_stream_ended(n, stream),
            Node::Etcd => {}
        }
    }

    // --- the story --------------------------------------------------------

    /// A line of the log.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        self.log.say(self.now, line);
    }

    /// A rule is broken.
    pub fn broken_rule(&mut self, rule: String) {
        self.say(|| format!("BROKEN: {rule}"));
        self.wrong.get_or_insert(rule);
    }
}
