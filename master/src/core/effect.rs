//! What the core wants done.

use std::collections::BTreeSet;

use mezz_proto::{ids::FrameworkId, mezz::v1 as mezz, v1};
use thiserror::Error;

use super::{Change, ConnectionId, RequestId};
use crate::registry::RegistryOp;

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send an event to a framework.
    SendScheduler {
        /// Its subscription.
        connection: ConnectionId,
        /// What.
        event: Box<v1::scheduler::Event>,
    },
    /// End a framework's connection, after what was sent on it. With an error it
    /// ends as a refusal of the protocol, else plainly. No
    /// [`SchedulerDisconnected`](super::Event::SchedulerDisconnected) is expected.
    CloseScheduler {
        /// Which.
        connection: ConnectionId,
        /// Why, if the peer broke the protocol.
        error: Option<CallError>,
    },
    /// Send a message to an agent.
    SendAgent {
        /// Its link.
        connection: ConnectionId,
        /// What.
        message: Box<mezz::MasterMessage>,
    },
    /// End an agent's link, after what was sent on it. No
    /// [`AgentDisconnected`](super::Event::AgentDisconnected) is expected.
    CloseAgent {
        /// Which.
        connection: ConnectionId,
    },
    /// Answer an operator.
    Reply {
        /// Whom.
        request: RequestId,
        /// What.
        reply: Result<OperatorReply, OperatorError>,
    },
    /// Answer a framework's call that came by itself.
    Answer {
        /// Which.
        request: RequestId,
        /// How it went.
        answer: Result<CallReply, CallError>,
    },
    /// Tell the read model and the event streams of a change of state.
    Change(Box<Change>),
}

/// Everything that one call of [`Core::handle`](super::Core::handle) wants done.
///
/// `persist` goes to the registry; `after_persist` may go out only when the
/// registry has acknowledged it, `now` at once. Effects of one connection keep
/// their order over both groups and over calls: the shell holds back what is
/// for a connection that still waits for an acknowledgement. Within one call,
/// what a connection gets in `after_persist` comes before what it gets in `now`;
/// once anything for a connection has to wait, all that the call has for it does.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// May go out at once.
    pub now: Vec<Effect>,
    /// To be written, as one transaction.
    pub persist: Vec<RegistryOp>,
    /// May go out once `persist` is written.
    pub after_persist: Vec<Effect>,
    /// `after_persist` tells what an earlier call has persisted: it waits for that, also
    /// when this call persists nothing.
    pub waits: bool,
    /// Connections whose part of this call is in `after_persist`.
    late: BTreeSet<ConnectionId>,
}

impl Effect {
    /// Whose order it has to keep.
    fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::SendScheduler { connection, .. }
            | Self::CloseScheduler { connection, .. }
            | Self::SendAgent { connection, .. }
            | Self::CloseAgent { connection } => Some(*connection),
            Self::Reply { .. } | Self::Answer { .. } | Self::Change(_) => None,
        }
    }
}

impl Effects {
    /// Begins the effects of one call of the core.
    pub(super) fn begin(&mut self) {
        self.late.clear();
        self.waits = false;
    }

    /// From now on what this call sends on the connection waits until what the
    /// call persists is written.
    pub(super) fn after_persist_on(&mut self, connection: ConnectionId) {
        if self.late.insert(connection) {
            // What it was to get before keeps its place.
            let before = self.now.extract_if(.., |effect| effect.connection() == Some(connection));
            self.after_persist.extend(before);
        }
    }

    /// From now on what this call sends on the connection waits until all is written that
    /// was persisted so far. That costs no write.
    pub(super) fn after_all_on(&mut self, connection: ConnectionId) {
        self.waits = true;
        self.after_persist_on(connection);
    }

    /// An answer confirms what earlier calls have persisted: it waits until all is written.
    pub(super) fn confirm_all(&mut self) {
        self.waits = true;
    }

    /// An answer confirms, so it waits for what this call persists.
    pub(super) fn reply(
        &mut self,
        request: RequestId,
        reply: Result<OperatorReply, OperatorError>,
    ) {
        self.confirm(Effect::Reply { request, reply });
    }

