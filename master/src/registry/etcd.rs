//! The registry in etcd: what the leading master writes, fenced and numbered.

use std::collections::BTreeMap;

use etcd_client::KeyValue;
use prost::Message;
use tracing::error;

use super::{Registry, RegistryError, RegistryOp, RegistrySnapshot, agent_key, framework_key};
use crate::{
    core::is_weight,
    election::{Change, Fenced, FencedError, Tenure},
    etcd::Etcd,
};

/// Longest value of a key, in bytes: less than etcd takes in one request unless told
/// otherwise (`--max-request-bytes`, 1.5 MiB), and more than any record of the core's.
const MAX_VALUE: usize = 1280 << 10;

/// The registry of the master that leads.
#[derive(Debug)]
pub struct EtcdRegistry {
    fenced: Fenced,
}

impl From<FencedError> for RegistryError {
    fn from(error: FencedError) -> Self {
        match error {
            FencedError::Deposed { place } => Self::Deposed { place },
            FencedError::Etcd(error) => Self::Etcd(error),
        }
    }
}

impl EtcdRegistry {
    /// For the leader whose key was created at revision `fence`. It tries as long as
    /// the tenure holds.
    pub fn new(etcd: Etcd, fence: i64, tenure: Tenure) -> Self {
        Self { fenced: Fenced::new(etcd, fence, tenure) }
    }

    fn change(&self, op: RegistryOp) -> Change {
        let keys = self.fenced.keys();
        match op {
            RegistryOp::PutAgent(record) => {
                (keys.agents() + agent_key(&record), Some(record.encode_to_vec()))
            }
            RegistryOp::RemoveAgent(id) => (keys.agents() + id.as_str(), None),
            RegistryOp::PutFramework(record) => {
                (keys.frameworks() + framework_key(&record), Some(record.encode_to_vec()))
            }
            RegistryOp::RemoveFramework(id) => (keys.frameworks() + id.as_str(), None),
            RegistryOp::PutWeight(role, weight) => {
                (keys.weights() + &role, Some(weight.to_string().into_bytes()))
            }
        }
    }

    /// Each under its own key: by another one it could never be changed.
    fn records<M: Message + Default>(
        &self,
        kvs: &[KeyValue],
        prefix: &str,
        id: fn(&M) -> &str,
    ) -> Result<Vec<M>, RegistryError> {
        let record = |kv: &KeyValue| {
            let record = M::decode(kv.value()).map_err(|e| self.corrupt(kv, e))?;
            if kv.key() == format!("{prefix}{}", id(&record)).as_bytes() {
                Ok(record)
            } else {
                Err(self.corrupt(kv, "the record has another id"))
            }
        };
        kvs.iter().map(record).collect()
    }

    fn weights(&self, kvs: &[KeyValue]) -> Result<Vec<(String, f64)>, RegistryError> {
        let prefix = self.fenced.keys().weights();
        let mut weights = BTreeMap::new();
        for kv in kvs {
            let key = kv.key_str().map_err(|e| self.corrupt(kv, e))?;
            let text = kv.value_str().map_err(|e| self.corrupt(kv, e))?;
            let weight: f64 = text.parse().map_err(|e| self.corrupt(kv, e))?;
            if !is_weight(weight) {
                return Err(self.corrupt(kv, "it is not a number greater than 0"));
            }
            weights.insert(key.strip_prefix(&prefix).unwrap_or(key).to_owned(), weight);
        }
        Ok(weights.into_iter().collect())
    }

    fn corrupt(
        &self,
        kv: &KeyValue,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> RegistryError {
        RegistryError::Corrupt {
            place: self.fenced.place().to_owned(),
            record: String::from_utf8_lossy(kv.key()).into_owned(),
            source: source.into(),
        }
    }
}

/// The core's bounds are narrower. If one were missing, etcd would refuse the record of every
/// leader, and none could go on: then this record alone is lost.
fn fits((key, value): &Change) -> bool {
    let bytes = value.as_ref().map_or(0, Vec::len);
    if bytes > MAX_VALUE {
        error!(key, bytes, most = MAX_VALUE, "a record is too long for etcd; it is not written");
    }
    bytes <= MAX_VALUE
}

impl Registry for EtcdRegistry {
    async fn load(&mut self) -> Result<RegistrySnapshot, RegistryError> {
        let keys = self.fenced.keys();
        let prefixes = [keys.agents(), keys.frameworks(), keys.weights()];
        let found = self.fenced.read(&prefixes).await?;
        let [agents, frameworks, weights] = &found[..] else {
            return Ok(RegistrySnapshot::default());
        };
        Ok(RegistrySnapshot {
            agents: self.records(agents, &prefixes[0], agent_key)?,
            frameworks: self.records(frameworks, &prefixes[1], framework_key)?,
            weights: self.weights(weights)?,
        })
    }

    /// The last operation on each record counts; transactions are made in the order
    /// of the rest. When this fails, a part may be written: whole records, in order.
    async fn apply(&mut self, ops: Vec<RegistryOp>) -> Result<(), RegistryError> {
        let changes = ops.into_iter().map(|op| self.change(op)).filter(fits).collect();
        Ok(self.fenced.apply(changes).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_etcd_would_refuse_is_not_written() {
        let put = |bytes| ("/mezz/frameworks/f".to_owned(), Some(vec![0; bytes]));
        assert!(fits(&put(crate::core::MAX_RECORD_BYTES + 16_384)));
        assert!(!fits(&put(3 << 20)));
        assert!(fits(&("/mezz/frameworks/f".to_owned(), None)));
    }
}
