//! The network side: gRPC services and a few HTTP pages, all on one port.

mod agent_link;
mod delivery;
mod door;
mod front;
mod http;
mod messages;
mod operator;
mod operator_http;
mod pages;
mod records;
mod redirect;
mod refusal;
mod scheduler;
mod scheduler_http;
mod server;
mod stream;

pub use door::Door;
pub use front::Front;
pub use server::{Api, Identity, leader_routes};

use tonic::Status;

use crate::core::{CallError, OperatorError};

/// How a refused call ends a framework's stream.
pub fn status_of_call_error(error: &CallError) -> Status {
    match error {
        CallError::Invalid(text) => Status::invalid_argument(text),
        CallError::NotAllowed(text) => Status::failed_precondition(text),
        CallError::LimitReached(text) => Status::resource_exhausted(text),
    }
}

/// How an operator is told that a request was not done.
fn status_of_operator_error(error: &OperatorError) -> Status {
    match error {
        OperatorError::NotFound(text) => Status::not_found(text),
        OperatorError::Invalid(text) => Status::invalid_argument(text),
        OperatorError::NotAllowed(text) => Status::failed_precondition(text),
    }
}
