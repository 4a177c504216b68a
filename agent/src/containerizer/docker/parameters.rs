//! `docker.parameters`: flags of `docker run`, by their long names.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointSettings, HostConfig, HostConfigLogConfig,
    NetworkingConfig, ResourcesUlimits,
};
use mezz_proto::v1;

use super::spec::{LABEL_PREFIX, gpu_request};
use crate::containerizer::{ContainerSpec, Program};

/// Flags whose part is done by other fields, and which.
const ELSEWHERE: [(&str, &str); 16] = [
    ("cpu-period", "limits"),
    ("cpu-quota", "limits"),
    ("cpu-shares", "resources"),
    ("cpus", "resources and limits"),
    ("cpuset-cpus", "the agent's operator"),
    ("detach", "the agent"),
    ("memory", "resources and limits"),
    ("memory-reservation", "resources"),
    ("name", "the agent, who finds its containers by it"),
    ("net", "docker.network"),
    ("network", "docker.network"),
    ("publish", "docker.port_mappings"),
    ("publish-all", "docker.port_mappings"),
    ("restart", "the framework"),
    ("rm", "the agent"),
    ("mount", "volumes"),
];

/// Does to a request what a flag would; no container has more than `most_pids`.
///
/// # Errors
/// Why not.
pub(super) fn apply(
    parameter: &v1::Parameter,
    spec: &ContainerSpec,
    most_pids: u64,
    body: &mut ContainerCreateBody,
) -> Result<(), String> {
    let (key, value) = (parameter.key.as_str(), parameter.value.as_str());
    if let Some((_, who)) = ELSEWHERE.iter().find(|(name, _)| *name == key) {
        return Err(format!("is not for parameters to set: that is done by {who}"));
    }
    if on_container(key, value, spec, body)? {
        return Ok(());
    }
    let host = body.host_config.get_or_insert_default();
    if key == "pids-limit" {
        host.pids_limit = Some(pids_limit(value, most_pids)?);
        return Ok(());
    }
    if on_host(key, value, host)? || on_security(key, value, host)? {
        return Ok(());
    }
    Err("is not supported: it is none of the long flags of `docker run` that docs/docker.md \
         lists"
        .to_owned())
}

