//! Wire types of Mezz and the values that every crate shares: the Mesos v1 and
//! `mezz.v1` messages, typed ids, time, and the resource algebra.
//!
//! This crate decides nothing about a cluster: no scheduling rule belongs here.

pub mod attributes;
pub mod codec;
pub mod credential;
pub mod error;
pub mod ids;
pub mod json;
pub mod labels;
pub mod logging;
pub mod media;
pub mod pages;
pub mod recordio;
pub mod resources;
pub mod search;
mod states;
pub mod strict;
mod text;
pub mod time;
pub mod weight;

/// Version of the protocol of `AgentLink`: it grows with every change that an older
/// master or agent would misunderstand. Both speak the same one, or do not join.
pub const LINK_PROTOCOL: u32 = 2;

/// Largest call of a framework that a master takes, in bytes. A call with 10,000 tasks fits.
/// A larger one ends the stream.
pub const MAX_SCHEDULER_CALL_BYTES: usize = 4 << 20;

/// Largest call of an executor that an agent takes, in bytes. A larger one ends the stream.
pub const MAX_EXECUTOR_CALL_BYTES: usize = 16 << 20;

/// Metadata of a status `UNAVAILABLE`: this master does not lead. The value is the
/// leader's `host:port`, or empty when none is known.
pub const LEADER_KEY: &str = "mezz-leader";

/// Metadata of a request: the `host:port` of the leader that the client has lost, or was
/// sent to in vain. A standby that knows no other keeps the request for a while.
pub const TRIED_KEY: &str = "mezz-tried";

/// Messages of the Mesos v1 API, wire compatible with Apache Mesos.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod mesos {
    /// Package `mesos.v1`.
    pub mod v1 {
        tonic::include_proto!("mesos.v1");
        pub mod agent {
            tonic::include_proto!("mesos.v1.agent");
        }
        pub mod allocator {
            tonic::include_proto!("mesos.v1.allocator");
        }
        pub mod executor {
            tonic::include_proto!("mesos.v1.executor");
        }
        pub mod maintenance {
            tonic::include_proto!("mesos.v1.maintenance");
        }
        pub mod master {
            tonic::include_proto!("mesos.v1.master");
        }
        pub mod quota {
            tonic::include_proto!("mesos.v1.quota");
        }
        pub mod resource_provider {
            tonic::include_proto!("mesos.v1.resource_provider");
        }
        pub mod scheduler {
            tonic::include_proto!("mesos.v1.scheduler");
        }
    }
}

/// Mezz's own gRPC services and their messages.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod mezz {
    /// Package `mezz.v1`.
    pub mod v1 {
        tonic::include_proto!("mezz.v1");
    }
}

/// Shorthand: `v1::TaskInfo`, `v1::scheduler::Call`.
pub use mesos::v1;

/// The encoded `FileDescriptorSet` of every message above.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
