//! Calls of frameworks that come by themselves, as HTTP has it, and who may make them.

use mezz_proto::v1::scheduler::Call;
use thiserror::Error;
use tokio::sync::oneshot;

use super::handle::Turn;
use crate::core::{CallError, CallReply, ConnectionId, Standing};
use mezz_http::Room;

/// Tells a framework's HTTP subscriptions apart, for clients (rule 10). Drawn at random:
/// who knows it may call.
pub type StreamId = uuid::Uuid;

/// What such a call gets.
pub type CallAnswer = Result<CallReply, CallRefused>;

/// A call over HTTP: it says itself which subscription it is for.
#[derive(Debug)]
pub struct LoneCall {
    /// With the framework's id; never SUBSCRIBE.
    pub call: Box<Call>,
    /// The stream's id, if one was given.
    pub stream: Option<String>,
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
pub(super) fn subscription(
    call: &Call,
    given: Option<String>,
    standing: impl FnOnce(&str) -> Standing,
    stream_id: impl FnOnce(ConnectionId) -> Result<StreamId, NotAllowed>,
) -> Result<ConnectionId, NotAllowed> {
    let framework = call.framework_id.as_ref().map_or("", |id| &id.value);
    let connection = match standing(framework) {
        Standing::Unknown => return Err(NotAllowed::Unknown),
        Standing::Ended => return Err(NotAllowed::Ended),
        Standing::Away => return Err(NotAllowed::Away),
        Standing::Subscribed(connection) => connection,
    };
    let id = stream_id(connection)?;
    let given = given.ok_or(NotAllowed::NoStreamId)?;
    if given != id.to_string() {
        return Err(NotAllowed::OtherStream { given, framework: framework.to_owned() });
    }
    Ok(connection)
}
