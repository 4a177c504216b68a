//! From a container's spec to what the engine is asked for (behaviour rule 65).
//! Pure: whatever cannot be done is refused with the name of its field.

use std::{collections::HashMap, path::PathBuf};

use bollard::models::{ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig};
use mezz_proto::{
    ids::ContainerId,
    v1::{self, container_info::docker_info::Network, r_limit_info::r_limit},
};

use super::{gpus::Gpus, limits, parameters, ports, volumes};
use crate::{
    containerizer::{ContainerSpec, Program, cgroup::Bounds},
    core::DEFAULT_PATH,
};

/// Where the sandbox is inside of a container.
pub(super) const SANDBOX: &str = "/mnt/mesos/sandbox";

/// The container's id, on everything that the agent makes.
pub(super) const LABEL_CONTAINER: &str = "dev.mezz.container";

/// The agent that made it.
pub(super) const LABEL_AGENT: &str = "dev.mezz.agent";

/// The sandbox's path on this machine.
pub(super) const LABEL_SANDBOX: &str = "dev.mezz.sandbox";

/// What labels of the agent begin with; nobody else's may.
pub(super) const LABEL_PREFIX: &str = "dev.mezz.";

/// The engine's own copy of the output, which the agent reads. `local` keeps every byte
/// as it is. It is never cut: who follows it while the engine does that misses some.
const LOG_DRIVER: &str = "local";
const LOG_OPTIONS: [(&str, &str); 3] =
    [("max-size", "1024g"), ("max-file", "1"), ("compress", "false")];

/// What the agent adds to a spec.
pub(super) struct Context<'a> {
    /// Its name on labels.
    pub(super) agent: &'a str,
    /// Whether cpu time is bounded without a limit too.
    pub(super) cpu_quota: bool,
    /// Processes and threads, at most.
    pub(super) pids_limit: u64,
    /// The ids of the spec's user, when it is not the agent's own.
    pub(super) user: Option<(u32, u32)>,
    /// The spec's GPUs.
    pub(super) gpus: Gpus,
}

/// What the engine is asked for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The container's name.
    pub(super) name: String,
    /// With a tag or a digest.
    pub(super) image: String,
    /// Folders below the sandbox that are mounted, and have to be there.
    pub(super) folders: Vec<PathBuf>,
    /// The rest.
    pub(super) body: ContainerCreateBody,
}

/// The engine's name for a container.
pub(super) fn name(id: &ContainerId) -> String {
    format!("mezz-{id}")
}

/// The image of a Docker container, and whether it is pulled in any case.
pub(super) fn image(info: &v1::ContainerInfo) -> Result<(String, bool), String> {
    let docker = info
        .docker
        .as_ref()
        .ok_or("container.docker is not set; a container of type DOCKER needs its image there")?;
    let name = docker.image.as_str();
    let odd = |c: char| c.is_whitespace() || c.is_control() || "?#%\\".contains(c);
    if name.is_empty() || name.starts_with('/') || name.contains("..") || name.contains(odd) {
        return Err(format!("container.docker.image `{name}` is no image's name"));
    }
    // A port's colon comes before a slash.
    let last = name.rsplit('/').next().unwrap_or(name);
    let tagged = last.contains([':', '@']);
    let name = if tagged { name.to_owned() } else { format!("{name}:latest") };
    Ok((name, docker.force_pull_image()))
}

