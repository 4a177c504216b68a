//! What the scheduler driver and the executor driver have in common: a pure
//! state machine that keeps one subscription, and the task around it.

mod grpc;
mod run;
mod transport;

use mezz_proto::time::Time;
use tokio::sync::oneshot;

pub(crate) use grpc::{CALLS_IN_FLIGHT, MAX_EVENT_BYTES, endpoint, error_text, status_end};
pub(crate) use run::start;
pub(crate) use transport::{Connecting, Link, LinkEnd, LinkEvents, Transport};

/// A pure state machine: no clock, no socket, no task. It is told what happens
/// and appends what is to be done.
pub(crate) trait Driver: Sized + Send + 'static {
    /// To the peer.
    type Call: Send + 'static;
    /// From the peer.
    type Wire: Send + 'static;
    /// From the application.
    type Command: Send + 'static;
    /// To the application.
    type Delivery: Send + 'static;

    /// When [`on_timeout`](Self::on_timeout) is to be called.
    fn next_deadline(&self) -> Option<Time>;
    fn on_timeout(&mut self, now: Time, out: &mut Vec<Action<Self>>);
    /// The link, or the attempt to open one, has ended.
    fn on_link_end(&mut self, now: Time, end: LinkEnd, out: &mut Vec<Action<Self>>);
    /// Something came on the link.
    fn on_event(&mut self, now: Time, event: Self::Wire, out: &mut Vec<Action<Self>>);
    /// The application asks for something.
    fn on_command(&mut self, now: Time, command: Self::Command, out: &mut Vec<Action<Self>>);
    /// Whether the application has asked for the end: what it is told from here on
    /// may be dropped.
    fn is_ending(&self) -> bool;
    /// Whether this command takes back what earlier ones wait for.
    fn calls_off(&self, command: &Self::Command) -> bool;
    /// The application has dropped its events.
    fn on_unheard(&mut self, now: Time, out: &mut Vec<Action<Self>>);
    /// The peer must not be blamed for silence: the caller is not reading.
    fn not_reading(&mut self, now: Time);
    /// Encoded.
    fn call_bytes(call: &Self::Call) -> usize;
    /// About what it takes in memory.
    fn delivery_bytes(delivery: &Self::Delivery) -> usize;
    /// Whether `next`, right after `last`, makes it superfluous.
    fn replaces(last: &Self::Delivery, next: &Self::Delivery) -> bool;
}

/// What a driver wants done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action<D: Driver> {
    /// Open a link to this host:port with this first call. `tried` is the leader that was
    /// lost, or was named in vain.
    Connect { target: String, tried: Option<String>, first: Box<D::Call> },
    /// Send on the link.
    Send(Box<D::Call>),
    /// End our side of the link once everything is sent.
    HalfClose,
    /// Drop the link, or the attempt to open one. No link end is expected.
    Abandon,
    /// Hand this to the application.
    Deliver(Box<D::Delivery>),
    /// What the application waits for will not be done.
    CallOff,
    /// The driver has ended.
    End,
}

/// A command and whom to tell when the driver has ended. Dropped untold when the
/// driver ends without having done what was asked.
#[derive(Debug)]
pub(crate) struct Request<C> {
    pub command: C,
    pub done: Option<oneshot::Sender<()>>,
}
