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
    // What a volume needs in the sandbox has been made.
    let resolved = match (path.canonicalize(), sandbox.canonicalize()) {
        (Ok(found), Ok(sandbox)) if found.starts_with(&sandbox) => found,
        _ => host_paths::resolve(Some(allowed), path)
            .map_err(|why| format!("container.{field}: {why}"))?,
    };
    Ok(resolved.to_string_lossy().into_owned())
}

type Resolve<'a> = &'a dyn Fn(&str, &str) -> Result<String, String>;

fn check_paths(host: &mut HostConfig, resolve: Resolve<'_>) -> Result<(), String> {
    refuse_what_has_no_path(host)?;
    for mount in host.mounts.iter_mut().flatten() {
        if mount.typ == Some(MountType::BIND)
            && let Some(source) = &mut mount.source
        {
            *source = resolve(source, "volumes")?;
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

/// What reaches the machine's files and devices without a path that could be looked at.
fn refuse_what_has_no_path(host: &HostConfig) -> Result<(), String> {
    let of_host = |mode: &Option<String>| mode.as_deref() == Some("host");
    let driver_options = host.mounts.iter().flatten().any(|mount| {
        let driver = mount.volume_options.as_ref().and_then(|o| o.driver_config.as_ref());
        driver.and_then(|driver| driver.options.as_ref()).is_some_and(|o| !o.is_empty())
    });
    let asked = [
        ("volumes.source.docker_volume.driver_options", driver_options),
        ("docker.privileged", host.privileged == Some(true)),
        (
            "docker.parameters `device-cgroup-rule`",
            host.device_cgroup_rules.as_ref().is_some_and(|rules| !rules.is_empty()),
        ),
        ("docker.parameters `pid`", of_host(&host.pid_mode)),
        ("docker.parameters `ipc`", of_host(&host.ipc_mode)),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(format!(
            "container.{field}: would go past the paths that this agent allows (its \
             --allowed-host-paths); leave it out"
        )),
        None => Ok(()),
    }
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
        for fine in [sandbox.clone(), open] {
            assert_eq!(source(check(bind(&fine)).unwrap()), Some(fine));
        }
        let mapping =
            DeviceMapping { path_on_host: Some("/dev/null".into()), ..Default::default() };
        for (field, host) in [
            ("volumes", bind(Path::new("/etc"))),
            ("volumes", bind(&sandbox.join("out"))),
            ("volumes", bind(&sandbox.join("../new"))),
            // Nobody has made them.
            ("volumes", bind(&sandbox.join("new"))),
            ("volumes", bind(&sandbox.join("out/new"))),
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
    fn nothing_goes_past_the_paths() {
        let volume = |options: &[(&str, &str)]| {
            let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let driver_config = Some(MountVolumeOptionsDriverConfig {
                name: Some("local".to_owned()),
                options: Some(options.collect::<HashMap<_, _>>()),
            });
            let volume_options = Some(MountVolumeOptions { driver_config, ..Default::default() });
            let mount = Mount { typ: Some(MountType::VOLUME), volume_options, ..Mount::default() };
            HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }
        };
        let isolation = IsolationOptions { host_paths: Some(vec![]), ..Default::default() };
        let sandbox = tempfile::tempdir().unwrap();
        let check = |host: &HostConfig, isolation: &IsolationOptions| {
            check(&mut host.clone(), sandbox.path(), isolation)
        };
        let host = Some("host".to_owned());
        let options = "volumes.source.docker_volume.driver_options";
        for (field, asked) in [
            (options, volume(&[("type", "overlay"), ("o", "lowerdir=/etc")])),
            (options, volume(&[("type", "none"), ("o", "bind"), ("device", "etc")])),
            (options, volume(&[("type", "tmpfs"), ("o", "bind"), ("device", "/etc")])),
            (options, volume(&[("mountpoint", "/etc")])),
            ("docker.privileged", HostConfig { privileged: Some(true), ..Default::default() }),
            (
                "docker.parameters `device-cgroup-rule`",
                HostConfig {
                    device_cgroup_rules: Some(vec!["b *:* rwm".to_owned()]),
                    ..Default::default()
                },
            ),
            (
                "docker.parameters `pid`",
                HostConfig { pid_mode: host.clone(), ..Default::default() },
            ),
            ("docker.parameters `ipc`", HostConfig { ipc_mode: host, ..Default::default() }),
        ] {
            let error = check(&asked, &isolation).unwrap_err();
            assert!(error.starts_with(&format!("container.{field}: would go past ")), "{error}");
            check(&asked, &IsolationOptions::default()).unwrap();
        }
        check(&volume(&[]), &isolation).unwrap();
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
