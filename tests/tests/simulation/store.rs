//! An agent's store, as it is on the disk.

use std::collections::{BTreeMap, BTreeSet};

use mezz_agent::core::{
    ExecutorKey, ExecutorRecord, Recovered, StoreOp, TaskKey, TaskRecord, TaskStateRecord,
};
use mezz_proto::{
    ids::{AgentId, FrameworkId},
    v1,
};

#[derive(Debug, Default)]
pub struct Store {
    pub agent: Option<v1::AgentInfo>,
    boot: Option<String>,
    starts: u64,
    pub frameworks: BTreeMap<FrameworkId, v1::FrameworkInfo>,
    pub executors: BTreeMap<ExecutorKey, ExecutorRecord>,
    pub tasks: BTreeMap<TaskKey, TaskRecord>,
    pub states: BTreeMap<TaskKey, TaskStateRecord>,
}

impl Store {
    pub fn apply(&mut self, op: StoreOp) {
        match op {
            StoreOp::PutAgent(info) => self.agent = Some(*info),
            StoreOp::PutBootId(boot) => self.boot = Some(boot),
            StoreOp::PutStarts(starts) => self.starts = starts,
            StoreOp::PutFramework(id, info) => _ = self.frameworks.insert(id, *info),
            StoreOp::RemoveFramework(id) => _ = self.frameworks.remove(&id),
            StoreOp::PutExecutor(key, record) => _ = self.executors.insert(key, *record),
            StoreOp::RemoveExecutor(key) => _ = self.executors.remove(&key),
            StoreOp::PutTask(key, record) => _ = self.tasks.insert(key, *record),
            StoreOp::PutTaskState(key, record) => _ = self.states.insert(key, record),
            StoreOp::RemoveTask(key) => {
                self.tasks.remove(&key);
                self.states.remove(&key);
            }
            // Sandboxes matter to nobody here.
            StoreOp::PutSandbox(_) | StoreOp::PutSandboxTask(..) | StoreOp::RemoveSandbox(_) => {}
        }
    }

    /// What the next agent knows, but for the containers that are there.
    pub fn recovered(&self, boot: &str) -> Recovered {
        let tasks = self.tasks.iter();
        Recovered {
            agent_id: self.agent.as_ref().and_then(|a| a.id.as_ref()).map(AgentId::from),
            starts: self.starts,
            frameworks: self.frameworks.values().cloned().collect(),
            executors: self.executors.values().cloned().collect(),
            tasks: tasks
                .filter_map(|(key, record)| Some((record.clone(), self.states.get(key)?.clone())))
                .collect(),
            found: BTreeSet::new(),
            rebooted: self.boot.as_deref().is_some_and(|before| before != boot),
        }
    }
}
