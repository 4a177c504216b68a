//! cgroup v2: one hierarchy, one cgroup per container.

mod cpu;
mod devices;
mod memory;
mod pids;
mod tree;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

pub(super) use devices::check as check_device_filters;

use super::{
    Bounds, CgroupError, Cgroups, Settings,
    cpuset::Cpusets,
    file,
    hierarchy::{CPUSET, V2_CONTROLLERS},
};
use crate::containerizer::{OutOfMemory, Statistics};

/// The agent's cgroup.
pub(super) struct V2 {
    agent: PathBuf,
    /// Processes and threads that a container may have.
    most_pids: u64,
    /// Whether devices are to be confined.
    confine: bool,
    /// Held while one container's devices are chosen, so that no two get the same.
    choosing: Mutex<()>,
    /// When containers are to have cores of their own.
    cores: Option<Cpusets>,
}

impl V2 {
    pub(super) fn open(root: &Path, agent: &str, settings: Settings) -> Result<Self, CgroupError> {
        let agent = root.join(agent);
        let mut controllers = V2_CONTROLLERS.to_vec();
        controllers.extend(settings.cpuset.then_some(CPUSET));
        tree::enable_controllers(root, &controllers)?;
        file::make(&agent)?;
        if settings.devices {
            devices::check_attributes(&agent)?;
        }
        tree::enable_controllers(&agent, &controllers)?;
        let cores = settings.cpuset.then(|| Cpusets::v2(agent.clone())).transpose()?;
        let (most_pids, confine) = (settings.most_pids, settings.devices);
        Ok(Self { agent, most_pids, confine, choosing: Mutex::default(), cores })
    }
}

impl Cgroups for V2 {
    fn name(&self) -> &'static str {
        "cgroup-v2"
    }

    fn create(&self, id: &str, bounds: &Bounds) -> Result<Vec<PathBuf>, CgroupError> {
        let directory = self.agent.join(id);
        file::make(&directory)?;
        pids::limit(&directory, self.most_pids)?;
        memory::prepare(&directory)?;
        if self.confine {
            let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
            devices::confine(&self.agent, id, bounds.gpus)?;
        }
        self.update(id, bounds, None)?;
        Ok(vec![directory.join(tree::PROCESSES)])
    }

    fn update(
        &self,
        id: &str,
        bounds: &Bounds,
        before: Option<&Bounds>,
    ) -> Result<bool, CgroupError> {
        let directory = self.agent.join(id);
        let cpus = bounds.changes_cpus(before);
        if cpus {
            cpu::set(&directory, bounds)?;
        }
        // First: cores that cannot be had keep no limit from being changed.
        let held = match bounds.changes_memory(before) {
            true => memory::set(&directory, bounds)?,
            false => true,
        };
        if let Some(cores) = self.cores.as_ref().filter(|_| cpus) {
            cores.assign(id, bounds.cpus)?;
        }
        Ok(held)
    }

    fn processes(&self, id: &str) -> Result<Vec<i32>, CgroupError> {
        file::processes(&self.agent.join(id))
    }

    fn kill(&self, id: &str) -> Result<(), CgroupError> {
        tree::kill(&self.agent.join(id))
    }

    fn statistics(&self, id: &str) -> Statistics {
        let (directory, mut all) = (self.agent.join(id), Statistics::default());
        cpu::statistics(&directory, &mut all);
        memory::statistics(&directory, &mut all);
        pids::statistics(&directory, &mut all);
        all
    }

    fn out_of_memory(&self, id: &str) -> Option<OutOfMemory> {
        memory::out_of_memory(&self.agent.join(id))
    }

    fn memory_alarm(&self, _id: &str) -> Result<Option<OwnedFd>, CgroupError> {
        // `memory.oom.group` does it.
        Ok(None)
    }

    fn release(&self, id: &str) -> Result<(), CgroupError> {
        if self.confine {
            devices::release(&self.agent.join(id))?;
        }
        self.cores.as_ref().map_or(Ok(()), |cores| cores.release(id))
    }

    fn remove(&self, id: &str) -> Result<(), CgroupError> {
        if let Some(cores) = &self.cores {
            cores.release(id)?;
        }
        file::remove(&self.agent.join(id))
    }

    fn list(&self) -> Result<Vec<String>, CgroupError> {
        file::children(&self.agent)
    }
}

#[cfg(test)]
mod tests;
