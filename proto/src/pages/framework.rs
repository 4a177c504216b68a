//! The parts of frameworks that master and agent write alike (rule 86).

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Proto, ResourcesPage};
use crate::v1;

/// Names of a framework's capabilities, without those that this program does not know.
pub fn capability_names(info: &v1::FrameworkInfo) -> Vec<&'static str> {
    use v1::framework_info::capability::Type;
    info.capabilities
        .iter()
        .map(v1::framework_info::Capability::r#type)
        .filter(|known| *known != Type::Unknown)
        .map(|known| known.as_str_name())
        .collect()
}

/// Which roles a framework has: `roles` with the capability MULTI_ROLE, `role` without.
#[derive(Clone, Copy, Debug)]
pub struct FrameworkNames<'a>(pub &'a v1::FrameworkInfo);

impl FrameworkNames<'_> {
    /// Writes the one or the other.
    ///
    /// # Errors
    /// The map's.
    pub fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        use v1::framework_info::capability::Type;
        let info = self.0;
        if info.capabilities.iter().any(|c| c.r#type() == Type::MultiRole) {
            map.serialize_entry("roles", &info.roles)
        } else {
            map.serialize_entry("role", info.role())
        }
    }
}

/// An outstanding offer.
#[derive(Clone, Copy, Debug)]
pub struct OfferPage<'a>(pub &'a v1::Offer);

impl Serialize for OfferPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let offer = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &offer.id.value)?;
        map.serialize_entry("framework_id", &offer.framework_id.value)?;
        if let Some(allocation) = &offer.allocation_info {
            map.serialize_entry("allocation_info", &Proto(allocation))?;
        }
        map.serialize_entry("slave_id", &offer.agent_id.value)?;
        map.serialize_entry("resources", &ResourcesPage::of_wire(&offer.resources))?;
        map.end()
    }
}
