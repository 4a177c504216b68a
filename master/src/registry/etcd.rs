//! The registry in etcd: what the leading master writes, fenced and numbered.

use etcd_client::KeyValue;
use mezz_proto::mezz::v1 as mezz;
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
}

/// What is under a key.
enum Found {
    Agent(mezz::AgentRecord),
    Framework(mezz::FrameworkRecord),
    Weight(String, f64),
}

/// Why it cannot be read.
type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// Under its own key: by another one it could never be changed.
fn record<M: Message + Default>(
    kv: &KeyValue,
    prefix: &str,
    id: fn(&M) -> &str,
) -> Result<M, Unreadable> {
    let record = M::decode(kv.value())?;
    if kv.key().strip_prefix(prefix.as_bytes()) == Some(id(&record).as_bytes()) {
        Ok(record)
    } else {
        Err("the record has another id".into())
    }
}

fn weight(kv: &KeyValue, prefix: &str) -> Result<(String, f64), Unreadable> {
    let key = kv.key_str()?;
    let weight: f64 = kv.value_str()?.parse()?;
    if !is_weight(weight) {
        return Err("it is not a number greater than 0".into());
    }
    Ok((key.strip_prefix(prefix).unwrap_or(key).to_owned(), weight))
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
        let place = self.fenced.place().to_owned();
        let decode = |at: usize, kv: KeyValue| {
            let prefix = &prefixes[at];
            let found = match at {
                0 => record(&kv, prefix, agent_key).map(Found::Agent),
                1 => record(&kv, prefix, framework_key).map(Found::Framework),
                _ => weight(&kv, prefix).map(|(role, weight)| Found::Weight(role, weight)),
            };
            found.map_err(|source| RegistryError::Corrupt {
                place: place.clone(),
                record: String::from_utf8_lossy(kv.key()).into_owned(),
                source,
            })
        };
        let found = self.fenced.read_as(&prefixes, decode).await?;
        let mut snapshot = RegistrySnapshot::default();
        for found in found.into_iter().flatten() {
            match found? {
                Found::Agent(agent) => snapshot.agents.push(agent),
                Found::Framework(framework) => snapshot.frameworks.push(framework),
                Found::Weight(role, weight) => snapshot.weights.push((role, weight)),
            }
        }
        Ok(snapshot)
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
