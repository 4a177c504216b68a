//! `/state`, of the parts that the other pages have, too (rules 84 to 87).

use mezz_proto::{mezz::v1 as mezz, pages::Version, v1};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    agents::{is_active, write_agents},
    frameworks::write_frameworks,
};
use crate::{
    api::server::Identity,
    core::master_info,
    shell::{snapshot::Snapshot, view},
};

/// A list of what can be written.
pub(super) struct List<F>(pub(super) F);

impl<F, I> Serialize for List<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// `/state`.
pub struct StatePage<'a> {
    /// Who answers.
    pub identity: &'a Identity,
    /// Since when it leads, in seconds since the epoch.
    pub elected: f64,
    /// What there is.
    pub snapshot: &'a Snapshot,
}

impl Serialize for StatePage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { identity, snapshot, .. } = self;
        let info = master_info(&identity.id, &identity.address);
        let mut map = serializer.serialize_map(None)?;
        Version::of_build().write(&mut map)?;
        map.serialize_entry("start_time", &identity.clock.start_time().as_secs_f64())?;
        map.serialize_entry("elected_time", &self.elected)?;
        map.serialize_entry("id", &identity.id)?;
        map.serialize_entry("pid", info.pid())?;
        map.serialize_entry("hostname", info.hostname())?;
        let capabilities: Vec<_> =
            info.capabilities.iter().map(|c| c.r#type().as_str_name()).collect();
        map.serialize_entry("capabilities", &capabilities)?;
        let registered = || snapshot.agents.iter().filter(|(a, _)| view::is_registered(a.rest()));
        let active = registered().filter(|(a, _)| is_active(a.rest())).count();
        let unreachable = mezz::agent_state::Status::Unreachable;
        let lost = snapshot.agents.iter().filter(|(a, _)| a.rest().status() == unreachable);
        map.serialize_entry("activated_slaves", &(active as f64))?;
        map.serialize_entry("deactivated_slaves", &((registered().count() - active) as f64))?;
        map.serialize_entry("unreachable_slaves", &(lost.count() as f64))?;
        if let Some(cluster) = &identity.cluster {
            map.serialize_entry("cluster", cluster)?;
        }
        map.serialize_entry("leader", info.pid())?;
        map.serialize_entry("leader_info", &Leader(&info))?;
        map.serialize_entry("flags", &identity.flags)?;
        write_agents(&mut map, snapshot, None, false)?;
        write_frameworks(&mut map, snapshot, None)?;
        map.serialize_entry::<_, [(); 0]>("orphan_tasks", &[])?;
        map.serialize_entry::<_, [(); 0]>("unregistered_frameworks", &[])?;
        map.end()
    }
}

struct Leader<'a>(&'a v1::MasterInfo);

impl Serialize for Leader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.0.id)?;
        map.serialize_entry("pid", self.0.pid())?;
        map.serialize_entry("port", &self.0.port)?;
        map.serialize_entry("hostname", self.0.hostname())?;
        map.end()
    }
}
