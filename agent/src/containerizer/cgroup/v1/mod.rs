//! cgroup v1: a hierarchy per controller, a cgroup per container in each.

mod cpu;
mod cpuacct;
mod freezer;
mod memory;
mod pids;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{Bounds, CgroupError, Cgroups, file};
use crate::containerizer::{OutOfMemory, Statistics};

/// The agent's directory in the hierarchy of each controller.
pub(super) struct V1 {
    cpu: PathBuf,
    cpuacct: PathBuf,
    memory: PathBuf,
    pids: PathBuf,
    freezer: PathBuf,
}

impl V1 {
    pub(super) fn open(
        mounts: &BTreeMap<&'static str, PathBuf>,
        agent: &str,
    ) -> Result<Self, CgroupError> {
        let at = |name| mounts.get(name).map(|m| m.join(agent)).unwrap_or_default();
        let all = Self {
            cpu: at("cpu"),
            cpuacct: at("cpuacct"),
            memory: at("memory"),
            pids: at("pids"),
            freezer: at("freezer"),
        };
        for directory in all.distinct() {
            file::make(directory)?;
        }
        memory::count_hierarchically(&all.memory)?;
        Ok(all)
    }

    /// Some hierarchies hold two controllers (`cpu,cpuacct`).
    fn distinct(&self) -> BTreeSet<&Path> {
        [&self.cpu, &self.cpuacct, &self.memory, &self.pids, &self.freezer]
            .into_iter()
            .map(PathBuf::as_path)
            .collect()
    }
}

impl Cgroups for V1 {
    fn name(&self) -> &'static str {
        "cgroup-v1"
    }

    fn create(&self, id: &str, bounds: &Bounds) -> Result<Vec<PathBuf>, CgroupError> {
        let mut join = Vec::new();
        for directory in self.distinct() {
            let directory = directory.join(id);
            file::make(&directory)?;
            // A thread that moves itself by `tasks` spares the kernel a lock over all
            // processes, which `cgroup.procs` takes.
            join.push(directory.join("tasks"));
        }
        pids::limit(&self.pids.join(id))?;
        self.update(id, bounds)?;
        Ok(join)
    }

    fn update(&self, id: &str, bounds: &Bounds) -> Result<(), CgroupError> {
        cpu::set(&self.cpu.join(id), bounds)?;
        memory::set(&self.memory.join(id), bounds)
    }

    fn processes(&self, id: &str) -> Result<Vec<i32>, CgroupError> {
        file::processes(&self.freezer.join(id))
    }

    fn kill(&self, id: &str) -> Result<(), CgroupError> {
        freezer::kill(&self.freezer.join(id))
    }

    fn statistics(&self, id: &str) -> Statistics {
        let mut all = Statistics::default();
        cpu::statistics(&self.cpu.join(id), &mut all);
        cpuacct::statistics(&self.cpuacct.join(id), &mut all);
        memory::statistics(&self.memory.join(id), &mut all);
        pids::statistics(&self.pids.join(id), &mut all);
        all
    }

    fn out_of_memory(&self, id: &str) -> Option<OutOfMemory> {
        memory::out_of_memory(&self.memory.join(id))
    }

    fn memory_alarm(&self, id: &str) -> Result<Option<OwnedFd>, CgroupError> {
        memory::alarm(&self.memory.join(id)).map(Some)
    }

    fn remove(&self, id: &str) -> Result<(), CgroupError> {
        self.distinct().into_iter().try_for_each(|directory| file::remove(&directory.join(id)))
    }

    fn list(&self) -> Result<Vec<String>, CgroupError> {
        let mut found = BTreeSet::new();
        for directory in self.distinct() {
            found.extend(file::children(directory)?);
        }
        Ok(found.into_iter().collect())
    }
}
