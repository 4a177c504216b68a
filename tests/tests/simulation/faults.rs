//! What goes wrong, and how it is mended.

use std::time::Duration;

use mezz_master::core::{Event, OperatorCommand, RequestId};
use mezz_proto::mezz::v1 as mezz;
use rand::RngExt as _;

use crate::world::{Node, What, World};

#[derive(Clone, Debug)]
pub enum Fault {
    /// The next one.
    Next,
    /// A process is started, if it is not there.
    Start(Node),
    /// A process goes on.
    Resume(Node),
    /// The network is as it was between these.
    Unblock(Vec<(Node, Node)>),
    /// And as fast.
    Fast,
    EtcdUp,
}

impl World {
    /// Faults come from now on.
    pub fn begin_faults(&mut self) {
        self.later(Duration::from_secs(15), None, What::Fault(Fault::Next));
    }

    pub fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Next => {
                if self.books.launching {
                    self.books.faults += 1;
                    self.some_fault();
                    let most = u64::try_from(self.plan.pause.as_millis()).unwrap_or(u64::MAX);
                    let wait = Duration::from_millis(self.rng.random_range(100..most));
                    self.later(wait, None, What::Fault(Fault::Next));
                }
            }
            Fault::Start(node) => self.start(node),
            Fault::Resume(node) => {
                let now = self.now;
                let status = self.status_mut(node);
                if status.paused.is_some() && status.resumes <= now {
                    status.paused = None;
                    self.say(|| format!("mended: {node} goes on"));
                    self.thaw(node);
                }
            }
            Fault::Unblock(pairs) => {
                for (from, to) in pairs {
                    self.unblock(from, to);
                }
            }
            Fault::Fast => self.net.slowness = 1,
            Fault::EtcdUp => {
                self.say(|| "mended: etcd answers".to_owned());
                self.status_mut(Node::Etcd).up = true;
            }
        }
    }

    /// Nothing goes wrong any more, and frameworks ask for nothing new.
    pub fn heal(&mut self) {
        self.say(|| "all is mended; nothing new is asked for".to_owned());
        self.books.launching = false;
        self.unblock_all();
        self.status_mut(Node::Etcd).up = true;
        self.plan.lost = 0;
        self.plan.slow = 0;
        for node in self.processes() {
            self.start(node);
        }
    }

    fn processes(&self) -> Vec<Node> {
        let masters = (0..self.plan.masters).map(Node::Master);
        let agents = (0..self.plan.agents).map(Node::Agent);
        masters.chain(agents).chain((0..self.plan.frameworks).map(Node::Framework)).collect()
    }

    fn start(&mut self, node: Node) {
        if self.status(node).up {
            return;
        }
        self.say(|| format!("{node}: starts"));
        match node {
            Node::Master(n) => self.start_master(n),
            Node::Agent(n) => self.start_agent(n),
            Node::Framework(n) => self.start_framework(n),
            Node::Etcd => {}
        }
    }

    /// A process has ended, by itself or not; it will be started again.
    pub fn process_ended(&mut self, node: Node) {
        self.drop_streams_of(node);
        let now = self.now;
        let status = self.status_mut(node);
        status.up = false;
        status.paused = None;
        status.since = now;
        match node {
            Node::Master(n) => self.end_master(n),
            Node::Agent(n) => self.end_agent(n),
            Node::Framework(n) => self.end_framework(n),
            Node::Etcd => {}
        }
        let longest = if self.rng.random_ratio(1, 5) { 120_000 } else { 10_000 };
        let wait = Duration::from_millis(self.rng.random_range(100..longest));
        self.later(wait, None, What::Fault(Fault::Start(node)));
    }

    fn some_process(&mut self) -> Node {
        let all = self.processes();
        // Masters more often than their number asks for: the leader is one of them.
        match self.rng.random_range(0..3) {
            0 => self.some_master(),
            _ => all[self.rng.random_range(0..all.len())],
        }
    }

    fn some_master(&mut self) -> Node {
        let leader = self.masters.iter().position(|master| master.leads());
        match leader {
            Some(leader) if self.rng.random_ratio(2, 3) => Node::Master(leader),
            _ => Node::Master(self.rng.random_range(0..self.plan.masters)),
        }
    }

    fn some_fault(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => self.kill_process(),
            22..30 => self.stop_some_master(),
            30..50 => self.pause_process(),
            50..72 => self.partition(),
            72..80 => self.etcd_outage(),
            80..90 => self.cut_one(),
            90..94 => self.slow_network(),
            _ => self.operator(),
        }
    }

    fn kill_process(&mut self) {
        let node = self.some_process();
        if !self.status(node).up {
            return;
        }
        let off = self.rng.random_ratio(1, 3);
        self.status_mut(node).off = off;
        let how = if off { "its machine is off" } else { "is killed" };
        self.say(|| format!("fault: {node}: {how}"));
        self.process_ended(node);
        if let (Node::Agent(n), true) = (node, off) {
            self.agents[n].machine.reboot();
        }
    }

    fn stop_some_master(&mut self) {
        if let Node::Master(n) = self.some_master()
            && self.status(Node::Master(n)).up
            && self.status(Node::Master(n)).paused.is_none()
        {
            self.say(|| format!("fault: master{n} is asked to stop"));
            self.stop_master(n);
        }
    }

    fn pause_process(&mut self) {
        let node = self.some_process();
        let now = self.now;
        let longest = if self.rng.random_ratio(1, 4) { 90_000 } else { 15_000 };
        let time = Duration::from_millis(self.rng.random_range(10..longest));
        let status = self.status_mut(node);
        if !status.up || status.paused.is_some() {
            return;
        }
        status.paused = Some(now);
        status.resumes = now + time;
        self.say(|| format!("fault: {node} stands still for {time:?}"));
        self.freeze(node);
        self.later(time, None, What::Fault(Fault::Resume(node)));
    }

    fn partition(&mut self) {
        let mut all = self.processes();
        all.push(Node::Etcd);
        let one = self.some_process();
        let whole = self.rng.random_bool(0.5);
        let other = match one {
            Node::Master(_) if self.rng.random_bool(0.4) => Node::Etcd,
            Node::Master(_) => all[self.rng.random_range(0..all.len())],
            _ => self.some_master(),
        };
        let others: Vec<Node> = if whole { all } else { vec![other] };
        let ways = self.rng.random_range(0..3);
        let mut pairs = Vec::new();
        for other in others.into_iter().filter(|other| *other != one) {
            if ways != 0 {
                pairs.push((one, other));
            }
            if ways != 1 {
                pairs.push((other, one));
            }
        }
        let longest = if self.rng.random_ratio(1, 4) { 150 } else { 30 };
        let time = Duration::from_secs(self.rng.random_range(1..longest));
        let what = ["does not hear", "is not heard by", "and"][ways];
        let whom = if whole { "all".to_owned() } else { other.to_string() };
        let cut = if ways == 2 { " are cut off" } else { "" };
        self.say(|| format!("fault: {one} {what} {whom}{cut} for {time:?}"));
        for (from, to) in &pairs {
            self.block(*from, *to);
        }
        self.later(time, None, What::Fault(Fault::Unblock(pairs)));
    }

    fn etcd_outage(&mut self) {
        let time = Duration::from_millis(self.rng.random_range(200..40_000));
        self.say(|| format!("fault: etcd does not answer for {time:?}"));
        self.status_mut(Node::Etcd).up = false;
        self.later(time, None, What::Fault(Fault::EtcdUp));
    }

    fn slow_network(&mut self) {
        let times = self.rng.random_range(2..40);
        let time = Duration::from_secs(self.rng.random_range(2..30));
        self.say(|| format!("fault: the network is {times} times slower for {time:?}"));
        self.net.slowness = times;
        self.later(time, None, What::Fault(Fault::Fast));
    }

    fn operator(&mut self) {
        let Some(n) = self.masters.iter().position(|master| master.leads()) else { return };
        let status = self.status(Node::Master(n));
        if !status.up || status.paused.is_some() {
            return;
        }
        let agent = self.rng.random_range(0..self.plan.agents);
        let agent_id = self.agents[agent].core_id().unwrap_or_default();
        let framework = self.rng.random_range(0..self.plan.frameworks);
        let command = match self.rng.random_range(0..20) {
            0 => {
                let framework_id = self.frameworks[framework].id().unwrap_or_default().to_owned();
                OperatorCommand::Teardown(mezz::TeardownRequest { framework_id })
            }
            1..4 => {
                let weight = 1.0 + f64::from(self.rng.random_range(0..3u32));
                let weights = vec![mezz::RoleWeight { role: "ads".to_owned(), weight }];
                OperatorCommand::UpdateWeights(mezz::UpdateWeightsRequest { weights })
            }
            4..7 => OperatorCommand::DrainAgent(mezz::DrainAgentRequest {
                agent_id,
                ..Default::default()
            }),
            7..10 => OperatorCommand::DeactivateAgent(mezz::DeactivateAgentRequest { agent_id }),
            _ => OperatorCommand::ReactivateAgent(mezz::ReactivateAgentRequest { agent_id }),
        };
        self.say(|| format!("an operator asks master{n}: {command:?}"));
        self.operate(n, Event::Operator { request: RequestId(0), command });
    }
}
