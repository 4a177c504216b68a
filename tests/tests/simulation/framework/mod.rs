//! A framework's process: it launches, kills, declines, acknowledges and reconciles;
//! now and then it is late, and uses offers that are not its own any more.

mod link;
mod tasks;

pub use tasks::EXECUTOR;

use std::{collections::BTreeSet, time::Duration};

use mezz_proto::{
    search::Search,
    time::Time,
    v1::{
        self, TaskState,
        framework_info::{Capability, capability},
        scheduler::{Call, Event, call, event},
    },
};
use rand::{RngExt as _, rngs::StdRng};

use crate::{
    master::address,
    net::{End, Packet, Stream},
    world::{Node, What, World},
};

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
    /// It has executors of its own.
    executors: bool,
    next_task: u64,
    link: Link,
    search: Search,
    /// When the master of the link was asked.
    asked: Time,
    /// When the search goes on, or the answer must be there.
    due: Option<Time>,
    /// When the master has been silent for too long.
    silence: Option<Time>,
    interval: Duration,
    /// When it reconciles, and when it kills something.
    reconciles: Time,
    kills: Time,
    /// It has not asked yet for all that this master knows.
    asks_all: bool,
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
        Self::with(info, wanted, rng.random_bool(0.5), 0)
    }

    fn with(info: v1::FrameworkInfo, wanted: usize, executors: bool, next_task: u64) -> Self {
        Self {
            info,
            wanted,
            executors,
            next_task,
            link: Link::None,
            search: Search::new(Vec::new(), link::BACKOFF),
            asked: Time::ZERO,
            due: None,
            silence: None,
            interval: Duration::from_secs(15),
            reconciles: Time::ZERO,
            kills: Time::ZERO,
            asks_all: false,
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
        let mut framework = Framework::with(info, wanted, before.executors, next);
        let masters = (0..self.plan.masters).map(address).collect();
        framework.search = Search::new(masters, link::BACKOFF);
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
                framework.search.joined(Duration::ZERO);
                framework.interval =
                    Duration::from_secs_f64(told.heartbeat_interval_seconds.unwrap_or(15.0));
                let id = told.framework_id.value.clone();
                framework.info.id = Some(told.framework_id);
                framework.reconciles = now;
                framework.asks_all = true;
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
            let whose = if status.uuid.is_some() { "agent" } else { "master" };
            format!("framework{n}: {task} is {name} ({reason}, {whose}: {})", status.message())
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
}
