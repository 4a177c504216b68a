//! Executors and commands on pages (rule 86).

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    LabelsPage, Proto, ResourcesPage,
    hide::{hide_in_environment, without_credentials},
    task::allocated_to,
};
use crate::v1;

/// An executor; with `slave_id` on the master's pages, where `agent` is set. Its `data`
/// and whatever is secret stay out.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorPage<'a> {
    /// The description.
    pub info: &'a v1::ExecutorInfo,
    /// Where it runs.
    pub agent: Option<&'a str>,
}

impl Serialize for ExecutorPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let info = self.info;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("executor_id", &info.executor_id.value)?;
        map.serialize_entry("name", info.name())?;
        let framework = info.framework_id.as_ref().map_or("", |id| &id.value);
        map.serialize_entry("framework_id", framework)?;
        let none = v1::CommandInfo::default();
        let command = CommandPage(info.command.as_ref().unwrap_or(&none));
        map.serialize_entry("command", &command)?;
        map.serialize_entry("resources", &ResourcesPage::of_wire(&info.resources))?;
        if !info.resources.is_empty() {
            map.serialize_entry("role", allocated_to(&info.resources))?;
        }
        if let Some(labels) = &info.labels {
            map.serialize_entry("labels", &LabelsPage(labels))?;
        }
        if info.r#type.is_some() {
            map.serialize_entry("type", info.r#type().as_str_name())?;
        }
        if let Some(agent) = self.agent {
            map.serialize_entry("slave_id", agent)?;
        }
        map.end()
    }
}

/// A command, without what is secret in its environment and its URIs.
#[derive(Clone, Copy, Debug)]
pub struct CommandPage<'a>(pub &'a v1::CommandInfo);

impl Serialize for CommandPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let command = self.0;
        let mut map = serializer.serialize_map(None)?;
        if let Some(shell) = command.shell {
            map.serialize_entry("shell", &shell)?;
        }
        if let Some(value) = &command.value {
            map.serialize_entry("value", value)?;
        }
        map.serialize_entry("argv", &command.arguments)?;
        if let Some(environment) = &command.environment {
            let mut shown = environment.clone();
            hide_in_environment(&mut shown);
            map.serialize_entry("environment", &Proto(&shown))?;
        }
        map.serialize_entry("uris", &Uris(&command.uris))?;
        map.end()
    }
}

struct Uris<'a>(&'a [v1::command_info::Uri]);

impl Serialize for Uris<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Uri))
    }
}

struct Uri<'a>(&'a v1::command_info::Uri);

impl Serialize for Uri<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("value", &*without_credentials(&self.0.value))?;
        map.serialize_entry("executable", &self.0.executable.unwrap_or_default())?;
        map.end()
    }
}
