//! Effects on their way out: which peer, in which order, and which of them wait
//! for the registry.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use mezz_proto::{mezz::v1 as mezz, v1};
use tokio::sync::oneshot;
use tonic::Status;
use tracing::{debug, warn};

use super::{
    kinds::effect_kind,
    limits::WAITING_REQUESTS,
    lone_call::{CallAnswer, NotAllowed, StreamId},
    metrics::Metrics,
    outbox::{Outbox, Overflow},
};
use crate::{
    api::status_of_call_error,
    core::{
        CallError, Change, ConnectionId, Effect, Event, OperatorError, OperatorReply, RequestId,
    },
};

/// What an operator gets.
pub type Answer = Result<OperatorReply, OperatorError>;

/// A batch for the read model. Boxed as the core made them: a change is a large
/// value, and the core's loop should not copy it.
#[allow(clippy::vec_box)]
pub type Changes = Vec<Box<Change>>;

/// The queue to a framework.
pub type SchedulerOutbox = Arc<Outbox<v1::scheduler::Event>>;

/// The queue to an agent.
pub type AgentOutbox = Arc<Outbox<mezz::MasterMessage>>;

/// The other end of an open connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A framework, over gRPC.
    Scheduler(SchedulerOutbox),
    /// A framework, over HTTP: its calls come by themselves, with this id.
    HttpScheduler(SchedulerOutbox, StreamId),
    /// An agent.
    Agent(AgentOutbox),
}

impl Peer {
    fn wake(&self) {
        match self {
            Self::Scheduler(outbox) | Self::HttpScheduler(outbox, _) => outbox.wake(),
            Self::Agent(outbox) => outbox.wake(),
        }
    }

    fn close(&self, end: Result<(), Status>) {
        match self {
            Self::Scheduler(outbox) | Self::HttpScheduler(outbox, _) => outbox.close(end),
            Self::Agent(outbox) => outbox.close(end),
        }
    }

    fn abort(&self, status: Status) {
        match self {
            Self::Scheduler(outbox) | Self::HttpScheduler(outbox, _) => outbox.abort(status),
            Self::Agent(outbox) => outbox.abort(status),
        }
    }

    fn disconnected(&self, connection: ConnectionId) -> Event {
        match self {
            Self::Scheduler(_) | Self::HttpScheduler(..) => {
                Event::SchedulerDisconnected { connection }
            }
            Self::Agent(_) => Event::AgentDisconnected { connection },
        }
    }
}

/// Effects of one connection keep their order; those of different ones need none.
fn connection_of(effect: &Effect) -> Option<ConnectionId> {
    match effect {
        Effect::SendScheduler { connection, .. }
        | Effect::CloseScheduler { connection, .. }
        | Effect::SendAgent { connection, .. }
        | Effect::CloseAgent { connection } => Some(*connection),
        Effect::Change(_) | Effect::Reply { .. } | Effect::Answer { .. } => None,
    }
}

/// Effects of connections that have ended are looked for among those held back when there
/// are so many such connections, and more of them than of others.
const ENDED_HELD: usize = 256;

/// What is held back of a key.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The write that the last effect waits for.
    write: u64,
    /// That effect closes the connection: nothing after it could be sent.
    closes: bool,
}

/// Who waits for an answer.
#[derive(Debug)]
enum Waiting {
    Operator(oneshot::Sender<Answer>),
    Framework(oneshot::Sender<CallAnswer>),
}

impl Waiting {
    fn gave_up(&self) -> bool {
        match self {
            Self::Operator(reply) => reply.is_closed(),
            Self::Framework(reply) => reply.is_closed(),
        }
    }
}

