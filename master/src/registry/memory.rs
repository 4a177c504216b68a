//! A registry that forgets everything when the process ends.

use std::collections::BTreeMap;

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    mezz::v1 as mezz,
};
use prost::Message;

use super::{Registry, RegistryError, RegistryOp, RegistrySnapshot, agent_key, framework_key};

/// For tests and for clusters on one machine: a restarted master learns of
/// agents and frameworks from them.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    /// Encoded, a fifth of the message.
    agents: BTreeMap<AgentId, Box<[u8]>>,
    frameworks: BTreeMap<FrameworkId, mezz::FrameworkRecord>,
    weights: BTreeMap<String, f64>,
}

impl MemoryRegistry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn apply_one(&mut self, op: RegistryOp) {
        match op {
            RegistryOp::PutAgent(record) => {
                let encoded = record.encode_to_vec().into_boxed_slice();
                self.agents.insert(AgentId::new(agent_key(&record)), encoded);
            }
            RegistryOp::RemoveAgent(id) => {
                self.agents.remove(&id);
            }
            RegistryOp::PutFramework(record) => {
                self.frameworks.insert(FrameworkId::new(framework_key(&record)), record);
            }
            RegistryOp::RemoveFramework(id) => {
                self.frameworks.remove(&id);
            }
            RegistryOp::PutWeight(role, weight) => {
                self.weights.insert(role, weight);
            }
        }
    }
}

impl Registry for MemoryRegistry {
    async fn load(&mut self) -> Result<RegistrySnapshot, RegistryError> {
        let mut agents = Vec::with_capacity(self.agents.len());
        for (id, encoded) in &self.agents {
            let record = mezz::AgentRecord::decode(&**encoded);
            agents.push(record.map_err(|source| RegistryError::Corrupt {
                place: "memory".to_owned(),
                record: format!("agents/{id}"),
                source: Box::new(source),
            })?);
        }
        Ok(RegistrySnapshot {
            agents,
            frameworks: self.frameworks.values().cloned().collect(),
            weights: self.weights.iter().map(|(role, weight)| (role.clone(), *weight)).collect(),
        })
    }

    async fn apply(&mut self, ops: Vec<RegistryOp>) -> Result<(), RegistryError> {
        for op in ops {
            self.apply_one(op);
        }
        Ok(())
    }
}
