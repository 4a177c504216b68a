//! What holds the tasks of a measurement.

use clap::ValueEnum;
use mezz_proto::v1::{self, container_info, linux_info::IpcMode};

/// The image of the Docker measurements; `scripts/docker.sh` makes it.
pub const IMAGE: &str = "mezz-test:latest";

/// What holds the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Containment {
    /// Nothing
    None,
    /// cgroups
    Cgroup,
    /// cgroups, and pid, ipc and uts namespaces of their own
    Namespaces,
    /// The Docker engine
    Docker,
}

impl Containment {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cgroup => "cgroup",
            Self::Namespaces => "namespaces",
            Self::Docker => "docker",
        }
    }

    /// `--containment` of the agent.
    pub fn of_agent(self) -> &'static str {
        if self == Self::None { "none" } else { "cgroup" }
    }

    /// Of each task.
    pub fn container(self) -> Option<v1::ContainerInfo> {
        match self {
            Self::None | Self::Cgroup => None,
            Self::Namespaces => Some(v1::ContainerInfo {
                r#type: container_info::Type::Mesos as i32,
                hostname: Some("bench".to_owned()),
                linux_info: Some(v1::LinuxInfo {
                    share_pid_namespace: Some(false),
                    ipc_mode: Some(IpcMode::Private as i32),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            Self::Docker => Some(v1::ContainerInfo {
                r#type: container_info::Type::Docker as i32,
                docker: Some(v1::container_info::DockerInfo {
                    image: IMAGE.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }
    }
}