    /// As [`reply`](Self::reply), to a framework.
    pub(super) fn answer(&mut self, request: RequestId, answer: Result<CallReply, CallError>) {
        self.confirm(Effect::Answer { request, answer });
    }

    fn confirm(&mut self, answer: Effect) {
        let waits = self.waits || !self.persist.is_empty();
        let to = if waits { &mut self.after_persist } else { &mut self.now };
        to.push(answer);
    }

    fn put(&mut self, connection: ConnectionId, effect: Effect) {
        let late = self.late.contains(&connection);
        if late { self.after_persist.push(effect) } else { self.now.push(effect) }
    }

    pub(super) fn event(&mut self, connection: ConnectionId, event: v1::scheduler::Event) {
        self.put(connection, Effect::SendScheduler { connection, event: Box::new(event) });
    }

    pub(super) fn close_scheduler(&mut self, connection: ConnectionId, error: Option<CallError>) {
        self.put(connection, Effect::CloseScheduler { connection, error });
    }

    pub(super) fn agent(
        &mut self,
        connection: ConnectionId,
        message: mezz::master_message::Message,
    ) {
        self.put(connection, Effect::SendAgent { connection, message: Box::new(master(message)) });
    }

    pub(super) fn close_agent(&mut self, connection: ConnectionId) {
        self.put(connection, Effect::CloseAgent { connection });
    }

    /// Changes always go out at once: held back, one could overtake a later one.
    pub(super) fn change(&mut self, change: Change) {
        self.now.push(Effect::Change(Box::new(change)));
    }

    /// An admission: goes out once `persist` is written, or at once when there
    /// is nothing to write.
    pub(super) fn admit(
        &mut self,
        connection: ConnectionId,
        op: Option<RegistryOp>,
        effects: Vec<Effect>,
    ) {
        self.after_persist_on(connection);
        self.persist.extend(op);
        self.after_persist.extend(effects);
    }
}

/// Tells an agent to end everything of a framework.
pub(super) fn shutdown_framework(id: &FrameworkId) -> mezz::master_message::Message {
    mezz::master_message::Message::ShutdownFramework(mezz::ShutdownFramework {
        framework_id: id.into(),
    })
}

/// A message to an agent.
pub(super) fn master(message: mezz::master_message::Message) -> mezz::MasterMessage {
    mezz::MasterMessage { message: Some(message) }
}

/// A call that breaks the protocol, or asks for what cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// A field is missing or wrong. The text names the field.
    #[error("{0}")]
    Invalid(String),
    /// Legal, but not now: "not subscribed".
    #[error("{0}")]
    NotAllowed(String),
    /// The configured number of frameworks, agents or tasks is reached.
    #[error("{0}")]
    LimitReached(String),
}

/// Answers to a framework's call that came by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum CallReply {
    /// It was taken.
    Done,
    /// To RECONCILE_OPERATIONS.
    Operations(Vec<v1::OperationStatus>),
}

/// Answers to operators.
#[derive(Clone, Debug, PartialEq)]
pub enum OperatorReply {
    /// To `Explain`.
    Explain(mezz::ExplainResponse),
    /// To `ListRoles`.
    Roles(mezz::ListRolesResponse),
    /// Done.
    Done,
}

/// Why an operator's request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OperatorError {
    /// There is no such object; the text says what to do next.
    #[error("{0}")]
    NotFound(String),
    /// The request is wrong; the text names the field.
    #[error("{0}")]
    Invalid(String),
    /// Not in this state.
    #[error("{0}")]
    NotAllowed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection was to get before keeps its place when the rest has to wait.
    #[test]
    fn the_order_of_a_connection_outlives_a_wait() {
        let (one, other) = (ConnectionId(1), ConnectionId(2));
        let mut out = Effects::default();
        out.close_agent(one);
        out.close_agent(other);
        out.after_persist_on(one);
        out.close_scheduler(one, None);
        assert_eq!(out.now, [Effect::CloseAgent { connection: other }]);
        let waits = [
            Effect::CloseAgent { connection: one },
            Effect::CloseScheduler { connection: one, error: None },
        ];
        assert_eq!(out.after_persist, waits);
    }
}