/// All of it.
///
/// # Errors
/// A sentence that names the field.
pub(super) fn translate(spec: &ContainerSpec, context: &Context<'_>) -> Result<Request, String> {
    let info = spec.info.as_deref().ok_or("container is not set")?;
    refuse_what_is_not_docker(spec, info)?;
    let (image, _) = image(info)?;
    let docker = info.docker.as_ref().ok_or("container.docker is not set")?;

    let mut host = HostConfig {
        network_mode: Some(network(info, docker)?),
        privileged: docker.privileged.filter(|yes| *yes),
        log_config: Some(HostConfigLogConfig {
            typ: Some(LOG_DRIVER.to_owned()),
            config: Some(owned(LOG_OPTIONS)),
        }),
        ..HostConfig::default()
    };
    limits::apply(&Bounds::new(&spec.resources, &spec.limits, context.cpu_quota), &mut host);
    host.pids_limit = Some(context.pids_limit.try_into().unwrap_or(i64::MAX));
    host.device_requests = (context.gpus != Gpus::default())
        .then(|| vec![gpu_request(None, Some(context.gpus.names()))]);
    host.ulimits = rlimits(info)?;

    let mut body = ContainerCreateBody {
        image: Some(image.clone()),
        hostname: info.hostname.clone().filter(|name| !name.is_empty()),
        user: context.user.map(|(uid, gid)| format!("{uid}:{gid}")),
        labels: Some(owned([
            (LABEL_CONTAINER, spec.id.as_str()),
            (LABEL_AGENT, context.agent),
            (LABEL_SANDBOX, &spec.sandbox.to_string_lossy()),
        ])),
        env: Some(environment(spec)),
        ..ContainerCreateBody::default()
    };
    match &spec.program {
        Program::Shell(text) => {
            body.entrypoint = Some(vec!["/bin/sh".to_owned()]);
            body.cmd = Some(vec!["-c".to_owned(), text.clone()]);
        }
        Program::Exec { path, argv } => {
            body.entrypoint = Some(vec![path.clone()]);
            body.cmd = Some(argv.iter().skip(1).cloned().collect());
        }
        Program::Image { argv } => {
            body.cmd = Some(argv.clone()).filter(|argv| !argv.is_empty());
        }
        Program::Hold => {
            return Err("a pod cannot be of type DOCKER: leave container.type out or make it \
                        MESOS"
                .to_owned());
        }
    }
    ports::apply(spec, docker, &mut body, &mut host)?;
    let (mounts, folders) = volumes::translate(spec, info)?;
    host.mounts = Some(mounts);
    body.host_config = Some(host);
    for (index, parameter) in docker.parameters.iter().enumerate() {
        parameters::apply(parameter, spec, context.pids_limit, &mut body).map_err(|why| {
            format!("container.docker.parameters[{index}] `{}`: {why}", parameter.key)
        })?;
    }
    Ok(Request { name: name(&spec.id), image, folders, body })
}

/// Fields that mean nothing to the engine.
fn refuse_what_is_not_docker(spec: &ContainerSpec, info: &v1::ContainerInfo) -> Result<(), String> {
    let refuse = |field: &str, what: &str| Err(format!("container.{field}: {what}"));
    if spec.pod.is_some() {
        return refuse("type", "a container of type DOCKER cannot be part of a task group");
    }
    if info.mesos.is_some() {
        return refuse("mesos", "is for containers of type MESOS; this one is of type DOCKER");
    }
    if info.linux_info.is_some() {
        return refuse(
            "linux_info",
            "is for containers of type MESOS; with DOCKER use docker.parameters (cap-add, \
             cap-drop, pid, ipc, shm-size, security-opt)",
        );
    }
    if info.tty_info.is_some() {
        return refuse("tty_info", "is not supported with type DOCKER; leave it out");
    }
    #[expect(deprecated, reason = "whoever still sets it is told")]
    if info.docker.as_ref().is_some_and(|docker| docker.volume_driver.is_some()) {
        return refuse(
            "docker.volume_driver",
            "is not supported; name the driver in volumes.source.docker_volume",
        );
    }
    Ok(())
}

