//! Docker containers of drivers and executors: what their settings say, what the
//! cluster is told, and how an agent says that it has no engine.

use mezz_proto::v1::{
    self,
    container_info::{self, DockerInfo, docker_info::Network},
    task_status::Reason,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How an agent begins its answer to what it has no engine for.
const NO_ENGINE: &str = "container.type: DOCKER needs a Docker engine";
/// What an agent says whose engine is away.
const ENGINE_AWAY: &str = "the Docker engine does not answer at";

/// The last parts of the settings' names.
const NAMES: &str = "image, volumes, network, forcePullImage, user and parameters";

/// The container of the Docker engine that a driver or an executor runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Docker {
    /// The image.
    pub image: String,
    /// Mounts.
    pub volumes: Vec<DockerVolume>,
    /// `host`, `bridge`, `none` or the name of a network.
    pub network: String,
    /// Whether the image is pulled though it is there.
    pub force_pull: bool,
    /// A user of the agents' machines, as whose ids it runs; the framework's when
    /// absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Flags of `docker run` by their long names, and their values.
    #[serde(default)]
    pub parameters: Vec<(String, String)>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerVolume {
    /// Of the agent's machine; a folder of the sandbox when absent.
    pub host_path: Option<String>,
    /// Where it is seen.
    pub container_path: String,
    /// Whether nothing can be written to it.
    pub read_only: bool,
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key} is `{value}`: {wanted}")]
pub struct DockerError {
    /// Its name.
    pub key: String,
    /// What was given.
    pub value: String,
    /// What would do.
    pub wanted: String,
}

impl Docker {
    /// What the settings say whose names begin with `prefix`, such as
    /// `spark.mezz.driver.docker.`; nothing without an image. Others are not looked
    /// at.
    ///
    /// # Errors
    /// [`DockerError`] names the setting that is wrong.
    pub fn read<'a>(
        prefix: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Self>, DockerError> {
        let mut docker = Self {
            image: String::new(),
            volumes: Vec::new(),
            network: "host".to_owned(),
            force_pull: false,
            user: None,
            parameters: Vec::new(),
        };
        for (key, value) in settings {
            let Some(name) = key.strip_prefix(prefix) else { continue };
            let value = value.trim();
            let wrong = |value: &str, wanted: String| DockerError {
                key: key.to_owned(),
                value: value.to_owned(),
                wanted,
            };
            match name {
                "image" => docker.image = value.to_owned(),
                "network" if !value.is_empty() => docker.network = value.to_owned(),
                "user" if !value.is_empty() => docker.user = Some(value.to_owned()),
                "network" | "user" => {}
                "forcePullImage" => {
                    docker.force_pull = value
                        .to_ascii_lowercase()
                        .parse()
                        .map_err(|_| wrong(value, "it has to be true or false".to_owned()))?;
                }
                "volumes" => {
                    let wanted = "write [HOST_PATH:]CONTAINER_PATH[:ro|:rw], between commas";
                    docker.volumes = parts(value)
                        .map(|text| volume(text).ok_or_else(|| wrong(text, wanted.to_owned())))
                        .collect::<Result<_, _>>()?;
                }
                "parameters" => {
                    let wanted = "write NAME=VALUE, between commas, as docs/docker.md lists them";
                    docker.parameters = parts(value)
                        .map(|text| parameter(text).ok_or_else(|| wrong(text, wanted.to_owned())))
                        .collect::<Result<_, _>>()?;
                }
                _ => {
                    let wanted = format!("there is no such setting; after {prefix} come {NAMES}");
                    return Err(wrong(value, wanted));
                }
            }
        }
        Ok(Some(docker).filter(|d| !d.image.is_empty()))
    }

    /// Whether it has addresses and ports of its own.
    pub fn has_own_network(&self) -> bool {
        self.network != "host"
    }

    /// As the cluster is told.
    pub fn container(&self) -> v1::ContainerInfo {
        let (network, name) = match self.network.as_str() {
            "host" => (Network::Host, None),
            "bridge" => (Network::Bridge, None),
            "none" => (Network::None, None),
            name => (Network::User, Some(name.to_owned())),
        };
        let parameters = self.parameters.iter();
        v1::ContainerInfo {
            r#type: container_info::Type::Docker as i32,
            volumes: self.volumes.iter().map(DockerVolume::to_proto).collect(),
            docker: Some(DockerInfo {
                image: self.image.clone(),
                network: Some(network as i32),
                force_pull_image: Some(self.force_pull),
                parameters: parameters
                    .map(|(key, value)| v1::Parameter { key: key.clone(), value: value.clone() })
                    .collect(),
                ..Default::default()
            }),
            network_infos: name
                .map(|name| v1::NetworkInfo { name: Some(name), ..Default::default() })
                .into_iter()
                .collect(),
            ..Default::default()
        }
    }
}

impl DockerVolume {
    fn to_proto(&self) -> v1::Volume {
        let mode = if self.read_only { v1::volume::Mode::Ro } else { v1::volume::Mode::Rw };
        // Without a host path, a folder of the sandbox of the same name.
        let in_sandbox = || self.container_path.trim_matches('/').replace('/', "-");
        v1::Volume {
            mode: mode as i32,
            container_path: self.container_path.clone(),
            host_path: Some(self.host_path.clone().unwrap_or_else(in_sandbox)),
            ..Default::default()
        }
    }
}

/// Where an image has `mezz`, unless it is said: `deploy/spark.Dockerfile` puts it there. The
/// plugin says the same of executors.
pub(crate) const MEZZ_IN_IMAGE: &str = "/opt/mezz/mezz";

/// Where an image has the plugin.
pub(crate) const BRIDGE_IN_IMAGE: &str = "/opt/mezz/mezz-spark-bridge.jar";

/// What the agent lacks that failed a launch with these words for want of an engine, which
/// may come back.
pub(crate) fn lacks_engine(reason: Option<Reason>, text: &str) -> Option<&'static str> {
    if has_no_engine(reason, text) {
        Some("has no Docker engine")
    } else if cannot_reach_engine(reason, text) {
        Some("cannot reach its Docker engine")
    } else {
        None
    }
}

