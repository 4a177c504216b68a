//! Tasks on pages (rule 86).

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Float, Proto, Protos, ResourcesPage};
use crate::v1;

/// A task. Secrets in its container and its health check must have been taken out
/// ([`hide_in_task`](super::hide_in_task)).
#[derive(Clone, Copy, Debug)]
pub struct TaskPage<'a>(pub &'a v1::Task);

impl Serialize for TaskPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let task = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &task.task_id.value)?;
        map.serialize_entry("name", &task.name)?;
        map.serialize_entry("framework_id", &task.framework_id.value)?;
        let executor = task.executor_id.as_ref().map_or("", |id| &id.value);
        map.serialize_entry("executor_id", executor)?;
        map.serialize_entry("slave_id", &task.agent_id.value)?;
        map.serialize_entry("state", task.state().as_str_name())?;
        map.serialize_entry("resources", &ResourcesPage::of_wire(&task.resources))?;
        if !task.limits.is_empty() {
            map.serialize_entry("limits", &Limits(task))?;
        }
        map.serialize_entry("role", allocated_to(&task.resources))?;
        map.serialize_entry("statuses", &Statuses(&task.statuses))?;
        if let Some(user) = &task.user {
            map.serialize_entry("user", user)?;
        }
        if let Some(labels) = &task.labels {
            map.serialize_entry("labels", &LabelsPage(labels))?;
        }
        if let Some(discovery) = task.discovery.as_deref() {
            map.serialize_entry("discovery", &Proto(discovery))?;
        }
        if let Some(container) = task.container.as_deref() {
            map.serialize_entry("container", &Proto(container))?;
        }
        if let Some(check) = task.health_check.as_deref() {
            map.serialize_entry("health_check", &Proto(check))?;
        }
        map.end()
    }
}

/// The role that resources are allocated to; `*` if none says.
pub(super) fn allocated_to(resources: &[v1::Resource]) -> &str {
    resources.iter().find_map(|r| r.allocation_info.as_ref()?.role.as_deref()).unwrap_or("*")
}

struct Limits<'a>(&'a v1::Task);

impl Serialize for Limits<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.limits.iter().map(|(name, of)| (name, Float(of.value))))
    }
}

struct Statuses<'a>(&'a [v1::TaskStatus]);

impl Serialize for Statuses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Status))
    }
}

struct Status<'a>(&'a v1::TaskStatus);

impl Serialize for Status<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let status = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("state", status.state().as_str_name())?;
        map.serialize_entry("timestamp", &Float(status.timestamp.unwrap_or_default()))?;
        if let Some(labels) = &status.labels {
            map.serialize_entry("labels", &LabelsPage(labels))?;
        }
        if let Some(container) = &status.container_status {
            map.serialize_entry("container_status", &Container(container))?;
        }
        if let Some(healthy) = status.healthy {
            map.serialize_entry("healthy", &healthy)?;
        }
        map.end()
    }
}

/// Without `executor_pid`, as Mesos writes it here.
struct Container<'a>(&'a v1::ContainerStatus);

impl Serialize for Container<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let status = self.0;
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = &status.container_id {
            map.serialize_entry("container_id", &Proto(id))?;
        }
        if !status.network_infos.is_empty() {
            map.serialize_entry("network_infos", &Networks(&status.network_infos))?;
        }
        if let Some(cgroup) = &status.cgroup_info {
            map.serialize_entry("cgroup_info", &Proto(cgroup))?;
        }
        map.end()
    }
}

struct Networks<'a>(&'a [v1::NetworkInfo]);

impl Serialize for Networks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Network))
    }
}

struct Network<'a>(&'a v1::NetworkInfo);

impl Serialize for Network<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let network = self.0;
        let mut map = serializer.serialize_map(None)?;
        if !network.groups.is_empty() {
            map.serialize_entry("groups", &network.groups)?;
        }
        if let Some(labels) = &network.labels {
            map.serialize_entry("labels", &LabelsPage(labels))?;
        }
        if !network.ip_addresses.is_empty() {
            map.serialize_entry("ip_addresses", &Protos(&network.ip_addresses))?;
        }
        if let Some(name) = &network.name {
            map.serialize_entry("name", name)?;
        }
        if !network.port_mappings.is_empty() {
            map.serialize_entry("port_mappings", &Protos(&network.port_mappings))?;
        }
        map.end()
    }
}

/// Labels: a list of objects with `key` and, if there is one, `value`.
#[derive(Clone, Copy, Debug)]
pub struct LabelsPage<'a>(pub &'a v1::Labels);

impl Serialize for LabelsPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.labels.iter().map(Label))
    }
}

struct Label<'a>(&'a v1::Label);

impl Serialize for Label<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("key", &self.0.key)?;
        if let Some(value) = &self.0.value {
            map.serialize_entry("value", value)?;
        }
        map.end()
    }
}
