//! What a native method can fail with; the JVM sees a `RuntimeException` with the text.

use mezz_sdk::{executor, scheduler};
use thiserror::Error;

#[derive(Debug, Error)]
pub(crate) enum Error {
    /// An exception that is on its way already, or a class that is not what it should be.
    #[error(transparent)]
    Jni(#[from] jni::errors::Error),
    #[error("{0} must not be null")]
    Null(&'static str),
    #[error("{what}: is no such message: {source}")]
    Message { what: &'static str, source: prost::DecodeError },
    #[error("the driver is not initialised, or its finalizer has run already")]
    NotInitialized,
    #[error("Cannot call acknowledgeStatusUpdate: Implicit acknowledgements are enabled")]
    ImplicitAcknowledgements,
    #[error("operations[{index}].{field}: must be set for an operation of this type")]
    Operation { index: usize, field: &'static str },
    #[error("framework.user: is empty, and this process' user id {0} has no name; set it")]
    NoUser(u32),
    #[error("Expecting '{0}' to be set in the environment")]
    Variable(&'static str),
    #[error(transparent)]
    Executor(#[from] executor::OptionsError),
    #[error(transparent)]
    Scheduler(#[from] scheduler::OptionsError),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}
