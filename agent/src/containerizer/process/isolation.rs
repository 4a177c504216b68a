//! From what a framework asks for and the agent's options to the launcher's plan.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use mezz_proto::v1::{
    CapabilityInfo, ContainerInfo, Image, LinuxInfo, NetworkInfo, RLimitInfo,
    capability_info::Capability, container_info, image, linux_info::IpcMode,
    r_limit_info::r_limit::Type as RlimitType,
};
use nix::libc;

use super::volume;
use crate::{
    launcher::{
        isolation::{Isolation, Join, Mounts, Rlimit},
        process::Process,
    },
    options::{FIRST_CAPABILITY, IsolationOptions, Isolator},
};

/// The kernel's own bound.
const LONGEST_HOSTNAME: usize = 64;

/// The networks of a container that has none.
const NO_NETWORK: [&str; 2] = ["none", "loopback"];

/// The container that holds what a pod shares.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    /// Its first process.
    pub(super) process: Process,
    /// Its sandbox.
    pub(super) sandbox: PathBuf,
    /// Whether it has a `/dev/shm` of its own.
    pub(super) shm: bool,
}

/// How a container is kept apart. The error names the field that cannot be done, and
/// says why.
pub(super) fn isolation(
    options: &IsolationOptions,
    info: Option<&ContainerInfo>,
    sandbox: &Path,
    pod: Option<&Pod>,
) -> Result<Isolation, String> {
    let none = ContainerInfo { r#type: container_info::Type::Mesos.into(), ..Default::default() };
    let info = info.unwrap_or(&none);
    if info.r#type() != container_info::Type::Mesos {
        return Err("container.type: only MESOS containers are run as processes".to_owned());
    }
    if info.tty_info.is_some() {
        return Err("container.tty_info: terminals are for programs that are run in a running \
                    container"
            .to_owned());
    }
    let always = |isolator| options.always.contains(&isolator);
    let no_linux = LinuxInfo::default();
    let linux = info.linux_info.as_ref().unwrap_or(&no_linux);
    if linux.seccomp.as_ref().is_some_and(|seccomp| seccomp.profile_name.is_some()) {
        return Err("container.linux_info.seccomp.profile_name: there are no seccomp profiles \
                    on this agent; leave it out"
            .to_owned());
    }

    let own_network = network(&info.network_infos)?;
    let hostname = hostname(info)?;
    let (bounding, effective) = capabilities(linux, options.bounding)?;
    let mut join = pod.map(|pod| Join {
        process: pod.process,
        pid: false,
        ipc: true,
        uts: hostname.is_none(),
        network: !own_network,
    });
    let in_pod = join.is_some();
    let pid = match (linux.share_pid_namespace, &mut join) {
        (Some(false), _) => true,
        (Some(true), Some(join)) => {
            join.pid = true;
            false
        }
        (Some(true), None) if always(Isolator::Pid) => {
            return Err("container.linux_info.share_pid_namespace: the agent keeps processes \
                        apart (its --isolation); leave it out"
                .to_owned());
        }
        _ => always(Isolator::Pid),
    };
    let ipc = match linux.ipc_mode() {
        IpcMode::Private => true,
        IpcMode::ShareParent if !in_pod && always(Isolator::Ipc) => {
            return Err("container.linux_info.ipc_mode: the agent keeps IPC apart (its \
                        --isolation); leave it out"
                .to_owned());
        }
        IpcMode::ShareParent => false,
        IpcMode::Unknown => !in_pod && always(Isolator::Ipc),
    };
    if let Some(join) = &mut join {
        join.ipc = !ipc;
    }
    if linux.shm_size.is_some() && !ipc {
        return Err("container.linux_info.shm_size: only with ipc_mode PRIVATE".to_owned());
    }
    let root = info.mesos.as_ref().and_then(|mesos| mesos.image.as_ref());
    let root = root.map(|image| find_image(options, image)).transpose()?;
    let parent = pod.map(|pod| pod.sandbox.as_path());
    let allowed = options.host_paths.as_deref();
    let volumes = volume::volumes(&info.volumes, sandbox, parent, allowed)?;
    let read_only = always(Isolator::ReadOnlyRoot);
    let tmp = read_only || root.is_some() || always(Isolator::Mount);
    let shares_pids = join.as_ref().is_some_and(|join| join.pid);
    let join_shm = !ipc && pod.is_some_and(|pod| pod.shm);
    let mounts = (tmp
        || join_shm
        || pid
        || shares_pids
        || ipc
        || effective.is_some()
        || !volumes.is_empty())
    .then(|| Mounts {
        root,
        read_only,
        sandbox: sandbox.to_path_buf(),
        tmp,
        shm_bytes: ipc.then(|| u64::from(linux.shm_size.unwrap_or_default()) << 20),
        join_shm,
        volumes,
    });
    Ok(Isolation {
        pid,
        ipc,
        network: own_network || (!in_pod && always(Isolator::Network)),
        uts: hostname.is_some() || (!in_pod && always(Isolator::Uts)),
        hostname,
        join,
        mounts,
        no_new_privileges: always(Isolator::NoNewPrivileges),
        bounding,
        effective,
        rlimits: rlimits(info.rlimit_info.as_ref())?,
    })
}

