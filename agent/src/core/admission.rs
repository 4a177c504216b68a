//! Which tasks are taken in, and what becomes of the others.

use mezz_proto::{
    ids::FrameworkId,
    resources::Resources,
    time::Time,
    v1::{self, TaskState, container_info, task_status::Reason},
};

use super::{
    Core, Effects, TaskKey,
    state::{Home, Stage, Task},
    update::Verdict,
};

/// Refused tasks are kept until their acknowledgement while the agent keeps fewer
/// tasks than this times `max_tasks`; above that they are told of once.
const KEPT_FACTOR: usize = 2;

impl Core {
    /// Keeps a task that never starts until its one update is acknowledged.
    pub(super) fn refuse(
        &mut self,
        now: Time,
        key: &TaskKey,
        info: v1::TaskInfo,
        verdict: Verdict,
        out: &mut Effects,
    ) {
        // A master or framework that heeds no refusal must not fill the memory.
        if self.tasks.len() >= self.options.max_tasks.saturating_mul(KEPT_FACTOR) {
            self.tell_once(now, key, verdict, out);
            return;
        }
        let task = Task::new(info, Resources::new(), Home::None, Stage::Launching);
        self.add_task(key, task, out);
        self.report(now, key, verdict, out);
    }

    /// What holds for every task.
    pub(super) fn admit(
        &self,
        framework: &FrameworkId,
        tasks: &[v1::TaskInfo],
    ) -> Result<(), Verdict> {
        if self.is_shutting_down(framework) {
            return Err(Verdict::new(
                self.lost_or(framework, TaskState::TaskDropped),
                Reason::FrameworkRemoved,
                "the framework is being removed",
            ));
        }
        if self.draining.is_some() {
            return Err(Verdict::new(
                self.lost_or(framework, TaskState::TaskDropped),
                Reason::AgentDraining,
                "the agent is being drained",
            ));
        }
        if self.live_tasks + tasks.len() > self.options.max_tasks {
            return Err(Verdict::new(
                TaskState::TaskFailed,
                Reason::ContainerLaunchFailed,
                format!(
                    "the agent runs {} tasks and may run {} at most (its --max-tasks)",
                    self.live_tasks, self.options.max_tasks
                ),
            ));
        }
        Ok(())
    }
}

pub(super) fn parse(resources: &[v1::Resource]) -> Result<Resources, Verdict> {
    Resources::from_proto(resources).map_err(|error| {
        Verdict::new(TaskState::TaskError, Reason::TaskInvalid, format!("resources: {error}"))
    })
}

pub(super) fn is_docker(container: Option<&v1::ContainerInfo>) -> bool {
    container.is_some_and(|container| container.r#type() == container_info::Type::Docker)
}

impl Core {
    /// Refuses what this agent cannot give a container. What else is wrong with it,
    /// its launch finds out.
    pub(super) fn check_container(
        &self,
        container: Option<&v1::ContainerInfo>,
    ) -> Result<(), Verdict> {
        let Some(info) = container else { return Ok(()) };
        let able = self.options.abilities;
        let image = info.mesos.as_ref().is_some_and(|mesos| mesos.image.is_some());
        let message = if is_docker(container) && !able.docker {
            "container.type: DOCKER needs a Docker engine, and this agent has none (its \
             --docker)"
        } else if is_docker(container) && info.docker.is_none() {
            "container.docker: must be set for type DOCKER, with an image"
        } else if is_docker(container) {
            return Ok(());
        } else if image && !able.images {
            "container.mesos.image: this agent has no folder of images (its --image-dir)"
        } else if image && !able.isolation {
            "container.mesos.image: needs an agent that runs as root, and this one does not"
        } else if !info.volumes.is_empty() && !able.isolation {
            "container.volumes: need an agent that runs as root, and this one does not"
        } else {
            return Ok(());
        };
        Err(Verdict::new(TaskState::TaskFailed, Reason::ContainerLaunchFailed, message))
    }
}
