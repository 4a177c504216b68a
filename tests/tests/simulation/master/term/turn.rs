//! The loop around the core: one turn after another.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use mezz_master::{
    allocator::DrfAllocator,
    core::{ConnectionId, Core, Effects, Event},
    options::CoreOptions,
    registry::RegistrySnapshot,
    simulation::{Outbox, OutboxStream, Peer, Weigh},
};
use mezz_proto::{mezz::v1::agent_message, time::Time};
use tokio_stream::Stream as _;

use super::{Outgoing, Stage};
use crate::{
    master::{Served, address},
    net::{End, Packet, Stream},
    sabotage::Sabotage,
    world::{Node, World},
};

/// What may wait for a peer, in bytes: nobody is slow here.
const OUTBOX: usize = 1 << 30;

impl World {
    /// The registry is read: the core begins, and those who wait are served.
    pub(in crate::master) fn term_begins(&mut self, n: usize, recovered: RegistrySnapshot) {
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
        let options = match self.sabotage {
            Sabotage::Hasty => CoreOptions { agent_removal_rate_limit: None, ..options },
            _ => options,
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
    pub(in crate::master) fn end_term(&mut self, n: usize, why: &str) {
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
    pub(in crate::master) fn core_heard(
        &mut self,
        n: usize,
        stream: Stream,
        first: bool,
        packet: Packet,
    ) {
        let connection = ConnectionId(stream);
        let event = match packet {
            Packet::FromAgent(message) => Event::AgentMessage { connection, message },
            Packet::FromFramework(call) => Event::SchedulerCall { connection, call },
            other => return self.broken_rule(format!("a master hears {other:?}")),
        };
        if !self.may_send(n) {
            return;
        }
        let sabotage = self.sabotage;
        let Some(term) = self.masters[n].term.as_mut() else { return };
        let mut event = event;
        match (sabotage, &mut event) {
            (Sabotage::OldOffers, Event::SchedulerCall { call, .. }) => term.take_old_offers(call),
            (Sabotage::OldNews, Event::AgentMessage { message, .. }) => {
                if let Some(agent_message::Message::Reregister(again)) = &mut message.message {
                    again.attempt = None;
                }
            }
            _ => {}
        }
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
        let torn_down = match &event {
            Event::SchedulerCall { call, .. } => {
                call.framework_id.as_ref().is_some_and(|id| self.books.is_ending(&id.value))
            }
            _ => false,
        };
        if !term.dispatch.is_open(connection) {
        } else if torn_down {
            // Its connection is ended when that is written.
            self.core_decides(n, |core, now, out| core.handle(now, event, out));
        } else {
            self.core_call(n, |core, now, out| core.handle(now, event, out));
        }
        self.core_turn_ends(n);
    }

    /// The peer of a stream has left.
    pub(in crate::master) fn core_lost(&mut self, n: usize, connection: ConnectionId) {
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
        self.master_woken(n);
    }

    /// Everything up to this write is durable.
    pub(in crate::master) fn core_written(&mut self, n: usize, number: u64) {
        if !self.may_send(n) {
            return;
        }
        if let Some(term) = self.masters[n].term.as_mut() {
            term.dispatch.release(number);
        }
        self.core_turn_ends(n);
    }

    /// What is due of the core's own.
    pub(in crate::master) fn core_due(&mut self, n: usize) {
        let now = self.local(Node::Master(n));
        let term = self.masters[n].term.as_ref().filter(|term| term.decides());
        let due = term.is_some_and(|term| term.is_due(now) || !term.holds(now));
        if due && self.may_send(n) {
            self.core_turn_ends(n);
        }
    }

    /// What ends every turn of the loop: what is due, and then everything goes out.
    fn core_turn_ends(&mut self, n: usize) {
        let now = self.local(Node::Master(n));
        let mut rounds = 0;
        while self.masters[n].term.as_ref().is_some_and(|term| term.is_due(now)) {
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
        let refused = self.refused(n);
        self.core_decides(n, call);
        if self.refused(n) > refused {
            self.broken_rule(format!("master{n}: a peer has broken the protocol"));
        }
    }

    /// Calls and messages that this term has refused.
    fn refused(&self, n: usize) -> u64 {
        match self.masters[n].term.as_ref().map(|term| &term.stage) {
            Some(Stage::Deciding(core)) => {
                let counters = core.counters();
                counters.invalid_calls + counters.invalid_agent_messages
            }
            _ => 0,
        }
    }

    fn core_decides(&mut self, n: usize, call: impl FnOnce(&mut Core, Time, &mut Effects)) {
        let now = self.local(Node::Master(n));
        let sabotage = self.sabotage;
        let Some(term) = self.masters[n].term.as_mut() else { return };
        let Stage::Deciding(core) = &mut term.stage else { return };
        call(core, now, &mut term.out);
        let held = core.check_invariants().map_err(|violation| violation.to_string());
        let after = std::mem::take(&mut term.out.after_persist);
        let ops = std::mem::take(&mut term.out.persist);
        let waits = std::mem::take(&mut term.out.waits);
        for op in &ops {
            self.books.decided(op);
        }
        let too_soon = term.losses_too_soon(now, &ops, &self.plan.master);
        if ops.is_empty() && waits {
            term.dispatch.hold_behind(after);
        } else if ops.is_empty() {
            for effect in after {
                term.dispatch.send(effect);
            }
        } else {
            term.last_write += 1;
            if sabotage == Sabotage::EarlyWord {
                term.dispatch.hold(term.last_write, Vec::new());
                after.into_iter().for_each(|effect| term.dispatch.send(effect));
            } else {
                term.dispatch.hold(term.last_write, after);
            }
            term.writer.put(term.last_write, ops);
        }
        for effect in term.out.now.drain(..) {
            term.dispatch.send(effect);
        }
        if too_soon {
            self.broken_rule(format!("master{n} gives agents up faster than it may"));
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
            if let Some(event) = self.eager_word(stream, &packet) {
                self.core_call(n, |core, now, out| core.handle(now, event, out));
            }
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
