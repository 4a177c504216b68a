//! What master and agent write on the pages that tools of Mesos read: the older JSON
//! form of `/state` and its kin (behaviour rules 84 to 90). It has its own names
//! (`slave_id`, `executor_id` as plain text) and its own forms of resources and labels;
//! what Mesos writes there as protobuf is in the dialect of [`json`].
//!
//! Everything here is written straight into the answer, with no tree of values between:
//! a page may tell of tens of thousands of tasks.

mod duration;
mod executor;
mod framework;
mod hide;
mod jsonp;
mod metrics;
mod resources;
mod task;
mod version;

pub use duration::{DurationError, duration_text, parse_duration};
pub use executor::{CommandPage, ExecutorPage};
pub use framework::{FrameworkNames, OfferPage, capability_names};
/// What our agents are able to do of what Mesos has names for (rules 17 and 50): what they
/// register with, and what every page says of them.
pub const AGENT_CAPABILITIES: [crate::v1::agent_info::capability::Type; 5] = {
    use crate::v1::agent_info::capability::Type;
    [
        Type::MultiRole,
        Type::HierarchicalRole,
        Type::ReservationRefinement,
        Type::AgentDraining,
        Type::TaskResourceLimits,
    ]
};

pub use hide::{hide_in_executor, hide_in_framework, hide_in_task, without_credentials};
pub use jsonp::{BadCallback, Jsonp, MAX_CALLBACK, escaped};
pub use metrics::{load_averages, snapshot, system_metrics};
pub use resources::{
    AttributesPage, QuantitiesPage, Reserved, ResourcesPage, full, resource_quantities,
};
pub use task::{LabelsPage, TaskPage};
pub use version::{MESOS_VERSION, Version};

use prost::{Message, Name};
use serde::{Serialize, Serializer};

use crate::json;

/// A message in the JSON dialect, as a part of a page.
pub struct Proto<'a, M>(pub &'a M);

impl<M: Message + Name> Serialize for Proto<'_, M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json::written::<M>(&self.0.encode_to_vec()).serialize(serializer)
    }
}

/// A list of messages in the JSON dialect.
pub struct Protos<'a, M>(pub &'a [M]);

impl<M: Message + Name> Serialize for Protos<'_, M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Proto))
    }
}

/// A number as pages and the dialect write it: JSON has no infinities, so those are text,
/// in the words that Mesos' reader knows.
pub(crate) struct Float(pub(crate) f64);

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else if self.0.is_nan() {
            serializer.serialize_str("NaN")
        } else {
            serializer.serialize_str(if self.0 > 0.0 { "Infinity" } else { "-Infinity" })
        }
    }
}

#[cfg(test)]
mod tests;
