//! What the tasks are, and how each may end.

use std::time::Duration;

use anyhow::Result;
use mezz_sdk::{
    build::{CommandBuilder, TaskBuilder},
    resources::Resources,
    v1::{self, TaskState},
};

/// One kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ends at once with status 0.
    Succeeds,
    /// Ends at once with status 3.
    Fails,
    /// Kills itself.
    Crashes,
    /// Ends after a while, with children that it leaves alone.
    Forks,
    /// Takes more memory than it may.
    Hogs,
    /// Runs until it is killed.
    Waits,
    /// The same, and ignores SIGTERM.
    Refuses,
    /// Has namespaces of its own.
    Isolated,
    /// Two tasks in a pod; both succeed.
    Pod,
    /// Two tasks in a pod; one fails, the other waits for ever.
    BrokenPod,
    /// In a Docker container; succeeds.
    Docker,
    /// In a Docker container; waits until it is killed.
    DockerWaits,
}

/// How often each kind comes in a hundred tasks.
const MIX: [(Kind, u32); 12] = [
    (Kind::Succeeds, 30),
    (Kind::Fails, 10),
    (Kind::Crashes, 5),
    (Kind::Forks, 10),
    (Kind::Hogs, 1),
    (Kind::Waits, 15),
    (Kind::Refuses, 5),
    (Kind::Isolated, 10),
    (Kind::Pod, 5),
    (Kind::BrokenPod, 4),
    (Kind::Docker, 3),
    (Kind::DockerWaits, 2),
];

/// SIGTERM to SIGKILL, for those that ignore the first.
const GRACE: Duration = Duration::from_millis(200);

impl Kind {
    /// The kind of a random number.
    pub fn of(random: u32) -> Self {
        let mut at = random % 100;
        for (kind, share) in MIX {
            if at < share {
                return kind;
            }
            at -= share;
        }
        Self::Succeeds
    }

    /// How many tasks one of it is.
    pub fn tasks(self) -> usize {
        if self.in_pod() { 2 } else { 1 }
    }

    /// Whether its tasks are launched as a group.
    pub fn in_pod(self) -> bool {
        matches!(self, Self::Pod | Self::BrokenPod)
    }

    /// Whether it ends only when it is told to.
    pub fn wants_kill(self) -> bool {
        matches!(self, Self::Waits | Self::Refuses | Self::DockerWaits)
    }

    /// Whether `member` of it may end so when no one killed it, and nothing was lost.
    pub fn may_end(self, member: usize, state: TaskState) -> bool {
        use TaskState::{TaskFailed, TaskFinished, TaskKilled};
        match self {
            Self::Succeeds | Self::Forks | Self::Isolated | Self::Pod | Self::Docker => {
                state == TaskFinished
            }
            Self::Fails | Self::Crashes | Self::Hogs => state == TaskFailed,
            Self::Waits | Self::Refuses | Self::DockerWaits => state == TaskKilled,
            Self::BrokenPod if member == 0 => state == TaskFailed,
            Self::BrokenPod => state == TaskKilled,
        }
    }

    fn script(self, member: usize) -> &'static str {
        match self {
            Self::Succeeds | Self::Isolated | Self::Pod | Self::Docker => "exit 0",
            Self::Fails => "exit 3",
            Self::Crashes => "kill -KILL $$",
            Self::Forks => "sleep 1000 & (setsid sleep 1000 &) & sleep 0.2",
            Self::Hogs => "x=x; while :; do x=$x$x$x; done",
            Self::Waits | Self::DockerWaits => "exec sleep 1000",
            Self::Refuses => "trap '' TERM; while :; do sleep 0.05; done",
            Self::BrokenPod if member == 0 => "sleep 0.1; exit 4",
            Self::BrokenPod => "exec sleep 1000",
        }
    }

    /// What one task asks for.
    pub fn resources() -> Resources {
        Resources::parse("cpus:0.05;mem:32;disk:1").unwrap_or_default()
    }

    /// The tasks of one of it.
    ///
    /// # Errors
    /// What is wrong with a task.
    pub fn build(
        self,
        id: &str,
        agent: &v1::AgentId,
        resources: &[v1::Resource],
        image: &str,
    ) -> Result<Vec<v1::TaskInfo>> {
        (0..self.tasks())
            .map(|member| {
                let mut task = TaskBuilder::new(format!("{id}.{member}"))
                    .command(CommandBuilder::shell(self.script(member)))
                    .resources(Self::resources())
                    .kill_grace(GRACE);
                if let Some(container) = self.container(image) {
                    task = task.container(container);
                }
                let mut task = task.build(agent.clone())?;
                task.resources = resources.to_vec();
                Ok(task)
            })
            .collect()
    }

    fn container(self, image: &str) -> Option<v1::ContainerInfo> {
        use v1::{container_info::Type, linux_info::IpcMode};
        match self {
            Self::Isolated => Some(v1::ContainerInfo {
                r#type: Type::Mesos as i32,
                hostname: Some("isolated".into()),
                linux_info: Some(v1::LinuxInfo {
                    share_pid_namespace: Some(false),
                    ipc_mode: Some(IpcMode::Private as i32),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            Self::Docker | Self::DockerWaits => Some(v1::ContainerInfo {
                r#type: Type::Docker as i32,
                docker: Some(v1::container_info::DockerInfo {
                    image: image.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            _ => None,
        }
    }
}
