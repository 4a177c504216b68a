//! A leadership: the real core and the real dispatch of its effects, in a loop as
//! `master/src/shell/core_loop.rs` has.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use mezz_master::{
    allocator::DrfAllocator,
    core::{Change, ConnectionId, Core, Effects, Event},
    options::CoreOptions,
    registry::RegistrySnapshot,
    simulation::{Dispatch, Metrics, Outbox, OutboxStream, Peer, Weigh},
};
use mezz_proto::{
    mezz::v1 as mezz,
    time::Time,
    v1::{self, scheduler},
};
use tokio_stream::Stream as _;

use super::{Served, Writer, address};
use crate::{
    net::{End, Packet, Stream},
    world::{Node, World},
};

/// What may wait for a peer, in bytes: nobody is slow here.
const OUTBOX: usize = 1 << 30;

/// How far a term is.
enum Stage {
    /// The registry is read.
    Loading,
    Deciding(Box<Core>),
    /// The loop has ended; what was decided in time is written yet.
    Over,
}

/// What goes out to a peer.
enum Outgoing {
    Agent(OutboxStream<mezz::MasterMessage>),
    Framework(OutboxStream<scheduler::Event>),
}

pub struct Term {
    pub fence: i64,
    pub id: String,
    /// The tenure's end.
    until: Time,
    stage: Stage,
    pub writer: Writer,
    dispatch: Dispatch,
    outgoing: BTreeMap<Stream, Outgoing>,
    out: Effects,
    last_write: u64,
    /// What readers see.
    pub tasks: BTreeMap<(String, String), v1::Task>,
    pub agents: BTreeMap<String, mezz::AgentState>,
    pub frameworks: BTreeMap<String, mezz::FrameworkState>,
    pub offers: BTreeMap<String, mezz::OfferRecord>,
}

impl Term {
    pub fn new(fence: i64, until: Time, id: String) -> Self {
        let metrics = Metrics::new().expect("metrics can be made");
        Self {
            fence,
            id,
            until,
            stage: Stage::Loading,
            writer: Writer::new(fence),
            dispatch: Dispatch::new(Arc::new(metrics)),
            outgoing: BTreeMap::new(),
            out: Effects::default(),
            last_write: 0,
            tasks: BTreeMap::new(),
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            offers: BTreeMap::new(),
        }
    }

    /// Whether its loop runs.
    pub fn decides(&self) -> bool {
        matches!(self.stage, Stage::Deciding(_))
    }

    /// It has not ended, as far as it knows.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Over)
    }

    /// Nothing is left of it.
    pub fn is_over(&self) -> bool {
        !self.is_under_way() && self.writer.is_idle()
    }

    /// Whether the tenure holds.
    pub fn holds(&self, now: Time) -> bool {
        now < self.until
    }

    pub fn extend(&mut self, until: Time) {
        if self.is_under_way() {
            self.until = self.until.max(until);
        }
    }

    pub fn next(&self) -> Option<Time> {
        let core = match &self.stage {
            Stage::Deciding(core) => core.next_deadline(),
            Stage::Loading | Stage::Over => None,
        };
        [core, self.writer.next()].into_iter().flatten().min()
    }

    fn changed(&mut self, change: Change) {
        let id = |id: &Option<v1::FrameworkId>| id.clone().unwrap_or_default().value;
        match change {
            Change::Agent(state) => {
                let id = state.agent.id.clone().unwrap_or_default().value;
                self.agents.insert(id, state);
            }
            Change::AgentRemoved(id) => _ = self.agents.remove(id.as_str()),
            Change::Framework(state) => _ = self.frameworks.insert(id(&state.framework.id), state),
            Change::FrameworkRemoved(id) => _ = self.frameworks.remove(id.as_str()),
            Change::Task(task) => {
                let key = (task.framework_id.value.clone(), task.task_id.value.clone());
                self.tasks.insert(key, task);
            }
            Change::TaskRemoved(framework, task) => {
                self.tasks.remove(&(framework.to_string(), task.to_string()));
            }
            Change::Executor(..) | Change::ExecutorRemoved(..) => {}
            Change::Offer(offer) => _ = self.offers.insert(offer.offer.id.value.clone(), offer),
            Change::OfferRemoved(id) => _ = self.offers.remove(id.as_str()),
        }
    }
}

