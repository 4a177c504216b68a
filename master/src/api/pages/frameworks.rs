//! `/frameworks`, and those of `/state`.

use mezz_proto::{
    mezz::v1 as mezz,
    pages::{
        ExecutorPage, FrameworkNames, LabelsPage, OfferPage, Proto, ResourcesPage, capability_names,
    },
    v1,
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    state::List,
    tasks::{Shown, is_live, is_unreachable},
};
use crate::shell::{
    read_state::{Sums, TaskEntry},
    snapshot::Snapshot,
    view,
};

/// `/frameworks?framework_id=…`.
pub struct FrameworksPage<'a> {
    /// What there is.
    pub snapshot: &'a Snapshot,
    /// Only this one.
    pub only: Option<&'a str>,
}

impl Serialize for FrameworksPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_frameworks(&mut map, self.snapshot, self.only)?;
        map.serialize_entry::<_, [(); 0]>("unregistered_frameworks", &[])?;
        map.end()
    }
}

/// Which frameworks; `None`: all.
pub(super) fn write_frameworks<M: SerializeMap>(
    map: &mut M,
    snapshot: &Snapshot,
    only: Option<&str>,
) -> Result<(), M::Error> {
    let list = |live: bool| {
        List(move || {
            snapshot
                .frameworks
                .iter()
                .filter(move |(f, _)| view::is_live(f) == live)
                .filter(move |(f, _)| only.is_none_or(|id| id == view::framework_id(&f.framework)))
                .map(|(record, sums)| FrameworkPage { record, sums, snapshot })
        })
    };
    map.serialize_entry("frameworks", &list(true))?;
    map.serialize_entry("completed_frameworks", &list(false))
}

pub(super) struct FrameworkPage<'a> {
    pub(super) record: &'a mezz::FrameworkState,
    pub(super) sums: &'a Sums,
    pub(super) snapshot: &'a Snapshot,
}

impl FrameworkPage<'_> {
    pub(super) fn write_summary<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        use mezz::framework_state::Status;
        let info = &self.record.framework;
        let connected = self.record.status() == Status::Active;
        map.serialize_entry("id", view::framework_id(&self.record.framework))?;
        map.serialize_entry("name", &info.name)?;
        map.serialize_entry("used_resources", &ResourcesPage::of(&self.sums.allocated))?;
        map.serialize_entry("offered_resources", &ResourcesPage::of(&self.sums.offered))?;
        map.serialize_entry("capabilities", &capability_names(info))?;
        map.serialize_entry("hostname", info.hostname())?;
        map.serialize_entry("webui_url", info.webui_url())?;
        map.serialize_entry("active", &connected)?;
        map.serialize_entry("connected", &connected)?;
        map.serialize_entry("recovered", &(self.record.status() == Status::Recovered))
    }
}

impl Serialize for FrameworkPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, sums, snapshot } = self;
        let (info, id) = (&record.framework, view::framework_id(&record.framework));
        let mut map = serializer.serialize_map(None)?;
        self.write_summary(&mut map)?;
        map.serialize_entry("user", &info.user)?;
        map.serialize_entry("failover_timeout", &info.failover_timeout())?;
        map.serialize_entry("checkpoint", &info.checkpoint())?;
        map.serialize_entry("registered_time", &record.registered_time.unwrap_or_default())?;
        map.serialize_entry("unregistered_time", &record.unregistered_time.unwrap_or_default())?;
        if let Some(principal) = &info.principal {
            map.serialize_entry("principal", principal)?;
        }
        let all = sums.allocated.clone() + &sums.offered;
        map.serialize_entry("resources", &ResourcesPage::of(&all))?;
        if let Some(time) = record.reregistered_time {
            map.serialize_entry("reregistered_time", &time)?;
        }
        FrameworkNames(info).write(&mut map)?;
        let aware = view::is_partition_aware(info);
        let tasks = snapshot.tasks_of(id);
        let list = |keep: fn(&TaskEntry) -> bool| {
            List(move || {
                tasks.iter().filter(move |t| keep(t)).filter_map(move |t| Shown::of(t, aware))
            })
        };
        map.serialize_entry("tasks", &list(is_live))?;
        map.serialize_entry("unreachable_tasks", &list(is_unreachable))?;
        map.serialize_entry("completed_tasks", &list(TaskEntry::is_completed))?;
        let offers = || snapshot.offers_of(id).iter().map(|record| OfferPage(&record.offer));
        map.serialize_entry("offers", &List(offers))?;
        let executors = snapshot.executors_of(id);
        map.serialize_entry(
            "executors",
            &List(|| {
                executors
                    .iter()
                    .filter_map(|(key, entry)| Some(ShownExecutor(entry.decode()?, key.0.as_str())))
            }),
        )?;
        if let Some(labels) = &info.labels {
            map.serialize_entry("labels", &LabelsPage(labels))?;
        }
        let constraints = record.offer_constraints.clone().unwrap_or_default();
        map.serialize_entry("offer_constraints", &Proto(&constraints))?;
        map.end()
    }
}

struct ShownExecutor<'a>(v1::ExecutorInfo, &'a str);

impl Serialize for ShownExecutor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ExecutorPage { info: &self.0, agent: Some(self.1) }.serialize(serializer)
    }
}
