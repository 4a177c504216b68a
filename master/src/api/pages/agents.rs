//! `/slaves`, and the agents of `/state`.

use std::collections::BTreeMap;

use mezz_proto::{
    mezz::v1 as mezz,
    pages::{
        AGENT_CAPABILITIES, AttributesPage, MESOS_VERSION, Proto, Protos, Reserved, ResourcesPage,
        full,
    },
    resources::{Dialect, Resources},
    v1,
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::state::List;
use crate::shell::{
    read_state::{AgentEntry, Sums},
    snapshot::Snapshot,
    view,
};

/// `/slaves?slave_id=…`.
pub struct SlavesPage<'a> {
    /// What there is.
    pub snapshot: &'a Snapshot,
    /// Only this one.
    pub only: Option<&'a str>,
}

impl Serialize for SlavesPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_agents(&mut map, self.snapshot, self.only, true)?;
        map.end()
    }
}

pub(super) fn is_active(agent: &mezz::AgentState) -> bool {
    agent.status() == mezz::agent_state::Status::Active && !view::is_deactivated(agent)
}

pub(super) fn write_agents<M: SerializeMap>(
    map: &mut M,
    snapshot: &Snapshot,
    only: Option<&str>,
    full: bool,
) -> Result<(), M::Error> {
    let wanted =
        |agent: &AgentEntry| only.is_none_or(|id| id == view::agent_id(&agent.rest().agent));
    map.serialize_entry(
        "slaves",
        &List(|| {
            snapshot
                .agents
                .iter()
                .filter(|(agent, _)| view::is_registered(agent.rest()) && wanted(agent))
                .map(|(agent, sums)| AgentPage { agent, sums, full })
        }),
    )?;
    map.serialize_entry(
        "recovered_slaves",
        &List(|| {
            snapshot
                .agents
                .iter()
                .filter(|(a, _)| {
                    a.rest().status() == mezz::agent_state::Status::Recovering && wanted(a)
                })
                .map(|(a, _)| RecoveredPage(a))
        }),
    )
}

fn write_agent_info<M: SerializeMap>(
    map: &mut M,
    agent: &mezz::AgentState,
) -> Result<(), M::Error> {
    let info = &agent.agent;
    map.serialize_entry("id", view::agent_id(info))?;
    map.serialize_entry("hostname", &info.hostname)?;
    map.serialize_entry("port", &info.port())?;
    map.serialize_entry("attributes", &AttributesPage(&info.attributes))?;
    if let Some(domain) = &info.domain {
        map.serialize_entry("domain", &Proto(domain))?;
    }
    Ok(())
}

struct RecoveredPage<'a>(&'a AgentEntry);

impl Serialize for RecoveredPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_agent_info(&mut map, self.0.rest())?;
        map.end()
    }
}

pub(super) struct AgentPage<'a> {
    pub(super) agent: &'a AgentEntry,
    pub(super) sums: &'a Sums,
    /// With resources as messages, too.
    pub(super) full: bool,
}

impl AgentPage<'_> {
    pub(super) fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let record = self.agent.rest();
        write_agent_info(map, record)?;
        map.serialize_entry("pid", &view::agent_pid(record))?;
        map.serialize_entry("registered_time", &record.registered_time.unwrap_or_default())?;
        if let Some(time) = record.reregistered_time {
            map.serialize_entry("reregistered_time", &time)?;
        }
        let parts = Reserved::of(self.agent.total());
        map.serialize_entry("resources", &ResourcesPage::of(self.agent.total()))?;
        map.serialize_entry("used_resources", &ResourcesPage::of(&self.sums.allocated))?;
        map.serialize_entry("offered_resources", &ResourcesPage::of(&self.sums.offered))?;
        map.serialize_entry("reserved_resources", &parts.page())?;
        map.serialize_entry("unreserved_resources", &ResourcesPage::of(&parts.unreserved))?;
        map.serialize_entry("active", &is_active(record))?;
        map.serialize_entry("deactivated", &view::is_deactivated(record))?;
        map.serialize_entry("version", MESOS_VERSION)?;
        map.serialize_entry("capabilities", &AGENT_CAPABILITIES.map(|c| c.as_str_name()))?;
        if let Some(drain) = &record.drain {
            map.serialize_entry("drain_info", &Proto(drain))?;
            if let Some(start) = record.drain_start_time {
                map.serialize_entry("estimated_drain_start_time_seconds", &(start as i64))?;
            }
        }
        if self.full {
            let wire = |of: &Resources| full(of.to_proto(Dialect::Refined, None));
            let reserved: BTreeMap<_, _> = parts.full().into_iter().collect();
            map.serialize_entry("reserved_resources_full", &Lists(&reserved))?;
            map.serialize_entry("unreserved_resources_full", &Protos(&wire(&parts.unreserved)))?;
            map.serialize_entry("used_resources_full", &Protos(&wire(&self.sums.allocated)))?;
            map.serialize_entry("offered_resources_full", &Protos(&wire(&self.sums.offered)))?;
        }
        Ok(())
    }
}

struct Lists<'a>(&'a BTreeMap<&'a str, Vec<v1::Resource>>);

impl Serialize for Lists<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(role, all)| (role, Protos(all))))
    }
}

impl Serialize for AgentPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.write(&mut map)?;
        map.end()
    }
}
