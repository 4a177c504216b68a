//! A registry in memory, kept over restarts of the master.

use std::collections::BTreeMap;

use mezz_master::registry::{RegistryOp, RegistrySnapshot};
use mezz_proto::{
    ids::{AgentId, FrameworkId},
    mezz::v1 as mezz,
};

#[derive(Debug, Default)]
pub(super) struct Registry {
    agents: BTreeMap<AgentId, mezz::AgentRecord>,
    frameworks: BTreeMap<FrameworkId, mezz::FrameworkRecord>,
    weights: BTreeMap<String, f64>,
}

impl Registry {
    pub fn apply(&mut self, op: RegistryOp) {
        match op {
            RegistryOp::PutAgent(record) => {
                if let Some(id) = &record.agent.id {
                    self.agents.insert(id.into(), record);
                }
            }
            RegistryOp::RemoveAgent(id) => drop(self.agents.remove(&id)),
            RegistryOp::PutFramework(record) => {
                if let Some(id) = &record.framework.id {
                    self.frameworks.insert(id.into(), record);
                }
            }
            RegistryOp::RemoveFramework(id) => drop(self.frameworks.remove(&id)),
            RegistryOp::PutWeight(role, weight) => drop(self.weights.insert(role, weight)),
        }
    }

    pub fn snapshot(&self) -> RegistrySnapshot {
        RegistrySnapshot {
            agents: self.agents.values().cloned().collect(),
            frameworks: self.frameworks.values().cloned().collect(),
            weights: self.weights.iter().map(|(r, w)| (r.clone(), *w)).collect(),
        }
    }
}
