//! The one task that owns the core.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use mezz_proto::time::Time;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::trace;

use super::{
    clock::Clock,
    dispatch::{Answer, Changes, Dispatch, Peer},
    handle::Turn,
    kinds::{DEADLINE, EVENT_KINDS, event_kind},
    limits::{CORE_BATCH, PENDING_BYTES, PENDING_WRITES, STALLED_LOOK},
    lone_call::{LoneCall, subscription},
    metrics::Metrics,
    writer::Write,
};
use crate::{
    core::{ConnectionId, Core, Counters, Effects, Event, OperatorCommand, Standing},
    election::Tenure,
    registry::RegistryOp,
};

/// What the loop is told.
#[derive(Debug)]
pub enum Input {
    /// A connection is there; its first message follows, in this turn.
    Open(ConnectionId, Peer, Option<Turn>),
    /// A call or a message. Ignored when its connection was ended meanwhile.
    Message(ConnectionId, Event),
    /// A framework's call that came by itself.
    Call(LoneCall),
    /// The peer has left, or its reader gave up.
    Ended(ConnectionId),
    /// An operator asks.
    Operator(OperatorCommand, oneshot::Sender<Answer>),
    /// Is the loop alive, and what has it counted?
    Probe(oneshot::Sender<Counters>),
}

/// Where the loop's outputs go.
#[derive(Debug)]
pub struct Outputs {
    /// To the registry's writer. Bounded by [`PENDING_WRITES`] and [`PENDING_BYTES`]: beyond
    /// them no input is handled.
    pub writes: mpsc::UnboundedSender<Write>,
    /// The last durable write.
    pub written: watch::Receiver<u64>,
    /// To the read model.
    pub changes: mpsc::Sender<Changes>,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The registry's writer has failed, and says why.
    WriterGone,
    /// This master leads no more.
    Deposed,
}

/// The core with what surrounds it.
#[derive(Debug)]
pub struct CoreLoop<M> {
    core: M,
    clock: Clock,
    tenure: Tenure,
    /// The tenure was over when something was to be sent.
    deposed: bool,
    out: Effects,
    dispatch: Dispatch,
    outputs: Outputs,
    metrics: Arc<Metrics>,
    last_write: u64,
    pending: Pending,
    allocations: u64,
}

/// What the writes take that are under way, in bytes.
#[derive(Debug, Default)]
struct Pending {
    /// By the number of the write.
    each: VecDeque<(u64, usize)>,
    /// All together.
    bytes: usize,
}

impl Pending {
    fn add(&mut self, number: u64, bytes: usize) {
        self.each.push_back((number, bytes));
        self.bytes += bytes;
    }

    /// All up to this number are durable.
    fn written(&mut self, number: u64) {
        while let Some((_, bytes)) = self.each.pop_front_if(|(first, _)| *first <= number) {
            self.bytes -= bytes;
        }
    }
}

/// What the loop needs of a core; tests script one.
pub trait Machine: Send + 'static {
    /// See [`Core::handle`].
    fn handle(&mut self, now: Time, event: Event, out: &mut Effects);
    /// See [`Core::on_deadline`].
    fn on_deadline(&mut self, now: Time, out: &mut Effects);
    /// See [`Core::on_heartbeats`].
    fn on_heartbeats(&mut self, now: Time, out: &mut Effects);
    /// See [`Core::next_deadline`].
    fn next_deadline(&self) -> Option<Time>;
    /// See [`Core::standing`].
    fn standing(&self, framework: &str) -> Standing;
    /// See [`Core::principal`].
    fn principal(&self, framework: &str) -> Option<&str>;
    /// See [`Core::counters`].
    fn counters(&self) -> &Counters;
}

impl Machine for Core {
    fn handle(&mut self, now: Time, event: Event, out: &mut Effects) {
        self.handle(now, event, out);
    }

    fn on_deadline(&mut self, now: Time, out: &mut Effects) {
        self.on_deadline(now, out);
    }

    fn on_heartbeats(&mut self, now: Time, out: &mut Effects) {
        self.on_heartbeats(now, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        self.next_deadline()
    }

    fn standing(&self, framework: &str) -> Standing {
        self.standing(framework)
    }

    fn principal(&self, framework: &str) -> Option<&str> {
        self.principal(framework)
    }

    fn counters(&self) -> &Counters {
        self.counters()
    }
}

impl<M: Machine> CoreLoop<M> {
    /// Owns `core` from now on. It decides while the tenure holds.
    pub fn new(
        core: M,
        clock: Clock,
        tenure: Tenure,
        outputs: Outputs,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            core,
            clock,
            tenure,
            deposed: false,
            out: Effects::default(),
            dispatch: Dispatch::new(metrics.clone()),
            outputs,
            metrics,
            last_write: 0,
            pending: Pending::default(),
            allocations: 0,
        }
    }

