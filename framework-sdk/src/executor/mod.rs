//! The executor driver: a custom executor's subscription to the agent that
//! started it.
//!
//! [`connect_from_env`] reads what the agent put into the environment and keeps
//! the subscription, also over a restart of the agent. The driver keeps every
//! status update until the agent has acknowledged it and tells the agent of those
//! after each resubscription, so that none is lost; it drops launches that come
//! twice.
//!
//! When the agent stays away for longer than its recovery timeout (or at all, for
//! frameworks without `checkpoint`), the driver delivers [`Event::Shutdown`], the
//! last event, as it does when the agent says so: the executor must then end its
//! tasks and exit.

mod driver;
mod grpc;
mod handle;
mod options;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use mezz_proto::time::Time;

pub use handle::{Closed, Event, Events, Executor, UpdateError};
pub use options::{ExecutorOptions, OptionsError};

use crate::drive;

/// Starts the driver with the settings that the agent put into the environment.
///
/// # Errors
/// [`OptionsError`] names the variable that is missing or wrong.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn connect_from_env() -> Result<(Executor, Events), OptionsError> {
    Ok(connect(ExecutorOptions::from_vars(|name| std::env::var(name).ok())?))
}

/// Starts the driver; returns at once.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn connect(options: ExecutorOptions) -> (Executor, Events) {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = Time::ZERO + since_epoch;
    let transport = grpc::GrpcTransport::new(&options);
    let driver = driver::Driver::new(now, options, rand::random());
    let (commands, events) = drive::start(now, driver, transport);
    (Executor::new(commands), Events::new(events))
}