impl World {
    /// The registry is read: the core begins, and those who wait are served.
    pub(super) fn term_begins(&mut self, n: usize, recovered: RegistrySnapshot) {
        let node = Node::Master(n);
        let now = self.local(node);
        let Some(term) = self.masters[n].term.as_mut() else { return };
        if !matches!(term.stage, Stage::Loading) {
            return;
        }
        let options = CoreOptions {
            master_id: term.id.clone(),
            address: address(n),
            ..self.plan.master.clone()
        };
        let known = (recovered.agents.len(), recovered.frameworks.len());
        let allocator = Box::new(DrfAllocator::new(options.allocator.clone()));
        let core = Core::new(options, allocator, recovered, now);
        for change in core.initial_changes() {
            term.changed(change);
        }
        term.stage = Stage::Deciding(Box::new(core));
        self.books.terms += 1;
        self.say(|| format!("{node}: leads; knows {} agents, {} frameworks", known.0, known.1));
        self.tell_news(n);
    }

    /// The loop ends: connections are closed, and nothing that waits for the registry
    /// is told to anybody.
    pub(super) fn end_term(&mut self, n: usize, why: &str) {
        if let Some(candidate) = &mut self.masters[n].candidate {
            candidate.wait();
        }
        let master = &mut self.masters[n];
        let Some(term) = master.term.as_mut().filter(|term| term.is_under_way()) else { return };
        if term.decides() {
            let why = why.to_owned();
            self.log.say(self.now, || format!("master{n}: leads no more: {why}"));
        } else {
            // It has not begun: nothing is to be written.
            term.writer.deposed = true;
        }
        term.stage = Stage::Over;
        term.outgoing.clear();
        let led: Vec<Stream> = master
            .served
            .iter()
            .filter(|(_, served)| matches!(served, Served::Led { .. }))
            .map(|(stream, _)| *stream)
            .collect();
        for stream in led {
            self.masters[n].served.remove(&stream);
            self.hang_up(stream, End::Master);
        }
    }

    /// Whether the loop may go on. Whoever decides has the key: this is what the
    /// lease is for.
    fn may_send(&mut self, n: usize) -> bool {
        let now = self.local(Node::Master(n));
        let Some(term) = self.masters[n].term.as_ref().filter(|term| term.decides()) else {
            return false;
        };
        let (holds, fence) = (term.holds(now), term.fence);
        if holds {
            self.check_holder(n, fence);
        } else {
            self.end_term(n, "its tenure is over");
        }
        holds
    }

    /// A message on a stream that the leader serves.
    pub(super) fn core_heard(&mut self, n: usize, stream: Stream, first: bool, packet: Packet) {
        let connection = ConnectionId(stream);
        let event = match packet {
            Packet::FromAgent(message) => Event::AgentMessage { connection, message },
            Packet::FromFramework(call) => Event::SchedulerCall { connection, call },
            other => return self.broken_rule(format!("a master hears {other:?}")),
        };
        if !self.may_send(n) {
            return;
        }
        let Some(term) = self.masters[n].term.as_mut() else { return };
        if first {
            let peer = match &event {
                Event::AgentMessage { .. } => {
                    let outbox = Outbox::new(OUTBOX);
                    let out = Outgoing::Agent(OutboxStream::new(outbox.clone()));
                    term.outgoing.insert(stream, out);
                    Peer::Agent(outbox)
                }
                _ => {
                    let outbox = Outbox::new(OUTBOX);
                    let out = Outgoing::Framework(OutboxStream::new(outbox.clone()));
                    term.outgoing.insert(stream, out);
                    Peer::Scheduler(outbox)
                }
            };
            term.dispatch.open(connection, peer);
        }
        if term.dispatch.is_open(connection) {
            self.core_call(n, |core, now, out| core.handle(now, event, out));
        }
        self.core_turn_ends(n);
    }

    /// The peer of a stream has left.
    pub(super) fn core_lost(&mut self, n: usize, connection: ConnectionId) {
        if !self.may_send(n) {
            return;
        }
        let Some(term) = self.masters[n].term.as_mut() else { return };
        term.outgoing.remove(&connection.0);
        if let Some(event) = term.dispatch.ended(connection) {
            self.core_call(n, |core, now, out| core.handle(now, event, out));
        }
        self.core_turn_ends(n);
    }