/// What the container is.
fn on_container(
    key: &str,
    value: &str,
    spec: &ContainerSpec,
    body: &mut ContainerCreateBody,
) -> Result<bool, String> {
    let text = || filled(value);
    match key {
        "domainname" => body.domainname = Some(text()?),
        "entrypoint" => match spec.program {
            Program::Image { .. } => body.entrypoint = Some(vec![text()?]),
            _ => return Err("the command is the entrypoint; leave one of them out".to_owned()),
        },
        "env" => match value.split_once('=') {
            Some((name, _)) if !name.is_empty() => push(&mut body.env, value.to_owned()),
            _ => return Err(format!("`{value}` is not NAME=VALUE")),
        },
        "expose" => {
            let port = if value.contains('/') { value.to_owned() } else { format!("{value}/tcp") };
            push(&mut body.exposed_ports, port);
        }
        "hostname" => body.hostname = Some(text()?),
        "label" => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            if name.is_empty() || name.starts_with(LABEL_PREFIX) {
                return Err(format!("`{name}` is no label's name, or one of the agent's own"));
            }
            body.labels.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        }
        "network-alias" => {
            let mode = body.host_config.as_ref().and_then(|host| host.network_mode.clone());
            match mode {
                Some(mode) if !["host", "bridge", "none"].contains(&mode.as_str()) => {
                    let networks = body.networking_config.get_or_insert_with(|| NetworkingConfig {
                        endpoints_config: Some(HashMap::new()),
                    });
                    let endpoints = networks.endpoints_config.get_or_insert_default();
                    let endpoint: &mut EndpointSettings = endpoints.entry(mode).or_default();
                    push(&mut endpoint.aliases, text()?);
                }
                _ => return Err("is only for docker.network USER".to_owned()),
            }
        }
        "stop-signal" => body.stop_signal = Some(text()?),
        "user" => body.user = Some(text()?),
        "workdir" => body.working_dir = Some(text()?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// What it gets of the machine.
fn on_host(key: &str, value: &str, host: &mut HostConfig) -> Result<bool, String> {
    let text = || filled(value);
    match key {
        "add-host" => push(&mut host.extra_hosts, text()?),
        "device" => push(&mut host.devices, device(value)?),
        "dns" => push(&mut host.dns, text()?),
        "dns-opt" | "dns-option" => push(&mut host.dns_options, text()?),
        "dns-search" => push(&mut host.dns_search, text()?),
        "gpus" => host.device_requests = Some(vec![gpus(value)?]),
        "init" => host.init = Some(boolean(value)?),
        "ipc" => host.ipc_mode = Some(not_of_another(value)?),
        "log-driver" => {
            let typ = Some(text()?);
            let same = host.log_config.as_ref().is_some_and(|config| config.typ == typ);
            if !same {
                // The options of one driver are wrong for another.
                host.log_config = Some(HostConfigLogConfig { typ, config: None });
            }
        }
        "log-opt" => {
            let (name, value) = pair(value)?;
            let config = host.log_config.get_or_insert_default();
            config.config.get_or_insert_default().insert(name, value);
        }
        "memory-swap" => {
            let both = if value == "-1" { -1 } else { bytes(value)? };
            if both >= 0 && host.memory.is_some_and(|memory| both < memory) {
                return Err(format!(
                    "`{value}` is memory and swap together, and less than the memory"
                ));
            }
            host.memory_swap = Some(both);
        }
        "memory-swappiness" => host.memory_swappiness = Some(number(value, 0..=100)?),
        "oom-score-adj" => host.oom_score_adj = Some(number(value, -1000..=1000)?),
        "pid" => host.pid_mode = Some(not_of_another(value)?),
        "read-only" => host.readonly_rootfs = Some(boolean(value)?),
        "runtime" => host.runtime = Some(text()?),
        "shm-size" => host.shm_size = Some(bytes(value)?),
        "storage-opt" => insert(&mut host.storage_opt, pair(value)?),
        "sysctl" => insert(&mut host.sysctls, pair(value)?),
        "tmpfs" => {
            let (path, options) = value.split_once(':').unwrap_or((value, ""));
            if !path.starts_with('/') {
                return Err(format!("`{value}` is not PATH or PATH:OPTIONS"));
            }
            insert(&mut host.tmpfs, (path.to_owned(), options.to_owned()));
        }
        "ulimit" => push(&mut host.ulimits, ulimit(value)?),
        "uts" => host.uts_mode = Some(text()?),
        "volume" => {
            if !value.contains(':') {
                return Err(format!(
                    "`{value}` is not FROM:TO or FROM:TO:ro; for a volume without a name use \
                     volumes"
                ));
            }
            push(&mut host.binds, value.to_owned());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// What it may do.
fn on_security(key: &str, value: &str, host: &mut HostConfig) -> Result<bool, String> {
    match key {
        "cap-add" => push(&mut host.cap_add, filled(value)?),
        "cap-drop" => push(&mut host.cap_drop, filled(value)?),
        "device-cgroup-rule" => push(&mut host.device_cgroup_rules, filled(value)?),
        "group-add" => push(&mut host.group_add, filled(value)?),
        "privileged" => host.privileged = Some(boolean(value)?),
        "security-opt" => push(&mut host.security_opt, filled(value)?),
        "userns" => host.userns_mode = Some(filled(value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn push<T>(list: &mut Option<Vec<T>>, item: T) {
    list.get_or_insert_default().push(item);
}

fn insert(map: &mut Option<HashMap<String, String>>, (name, value): (String, String)) {
    map.get_or_insert_default().insert(name, value);
}

fn filled(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("its value is empty".to_owned()) } else { Ok(value.to_owned()) }
}

/// Containers of other tasks are not for this one.
fn not_of_another(value: &str) -> Result<String, String> {
    if value.starts_with("container:") {
        return Err(format!("`{value}` would share with a container of somebody else"));
    }
    filled(value)
}

fn boolean(value: &str) -> Result<bool, String> {
    match value {
        // As in `--init=`, and as Marathon writes a flag without a value.
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{value}` is neither true nor false")),
    }
}

fn number(value: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, String> {
    value.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
        format!("`{value}` is no whole number from {} to {}", range.start(), range.end())
    })
}

/// Less than other containers may have, not more.
fn pids_limit(value: &str, most: u64) -> Result<i64, String> {
    let most = most.try_into().unwrap_or(i64::MAX);
    match number(value, 1..=i64::MAX)? {
        wanted if wanted > most => {
            Err(format!("{wanted} is more than the {most} that this agent's --pids-limit allows"))
        }
        wanted => Ok(wanted),
    }
}

fn pair(value: &str) -> Result<(String, String), String> {
    match value.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{value}` is not NAME=VALUE")),
    }
}

/// `64m` and the like; units are of 1024.
fn bytes(value: &str) -> Result<i64, String> {
    let wrong = || format!("`{value}` is no size; write it like 64m or 1g");
    let lower = value.to_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.char_indices().last() {
        Some((at, 'k')) => (&lower[..at], 10),
        Some((at, 'm')) => (&lower[..at], 20),
        Some((at, 'g')) => (&lower[..at], 30),
        Some((at, 't')) => (&lower[..at], 40),
        _ => (lower, 0),
    };
    let number: i64 = digits.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

fn device(value: &str) -> Result<DeviceMapping, String> {
    let mut parts = value.split(':');
    let on_host = parts.next().filter(|path| path.starts_with('/'));
    let (second, third) = (parts.next(), parts.next());
    let wrong = || format!("`{value}` is not PATH, PATH:PATH or PATH:PATH:rwm");
    let on_host = on_host.ok_or_else(wrong)?;
    let inside = second.filter(|path| path.starts_with('/'));
    let permissions = third.or(second.filter(|_| inside.is_none())).unwrap_or("rwm");
    let plain = !permissions.is_empty() && permissions.chars().all(|c| "rwm".contains(c));
    if !plain || parts.next().is_some() || (third.is_some() && inside.is_none()) {
        return Err(wrong());
    }
    Ok(DeviceMapping {
        path_on_host: Some(on_host.to_owned()),
        path_in_container: Some(inside.unwrap_or(on_host).to_owned()),
        cgroup_permissions: Some(permissions.to_owned()),
    })
}

fn gpus(value: &str) -> Result<bollard::models::DeviceRequest, String> {
    if value == "all" {
        return Ok(gpu_request(Some(-1), None));
    }
    if let Some(ids) = value.strip_prefix("device=") {
        let ids: Vec<String> = ids.split(',').map(str::to_owned).collect();
        if ids.iter().all(|id| !id.is_empty()) {
            return Ok(gpu_request(None, Some(ids)));
        }
    }
    let count = number(value, 1..=1024)
        .map_err(|_| format!("`{value}` is not all, a number or device=ID,ID"))?;
    Ok(gpu_request(Some(count), None))
}

fn ulimit(value: &str) -> Result<ResourcesUlimits, String> {
    let wrong = || format!("`{value}` is not NAME=SOFT or NAME=SOFT:HARD");
    let (name, bounds) = value.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = bounds.split_once(':').unwrap_or((bounds, bounds));
    let bound = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(wrong);
    if name.is_empty() {
        return Err(wrong());
    }
    Ok(ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(bound(soft)?),
        hard: Some(bound(hard)?),
    })
}
