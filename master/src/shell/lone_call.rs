//! Calls of frameworks that come by themselves, as HTTP has it, and who may make them.

use mezz_proto::v1::scheduler::Call;
use thiserror::Error;
use tokio::sync::oneshot;

use super::handle::Turn;
use crate::{
    core::{CallError, CallReply, ConnectionId, Standing, other_principal},
    credentials::Principal,
};
use mezz_http::Room;

/// Tells a framework's HTTP subscriptions apart, for clients (rule 10). Drawn at random:
/// who knows it may call.
pub type StreamId = uuid::Uuid;

/// What such a call gets.
pub type CallAnswer = Result<CallReply, CallRefused>;

/// Who makes a call over HTTP, as its request tells.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Who it has proved to be; nothing where nobody is asked.
    pub principal: Option<Principal>,
    /// The stream's id, if one was given.
    pub stream: Option<String>,
}

/// A call over HTTP: it says itself which subscription it is for.
#[derive(Debug)]
pub struct LoneCall {
    /// With the framework's id; never SUBSCRIBE.
    pub call: Box<Call>,
    /// Who makes it.
    pub caller: Caller,
    /// Its place among the bodies in memory.
    pub room: Room,
    /// Its place among those who call.
    pub turn: Turn,
    /// For the answer.
    pub reply: oneshot::Sender<CallAnswer>,
}

/// Why such a call was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallRefused {
    /// The core has not seen it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The core has refused it.
    #[error(transparent)]
    Refused(#[from] CallError),
}

/// Why who sends a call may not call for that framework, or not now. In Mesos' words and
/// order (rule 5).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAllowed {
    /// There is no such framework.
    #[error("Framework cannot be found")]
    Unknown,
    /// The same, of one whose end may not be written yet.
    #[error("Framework cannot be found")]
    Ended,
    /// It is somebody else's.
    #[error("{}", other_principal(proved, framework))]
    OtherPrincipal {
        /// Who calls.
        proved: Principal,
        /// Whose it is; empty when it has not said.
        framework: String,
    },
    /// It is not subscribed at the moment.
    #[error("Framework is not subscribed")]
    Away,
    /// It is subscribed over gRPC, and calls there.
    #[error("Framework is not connected via HTTP")]
    NotHttp,
    /// No stream id was given.
    #[error("All non-subscribe calls should include the 'Mesos-Stream-Id' header")]
    NoStreamId,
    /// It is that of another subscription.
    #[error(
        "The stream ID '{given}' included in this request didn't match the stream ID currently associated with framework ID {framework}"
    )]
    OtherStream {
        /// What was given.
        given: String,
        /// Whose id it is not.
        framework: String,
    },
}

/// The subscription that a call is for. The core knows where its framework stands, the
/// dispatch (`stream_id`) which id that subscription has: neither keeps a copy of the other's
/// part, and both are asked in the turn in which the call is handled, so that no other
/// subscription can come between.
pub(super) fn subscription<'c>(
    call: &Call,
    caller: Caller,
    standing: impl FnOnce(&str) -> (Standing, Option<&'c str>),
    stream_id: impl FnOnce(ConnectionId) -> Result<StreamId, NotAllowed>,
) -> Result<ConnectionId, NotAllowed> {
    let framework = call.framework_id.as_ref().map_or("", |id| &id.value);
    let (standing, principal) = standing(framework);
    let connection = match standing {
        Standing::Unknown => return Err(NotAllowed::Unknown),
        Standing::Ended => return Err(NotAllowed::Ended),
        Standing::Away => None,
        Standing::Subscribed(connection) => Some(connection),
    };
    if let Some(proved) = caller.principal.filter(|proved| principal != Some(&**proved)) {
        let framework = principal.unwrap_or_default().to_owned();
        return Err(NotAllowed::OtherPrincipal { proved, framework });
    }
    let connection = connection.ok_or(NotAllowed::Away)?;
    let id = stream_id(connection)?;
    let given = caller.stream.ok_or(NotAllowed::NoStreamId)?;
    if given != id.to_string() {
        return Err(NotAllowed::OtherStream { given, framework: framework.to_owned() });
    }
    Ok(connection)
}
