//! What a container has for itself, and what it may not do: a part of the plan.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::process::Process;

/// How far a container is kept apart. The default is not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// Processes of its own; the first is an init that reaps.
    pub pid: bool,
    /// System V IPC and POSIX message queues of its own.
    pub ipc: bool,
    /// A network of its own, with nothing but a loopback device.
    pub network: bool,
    /// A hostname of its own, which is the machine's until somebody sets it.
    pub uts: bool,
    /// The hostname that it finds; only with `uts`.
    pub hostname: Option<String>,
    /// Namespaces of another container that it enters.
    pub join: Option<Join>,
    /// Mounts of its own.
    pub mounts: Option<Mounts>,
    /// No program gives it rights that it has not.
    pub no_new_privileges: bool,
    /// Capabilities that its processes can ever have, as bits; all when absent.
    pub bounding: Option<u64>,
    /// Capabilities that its program starts with, whatever its user, as bits.
    pub effective: Option<u64>,
    /// Limits of each process.
    pub rlimits: Vec<Rlimit>,
}

/// Namespaces of another container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The first process of that container.
    pub process: Process,
    /// Its processes.
    pub pid: bool,
    /// Its IPC.
    pub ipc: bool,
    /// Its hostname.
    pub uts: bool,
    /// Its network.
    pub network: bool,
}

/// The mounts of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    /// An unpacked image, which becomes the root and cannot be written; the machine's
    /// own root when absent.
    pub root: Option<PathBuf>,
    /// Nothing can be written but the sandbox, `/tmp` and writable volumes.
    pub read_only: bool,
    /// The sandbox, as the machine sees it. With an image it stands at
    /// [`SANDBOX`], otherwise where it is.
    pub sandbox: PathBuf,
    /// `/tmp` is a folder of the sandbox.
    pub tmp: bool,
    /// An own `/dev/shm` of so many bytes; 0 leaves it to the kernel.
    pub shm_bytes: Option<u64>,
    /// `/dev/shm` is that of the container whose namespaces are joined.
    #[serde(default)]
    pub join_shm: bool,
    /// In this order.
    pub volumes: Vec<Volume>,
}

/// Where the sandbox is in a container with an image.
pub const SANDBOX: &str = "/mnt/mesos/sandbox";

/// The folder of the sandbox that is `/tmp`.
pub const TMP: &str = ".tmp";

/// A file or folder that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What is mounted.
    pub from: Source,
    /// Where; relative to the sandbox unless absolute.
    pub to: PathBuf,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// What is mounted as a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Of the machine; must exist, and holds no link: what it was resolved to when it was
    /// allowed is what is mounted.
    Host(PathBuf),
    /// A path in a sandbox, which it cannot lead out of. A folder is made there if
    /// nothing is.
    Sandbox {
        /// The sandbox.
        base: PathBuf,
        /// Relative.
        path: PathBuf,
    },
}

/// A limit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The kernel's number of the resource.
    pub resource: u32,
    /// None: unlimited.
    pub soft: Option<u64>,
    /// None: unlimited.
    pub hard: Option<u64>,
}

impl Isolation {
    /// Whether the container is not kept apart at all.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