/// The connections, and what is held back from them.
#[derive(Debug)]
pub struct Dispatch {
    metrics: Arc<Metrics>,
    peers: HashMap<ConnectionId, Peer>,
    /// Those who have heard nothing yet.
    fresh: HashSet<ConnectionId>,
    requests: HashMap<RequestId, Waiting>,
    last_request: u64,
    /// Effects that wait for a write: those of write `first_held`, then of the
    /// one after it, and so on.
    held: VecDeque<Vec<Effect>>,
    first_held: u64,
    held_keys: HashMap<ConnectionId, Held>,
    /// Connections that have ended while effects of theirs were held, which still are.
    ended_held: usize,
    /// Peers with something new in their outbox, woken together.
    dirty: Vec<Peer>,
    changes: Changes,
    /// Disconnections that the core must be told of.
    lost: Vec<Event>,
}

impl Dispatch {
    /// With no connection.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            peers: HashMap::new(),
            fresh: HashSet::new(),
            requests: HashMap::new(),
            last_request: 0,
            held: VecDeque::new(),
            first_held: 1,
            held_keys: HashMap::new(),
            ended_held: 0,
            dirty: Vec::new(),
            changes: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// A connection is there.
    pub fn open(&mut self, connection: ConnectionId, peer: Peer) {
        self.gauge(&peer, 1.0);
        self.fresh.insert(connection);
        self.peers.insert(connection, peer);
    }

    /// Whether the core may still hear of this connection.
    pub fn is_open(&self, connection: ConnectionId) -> bool {
        self.peers.contains_key(&connection)
    }

    /// The peer has left. The event for the core, unless the connection was
    /// ended from this side before.
    pub fn ended(&mut self, connection: ConnectionId) -> Option<Event> {
        let peer = self.remove(connection)?;
        Some(peer.disconnected(connection))
    }

    /// A request that [`Effect::Reply`] will answer.
    pub fn request(&mut self, reply: oneshot::Sender<Answer>) -> RequestId {
        self.waits(Waiting::Operator(reply))
    }

    /// A framework's call that [`Effect::Answer`] will answer.
    pub fn call(&mut self, reply: oneshot::Sender<CallAnswer>) -> RequestId {
        self.waits(Waiting::Framework(reply))
    }

    /// Refuses a framework's call that the core does not see. Nobody hears of an end that is
    /// being written.
    pub fn refuse(&mut self, reply: oneshot::Sender<CallAnswer>, why: NotAllowed) {
        if why != NotAllowed::Ended {
            // Whoever asked may have given up.
            return drop(reply.send(Err(why.into())));
        }
        let request = self.call(reply);
        let answer = Err(CallError::Invalid(why.to_string()));
        self.hold_behind(vec![Effect::Answer { request, answer }]);
    }

    fn waits(&mut self, waiting: Waiting) -> RequestId {
        if self.requests.len() >= WAITING_REQUESTS {
            self.requests.retain(|_, waiting| !waiting.gave_up());
        }
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.requests.insert(id, waiting);
        id
    }

    /// The id that calls for this subscription must have.
    ///
    /// # Errors
    /// [`NotAllowed::NotHttp`]; [`NotAllowed::Away`] when the connection has ended, which the
    /// core may hear of next.
    pub fn stream_id(&self, connection: ConnectionId) -> Result<StreamId, NotAllowed> {
        match self.peers.get(&connection) {
            Some(Peer::HttpScheduler(_, id)) => Ok(*id),
            Some(Peer::Scheduler(_) | Peer::Agent(_)) => Err(NotAllowed::NotHttp),
            None => Err(NotAllowed::Away),
        }
    }

    /// Sends an effect, or holds it back behind an earlier one of its key. Heartbeats and
    /// pings overtake: a registry that is slow must not look like a master that is dead, or
    /// make agents look so.
    pub fn send(&mut self, effect: Effect) {
        self.metrics.hot.effect(effect_kind(&effect));
        let waits_for = if self.held_keys.is_empty() || self.overtakes(&effect) {
            None
        } else {
            connection_of(&effect).and_then(|key| self.held_keys.get(&key))
        };
        match waits_for {
            Some(held) => self.keep(held.write, effect),
            None => self.deliver(effect),
        }
    }

