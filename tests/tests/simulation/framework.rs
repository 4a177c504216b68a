//! A framework's process: it launches, kills, declines, acknowledges and reconciles;
//! now and then it is late, and uses offers that are not its own any more.

use std::{collections::BTreeSet, time::Duration};

use mezz_agent::simulation::Search;
use mezz_proto::{
    resources::{Dialect, Resources},
    time::Time,
    v1::{
        self, TaskState,
        framework_info::{Capability, capability},
        offer::{Operation, operation},
        scheduler::{Call, Event, call, event},
    },
};
use rand::{RngExt as _, rngs::StdRng};

use crate::{
    master::{address, of_address},
    net::{End, Packet, Stream},
    world::{Node, What, World},
};

/// Between attempts, first and longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A master that takes a connection answers within this.
const ANSWER: Duration = Duration::from_secs(10);

/// So many heartbeats that do not come mean that the master is lost.
const MISSED: u32 = 3;

/// How the link stands.
#[derive(Debug)]
enum Link {
    None,
    Dialing { stream: Stream, master: usize },
    Up { stream: Stream, master: usize, subscribed: bool },
}

/// What the framework keeps over its restarts is its `info`, with its id; its tasks
/// stand in the books.
pub struct Framework {
    pub info: v1::FrameworkInfo,
    /// How many tasks it wants to have at once.
    pub wanted: usize,
    next_task: u64,
    link: Link,
    search: Search,
    wait: Duration,
    /// When the search goes on, or the answer must be there.
    due: Option<Time>,
    /// When the master has been silent for too long.
    silence: Option<Time>,
    interval: Duration,
    /// When it reconciles, and when it kills something.
    reconciles: Time,
    kills: Time,
    /// Offers that it knows to be gone.
    gone: BTreeSet<String>,
}

