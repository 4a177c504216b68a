//! cgroups: limits, killing for sure, and what was used.
//!
//! Every container has a cgroup `<mount>/<agent's name>/<container>`. There is one
//! file per controller; each takes the container's directory, so that a test can
//! hand it a folder that looks like one.

mod bounds;
mod cpuset;
mod devices;
mod file;
mod hierarchy;
mod v1;
mod v2;

use std::{fs, io, os::fd::OwnedFd, path::PathBuf};

pub use bounds::{Bounds, LEAST_MEMORY_BYTES, MAX_PIDS};
pub use file::CgroupError;
pub use hierarchy::is_plain_name;
use hierarchy::{CPUSET, DEVICES, Mounts, Usable, has_controller};
use thiserror::Error;

use super::{OutOfMemory, Statistics};

/// Both versions, to the rest of the containerizer. All calls block, though most
/// only for microseconds.
pub trait Cgroups: Send + Sync + 'static {
    /// `cgroup-v1` or `cgroup-v2`.
    fn name(&self) -> &'static str;

    /// Makes a container's cgroup and returns the files by which a process joins it
    /// (by writing `0`).
    fn create(&self, id: &str, bounds: &Bounds) -> Result<Vec<PathBuf>, CgroupError>;

    /// Holds it to other bounds; only what differs from those `before`, if they are known,
    /// is written, for tasks of an executor may come and go by the hundred a second.
    /// A hard limit is never lowered below what is in use: that would kill. Whether all
    /// bounds are in force.
    fn update(
        &self,
        id: &str,
        bounds: &Bounds,
        before: Option<&Bounds>,
    ) -> Result<bool, CgroupError>;

    /// All its pids.
    fn processes(&self, id: &str) -> Result<Vec<i32>, CgroupError>;

    /// Kills all, and waits until all are gone.
    fn kill(&self, id: &str) -> Result<(), CgroupError>;

    /// What it has used. What the kernel does not tell is left out.
    fn statistics(&self, id: &str) -> Statistics;

    /// Whether and at which limit the kernel killed for memory. Not, when it was the
    /// machine's that was short.
    fn out_of_memory(&self, id: &str) -> Option<OutOfMemory>;

    /// An eventfd that becomes readable when the kernel is about to kill for memory.
    /// None where the kernel then takes the whole container by itself.
    fn memory_alarm(&self, id: &str) -> Result<Option<OwnedFd>, CgroupError>;

    /// Lets others have the GPUs and cores of a container in which nothing runs any more;
    /// its cgroup may stay for long.
    fn release(&self, id: &str) -> Result<(), CgroupError>;

    /// Removes the empty cgroup; one that is gone is no error.
    fn remove(&self, id: &str) -> Result<(), CgroupError>;

    /// The containers that have cgroups.
    fn list(&self) -> Result<Vec<String>, CgroupError>;
}

/// Why cgroups cannot be used here.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The mounts cannot be read.
    #[error("/proc/self/mountinfo: {0}")]
    Mounts(#[source] io::Error),
    /// Not all controllers are there.
    #[error(
        "no cgroup hierarchy with the controllers {} is mounted; mount it (cgroup v2 at \
         /sys/fs/cgroup, or v1 with one mount per controller), or start the agent with \
         `--containment none`, which holds tasks to no limits",
        .0.join(", ")
    )]
    Missing(Vec<&'static str>),
    /// Devices cannot be confined with v1.
    #[error(
        "isolation: `devices` needs the devices controller of cgroup v1, which this machine does \
         not have mounted; leave `devices` out"
    )]
    Devices,
    /// Devices cannot be confined with v2.
    #[error(
        "isolation: `devices` needs a kernel that takes device filters for cgroups \
         (CONFIG_CGROUP_BPF), and an agent of root: {0}; leave `devices` out"
    )]
    DeviceFilter(#[source] io::Error),
    /// Cores cannot be given to containers.
    #[error(
        "isolation: `cpuset` needs the cpuset controller, which this machine's cgroups do not \
         have; leave `cpuset` out"
    )]
    Cpuset,
    /// They are there but not ours to use.
    #[error(
        "cgroups cannot be set up: {0}; start the agent as root or with a delegated cgroup \
         subtree, and outside of a container unless its cgroups are writable, or with \
         `--containment none`, which holds tasks to no limits"
    )]
    Denied(#[from] CgroupError),
}

/// What is done for all containers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Processes and threads that a container may have.
    pub most_pids: u64,
    /// Containers open only harmless devices and the GPUs that they hold.
    pub devices: bool,
    /// Containers with whole cpus have cores of their own.
    pub cpuset: bool,
}

/// The cgroups of an agent with this name, of whichever version the machine has.
///
/// # Errors
/// [`SetupError`] when controllers or rights are missing.
pub fn open(agent: &str, settings: Settings) -> Result<Box<dyn Cgroups>, SetupError> {
    let Settings { devices, cpuset, .. } = settings;
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(SetupError::Mounts)?;
    match Mounts::parse(&text).usable() {
        Usable::V2(root) if cpuset && !has_controller(&root, CPUSET) => Err(SetupError::Cpuset),
        Usable::V2(root) => {
            if devices {
                v2::check_device_filters().map_err(SetupError::DeviceFilter)?;
            }
            Ok(Box::new(v2::V2::open(&root, agent, settings)?))
        }
        Usable::V1(mounts) if devices && !mounts.contains_key(DEVICES) => Err(SetupError::Devices),
        Usable::V1(mounts) if cpuset && !mounts.contains_key(CPUSET) => Err(SetupError::Cpuset),
        Usable::V1(mounts) => Ok(Box::new(v1::V1::open(&mounts, agent, settings)?)),
        Usable::Missing(controllers) => Err(SetupError::Missing(controllers)),
    }
}
