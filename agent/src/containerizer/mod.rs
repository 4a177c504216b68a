//! Starting, watching and ending containers, behind one trait.

pub mod cgroup;
mod choose;
mod docker;
mod host_paths;
mod process;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use mezz_proto::{ids::ContainerId, resources::Resources, v1};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{io::AsyncWrite, sync::mpsc};

pub use docker::EngineAddress;
pub(crate) use process::look_up_user;

use crate::options::{AgentOptions, Containment, Isolator};

/// What runs in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// `/bin/sh -c` with this text.
    Shell(String),
    /// This program with these arguments; `argv[0]` is the arguments' own first.
    Exec {
        /// A path, or a name that is looked up in PATH.
        path: String,
        /// argv, from `argv[0]` on; when empty, `path` is `argv[0]`.
        argv: Vec<String>,
    },
    /// What the container's image runs by itself.
    Image {
        /// Its arguments; the image's own when empty.
        argv: Vec<String>,
    },
    /// Nothing, until it is ended: holds what a pod's containers share.
    Hold,
}

/// A container to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// Never used before.
    pub id: ContainerId,
    /// What runs in it.
    pub program: Program,
    /// Its whole environment; nothing is inherited from the agent.
    pub environment: BTreeMap<String, String>,
    /// To run as; the agent's own user when absent.
    pub user: Option<String>,
    /// Its working directory, which exists; `stdout` and `stderr` go there. If it
    /// belongs to the agent's user, it and all in it are given to `user` before the
    /// program starts.
    pub sandbox: PathBuf,
    /// What it is held to: cpus, mem.
    pub resources: Resources,
    /// Hard limits above `resources` (`TaskInfo.limits`): cpus, mem; infinity
    /// lifts a bound.
    pub limits: BTreeMap<String, f64>,
    /// As the framework gave it. What cannot be done of it fails the launch with
    /// the name of the field.
    pub info: Option<Box<v1::ContainerInfo>>,
    /// The pod that it belongs to: a container that runs [`Program::Hold`], whose
    /// namespaces it shares.
    pub pod: Option<ContainerId>,
}

/// A program to be run inside of a container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    /// [`Program::Shell`] or [`Program::Exec`].
    pub program: Program,
    /// On top of the container's own environment.
    pub environment: BTreeMap<String, String>,
    /// Whether its input is wanted; otherwise it reads nothing.
    pub stdin: bool,
    /// A terminal of this size in place of pipes.
    pub terminal: Option<WindowSize>,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Where output was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Also all that goes to a terminal.
    Stdout,
    /// Not with a terminal.
    Stderr,
}

/// A program that runs inside of a container. It is killed when this is dropped.
pub struct Exec {
    /// Its input, when asked for; closed by dropping it.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it writes. Ends when nobody writes any more.
    pub output: mpsc::Receiver<(Stream, Bytes)>,
    /// Changes the size of the terminal; without one they are ignored.
    pub resize: mpsc::Sender<WindowSize>,
    /// Its end, as `waitpid` tells it.
    pub ended: BoxFuture<'static, Result<i32, ContainerError>>,
}

/// One way of running containers, and whether it works now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ability {
    /// `cgroup-v1`, `cgroup-v2`, `none` or `docker`.
    pub name: &'static str,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Why it does not work now: a sentence for the operator.
    pub problem: Option<String>,
}

/// Why the agent ended a container that had done more than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limitation {
    /// Of what.
    pub kind: LimitationKind,
    /// What it might have and what it took, for the framework.
    pub message: String,
}

/// What a container had too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitationKind {
    /// Bytes in its sandbox.
    Disk,
    /// Ports that it does not hold.
    Ports,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// As `waitpid` tells it; absent when it cannot be known any more.
    pub wait_status: Option<i32>,
    /// Set when the kernel killed it for its memory.
    pub out_of_memory: Option<OutOfMemory>,
    /// What went wrong before the program ran, if anything did.
    pub failure: Option<String>,
}

/// What the kernel's memory controller says of an ended container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that it might use.
    pub limit_bytes: u64,
    /// The most that it ever used, in bytes.
    pub peak_bytes: u64,
}

/// What a container has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Seconds of cpu time.
    pub cpus_user_secs: Option<f64>,
    /// Seconds of cpu time in the kernel.
    pub cpus_system_secs: Option<f64>,
    /// Quota periods that it ran in.
    pub cpus_nr_periods: Option<u64>,
    /// Seconds that it was kept from running by its quota.
    pub cpus_throttled_secs: Option<f64>,
    /// How often its quota was used up.
    pub cpus_nr_throttled: Option<u64>,
    /// Bytes resident.
    pub mem_rss_bytes: Option<u64>,
    /// The most ever, in bytes.
    pub mem_peak_bytes: Option<u64>,
    /// Bytes swapped out.
    pub mem_swap_bytes: Option<u64>,
    /// Bytes that it may use.
    pub mem_limit_bytes: Option<u64>,
    /// Processes killed for memory.
    pub oom_kills: Option<u64>,
    /// Processes alive.
    pub pids: Option<u32>,
}

/// Why a container could not be started, signalled or found.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// There is none under this id.
    #[error("no container {0}")]
    Unknown(ContainerId),
    /// It could not be started.
    #[error("container {id} could not be started: {doing}")]
    Launch {
        /// Which.
        id: ContainerId,
        /// At which step.
        doing: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something failed on a container that runs.
    #[error("container {id}: {doing} failed")]
    Operation {
        /// Which.
        id: ContainerId,
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its image was there when it was prepared, and is not any more: it can be prepared
    /// and launched again.
    #[error("container {id}: its image {image} was removed before it was started")]
    ImageGone {
        /// Which.
        id: ContainerId,
        /// As the framework named it.
        image: String,
    },
    /// It asks for what this agent cannot do.
    #[error("container {id}: {what}")]
    Unsupported {
        /// Which.
        id: ContainerId,
        /// The field, why not, and what to do.
        what: String,
    },
}

/// What an agent's start has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// For each container that the store knows, whether it is there (running, or
    /// ended with a status); the others never started.
    pub known: BTreeMap<ContainerId, bool>,
    /// Of those that it does not know, the ones that are still being ended.
    pub unended: BTreeSet<ContainerId>,
}

