//! The scheduler driver: a framework's subscription to the leading master.
//!
//! [`connect`] starts a task that finds the leader among the given masters,
//! subscribes, and keeps the subscription through failures of the network and
//! of masters. The application gets a [`Scheduler`] to make calls with and
//! [`Events`] to read.
//!
//! # What the driver does by itself
//! * **Finds the leader.** It follows redirections, tries the masters in turn,
//!   and backs off with jitter when none answers. A master that sends nothing
//!   for three heartbeat intervals counts as dead.
//! * **Resubscribes** under the id that the framework was given. The same
//!   [`Scheduler`] and [`Events`] go on; the application sees
//!   [`Event::Disconnected`], then [`Event::Subscribed`].
//! * **Acknowledges** a status update when the application asks for the next
//!   event, so that an update is never acknowledged before it was seen. After a
//!   crash between the two it comes again: updates are *at least once*.
//! * **Reconciles** after each resubscription: it asks for everything that the
//!   master knows, and by name for every task that it knows to be alive, again
//!   and again until each has been answered. Such answers are ordinary
//!   [`Event::Update`]s, so the same state may be seen twice.
//!
//! # Calls while there is no master
//! No call fails because the master is away. What the application *wants* is
//! kept and sent after resubscription: suppressed roles, kills (repeated until
//! the task has ended), executors to shut down, tasks to reconcile, a changed
//! framework. What only makes sense now is dropped: declines, messages and
//! acknowledgements (the agent sends such an update again). Offers die with the
//! subscription; launching on a dead offer reports each task back at once as
//! `TASK_DROPPED` (`TASK_LOST` for a framework that is not `PARTITION_AWARE`),
//! made locally, so that nothing waits for a task that never started.

mod calls;
mod command;
mod credential;
mod driver;
mod grpc;
mod handle;
mod options;
mod tasks;
#[cfg(test)]
mod tests;

pub use credential::{CredentialFileError, credential_from_file};
pub use handle::{Closed, Event, Events, Scheduler};
pub use options::{AcknowledgeMode, OptionsError, SchedulerOptions};

use driver::Driver;
use grpc::GrpcTransport;
use mezz_proto::{time::Time, v1};

use crate::drive::{self, Transport};

/// Starts the driver; returns at once. The first event is
/// [`Event::Subscribed`], or [`Event::Disconnected`] when no master can be
/// reached (the driver goes on trying).
///
/// Dropping [`Events`] ends the driver as [`Scheduler::stop`] does.
///
/// # Errors
/// [`OptionsError`] says which option is wrong.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn connect(options: SchedulerOptions) -> Result<(Scheduler, Events), OptionsError> {
    let transport = GrpcTransport::new(options.credential.as_ref());
    connect_with(options, transport, rand::random())
}

/// As [`connect`], over any transport; `seed` decides the jitter.
pub(crate) fn connect_with(
    options: SchedulerOptions,
    transport: impl Transport<v1::scheduler::Call, v1::scheduler::Event>,
    seed: u64,
) -> Result<(Scheduler, Events), OptionsError> {
    options.validate()?;
    let driver = Driver::new(Time::ZERO, options, seed);
    let (commands, events) = drive::start(Time::ZERO, driver, transport);
    Ok((Scheduler::new(commands.clone()), Events::new(events, commands)))
}