    /// Runs until `stop`, or until the tenure ends or the registry fails. What was written by then
    /// is durable when the writer ends; what waits for it is not sent.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        stop: CancellationToken,
    ) -> Ended {
        let mut batch = Vec::with_capacity(CORE_BATCH);
        // What is taken and not handled yet: the writes became too many before.
        let mut taken = VecDeque::new();
        let ended = loop {
            let now = self.clock.now();
            let wait = self.core.next_deadline().map(|at| at.since(now));
            // With too many writes under way only the registry is listened to, and
            // frameworks hear that there is a master.
            let free = self.may_write();
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ended::Stopped,
                changed = self.outputs.written.changed() => {
                    if changed.is_err() {
                        break Ended::WriterGone;
                    }
                    let written = *self.outputs.written.borrow_and_update();
                    self.pending.written(written);
                    if self.may_send() {
                        self.dispatch.release(written);
                    }
                }
                () = std::future::ready(()), if free && !taken.is_empty() => {}
                count = inputs.recv_many(&mut batch, CORE_BATCH), if free => {
                    if count == 0 {
                        break Ended::Stopped;
                    }
                    taken.extend(batch.drain(..));
                }
                // Last, for due deadlines are run below whatever woke the loop.
                () = sleep_for(wait), if free => {}
                () = tokio::time::sleep(STALLED_LOOK), if !free => self.run_heartbeats(),
            }
            self.metrics.hot.queue_depth.set(inputs.len() as f64);
            // Whatever woke it, perhaps after a long pause of the whole process.
            if !self.may_send() {
                break Ended::Deposed;
            }
            while self.may_write()
                && let Some(input) = taken.pop_front()
            {
                self.input(input);
            }
            if free {
                self.run_deadline();
            }
            self.tell_lost();
            if self.deposed {
                break Ended::Deposed;
            }
            let changes = self.dispatch.flush();
            if !changes.is_empty() && self.outputs.changes.send(changes).await.is_err() {
                // The read model ends only after this loop.
                break Ended::Stopped;
            }
        };
        let may_send = self.may_send();
        self.dispatch.close_all(may_send);
        ended
    }

    /// Whether more may be written than is under way.
    fn may_write(&self) -> bool {
        self.dispatch.writes_under_way() < PENDING_WRITES && self.pending.bytes < PENDING_BYTES
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Open(connection, peer, turn) => {
                self.dispatch.open(connection, peer);
                // The message is next, and another stream may be decoded meanwhile.
                drop(turn);
            }
            Input::Message(connection, event) => {
                if self.dispatch.is_open(connection) {
                    self.handle(event);
                }
            }
            Input::Call(call) => self.lone_call(call),
            Input::Ended(connection) => {
                if let Some(event) = self.dispatch.ended(connection) {
                    self.handle(event);
                }
            }
            Input::Operator(command, reply) => {
                let request = self.dispatch.request(reply);
                self.handle(Event::Operator { request, command });
            }
            Input::Probe(reply) => {
                // Whoever asked may have given up.
                let _ = reply.send(self.core.counters().clone());
            }
        }
    }

    fn lone_call(&mut self, LoneCall { call, caller, room, turn, reply }: LoneCall) {
        if !self.may_send() {
            // Who asked hears that this master stops.
            return;
        }
        let standing =
            |framework: &str| (self.core.standing(framework), self.core.principal(framework));
        let stream_id = |connection| self.dispatch.stream_id(connection);
        match subscription(&call, caller, standing, stream_id) {
            Ok(connection) => {
                let request = self.dispatch.call(reply);
                self.handle(Event::SchedulerRequest { request, connection, call });
            }
            Err(why) => self.dispatch.refuse(reply, why),
        }
        drop((room, turn));
    }

    fn handle(&mut self, event: Event) {
        let kind = event_kind(&event);
        trace!(kind = EVENT_KINDS[kind], "event");
        let now = self.clock.now();
        self.core.handle(now, event, &mut self.out);
        self.finish(kind, now);
    }

    fn run_deadline(&mut self) {
        let now = self.clock.now();
        if self.core.next_deadline().is_some_and(|at| at <= now) {
            self.core.on_deadline(now, &mut self.out);
            self.finish(DEADLINE, now);
        }
    }

    fn run_heartbeats(&mut self) {
        let now = self.clock.now();
        self.core.on_heartbeats(now, &mut self.out);
        self.finish(DEADLINE, now);
    }

    /// Counts a call of the core that began at `began`, and sends its effects.
    fn finish(&mut self, kind: usize, began: Time) {
        let took = self.clock.now().since(began);
        self.metrics.hot.event(kind, took);
        let allocations = self.core.counters().allocations;
        if allocations != self.allocations {
            self.allocations = allocations;
            self.metrics.hot.allocation_seconds.record(took.as_secs_f64());
        }
        // A connection's `after_persist` comes before its `now`, which is then
        // held back behind it.
        let after = std::mem::take(&mut self.out.after_persist);
        let ops = std::mem::take(&mut self.out.persist);
        let waits = std::mem::take(&mut self.out.waits);
        if !self.may_send() {
            // Decided in time, perhaps; but nobody may hear of it any more.
            self.out.now.clear();
            return;
        }
        if ops.is_empty() && waits {
            self.dispatch.hold_behind(after);
        } else if ops.is_empty() {
            for effect in after {
                self.dispatch.send(effect);
            }
        } else {
            self.last_write += 1;
            self.pending.add(self.last_write, ops.iter().map(RegistryOp::weight).sum());
            self.dispatch.hold(self.last_write, after);
            // A closed queue means that the writer has failed; `written` tells
            // the loop, and these effects stay held back for good.
            let _ = self.outputs.writes.send(Write { number: self.last_write, ops });
        }
        for effect in self.out.now.drain(..) {
            self.dispatch.send(effect);
        }
    }

    /// Whether the tenure holds; once it does not, it never does again.
    fn may_send(&mut self) -> bool {
        self.deposed = self.deposed || !self.tenure.holds();
        !self.deposed
    }

    fn tell_lost(&mut self) {
        while let Some(event) = self.dispatch.next_lost() {
            self.handle(event);
        }
    }
}

async fn sleep_for(wait: Option<Duration>) {
    match wait {
        Some(wait) if wait.is_zero() => {}
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "core_loop_tests.rs"]
mod tests;