/// The engine's network mode.
fn network(
    info: &v1::ContainerInfo,
    docker: &v1::container_info::DockerInfo,
) -> Result<String, String> {
    let asked = |network: &v1::NetworkInfo| {
        let v1::NetworkInfo { groups, labels, ip_addresses, port_mappings, name: _ } = network;
        [
            ("groups", !groups.is_empty()),
            ("labels", labels.as_ref().is_some_and(|labels| !labels.labels.is_empty())),
            ("ip_addresses", !ip_addresses.is_empty()),
            ("port_mappings", !port_mappings.is_empty()),
        ]
        .into_iter()
        .find_map(|(field, set)| set.then_some(field))
    };
    if let [_, _, ..] = info.network_infos.as_slice() {
        return Err("container.network_infos: at most one network is supported".to_owned());
    }
    let first = info.network_infos.first();
    if let Some(field) = first.and_then(asked) {
        return Err(format!(
            "container.network_infos[0].{field} is not supported with type DOCKER"
        ));
    }
    let named = first.and_then(|network| network.name.as_deref()).filter(|name| !name.is_empty());
    let network = docker.network();
    if network != Network::User && named.is_some() {
        return Err(format!(
            "container.network_infos[0].name is only for docker.network USER, and it is {}",
            network.as_str_name()
        ));
    }
    match (network, named) {
        (Network::Host, _) => Ok("host".to_owned()),
        (Network::Bridge, _) => Ok("bridge".to_owned()),
        (Network::None, _) => Ok("none".to_owned()),
        // Not another container's: that would be somebody else's task.
        (Network::User, Some(name)) if !name.contains(':') && name != "default" => {
            Ok(name.to_owned())
        }
        (Network::User, Some(name)) => {
            Err(format!("container.network_infos[0].name `{name}` is no network's name"))
        }
        (Network::User, None) => Err("container.network_infos[0].name is not set; docker.network \
                                      USER needs the network's name there"
            .to_owned()),
    }
}

/// The agent's variables and the task's, without a PATH that nobody asked for: the
/// image has its own.
fn environment(spec: &ContainerSpec) -> Vec<String> {
    let mut all = spec.environment.clone();
    if all.get("PATH").is_some_and(|path| path == DEFAULT_PATH) {
        all.remove("PATH");
    }
    all.insert("MESOS_SANDBOX".to_owned(), SANDBOX.to_owned());
    all.insert("MESOS_CONTAINER_NAME".to_owned(), name(&spec.id));
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Whole ones only, as the master has checked.
pub(super) fn wanted_gpus(spec: &ContainerSpec) -> Result<u64, String> {
    let gpus = spec.resources.scalar("gpus").to_f64();
    if gpus.fract() != 0.0 {
        return Err(format!("resources: gpus:{gpus} is not a whole number"));
    }
    Ok(gpus as u64)
}

/// What `docker run --gpus` asks for.
pub(super) fn gpu_request(count: Option<i64>, ids: Option<Vec<String>>) -> DeviceRequest {
    DeviceRequest {
        driver: Some("nvidia".to_owned()),
        count,
        device_ids: ids,
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        options: None,
    }
}

fn rlimits(
    info: &v1::ContainerInfo,
) -> Result<Option<Vec<bollard::models::ResourcesUlimits>>, String> {
    let Some(info) = &info.rlimit_info else { return Ok(None) };
    let value = |bound: Option<u64>| bound.map_or(-1, |v| i64::try_from(v).unwrap_or(-1));
    let one = |limit: &v1::r_limit_info::RLimit| {
        let name = limit.r#type().as_str_name();
        let known = limit.r#type() != r_limit::Type::Unknown;
        match name.strip_prefix("RLMT_").filter(|_| known) {
            Some(name) if limit.soft.is_some() == limit.hard.is_some() => {
                Ok(bollard::models::ResourcesUlimits {
                    name: Some(name.to_lowercase()),
                    soft: Some(value(limit.soft)),
                    hard: Some(value(limit.hard)),
                })
            }
            Some(_) => Err(format!(
                "container.rlimit_info: {name} has one of soft and hard; set both, or none for \
                 no bound"
            )),
            None => Err("container.rlimit_info: a limit has no type".to_owned()),
        }
    };
    info.rlimits.iter().map(one).collect::<Result<Vec<_>, _>>().map(Some)
}

pub(super) fn owned<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> HashMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
