//! `/state` of an agent (rules 84 to 86).

use std::collections::BTreeMap;

use mezz_proto::{
    pages::{
        AGENT_CAPABILITIES, AttributesPage, FrameworkNames, LabelsPage, Proto, Protos, Reserved,
        ResourcesPage, TaskPage, Version, full,
    },
    resources::{Dialect, Resources},
    v1,
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::super::{
    Served,
    roster::{Executor, Framework, Frameworks},
};

/// The page, as JSON.
pub(super) fn state(served: &Served) -> String {
    let frameworks = served.roster.frameworks();
    // Nothing in it can fail: all keys are text.
    serde_json::to_string(&State { served, frameworks: &frameworks }).unwrap_or_default()
}

struct State<'a> {
    served: &'a Served,
    frameworks: &'a Frameworks,
}

/// What runs holds.
pub(super) fn allocated(frameworks: &Frameworks) -> Resources {
    let executors = frameworks.active.iter().flat_map(|framework| &framework.executors);
    let mut sum = Resources::new();
    for resource in executors.flat_map(|executor| executor.resources()) {
        if let Ok(resource) = Resources::from_proto(std::slice::from_ref(resource)) {
            sum += &resource;
        }
    }
    sum
}

impl Serialize for State<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let served = self.served;
        let about = &served.about;
        let total = Reserved::of(about.resources.iter());
        let used = allocated(self.frameworks);
        let used = Reserved::of(used.iter());
        let mut map = serializer.serialize_map(None)?;
        Version::of_build().write(&mut map)?;
        map.serialize_entry("start_time", &about.start_time)?;
        let id = served.index.agent_id().map(|id| id.to_string());
        map.serialize_entry("id", &id.unwrap_or_default())?;
        map.serialize_entry("pid", &about.pid())?;
        map.serialize_entry("hostname", &about.hostname)?;
        map.serialize_entry("capabilities", &AGENT_CAPABILITIES.map(|one| one.as_str_name()))?;
        if let Some((config, since)) = served.index.drain() {
            map.serialize_entry("drain_config", &Proto(&config))?;
            map.serialize_entry("estimated_drain_start_time_seconds", &since)?;
        }
        map.serialize_entry("resources", &ResourcesPage::of(about.resources.iter()))?;
        map.serialize_entry("reserved_resources", &total.page())?;
        map.serialize_entry("unreserved_resources", &ResourcesPage::of(total.unreserved.iter()))?;
        let reserved = total.full();
        let reserved: BTreeMap<_, _> = reserved.iter().map(|(r, all)| (r, Protos(all))).collect();
        map.serialize_entry("reserved_resources_full", &reserved)?;
        let unreserved = full(total.unreserved.to_proto(Dialect::Refined, None));
        map.serialize_entry("unreserved_resources_full", &Protos(&unreserved))?;
        map.serialize_entry("reserved_resources_allocated", &used.page())?;
        let unreserved = ResourcesPage::of(used.unreserved.iter());
        map.serialize_entry("unreserved_resources_allocated", &unreserved)?;
        map.serialize_entry("resource_providers", &[(); 0])?;
        map.serialize_entry("attributes", &AttributesPage(&about.attributes))?;
        if let Some(domain) = &about.domain {
            map.serialize_entry("domain", &Proto(domain))?;
        }
        if let Some(master) = served.index.master() {
            let host = master.rsplit_once(':').map_or(&*master, |(host, _)| host);
            map.serialize_entry("master_hostname", host)?;
        }
        map.serialize_entry("flags", &about.flags)?;
        let all = |frameworks| FrameworkPages { served, frameworks };
        map.serialize_entry("frameworks", &all(&self.frameworks.active))?;
        map.serialize_entry("completed_frameworks", &all(&self.frameworks.completed))?;
        map.end()
    }
}

struct FrameworkPages<'a> {
    served: &'a Served,
    frameworks: &'a [Framework],
}

impl Serialize for FrameworkPages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let page = |framework| FrameworkPage { served: self.served, framework };
        serializer.collect_seq(self.frameworks.iter().map(page))
    }
}

struct FrameworkPage<'a> {
    served: &'a Served,
    framework: &'a Framework,
}

impl Serialize for FrameworkPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Framework { info, executors, completed } = self.framework;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", info.id.as_ref().map_or("", |id| &id.value))?;
        map.serialize_entry("name", &info.name)?;
        map.serialize_entry("user", &info.user)?;
        map.serialize_entry("failover_timeout", &info.failover_timeout())?;
        map.serialize_entry("checkpoint", &info.checkpoint())?;
        map.serialize_entry("hostname", info.hostname())?;
        if let Some(principal) = &info.principal {
            map.serialize_entry("principal", principal)?;
        }
        FrameworkNames(info).write(&mut map)?;
        let page = |executor| ExecutorPage { served: self.served, executor };
        let executors: Vec<_> = executors.iter().map(|executor| page(executor)).collect();
        map.serialize_entry("executors", &executors)?;
        let completed: Vec<_> = completed.iter().map(|executor| page(executor)).collect();
        map.serialize_entry("completed_executors", &completed)?;
        map.end()
    }
}

struct ExecutorPage<'a> {
    served: &'a Served,
    executor: &'a Executor,
}

impl Serialize for ExecutorPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { served, executor } = self;
        let info = &executor.info;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &info.executor_id.value)?;
        map.serialize_entry("name", info.name())?;
        map.serialize_entry("source", info.source())?;
        map.serialize_entry("container", executor.container.as_str())?;
        let directory = served.index.sandbox(&executor.container).unwrap_or_default();
        map.serialize_entry("directory", &directory.to_string_lossy())?;
        map.serialize_entry("resources", &ResourcesPage::of_wire(executor.resources()))?;
        if let Some(role) = executor.role() {
            map.serialize_entry("role", role)?;
        }
        if let Some(labels) = &info.labels {
            map.serialize_entry("labels", &LabelsPage(labels))?;
        }
        if info.r#type.is_some() {
            map.serialize_entry("type", info.r#type().as_str_name())?;
        }
        map.serialize_entry("tasks", &tasks(executor.launched()))?;
        map.serialize_entry("queued_tasks", &tasks(executor.queued()))?;
        // Those whose end is not acknowledged, too, as in Mesos.
        let ended = executor.completed().chain(executor.terminated());
        map.serialize_entry("completed_tasks", &tasks(ended))?;
        map.end()
    }
}

fn tasks<'a>(tasks: impl Iterator<Item = &'a v1::Task>) -> Vec<TaskPage<'a>> {
    tasks.map(TaskPage).collect()
}
