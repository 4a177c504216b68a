//! cgroup v2: one hierarchy, one cgroup per container.

mod cpu;
mod memory;
mod pids;
mod tree;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{Bounds, CgroupError, Cgroups, file};
use crate::containerizer::{OutOfMemory, Statistics};

/// The agent's cgroup.
pub(super) struct V2 {
    agent: PathBuf,
    /// Processes and threads that a container may have.
    most_pids: u64,
}

impl V2 {
    pub(super) fn open(root: &Path, agent: &str, most_pids: u64) -> Result<Self, CgroupError> {
        let agent = root.join(agent);
        tree::enable_controllers(root)?;
        file::make(&agent)?;
        tree::enable_controllers(&agent)?;
        Ok(Self { agent, most_pids })
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
        self.update(id, bounds)?;
        Ok(vec![directory.join(tree::PROCESSES)])
    }

    fn update(&self, id: &str, bounds: &Bounds) -> Result<(), CgroupError> {
        let directory = self.agent.join(id);
        cpu::set(&directory, bounds)?;
        memory::set(&directory, bounds)
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

    fn remove(&self, id: &str) -> Result<(), CgroupError> {
        file::remove(&self.agent.join(id))
    }

    fn list(&self) -> Result<Vec<String>, CgroupError> {
        file::children(&self.agent)
    }
}

#[cfg(test)]
mod tests;
