//! Checks on what peers send. Each returns a sentence that names the field.

pub(in crate::core) mod agent;
mod brief;
mod call;
mod constraints;
pub(in crate::core) mod framework;
pub(in crate::core) mod ids;
pub(in crate::core) mod report;
mod roles;
pub(in crate::core) mod task;

pub(in crate::core) use brief::brief;
pub use call::{check_call, check_request, claim, other_principal};
pub(in crate::core) use roles::role as check_role;

/// Largest description of an agent or a framework, in bytes as protobuf: what the
/// registry keeps of one has to fit into one request to etcd.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Whether a role may have this weight.
pub fn is_weight(weight: f64) -> bool {
    weight > 0.0 && weight.is_finite()
}
