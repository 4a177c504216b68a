//! Builds a `TaskInfo`.

use std::time::Duration;

use mezz_proto::{
    resources::{Dialect, Resources},
    v1,
};
use thiserror::Error;

use super::{CommandBuilder, duration_info, label};
use crate::matcher::Placed;

/// Longest task id (behaviour rule 28).
const MAX_ID: usize = 255;

/// What is wrong with a task, before a master sees it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TaskError {
    /// The id is not legal.
    #[error(
        "task id `{0}`: an id has 1 to 255 characters, no `/`, `\\` or control characters, and is not `.` or `..`"
    )]
    Id(String),
    /// Neither `command` nor `executor`, or both.
    #[error("task `{0}`: set exactly one of command and executor")]
    CommandOrExecutor(String),
    /// No resources.
    #[error("task `{0}`: set its resources, for example cpus:0.5;mem:64")]
    NoResources(String),
}

/// Builds a `TaskInfo`.
///
/// ```
/// use mezz_sdk::{build::{CommandBuilder, TaskBuilder}, resources::Resources, v1};
///
/// let agent = v1::AgentId { value: "S0".into() };
/// let task = TaskBuilder::new("hello-1")
///     .command(CommandBuilder::shell("echo hello"))
///     .resources(Resources::cpus_mem(0.5, 64.0))
///     .label("team", "ads")
///     .build(agent)?;
/// assert_eq!(task.name, "hello-1");
/// # Ok::<(), mezz_sdk::build::TaskError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TaskBuilder(v1::TaskInfo);

impl TaskBuilder {
    /// A task of this id, which is also its name. The id must differ from those
    /// of all of the framework's tasks that have not ended.
    pub fn new(id: impl Into<String>) -> Self {
        let value: String = id.into();
        Self(v1::TaskInfo {
            name: value.clone(),
            task_id: v1::TaskId { value },
            ..Default::default()
        })
    }

    /// Its name, for people; need not be unique.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = name.into();
        self
    }

    /// The command that it runs.
    pub fn command(mut self, command: impl Into<v1::CommandInfo>) -> Self {
        self.0.command = Some(command.into());
        self
    }

    /// A line for `/bin/sh -c`; short for [`command`](Self::command).
    pub fn shell(self, line: impl Into<String>) -> Self {
        self.command(CommandBuilder::shell(line))
    }

    /// A program and its arguments; short for [`command`](Self::command).
    pub fn argv(self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.command(CommandBuilder::argv(argv))
    }

    /// The executor that runs it, in place of a command.
    pub fn executor(mut self, executor: impl Into<v1::ExecutorInfo>) -> Self {
        self.0.executor = Some(executor.into());
        self
    }

    /// What it may use, unreserved. Use [`place`](Self::place) for what the
    /// matcher picked.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.0.resources = resources.to_proto(Dialect::Refined, None);
        self
    }

    /// Data for the executor.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.0.data = Some(data.into());
        self
    }

    /// How long it may take to end after a kill. Default: the agent's, 3 s.
    pub fn kill_grace(mut self, period: Duration) -> Self {
        self.0.kill_policy = Some(v1::KillPolicy { grace_period: Some(duration_info(period)) });
        self
    }

    /// It fails when it runs longer than this.
    pub fn max_completion_time(mut self, time: Duration) -> Self {
        self.0.max_completion_time = Some(duration_info(time));
        self
    }

    /// How its health is checked.
    pub fn health_check(mut self, check: v1::HealthCheck) -> Self {
        self.0.health_check = Some(check);
        self
    }

    /// The container that it runs in.
    pub fn container(mut self, container: v1::ContainerInfo) -> Self {
        self.0.container = Some(container);
        self
    }

    /// How others find it.
    pub fn discovery(mut self, discovery: v1::DiscoveryInfo) -> Self {
        self.0.discovery = Some(discovery);
        self
    }

    /// One more label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let labels = self.0.labels.get_or_insert_default();
        labels.labels.push(label(key.into(), value.into()));
        self
    }

    /// The message, for this agent.
    ///
    /// # Errors
    /// [`TaskError`] says what is missing or wrong.
    pub fn build(mut self, agent: v1::AgentId) -> Result<v1::TaskInfo, TaskError> {
        let id = &self.0.task_id.value;
        if !legal_id(id) {
            return Err(TaskError::Id(id.clone()));
        }
        if self.0.command.is_some() == self.0.executor.is_some() {
            return Err(TaskError::CommandOrExecutor(id.clone()));
        }
        if self.0.resources.is_empty() {
            return Err(TaskError::NoResources(id.clone()));
        }
        self.0.agent_id = agent;
        Ok(self.0)
    }

    /// The message, on the agent and with the resources that the matcher picked.
    /// A command task finds its ports in `PORT`, `PORT0`, `PORT1`, ….
    ///
    /// # Errors
    /// [`TaskError`] says what is missing or wrong.
    pub fn place(mut self, placed: &Placed) -> Result<v1::TaskInfo, TaskError> {
        self.0.resources = placed.resources.clone();
        if let Some(command) = self.0.command.take() {
            let mut command = CommandBuilder::from(command);
            for (i, port) in placed.ports.iter().enumerate() {
                if i == 0 {
                    command = command.env("PORT", port.to_string());
                }
                command = command.env(format!("PORT{i}"), port.to_string());
            }
            self.0.command = Some(command.build());
        }
        self.build(placed.agent_id.clone())
    }
}

fn legal_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_ID
        && id != "."
        && id != ".."
        && !id.contains(|c: char| c.is_control() || c == '/' || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> v1::AgentId {
        v1::AgentId { value: "S0".into() }
    }

    fn small(id: &str) -> TaskBuilder {
        TaskBuilder::new(id).resources(Resources::cpus_mem(0.1, 32.0))
    }

    #[test]
    fn whole_task() {
        let task = small("t")
            .name("name")
            .command(
                CommandBuilder::argv(["a", "b"]).env("K", "V").executable("file:///x").user("u"),
            )
            .kill_grace(Duration::from_secs(2))
            .max_completion_time(Duration::from_millis(1500))
            .label("k", "v")
            .build(agent())
            .unwrap();
        let command = task.command.unwrap();
        assert_eq!(command.value.as_deref(), Some("a"));
        assert_eq!(command.arguments, ["a", "b"]);
        assert_eq!(command.shell, Some(false));
        assert_eq!(command.uris[0].executable, Some(true));
        assert_eq!(command.environment.unwrap().variables[0].name, "K");
        assert_eq!(task.kill_policy.unwrap().grace_period.unwrap().nanoseconds, 2_000_000_000);
        assert_eq!(task.max_completion_time.unwrap().nanoseconds, 1_500_000_000);
        assert_eq!(Resources::from_proto(&task.resources), Ok(Resources::cpus_mem(0.1, 32.0)));
    }

    #[test]
    fn mistakes_are_named() {
        for id in ["", ".", "..", "a/b", "a\\b", "a\nb", &"x".repeat(256)] {
            let error = small(id).shell("true").build(agent()).unwrap_err();
            assert_eq!(error, TaskError::Id(id.to_owned()));
        }
        let error = small("t").build(agent()).unwrap_err();
        assert_eq!(error, TaskError::CommandOrExecutor("t".into()));
        let error = TaskBuilder::new("t").shell("true").build(agent()).unwrap_err();
        assert_eq!(error, TaskError::NoResources("t".into()));
    }
}
