//! cgroup v1: a hierarchy per controller, a cgroup per container in each.

mod cpu;
mod cpuacct;
mod devices;
mod freezer;
mod memory;
mod pids;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    Bounds, CgroupError, Cgroups, Settings,
    cpuset::Cpusets,
    file,
    hierarchy::{CPUSET, DEVICES},
};
use crate::containerizer::{OutOfMemory, Statistics};

/// The agent's directory in the hierarchy of each controller.
pub(super) struct V1 {
    cpu: PathBuf,
    cpuacct: PathBuf,
    memory: PathBuf,
    pids: PathBuf,
    freezer: PathBuf,
    /// Where that controller is there.
    devices: Option<PathBuf>,
    /// Whether devices are to be confined.
    confine: bool,
    /// Held while one container's devices are chosen, so that no two get the same.
    choosing: Mutex<()>,
    /// Where that controller is there.
    cpuset: Option<PathBuf>,
    /// When containers are to have cores of their own.
    cores: Option<Cpusets>,
    /// Processes and threads that a container may have.
    most_pids: u64,
}

impl V1 {
    pub(super) fn open(
        mounts: &BTreeMap<&'static str, PathBuf>,
        agent: &str,
        settings: Settings,
    ) -> Result<Self, CgroupError> {
        let at = |name| mounts.get(name).map(|m| m.join(agent)).unwrap_or_default();
        let known = |name| mounts.contains_key(name).then(|| at(name));
        let mut all = Self {
            cpu: at("cpu"),
            cpuacct: at("cpuacct"),
            memory: at("memory"),
            pids: at("pids"),
            freezer: at("freezer"),
            devices: known(DEVICES),
            confine: settings.devices,
            choosing: Mutex::default(),
            cpuset: known(CPUSET),
            cores: None,
            most_pids: settings.most_pids,
        };
        if let Some(root) = mounts.get(CPUSET).filter(|_| settings.cpuset) {
            file::make(&at(CPUSET))?;
            all.cores = Some(Cpusets::v1(root, at(CPUSET))?);
        }
        for directory in all.made() {
            file::make(directory)?;
        }
        memory::count_hierarchically(&all.memory)?;
        Ok(all)
    }

    /// Where a container has a cgroup. Some hierarchies hold two controllers
    /// (`cpu,cpuacct`).
    fn made(&self) -> BTreeSet<&Path> {
        [&self.cpu, &self.cpuacct, &self.memory, &self.pids, &self.freezer]
            .into_iter()
            .chain(self.devices.as_ref().filter(|_| self.confine))
            .map(PathBuf::as_path)
            .chain(self.cores.as_ref().map(Cpusets::agent))
            .collect()
    }

    /// Where it may have one, since an agent with other options made it.
    fn all(&self) -> BTreeSet<&Path> {
        self.made()
            .into_iter()
            .chain(self.devices.as_deref())
            .chain(self.cpuset.as_deref())
            .collect()
    }
}

impl Cgroups for V1 {
    fn name(&self) -> &'static str {
        "cgroup-v1"
    }

    fn create(&self, id: &str, bounds: &Bounds) -> Result<Vec<PathBuf>, CgroupError> {
        let mut join = Vec::new();
        for directory in self.made() {
            let directory = directory.join(id);
            file::make(&directory)?;
            // A thread that moves itself by `tasks` spares the kernel a lock over all
            // processes, which `cgroup.procs` takes.
            join.push(directory.join("tasks"));
        }
        pids::limit(&self.pids.join(id), self.most_pids)?;
        if let Some(agent) = self.devices.as_ref().filter(|_| self.confine) {
            let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
            devices::confine(agent, id, bounds.gpus)?;
        }
        self.update(id, bounds, None)?;
        Ok(join)
    }

    fn update(
        &self,
        id: &str,
        bounds: &Bounds,
        before: Option<&Bounds>,
    ) -> Result<bool, CgroupError> {
        let cpus = bounds.changes_cpus(before);
        if cpus {
            cpu::set(&self.cpu.join(id), bounds, before)?;
        }
        // First: cores that cannot be had keep no limit from being changed.
        let held = match bounds.changes_memory(before) {
            true => memory::set(&self.memory.join(id), bounds)?,
            false => true,
        };
        if let Some(cores) = self.cores.as_ref().filter(|_| cpus) {
            cores.assign(id, bounds.cpus)?;
        }
        Ok(held)
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

    fn release(&self, id: &str) -> Result<(), CgroupError> {
        if let Some(agent) = self.devices.as_ref().filter(|_| self.confine) {
            devices::release(&agent.join(id))?;
        }
        self.cores.as_ref().map_or(Ok(()), |cores| cores.release(id))
    }

    fn remove(&self, id: &str) -> Result<(), CgroupError> {
        if let Some(cores) = &self.cores {
            cores.release(id)?;
        }
        self.all().into_iter().try_for_each(|directory| file::remove(&directory.join(id)))
    }

    fn list(&self) -> Result<Vec<String>, CgroupError> {
        let mut found = BTreeSet::new();
        for directory in self.all() {
            found.extend(file::children(directory)?);
        }
        Ok(found.into_iter().collect())
    }
}