    /// An operator asks for something, of whoever leads.
    pub fn operate(&mut self, n: usize, event: Event) {
        if self.may_send(n) {
            self.core_call(n, |core, now, out| core.handle(now, event, out));
            self.core_turn_ends(n);
        }
    }

    /// Everything up to this write is durable.
    pub(super) fn core_written(&mut self, n: usize, number: u64) {
        if !self.may_send(n) {
            return;
        }
        if let Some(term) = self.masters[n].term.as_mut() {
            term.dispatch.release(number);
        }
        self.core_turn_ends(n);
    }

    /// What is due of the core's own.
    pub(super) fn core_due(&mut self, n: usize) {
        let now = self.local(Node::Master(n));
        let due = self.masters[n].term.as_ref().is_some_and(|term| match &term.stage {
            Stage::Deciding(core) => {
                core.next_deadline().is_some_and(|at| at <= now) || !term.holds(now)
            }
            Stage::Loading | Stage::Over => false,
        });
        if due && self.may_send(n) {
            self.core_turn_ends(n);
        }
    }

    /// What ends every turn of the loop: what is due, and then everything goes out.
    fn core_turn_ends(&mut self, n: usize) {
        let now = self.local(Node::Master(n));
        let due = |core: &Core| core.next_deadline().is_some_and(|at| at <= now);
        let mut rounds = 0;
        while self.masters[n].term.as_ref().is_some_and(|term| match &term.stage {
            Stage::Deciding(core) => due(core),
            Stage::Loading | Stage::Over => false,
        }) {
            self.core_call(n, |core, now, out| core.on_deadline(now, out));
            rounds += 1;
            if rounds > 1_000 {
                return self.broken_rule(format!("the core of master{n} never comes to rest"));
            }
        }
        self.flush(n);
        // The writer may have got something to write.
        self.registry_turn(n);
    }

    /// One call of the core, and its effects in the order of the real loop.
    fn core_call(&mut self, n: usize, call: impl FnOnce(&mut Core, Time, &mut Effects)) {
        let now = self.local(Node::Master(n));
        let Some(term) = self.masters[n].term.as_mut() else { return };
        let Stage::Deciding(core) = &mut term.stage else { return };
        call(core, now, &mut term.out);
        let held = core.check_invariants();
        let after = std::mem::take(&mut term.out.after_persist);
        let ops = std::mem::take(&mut term.out.persist);
        for op in &ops {
            self.books.decided(op);
        }
        if ops.is_empty() {
            for effect in after {
                term.dispatch.send(effect);
            }
        } else {
            term.last_write += 1;
            term.dispatch.hold(term.last_write, after);
            term.writer.put(term.last_write, ops);
        }
        for effect in term.out.now.drain(..) {
            term.dispatch.send(effect);
        }
        if let Err(violation) = held {
            self.broken_rule(format!("master{n}: {violation}"));
        }
    }

    /// What is in the outboxes goes out, and readers see what has changed.
    fn flush(&mut self, n: usize) {
        let Some(term) = self.masters[n].term.as_mut() else { return };
        for change in term.dispatch.flush() {
            term.changed(*change);
        }
        let id = term.id.clone();
        let mut sent = Vec::new();
        let mut ended = Vec::new();
        for (stream, outgoing) in &mut term.outgoing {
            let over = match outgoing {
                Outgoing::Agent(out) => drain(out, |message| {
                    sent.push((*stream, Packet::ToAgent(Box::new(message))));
                }),
                Outgoing::Framework(out) => drain(out, |event| {
                    sent.push((*stream, Packet::ToFramework(Box::new(event))));
                }),
            };
            if over {
                ended.push(*stream);
            }
        }
        for stream in &ended {
            term.outgoing.remove(stream);
        }
        for (stream, packet) in sent {
            self.check_sent(n, &id, &packet);
            self.send(stream, End::Master, packet);
        }
        for stream in ended {
            self.masters[n].served.remove(&stream);
            self.hang_up(stream, End::Master);
        }
    }
}

/// Takes all that waits; whether the stream has ended.
fn drain<M: Weigh + Unpin>(out: &mut OutboxStream<M>, mut take: impl FnMut(M)) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut *out).poll_next(&mut context) {
            Poll::Ready(Some(Ok(message))) => take(message),
            Poll::Ready(Some(Err(_)) | None) => return true,
            Poll::Pending => return false,
        }
    }
}