/// Whether it was started without one.
fn has_no_engine(reason: Option<Reason>, text: &str) -> bool {
    reason == Some(Reason::ContainerLaunchFailed) && text.contains(NO_ENGINE)
}

/// Whether it cannot reach its own.
fn cannot_reach_engine(reason: Option<Reason>, text: &str) -> bool {
    reason == Some(Reason::ContainerLaunchFailed) && text.contains(ENGINE_AWAY)
}

fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn parameter(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
}

fn volume(text: &str) -> Option<DockerVolume> {
    let (paths, read_only) = match text.rsplit_once(':') {
        Some((paths, "ro")) => (paths, true),
        Some((paths, "rw")) => (paths, false),
        _ => (text, false),
    };
    let (host_path, container_path) = match paths.split_once(':') {
        Some((host, container)) => (Some(host.to_owned()), container),
        None => (None, paths),
    };
    let absolute = |path: &str| path.starts_with('/') && !path.contains(':');
    (absolute(container_path) && host_path.as_deref().is_none_or(absolute)).then(|| DockerVolume {
        host_path,
        container_path: container_path.to_owned(),
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "spark.mezz.executor.docker.";

    fn read(settings: &[(&str, &str)]) -> Result<Option<Docker>, DockerError> {
        let named: Vec<(String, &str)> =
            settings.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        let other = [("spark.app.name", "pi")];
        Docker::read(PREFIX, named.iter().map(|(k, v)| (k.as_str(), *v)).chain(other))
    }

    #[test]
    fn everything_is_optional_but_the_image() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("image", " "), ("network", "lan")]).unwrap(), None);
        let docker = read(&[("image", "i"), ("network", ""), ("user", "")]).unwrap().unwrap();
        assert_eq!((docker.image.as_str(), docker.network.as_str()), ("i", "host"));
        assert_eq!((docker.force_pull, docker.user, docker.parameters), (false, None, vec![]));
    }

    #[test]
    fn what_the_cluster_is_told() {
        let docker = read(&[
            ("image", "spark:4"),
            ("volumes", "/data:/d:ro, /scratch/x,/a:/b:rw"),
            ("network", "lan"),
            ("forcePullImage", "True"),
            ("user", "ann"),
            ("parameters", "ulimit=nofile=4096, init=true"),
        ]);
        let docker = docker.unwrap().unwrap();
        assert_eq!(docker.user.as_deref(), Some("ann"));
        let info = docker.container();
        assert_eq!(info.network_infos[0].name.as_deref(), Some("lan"));
        let volumes: Vec<_> = info
            .volumes
            .iter()
            .map(|v| (v.host_path(), v.container_path.as_str(), v.mode()))
            .collect();
        use v1::volume::Mode::{Ro, Rw};
        let expected = [("/data", "/d", Ro), ("scratch-x", "/scratch/x", Rw), ("/a", "/b", Rw)];
        assert_eq!(volumes, expected);
        let info = info.docker.unwrap();
        assert_eq!((info.image.as_str(), info.force_pull_image()), ("spark:4", true));
        assert_eq!(info.network(), Network::User);
        let parameters: Vec<_> =
            info.parameters.iter().map(|p| (p.key.as_str(), p.value.as_str())).collect();
        assert_eq!(parameters, [("ulimit", "nofile=4096"), ("init", "true")]);
        for (name, network) in
            [("host", Network::Host), ("bridge", Network::Bridge), ("none", Network::None)]
        {
            let docker = read(&[("image", "i"), ("network", name)]).unwrap().unwrap();
            assert_eq!(docker.has_own_network(), name != "host");
            let info = docker.container();
            assert!(info.network_infos.is_empty());
            assert_eq!(info.docker.unwrap().network(), network);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_do() {
        for (name, value, said) in [
            ("volumes", "c:/d", "is `c:/d`: write [HOST_PATH:]"),
            ("volumes", "/a:/b,/x:/y:/z", "is `/x:/y:/z`: write"),
            ("forcePullImage", "perhaps", "is `perhaps`: it has to be true or false"),
            ("parameters", "init", "is `init`: write NAME=VALUE"),
            ("forcepull", "true", "is `true`: there is no such setting"),
        ] {
            let error = read(&[("image", "i"), (name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{PREFIX}{name} {said}")), "{error}");
        }
    }

    #[test]
    fn an_agent_without_an_engine_is_known_by_its_words() {
        let failed = Some(Reason::ContainerLaunchFailed);
        let none = "container.type: DOCKER needs a Docker engine, and this agent has none (its \
                    --docker)";
        let away = "container c could not be started: getting its image: the Docker engine does \
                    not answer at unix:///x: no such file. Start it, or name another one";
        assert!(has_no_engine(failed, none) && !has_no_engine(failed, away));
        assert!(cannot_reach_engine(failed, away) && !cannot_reach_engine(failed, none));
        // A program may write what it likes.
        assert!(!has_no_engine(Some(Reason::CommandExecutorFailed), none));
        assert!(!cannot_reach_engine(None, away));
    }
}