/// Whether it wants a network of its own.
fn network(infos: &[NetworkInfo]) -> Result<bool, String> {
    let field = "container.network_infos";
    let info = match infos {
        [] => return Ok(false),
        [info] => info,
        _ => return Err(format!("{field}: a container has one network here, not {}", infos.len())),
    };
    for (name, set) in [
        ("ip_addresses", !info.ip_addresses.is_empty()),
        ("groups", !info.groups.is_empty()),
        ("port_mappings", !info.port_mappings.is_empty()),
    ] {
        if set {
            return Err(format!("{field}[0].{name}: not possible on the machine's own network"));
        }
    }
    match info.name.as_deref() {
        None | Some("") => Ok(false),
        Some(name) if NO_NETWORK.contains(&name) => Ok(true),
        Some(name) => Err(format!(
            "{field}[0].name: there is no network `{name}`; without a name a container has the \
             machine's, with `none` only a loopback device"
        )),
    }
}

fn hostname(info: &ContainerInfo) -> Result<Option<String>, String> {
    match info.hostname.as_deref() {
        None => Ok(None),
        Some(name) if name.is_empty() || name.len() > LONGEST_HOSTNAME || name.contains('\0') => {
            Err(format!("container.hostname: {name:?} does not have 1 to {LONGEST_HOSTNAME} bytes"))
        }
        Some(name) => Ok(Some(name.to_owned())),
    }
}

/// The bounding and the effective ones. Who asks only for effective ones is bound to
/// them too, and all are bound to the agent's.
#[allow(deprecated, reason = "frameworks still say capability_info")]
fn capabilities(
    linux: &LinuxInfo,
    most: Option<u64>,
) -> Result<(Option<u64>, Option<u64>), String> {
    let mask = |field: &str, info: &Option<CapabilityInfo>| {
        let Some(info) = info else { return Ok(None) };
        let bit = |capability: &i32| -> Result<u64, String> {
            let field = format!("container.linux_info.{field}");
            let bit = capability.checked_sub(FIRST_CAPABILITY).filter(|bit| (0..64).contains(bit));
            let bit = bit.map(|bit| 1 << bit);
            let bit = bit.ok_or_else(|| format!("{field}: {capability} is no capability"))?;
            if most.is_some_and(|most| bit & !most != 0) {
                let name = Capability::try_from(*capability);
                let name = name.map_or(capability.to_string(), |c| c.as_str_name().to_owned());
                return Err(format!(
                    "{field}: {name} is none that this agent allows (its --bounding-capabilities)"
                ));
            }
            Ok(bit)
        };
        let masks = info.capabilities.iter().map(bit).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, String>(Some(masks.into_iter().fold(0, |all, one| all | one)))
    };
    let bounding = mask("bounding_capabilities", &linux.bounding_capabilities)?;
    let effective = match mask("effective_capabilities", &linux.effective_capabilities)? {
        None => mask("capability_info", &linux.capability_info)?,
        some => some,
    };
    match (bounding, effective) {
        (Some(bounding), Some(effective)) if effective & !bounding != 0 => {
            Err("container.linux_info.effective_capabilities: some are not among the \
             bounding_capabilities"
                .to_owned())
        }
        (bounding, effective) => Ok((bounding.or(effective).or(most), effective)),
    }
}

