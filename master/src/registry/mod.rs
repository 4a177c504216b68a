//! What a master keeps over its restarts, behind one trait.

mod etcd;
mod file;
mod memory;

use std::future::Future;

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    mezz::v1 as mezz,
};
use prost::Message as _;
use thiserror::Error;

use crate::etcd::EtcdError;

pub use etcd::EtcdRegistry;
pub use file::FileRegistry;
pub use memory::MemoryRegistry;

/// One change of the registry.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistryOp {
    /// Write an agent's record.
    PutAgent(mezz::AgentRecord),
    /// Forget an agent.
    RemoveAgent(AgentId),
    /// Write a framework's record.
    PutFramework(mezz::FrameworkRecord),
    /// Forget a framework.
    RemoveFramework(FrameworkId),
    /// Set a role's weight.
    PutWeight(String, f64),
}

impl RegistryOp {
    /// What it has for the store, in bytes as protobuf.
    pub fn weight(&self) -> usize {
        match self {
            Self::PutAgent(record) => record.encoded_len(),
            Self::PutFramework(record) => record.encoded_len(),
            Self::RemoveAgent(id) => id.as_str().len(),
            Self::RemoveFramework(id) => id.as_str().len(),
            Self::PutWeight(role, _) => role.len(),
        }
    }
}

/// All that the registry holds, as read at the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegistrySnapshot {
    /// Sorted by id.
    pub agents: Vec<mezz::AgentRecord>,
    /// Sorted by id.
    pub frameworks: Vec<mezz::FrameworkRecord>,
    /// Sorted by role.
    pub weights: Vec<(String, f64)>,
}

/// Why the registry could not be read or written. After it the master must stop:
/// what it would say next could not be kept.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The store failed.
    #[error("the registry at {place} failed while {doing}")]
    Store {
        /// A path or an address.
        place: String,
        /// What it was doing.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another master has it open.
    #[error(
        "the registry at {place} is in use by another master; stop that one, or give this one a \
         registry of its own"
    )]
    Locked {
        /// A path or an address.
        place: String,
    },
    /// This master leads no more, so it may not write.
    #[error("this master leads no more; the registry in {place} is another one's to write")]
    Deposed {
        /// An address.
        place: String,
    },
    /// etcd's.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// A record cannot be read.
    #[error("the registry at {place} holds a record that cannot be read: {record}")]
    Corrupt {
        /// A path or an address.
        place: String,
        /// Its key.
        record: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A store for [`RegistryOp`]s. One writer: the leading master.
pub trait Registry: Send + 'static {
    /// Reads everything.
    ///
    /// # Errors
    /// [`RegistryError`].
    fn load(&mut self) -> impl Future<Output = Result<RegistrySnapshot, RegistryError>> + Send;

    /// Writes all of `ops`; they are durable when it returns. When it fails, or the
    /// machine does, a part may be written: each record wholly or not at all. The core
    /// needs no more, for a record says all of its agent, framework or role, and
    /// nothing is told to anybody before all are written.
    ///
    /// # Errors
    /// [`RegistryError`].
    fn apply(
        &mut self,
        ops: Vec<RegistryOp>,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;
}

/// The key of an agent's record: its id.
fn agent_key(record: &mezz::AgentRecord) -> &str {
    record.agent.id.as_ref().map_or("", |id| &id.value)
}

/// The key of a framework's record: its id.
fn framework_key(record: &mezz::FrameworkRecord) -> &str {
    record.framework.id.as_ref().map_or("", |id| &id.value)
}