    /// Whether the order does not matter: only the first event on a connection must be
    /// the first.
    fn overtakes(&self, effect: &Effect) -> bool {
        match effect {
            Effect::SendScheduler { connection, event } => {
                event.r#type() == v1::scheduler::event::Type::Heartbeat
                    && !self.fresh.contains(connection)
            }
            Effect::SendAgent { connection, message } => {
                matches!(message.message, Some(mezz::master_message::Message::Ping(_)))
                    && !self.fresh.contains(connection)
            }
            _ => false,
        }
    }

    /// Holds effects back until the write with this number is durable. Numbers
    /// come without gaps.
    pub fn hold(&mut self, number: u64, effects: Vec<Effect>) {
        debug_assert_eq!(number, self.first_held + self.held.len() as u64);
        self.held.push_back(Vec::with_capacity(effects.len()));
        for effect in effects {
            self.metrics.hot.effect(effect_kind(&effect));
            self.keep(number, effect);
        }
    }

    /// Holds effects back until all writes that are under way are durable.
    pub fn hold_behind(&mut self, effects: Vec<Effect>) {
        if self.held.is_empty() {
            return effects.into_iter().for_each(|effect| self.send(effect));
        }
        let last = self.first_held + self.held.len() as u64 - 1;
        for effect in effects {
            self.metrics.hot.effect(effect_kind(&effect));
            self.keep(last, effect);
        }
    }

    /// Keeps an effect for when this write, which is under way, is durable; not one that
    /// nobody would get.
    fn keep(&mut self, write: u64, effect: Effect) {
        if matches!(effect, Effect::Change(_)) {
            // Readers are told at once: one that waited could be overtaken by a later one,
            // and while the registry stands still all later ones would have to wait, too.
            return self.deliver(effect);
        }
        if let Some(key) = connection_of(&effect) {
            if !self.peers.contains_key(&key) {
                return;
            }
            let closes =
                matches!(effect, Effect::CloseScheduler { .. } | Effect::CloseAgent { .. });
            let held = self.held_keys.entry(key).or_insert(Held { write, closes: false });
            if held.closes {
                return;
            }
            *held = Held { write, closes };
        }
        if let Some(batch) = self.held.get_mut((write - self.first_held) as usize) {
            batch.push(effect);
        }
    }

    /// The connection has ended: what was held back for it is of no use. A registry that
    /// stands still must not let it grow with every peer that tries again.
    fn forget_held(&mut self, connection: ConnectionId) {
        if self.held_keys.remove(&connection).is_none() {
            return;
        }
        self.ended_held += 1;
        if self.ended_held < ENDED_HELD.max(self.held_keys.len()) {
            return;
        }
        self.ended_held = 0;
        for batch in &mut self.held {
            batch.retain(|effect| {
                connection_of(effect).is_none_or(|connection| self.peers.contains_key(&connection))
            });
            batch.shrink_to(2 * batch.len());
        }
    }

    /// Everything up to this write is durable: what waited for it goes out.
    pub fn release(&mut self, number: u64) {
        while self.first_held <= number {
            let Some(batch) = self.held.pop_front() else { break };
            let released = self.first_held;
            self.first_held += 1;
            for effect in batch {
                if let Some(key) = connection_of(&effect)
                    && self.held_keys.get(&key).is_some_and(|held| held.write == released)
                {
                    self.held_keys.remove(&key);
                }
                self.deliver(effect);
            }
        }
        if self.held.is_empty() {
            self.ended_held = 0;
        }
    }

    /// Writes that are not yet durable.
    pub fn writes_under_way(&self) -> usize {
        self.held.len()
    }

    /// A disconnection that the core must be told of.
    pub fn next_lost(&mut self) -> Option<Event> {
        self.lost.pop()
    }

