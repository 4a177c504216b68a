//! What the core is told.

use mezz_proto::{ids::ContainerId, mezz::v1 as mezz, v1};

use super::{
    check::{Answer, NoAnswer, ProbeId},
    proof::Proof,
};
use crate::containerizer::{Limitation, Termination};

/// One connection of an executor. Numbered by the shell, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// One connection to a master. Numbered by the shell, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum Event {
    /// The shell is ready. Comes first, once.
    Started,
    /// A master can be spoken to: the core introduces itself.
    LinkUp {
        /// The new connection; an older one is over.
        link: LinkId,
        /// The master's host:port.
        master: String,
    },
    /// The connection ended.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// The master says something.
    Master {
        /// On which connection.
        link: LinkId,
        /// What.
        message: Box<mezz::MasterMessage>,
    },
    /// An executor's call. SUBSCRIBE binds the connection to the executor; any
    /// other call needs that, unless it comes by itself, as over HTTP.
    ExecutorCall {
        /// On which it came.
        connection: ConnectionId,
        /// Who it shows to be.
        proof: Proof,
        /// What it says.
        call: Box<v1::executor::Call>,
    },
    /// An executor's connection ended.
    ExecutorDisconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// A container's first process runs.
    ContainerLaunched {
        /// Which.
        container: ContainerId,
        /// The process.
        pid: u32,
    },
    /// A container did not come to run: its files could not be fetched, it could
    /// not be started, or it was destroyed before that. It is gone.
    LaunchFailed {
        /// Which.
        container: ContainerId,
        /// Why.
        error: String,
    },
    /// A container ended.
    ContainerEnded {
        /// Which.
        container: ContainerId,
        /// How.
        termination: Termination,
        /// The end of its `stderr`, where the shell thinks it helps.
        stderr_tail: Option<String>,
    },
    /// A container has taken more than it may, and is to end for it. Once for each.
    ContainerLimited {
        /// Which.
        container: ContainerId,
        /// What it took.
        limitation: Limitation,
    },
    /// What [`Effect::Probe`](super::Effect::Probe) found. None comes for a container
    /// that has ended.
    Probed {
        /// Which.
        container: ContainerId,
        /// Which attempt.
        probe: ProbeId,
        /// What, or why there is no answer.
        outcome: Result<Answer, NoAnswer>,
    },
}