/// Whom a signal to a container goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressee {
    /// Its first process and all that descends from it.
    #[default]
    Tree,
    /// Its first process alone.
    FirstProcess,
}

/// A boxed future, so that the trait can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One way of running containers. All methods may be called at once from many
/// tasks.
pub trait Containerizer: Send + Sync + 'static {
    /// Stands in `GetAgentResponse.containment`: `cgroup-v1`, `cgroup-v2`, `none`.
    fn name(&self) -> &'static str;

    /// Whether it is an engine's, which may hang: nobody else should wait for it.
    fn is_of_engine(&self, _id: &ContainerId) -> bool {
        false
    }

    /// Does what may take minutes and needs no place among those that start: fetches an
    /// image. May be dropped at any time.
    fn prepare(&self, _spec: &ContainerSpec) -> BoxFuture<'_, Result<(), ContainerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Starts one that is prepared; returns the pid of its first process once that runs. What goes
    /// wrong later (no such program) comes by [`wait`](Containerizer::wait).
    fn launch(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<u32, ContainerError>>;

    /// Waits until it has ended. Also for recovered ones, and for one that ended
    /// while no agent ran. May be called again; answers the same.
    fn wait(&self, id: &ContainerId) -> BoxFuture<'_, Result<Termination, ContainerError>>;

    /// Sends a signal. An engine's containers get it by their first process, whatever `to`
    /// is.
    fn signal(
        &self,
        id: &ContainerId,
        signal: i32,
        to: Addressee,
    ) -> BoxFuture<'_, Result<(), ContainerError>>;

    /// Kills every process of it, at once and for sure.
    fn destroy(&self, id: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>>;

    /// Changes what it is held to.
    fn update(
        &self,
        id: &ContainerId,
        resources: Resources,
        limits: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), ContainerError>>;

    /// What it has used so far.
    fn statistics(&self, id: &ContainerId) -> BoxFuture<'_, Result<Statistics, ContainerError>>;

    /// Every process of it, as the agent sees them.
    fn processes(&self, id: &ContainerId) -> BoxFuture<'_, Result<Vec<i32>, ContainerError>>;

    /// Its network namespace (`/proc/PID/ns/net`), when it is not the agent's own.
    fn network(&self, id: &ContainerId) -> BoxFuture<'_, Result<Option<PathBuf>, ContainerError>>;

    /// Runs one more program in it: same namespaces, limits, user and directory.
    fn exec(&self, id: &ContainerId, spec: ExecSpec)
    -> BoxFuture<'_, Result<Exec, ContainerError>>;

    /// What works now, never empty.
    fn abilities(&self) -> Vec<Ability>;

    /// After an agent's start: finds the containers that the store knows, and
    /// ends and removes those that it does not. What does not end within seconds
    /// is ended in the background, for as long as it takes.
    ///
    /// Fails, rather than to give up what may well run, when it cannot be found out
    /// what there is: the disk is full or broken, or file descriptors are short.
    fn recover(&self, known: Vec<ContainerId>) -> BoxFuture<'_, Result<Recovery, ContainerError>>;

    /// Forgets an ended container and removes what it left behind outside of its
    /// sandbox (cgroups, the launcher's files).
    fn remove(&self, id: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>>;
}

/// Why containers cannot be run as the options want.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The agent's name for its cgroups is none.
    #[error(
        "--cgroup-root: `{0}` is no name for a cgroup; it must be one path component of at most \
         200 bytes, such as `mezz`"
    )]
    CgroupRoot(String),
    /// cgroups are missing or may not be used.
    #[error(transparent)]
    Cgroups(#[from] cgroup::SetupError),
    /// The agent's own files have no place.
    #[error("--work-dir: cannot make or read {path}: {source}")]
    WorkDir {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The containerizer that the options ask for. [`Containerizer::recover`] comes next.
/// To be called in a runtime, on which the Docker engine is watched.
///
/// # Errors
/// [`OpenError`], which tells what to do; nothing runs without limits unless
/// [`Containment::None`] is asked for.
pub fn open(options: &AgentOptions) -> Result<Arc<dyn Containerizer>, OpenError> {
    let cgroups = match options.containment {
        Containment::None => None,
        Containment::Cgroup if !cgroup::is_plain_name(&options.cgroup_root) => {
            return Err(OpenError::CgroupRoot(options.cgroup_root.clone()));
        }
        Containment::Cgroup => Some(open_cgroups(options)?),
    };
    let processes = process::Processes::open(options, cgroups)?;
    let docker = match options.docker.engine.clone() {
        Some(engine) => Some(docker::DockerContainers::open(options, engine)?),
        None => None,
    };
    Ok(Arc::new(choose::Choice::new(processes, docker, options.work_dir.clone())))
}

fn open_cgroups(options: &AgentOptions) -> Result<Box<dyn cgroup::Cgroups>, cgroup::SetupError> {
    let isolation = &options.isolation;
    let always = |isolator| isolation.always.contains(&isolator);
    let settings = cgroup::Settings {
        most_pids: isolation.pids_limit,
        devices: always(Isolator::Devices),
        cpuset: always(Isolator::Cpuset),
    };
    cgroup::open(&options.cgroup_root, settings)
}
