//! What the agent's operator does not allow, however a task asks for it.

use std::path::Path;

use bollard::models::{HostConfig, MountType};

use crate::{
    containerizer::host_paths,
    options::{IsolationOptions, capability},
};

/// What the engine gives to whoever asks for nothing.
const GIVEN: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Refuses what is not allowed, takes back what the engine would give, and puts paths in
/// place of links, which may be changed before the engine follows them.
///
/// # Errors
/// A sentence that names the field.
pub(super) fn check(
    host: &mut HostConfig,
    sandbox: &Path,
    isolation: &IsolationOptions,
) -> Result<(), String> {
    if let Some(allowed) = isolation.host_paths.as_deref() {
        let resolve = |path: &str, field: &str| resolve(path, sandbox, allowed, field);
        check_paths(host, &resolve)?;
    }
    match isolation.bounding {
        Some(bounding) => check_capabilities(host, bounding),
        None => Ok(()),
    }
}

fn resolve(
    path: &str,
    sandbox: &Path,
    allowed: &[std::path::PathBuf],
    field: &str,
) -> Result<String, String> {
    let path = Path::new(path);
    let found = path.canonicalize();
    let in_sandbox = match (&found, sandbox.canonicalize()) {
        (Ok(found), Ok(sandbox)) => found.starts_with(sandbox),
        // It is made there a moment later; a path that climbs is none of ours.
        _ => path.starts_with(sandbox) && !path.components().any(|c| c.as_os_str() == ".."),
    };
    let resolved = match (in_sandbox, found) {
        (true, found) => found.unwrap_or_else(|_| path.to_path_buf()),
        (false, _) => host_paths::resolve(Some(allowed), path)
            .map_err(|why| format!("container.{field}: {why}"))?,
    };
    Ok(resolved.to_string_lossy().into_owned())
}

type Resolve<'a> = &'a dyn Fn(&str, &str) -> Result<String, String>;

fn check_paths(host: &mut HostConfig, resolve: Resolve<'_>) -> Result<(), String> {
    for mount in host.mounts.iter_mut().flatten() {
        if mount.typ == Some(MountType::BIND)
            && let Some(source) = &mut mount.source
        {
            *source = resolve(source, "volumes")?;
        }
        // A volume of the engine's may be a folder of the machine too.
        let options = mount.volume_options.iter_mut().flat_map(|o| o.driver_config.as_mut());
        for (name, value) in options.flat_map(|o| o.options.as_mut()).flatten() {
            if name == "device" && value.starts_with('/') {
                *value = resolve(value, "volumes.source.docker_volume.driver_options")?;
            }
        }
    }
    for bind in host.binds.iter_mut().flatten() {
        if let Some((from, to)) = bind.split_once(':')
            && from.starts_with('/')
        {
            *bind = format!("{}:{to}", resolve(from, "docker.parameters `volume`")?);
        }
    }
    for device in host.devices.iter_mut().flatten() {
        if let Some(path) = &mut device.path_on_host {
            *path = resolve(path, "docker.parameters `device`")?;
        }
    }
    Ok(())
}

fn check_capabilities(host: &mut HostConfig, bounding: u64) -> Result<(), String> {
    const WHY: &str = "that this agent allows (its --bounding-capabilities)";
    if host.privileged == Some(true) {
        return Err(format!(
            "container.docker.privileged: gives all capabilities, not only those {WHY}"
        ));
    }
    let allowed = |name: &str| capability(name).is_some_and(|bit| bit & bounding != 0);
    for name in host.cap_add.iter().flatten() {
        if !allowed(name) {
            return Err(format!("container.docker.parameters `cap-add`: {name} is none {WHY}"));
        }
    }
    let beyond = GIVEN.iter().filter(|name| !allowed(name)).map(|name| (*name).to_owned());
    host.cap_drop.get_or_insert_default().extend(beyond);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, os::unix::fs::symlink, path::PathBuf};

    use bollard::models::{
        DeviceMapping, Mount, MountVolumeOptions, MountVolumeOptionsDriverConfig,
    };

    use super::*;

    fn bind(source: &Path) -> HostConfig {
        let source = Some(source.to_str().unwrap().to_owned());
        let mount = Mount { typ: Some(MountType::BIND), source, ..Mount::default() };
        HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }
    }

    #[test]
    fn host_paths_are_refused_however_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (open, sandbox) = (dir.join("open"), dir.join("box"));
        fs::create_dir(&open).unwrap();
        fs::create_dir(&sandbox).unwrap();
        symlink(&open, dir.join("link")).unwrap();
        symlink("/etc", sandbox.join("out")).unwrap();
        let isolation =
            IsolationOptions { host_paths: Some(vec![open.clone()]), ..Default::default() };
        let check = |mut host| check(&mut host, &sandbox, &isolation).map(|()| host);

        let source = |host: HostConfig| host.mounts.unwrap()[0].source.clone().map(PathBuf::from);
        assert_eq!(source(check(bind(&dir.join("link"))).unwrap()), Some(open.clone()));
        for fine in [sandbox.clone(), sandbox.join("new"), open] {
            assert_eq!(source(check(bind(&fine)).unwrap()), Some(fine));
        }
        let device = MountVolumeOptionsDriverConfig {
            options: Some(HashMap::from([("device".to_owned(), "/etc".to_owned())])),
            ..Default::default()
        };
        let volume = Mount {
            typ: Some(MountType::VOLUME),
            volume_options: Some(MountVolumeOptions {
                driver_config: Some(device),
                ..Default::default()
            }),
            ..Mount::default()
        };
        let mapping =
            DeviceMapping { path_on_host: Some("/dev/null".into()), ..Default::default() };
        for (field, host) in [
            ("volumes", bind(Path::new("/etc"))),
            ("volumes", bind(&sandbox.join("out"))),
            ("volumes", bind(&sandbox.join("../new"))),
            (
                "volumes.source.docker_volume.driver_options",
                HostConfig { mounts: Some(vec![volume]), ..Default::default() },
            ),
            (
                "docker.parameters `volume`",
                HostConfig { binds: Some(vec!["/etc:/x:ro".into()]), ..Default::default() },
            ),
            (
                "docker.parameters `device`",
                HostConfig { devices: Some(vec![mapping]), ..Default::default() },
            ),
        ] {
            let error = check(host).unwrap_err();
            assert!(error.starts_with(&format!("container.{field}: `/")), "{error}");
        }
        let mut any = bind(Path::new("/no/such"));
        super::check(&mut any, &sandbox, &IsolationOptions::default()).unwrap();
    }

    #[test]
    fn capabilities_beyond_the_bound_are_refused_or_taken_back() {
        let isolation = IsolationOptions { bounding: Some(1 << 5 | 1 << 12), ..Default::default() };
        let check = |mut host| check(&mut host, Path::new("/box"), &isolation).map(|()| host);
        let add =
            |name: &str| HostConfig { cap_add: Some(vec![name.into()]), ..Default::default() };
        let host = check(add("cap_net_admin")).unwrap();
        let dropped = host.cap_drop.unwrap();
        assert!(dropped.contains(&"CHOWN".to_owned()) && dropped.len() == 13, "{dropped:?}");
        for name in ["SYS_ADMIN", "ALL", "FLY"] {
            let error = check(add(name)).unwrap_err();
            assert!(error.starts_with("container.docker.parameters `cap-add`: "), "{error}");
        }
        let all = HostConfig { privileged: Some(true), ..Default::default() };
        assert!(check(all).unwrap_err().starts_with("container.docker.privileged: "));
    }
}
