//! Builds an `ExecutorInfo`.

use std::time::Duration;

use mezz_proto::{
    resources::{Dialect, Resources},
    v1,
};

use super::{duration_info, label};

/// Builds an `ExecutorInfo` of a custom executor: a program of the framework that
/// runs tasks on an agent. Tasks that name the same executor id on one agent
/// share it; they must carry the same message.
#[derive(Clone, Debug)]
#[must_use]
pub struct ExecutorBuilder(v1::ExecutorInfo);

impl ExecutorBuilder {
    /// The executor of this id, started by this command.
    pub fn new(id: impl Into<String>, command: impl Into<v1::CommandInfo>) -> Self {
        Self(v1::ExecutorInfo {
            executor_id: v1::ExecutorId { value: id.into() },
            command: Some(command.into()),
            r#type: Some(v1::executor_info::Type::Custom as i32),
            ..Default::default()
        })
    }

    /// Its name, for people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = Some(name.into());
        self
    }

    /// What it needs for itself, beside its tasks; charged once for each agent.
    pub fn resources(mut self, resources: &Resources) -> Self {
        self.0.resources = resources.to_proto(Dialect::Refined, None);
        self
    }

    /// Data that it gets.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.0.data = Some(data.into());
        self
    }

    /// How long it may take to shut down. Default: the agent's.
    pub fn shutdown_grace_period(mut self, period: Duration) -> Self {
        self.0.shutdown_grace_period = Some(duration_info(period));
        self
    }

    /// One more label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let labels = self.0.labels.get_or_insert_default();
        labels.labels.push(label(key.into(), value.into()));
        self
    }

    /// The message.
    pub fn build(self) -> v1::ExecutorInfo {
        self.0
    }
}

impl From<ExecutorBuilder> for v1::ExecutorInfo {
    fn from(builder: ExecutorBuilder) -> Self {
        builder.0
    }
}