    /// Wakes the writers of all that was sent since the last call, and returns
    /// the changes for the read model.
    pub fn flush(&mut self) -> Changes {
        for peer in self.dirty.drain(..) {
            peer.wake();
        }
        std::mem::take(&mut self.changes)
    }

    /// Ends every connection: the master stops. What is queued still goes out if this
    /// master `may_send`.
    pub fn close_all(&mut self, may_send: bool) {
        for (_, peer) in std::mem::take(&mut self.peers) {
            self.gauge(&peer, -1.0);
            let status = Status::unavailable("the master is stopping; find the leader again");
            if may_send {
                peer.close(Err(status));
            } else {
                peer.abort(status);
            }
        }
    }

    fn deliver(&mut self, effect: Effect) {
        match effect {
            Effect::SendScheduler { connection, event } => {
                let Some(Peer::Scheduler(outbox) | Peer::HttpScheduler(outbox, _)) =
                    self.peers.get(&connection)
                else {
                    return;
                };
                if !self.fresh.is_empty() {
                    self.fresh.remove(&connection);
                }
                match outbox.push(event) {
                    Ok(()) => self.dirty.push(Peer::Scheduler(outbox.clone())),
                    Err(Overflow) => self.overflowed(connection),
                }
            }
            Effect::SendAgent { connection, message } => {
                let Some(Peer::Agent(outbox)) = self.peers.get(&connection) else { return };
                if !self.fresh.is_empty() {
                    self.fresh.remove(&connection);
                }
                match outbox.push(message) {
                    Ok(()) => self.dirty.push(Peer::Agent(outbox.clone())),
                    Err(Overflow) => self.overflowed(connection),
                }
            }
            Effect::CloseScheduler { connection, error } => {
                if let Some(error) = &error {
                    debug!(connection = connection.0, %error, "refused a framework's call");
                }
                let end = error.map_or(Ok(()), |e| Err(status_of_call_error(&e)));
                if let Some(peer) = self.remove(connection) {
                    peer.close(end);
                }
            }
            Effect::CloseAgent { connection } => {
                if let Some(peer) = self.remove(connection) {
                    peer.close(Ok(()));
                }
            }
            Effect::Reply { request, reply } => {
                if let Some(Waiting::Operator(waiting)) = self.requests.remove(&request) {
                    // The operator may have given up.
                    let _ = waiting.send(reply);
                }
            }
            Effect::Answer { request, answer } => {
                if let Some(Waiting::Framework(waiting)) = self.requests.remove(&request) {
                    // So may the framework.
                    let _ = waiting.send(answer.map_err(Into::into));
                }
            }
            Effect::Change(change) => self.changes.push(change),
        }
    }

    fn overflowed(&mut self, connection: ConnectionId) {
        let Some(peer) = self.remove(connection) else { return };
        let (kind, count) = match &peer {
            Peer::Scheduler(_) | Peer::HttpScheduler(..) => {
                ("framework", &self.metrics.hot.slow_frameworks)
            }
            Peer::Agent(_) => ("agent", &self.metrics.hot.slow_agents),
        };
        count.increment(1);
        warn!(connection = connection.0, peer = kind, "disconnected: it reads too slowly");
        peer.abort(Status::resource_exhausted(
            "disconnected: too much waits to be read; read faster, then connect again",
        ));
        self.lost.push(peer.disconnected(connection));
    }

    fn remove(&mut self, connection: ConnectionId) -> Option<Peer> {
        let peer = self.peers.remove(&connection)?;
        self.fresh.remove(&connection);
        self.forget_held(connection);
        self.gauge(&peer, -1.0);
        Some(peer)
    }

    fn gauge(&self, peer: &Peer, change: f64) {
        match peer {
            Peer::Scheduler(_) | Peer::HttpScheduler(..) => {
                self.metrics.hot.frameworks_connected.increment(change);
            }
            Peer::Agent(_) => self.metrics.hot.agents_connected.increment(change),
        }
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
