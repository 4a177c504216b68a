//! The master's decisions, pure.

mod change;
mod effect;
mod event;

pub use change::Change;
pub use effect::{CallError, Effect, Effects, OperatorError, OperatorReply};
pub use event::{ConnectionId, Event, OperatorCommand, RequestId};