fn rlimits(info: Option<&RLimitInfo>) -> Result<Vec<Rlimit>, String> {
    let mut limits = Vec::new();
    let mut seen = BTreeSet::new();
    for (n, limit) in info.map(|i| i.rlimits.as_slice()).unwrap_or_default().iter().enumerate() {
        let field = format!("container.rlimit_info.rlimits[{n}]");
        let resource = match limit.r#type() {
            RlimitType::Unknown => return Err(format!("{field}.type: not set, or not known")),
            RlimitType::RlmtAs => libc::RLIMIT_AS,
            RlimitType::RlmtCore => libc::RLIMIT_CORE,
            RlimitType::RlmtCpu => libc::RLIMIT_CPU,
            RlimitType::RlmtData => libc::RLIMIT_DATA,
            RlimitType::RlmtFsize => libc::RLIMIT_FSIZE,
            RlimitType::RlmtLocks => libc::RLIMIT_LOCKS,
            RlimitType::RlmtMemlock => libc::RLIMIT_MEMLOCK,
            RlimitType::RlmtMsgqueue => libc::RLIMIT_MSGQUEUE,
            RlimitType::RlmtNice => libc::RLIMIT_NICE,
            RlimitType::RlmtNofile => libc::RLIMIT_NOFILE,
            RlimitType::RlmtNproc => libc::RLIMIT_NPROC,
            RlimitType::RlmtRss => libc::RLIMIT_RSS,
            RlimitType::RlmtRtprio => libc::RLIMIT_RTPRIO,
            RlimitType::RlmtRttime => libc::RLIMIT_RTTIME,
            RlimitType::RlmtSigpending => libc::RLIMIT_SIGPENDING,
            RlimitType::RlmtStack => libc::RLIMIT_STACK,
        };
        match (limit.soft, limit.hard) {
            (Some(soft), Some(hard)) if soft > hard => {
                return Err(format!("{field}: soft is more than hard"));
            }
            (Some(_), Some(_)) | (None, None) => {}
            _ => return Err(format!("{field}: soft and hard go only together")),
        }
        if !seen.insert(resource) {
            return Err(format!("{field}.type: there is a limit of this type already"));
        }
        limits.push(Rlimit { resource: resource as u32, soft: limit.soft, hard: limit.hard });
    }
    Ok(limits)
}

/// The folder of an image, which no name leads out of.
fn find_image(options: &IsolationOptions, image: &Image) -> Result<PathBuf, String> {
    let field = "container.mesos.image";
    let Some(folder) = &options.image_dir else {
        return Err(format!("{field}: this agent has no images (its --image-dir is not set)"));
    };
    let name = match image.r#type() {
        image::Type::Docker => image.docker.as_ref().map(|docker| docker.name.as_str()),
        image::Type::Appc => image.appc.as_ref().map(|appc| appc.name.as_str()),
    };
    let name = name.ok_or_else(|| format!("{field}: it has no name"))?;
    let parts = || Path::new(name).components();
    if name.is_empty() || !parts().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!(
            "{field}: `{name}` is no path below the folder of images (--image-dir)"
        ));
    }
    let missing = |_| format!("{field}: there is no image `{name}` in {}", folder.display());
    let all = folder.canonicalize().map_err(|e| format!("{field}: {}: {e}", folder.display()))?;
    let found = all.join(name).canonicalize().map_err(missing)?;
    if !found.starts_with(&all) || found == all {
        return Err(format!("{field}: `{name}` leads out of the folder of images (--image-dir)"));
    }
    if !found.is_dir() {
        return Err(format!("{field}: `{name}` is no folder"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