impl Framework {
    pub fn new(number: usize, rng: &mut StdRng) -> Self {
        let mut kinds = vec![capability::Type::MultiRole];
        if rng.random_ratio(2, 3) {
            kinds.push(capability::Type::PartitionAware);
        }
        let capabilities =
            kinds.into_iter().map(|kind| Capability { r#type: Some(kind as i32) }).collect();
        let timeouts = [60.0, 7_200.0, 7_200.0, 7_200.0];
        let info = v1::FrameworkInfo {
            user: "nobody".to_owned(),
            name: format!("framework{number}"),
            failover_timeout: Some(timeouts[rng.random_range(0..timeouts.len())]),
            capabilities,
            roles: vec![["ads", "web"][number % 2].to_owned()],
            ..Default::default()
        };
        let wanted = rng.random_range(1..8);
        Self::with(info, wanted, 0)
    }

    fn with(info: v1::FrameworkInfo, wanted: usize, next_task: u64) -> Self {
        Self {
            info,
            wanted,
            next_task,
            link: Link::None,
            search: Search::new(Vec::new()),
            wait: Duration::ZERO,
            due: None,
            silence: None,
            interval: Duration::from_secs(15),
            reconciles: Time::ZERO,
            kills: Time::ZERO,
            gone: BTreeSet::new(),
        }
    }

    /// Its id, once a master gave one.
    pub fn id(&self) -> Option<&str> {
        self.info.id.as_ref().map(|id| &*id.value)
    }

    pub fn is_subscribed(&self) -> bool {
        matches!(self.link, Link::Up { subscribed: true, .. })
    }

    fn subscribed_on(&self) -> Option<Stream> {
        match self.link {
            Link::Up { stream, subscribed: true, .. } => Some(stream),
            _ => None,
        }
    }

    fn call(&self, kind: call::Type) -> Call {
        Call { framework_id: self.info.id.clone(), r#type: Some(kind as i32), ..Default::default() }
    }
}

impl World {
    pub fn start_framework(&mut self, n: usize) {
        let node = Node::Framework(n);
        self.started(node);
        self.reset_streams_of(node);
        let now = self.local(node);
        let before = &self.frameworks[n];
        let (info, wanted, next) = (before.info.clone(), before.wanted, before.next_task);
        let mut framework = Framework::with(info, wanted, next);
        framework.search = Search::new((0..self.plan.masters).map(address).collect());
        framework.reconciles = now + Duration::from_secs(5);
        framework.kills = now + Duration::from_secs(self.rng.random_range(5..30));
        self.frameworks[n] = framework;
        self.framework_searches(n);
        self.framework_wakes(n);
    }

    /// The process is gone.
    pub fn end_framework(&mut self, n: usize) {
        self.frameworks[n].link = Link::None;
    }

    pub fn framework_woken(&mut self, n: usize) {
        let now = self.local(Node::Framework(n));
        if self.frameworks[n].due.is_some_and(|at| at <= now) {
            self.frameworks[n].due = None;
            match self.frameworks[n].link {
                Link::None => self.framework_searches(n),
                Link::Up { subscribed: false, .. } => self.framework_leaves(n),
                Link::Dialing { .. } | Link::Up { .. } => {}
            }
        }
        if self.frameworks[n].silence.is_some_and(|at| at <= now) {
            self.say(|| format!("framework{n}: no heartbeats"));
            self.framework_leaves(n);
        }
        if self.frameworks[n].reconciles <= now {
            self.reconcile(n);
            let wait = Duration::from_secs(self.rng.random_range(8..20));
            self.frameworks[n].reconciles = now + wait;
        }
        if self.frameworks[n].kills <= now {
            self.kill_some(n);
            let wait = Duration::from_secs(self.rng.random_range(2..40));
            self.frameworks[n].kills = now + wait;
        }
        self.framework_wakes(n);
    }

    fn framework_wakes(&mut self, n: usize) {
        let f = &self.frameworks[n];
        let next = [f.due, f.silence, Some(f.reconciles), Some(f.kills)];
        self.wake_at(Node::Framework(n), next.into_iter().flatten().min());
    }

    /// Sends a call, if it is subscribed.
    fn call(&mut self, n: usize, kind: call::Type, fill: impl FnOnce(&mut Call)) -> bool {
        let Some(stream) = self.frameworks[n].subscribed_on() else { return false };
        let mut call = self.frameworks[n].call(kind);
        fill(&mut call);
        self.send(stream, End::Client, Packet::FromFramework(Box::new(call)));
        true
    }

    // --- tasks ------------------------------------------------------------

    /// What it does with an offer, some time after it came.
    pub fn decide(&mut self, n: usize, offer: &v1::Offer) {
        let id = offer.id.value.clone();
        // It may not have heard yet, or not care.
        if self.frameworks[n].gone.remove(&id) && self.rng.random_bool(0.5) {
            return;
        }
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        let live = self.books.live(&own);
        let wanted = if self.books.launching { self.frameworks[n].wanted } else { 0 };
        let has = Resources::from_proto(&offer.resources).unwrap_or_default();
        let mut left = has.scalar("cpus").to_f64();
        let mut tasks = Vec::new();
        let mut asked = Vec::new();
        while live + tasks.len() < wanted && tasks.len() < 3 {
            let cpus = [0.5, 1.0, 1.5][self.rng.random_range(0..3)];
            if cpus > left || self.rng.random_ratio(1, 4) {
                break;
            }
            left -= cpus;
            self.frameworks[n].next_task += 1;
            let task = format!("f{n}-{}", self.frameworks[n].next_task);
            tasks.push(command_task(&task, &offer.agent_id, cpus));
            asked.push(task);
        }
        let offer_ids = vec![offer.id.clone()];
        if tasks.is_empty() {
            let refuse = [None, Some(0.5), Some(20.0)][self.rng.random_range(0..3)];
            let filters = refuse.map(|s| v1::Filters { refuse_seconds: Some(s) });
            let decline = call::Decline { offer_ids, filters };
            self.call(n, call::Type::Decline, |call| call.decline = Some(decline));
            return;
        }
        let operation = Operation {
            r#type: Some(operation::Type::Launch as i32),
            launch: Some(operation::Launch { task_infos: tasks }),
            ..Default::default()
        };
        let filters = Some(v1::Filters { refuse_seconds: Some(1.0) });
        let accept = call::Accept { offer_ids, operations: vec![operation], filters };
        if self.call(n, call::Type::Accept, |call| call.accept = Some(accept)) {
            let now = self.now;
            let agent = &offer.agent_id.value;
            for task in asked {
                self.say(|| format!("framework{n}: launches {task} by {id} on {agent}"));
                self.books.asked(now, n, &own, &task, agent, &id);
            }
        }
    }

    fn kill_some(&mut self, n: usize) {
        if !self.books.launching {
            return;
        }
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        let live = self.books.not_ended(&own);
        if live.is_empty() {
            return;
        }
        let (task, agent) = live[self.rng.random_range(0..live.len())].clone();
        let agent_id = self.rng.random_bool(0.5).then_some(v1::AgentId { value: agent });
        let task_id = v1::TaskId { value: task.clone() };
        let kill = call::Kill { task_id, agent_id, kill_policy: None };
        if self.call(n, call::Type::Kill, |call| call.kill = Some(kill)) {
            self.say(|| format!("framework{n}: kills {task}"));
        }
    }

    /// Asks for everything, or for what it thinks alive.
    fn reconcile(&mut self, n: usize) {
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        let explicit = !self.books.launching || self.rng.random_ratio(2, 3);
        let live = if explicit { self.books.not_ended(&own) } else { Vec::new() };
        if explicit && live.is_empty() {
            return;
        }
        let tasks = live
            .into_iter()
            .map(|(task, agent)| call::reconcile::Task {
                task_id: v1::TaskId { value: task },
                agent_id: Some(v1::AgentId { value: agent }),
            })
            .collect();
        let reconcile = call::Reconcile { tasks };
        self.call(n, call::Type::Reconcile, |call| call.reconcile = Some(reconcile));
    }

    pub fn acknowledge(&mut self, n: usize, status: &v1::TaskStatus) {
        let (Some(agent_id), Some(uuid)) = (status.agent_id.clone(), status.uuid.clone()) else {
            return;
        };
        let acknowledge = call::Acknowledge { agent_id, task_id: status.task_id.clone(), uuid };
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        if self.call(n, call::Type::Acknowledge, |call| call.acknowledge = Some(acknowledge)) {
            self.books.acknowledged(&own, status);
        }
    }

    // --- events -----------------------------------------------------------

    pub fn framework_heard(&mut self, n: usize, from: Stream, packet: Packet) {
        let Link::Up { stream, .. } = self.frameworks[n].link else { return };
        if stream != from {
            return;
        }
        match packet {
            Packet::Accepted => {}
            Packet::NotLeading(leader) => self.framework_link_over(n, Some(leader)),
            Packet::ToFramework(event) => self.framework_event(n, *event),
            other => self.broken_rule(format!("framework{n} hears {other:?}")),
        }
        self.framework_wakes(n);
    }

    fn framework_event(&mut self, n: usize, event: Event) {
        let now = self.local(Node::Framework(n));
        let framework = &mut self.frameworks[n];
        framework.silence = Some(now + framework.interval * MISSED);
        match event.r#type() {
            event::Type::Subscribed => {
                let Some(told) = event.subscribed else { return };
                if let Link::Up { subscribed, .. } = &mut framework.link {
                    *subscribed = true;
                }
                framework.due = None;
                framework.wait = Duration::ZERO;
                framework.interval =
                    Duration::from_secs_f64(told.heartbeat_interval_seconds.unwrap_or(15.0));
                let id = told.framework_id.value.clone();
                framework.info.id = Some(told.framework_id);
                framework.reconciles = now;
                self.say(|| format!("framework{n}: subscribed as {id}"));
            }
            event::Type::Offers => {
                for offer in event.offers.map(|o| o.offers).unwrap_or_default() {
                    let late = self.rng.random_ratio(1, 15);
                    let most = if late { 40_000 } else { 50 };
                    let wait = Duration::from_millis(self.rng.random_range(1..most));
                    self.later(wait, Some(Node::Framework(n)), What::Decide(Box::new(offer)));
                }
            }
            event::Type::Rescind => {
                if let Some(rescind) = event.rescind {
                    self.frameworks[n].gone.insert(rescind.offer_id.value);
                }
            }
            event::Type::Update => {
                if let Some(update) = event.update {
                    self.framework_updated(n, update.status);
                }
            }
            event::Type::Error => {
                let text = event.error.map(|error| error.message).unwrap_or_default();
                self.say(|| format!("framework{n}: error: {text}"));
                if text == "Framework has been removed" {
                    self.framework_removed(n);
                } else if text != "Framework failed over" {
                    self.broken_rule(format!("framework{n} is refused: {text}"));
                }
            }
            _ => {}
        }
    }

    fn framework_updated(&mut self, n: usize, status: v1::TaskStatus) {
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        let (task, state) = (status.task_id.value.clone(), status.state());
        self.say(|| {
            let (name, reason) = (state.as_str_name(), status.reason().as_str_name());
            let whose = if status.uuid.is_some() { "" } else { ", of the master" };
            format!("framework{n}: {task} is {name} ({reason}{whose})")
        });
        if let Err(rule) = self.books.updated(&own, &status) {
            self.broken_rule(rule);
        }
        if status.uuid.is_some() {
            let late = self.rng.random_ratio(1, 20);
            let most = if late { 30_000 } else { 20 };
            let wait = Duration::from_millis(self.rng.random_range(1..most));
            let node = Node::Framework(n);
            self.later(wait, Some(node), What::Acknowledge(Box::new(status)));
        } else if state == TaskState::TaskRunning && self.rng.random_ratio(1, 50) {
            self.kill_some(n);
        }
    }

    /// Its failover timeout was over: it begins anew, and its tasks are nobody's.
    fn framework_removed(&mut self, n: usize) {
        if let Some(id) = self.frameworks[n].info.id.take() {
            self.books.removed(&id.value);
        }
    }

    // --- the link ---------------------------------------------------------

    fn framework_searches(&mut self, n: usize) {
        let node = Node::Framework(n);
        let framework = &mut self.frameworks[n];
        if let Some(master) = framework.search.target() {
            let Some(master) = of_address(&master) else { return };
            let stream = self.dial(node, master);
            self.frameworks[n].link = Link::Dialing { stream, master };
            return;
        }
        framework.wait = (framework.wait * 2).clamp(BACKOFF.0, BACKOFF.1);
        let longest = u64::try_from(framework.wait.as_nanos()).unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(self.rng.random_range(0..=longest));
        self.frameworks[n].due = Some(self.local(node) + wait);
        self.framework_wakes(n);
    }

    pub fn framework_dial_failed(&mut self, n: usize, stream: Stream) {
        if let Link::Dialing { stream: current, master } = self.frameworks[n].link
            && current == stream
        {
            self.frameworks[n].link = Link::None;
            self.frameworks[n].search.failed(address(master));
            self.framework_searches(n);
        }
    }

    pub fn framework_connected(&mut self, n: usize, stream: Stream) {
        let now = self.local(Node::Framework(n));
        let framework = &mut self.frameworks[n];
        let Link::Dialing { stream: current, master } = framework.link else { return };
        if current != stream {
            return;
        }
        framework.link = Link::Up { stream, master, subscribed: false };
        framework.due = Some(now + ANSWER);
        let subscribe = call::Subscribe {
            framework_info: framework.info.clone(),
            suppressed_roles: Vec::new(),
            offer_constraints: None,
        };
        let call = Call { subscribe: Some(subscribe), ..framework.call(call::Type::Subscribe) };
        let tried = framework.search.tried.clone();
        self.send(stream, End::Client, Packet::Request(tried));
        self.send(stream, End::Client, Packet::FromFramework(Box::new(call)));
        self.framework_wakes(n);
    }

    pub fn framework_stream_ended(&mut self, n: usize, from: Stream) {
        match self.frameworks[n].link {
            Link::Up { stream, .. } if stream == from => self.framework_link_over(n, None),
            _ => {}
        }
    }

    /// It ends the link itself.
    fn framework_leaves(&mut self, n: usize) {
        if let Link::Up { stream, .. } = self.frameworks[n].link {
            self.hang_up(stream, End::Client);
            self.framework_link_over(n, None);
        }
    }

    fn framework_link_over(&mut self, n: usize, not_leading: Option<String>) {
        let framework = &mut self.frameworks[n];
        let Link::Up { master, .. } = framework.link else { return };
        framework.link = Link::None;
        framework.due = None;
        framework.silence = None;
        match not_leading {
            Some(leader) => framework.search.not_leading(&leader),
            None => framework.search.failed(address(master)),
        }
        self.framework_searches(n);
        self.framework_wakes(n);
    }
}

fn command_task(id: &str, agent: &v1::AgentId, cpus: f64) -> v1::TaskInfo {
    v1::TaskInfo {
        name: id.to_owned(),
        task_id: v1::TaskId { value: id.to_owned() },
        agent_id: agent.clone(),
        resources: Resources::cpus_mem(cpus, 32.0).to_proto(Dialect::Plain, None),
        command: Some(v1::CommandInfo { value: Some("true".to_owned()), ..Default::default() }),
        ..Default::default()
    }
}
