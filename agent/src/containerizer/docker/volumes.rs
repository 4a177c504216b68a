//! What is mounted into a container.

use std::path::{Component, Path, PathBuf};

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig,
};
use mezz_proto::v1::{
    self, mount_propagation,
    volume::{Mode, source},
};

use super::spec::SANDBOX;
use crate::containerizer::ContainerSpec;

/// The sandbox first, then the volumes; and the folders below the sandbox that have to
/// be there.
pub(super) fn translate(
    spec: &ContainerSpec,
    info: &v1::ContainerInfo,
) -> Result<(Vec<Mount>, Vec<PathBuf>), String> {
    let mut mounts = vec![bind(&spec.sandbox, SANDBOX.to_owned(), false)];
    let mut folders = Vec::new();
    for (index, volume) in info.volumes.iter().enumerate() {
        let mount = one(&spec.sandbox, volume, &mut folders)
            .map_err(|why| format!("container.volumes[{index}].{why}"))?;
        mounts.push(mount);
    }
    Ok((mounts, folders))
}

fn one(sandbox: &Path, volume: &v1::Volume, folders: &mut Vec<PathBuf>) -> Result<Mount, String> {
    let target = target(&volume.container_path)?;
    let read_only = volume.mode() == Mode::Ro;
    if volume.image.is_some() {
        return Err("image is not supported with type DOCKER".to_owned());
    }
    let Some(source) = &volume.source else {
        return match volume.host_path.as_deref() {
            Some(path) => Ok(bind(&host(sandbox, path, "host_path", folders)?, target, read_only)),
            None => Ok(Mount { read_only: Some(read_only), ..anonymous(target) }),
        };
    };
    if volume.host_path.is_some() {
        return Err("host_path and source are both set; one of them is enough".to_owned());
    }
    match (source.r#type(), &source.docker_volume, &source.host_path, &source.sandbox_path) {
        (source::Type::DockerVolume, Some(docker), ..) => named(docker, target, read_only),
        (source::Type::HostPath, _, Some(path), _) => {
            let from = host(sandbox, &path.path, "source.host_path.path", folders)?;
            let mut mount = bind(&from, target, read_only);
            let mode = path.mount_propagation.as_ref().map(v1::MountPropagation::mode);
            let propagation = match mode.unwrap_or(mount_propagation::Mode::Unknown) {
                mount_propagation::Mode::Unknown => None,
                mount_propagation::Mode::HostToContainer => {
                    Some(MountBindOptionsPropagationEnum::RSLAVE)
                }
                mount_propagation::Mode::Bidirectional => {
                    Some(MountBindOptionsPropagationEnum::RSHARED)
                }
            };
            mount.bind_options = propagation
                .is_some()
                .then(|| MountBindOptions { propagation, ..Default::default() });
            Ok(mount)
        }
        (source::Type::SandboxPath, _, _, Some(path)) => {
            if path.r#type() == source::sandbox_path::Type::Parent {
                return Err("source.sandbox_path.type PARENT needs a task group, and those have \
                            no containers of type DOCKER"
                    .to_owned());
            }
            let from = inside(sandbox, &path.path, "source.sandbox_path.path", folders)?;
            Ok(bind(&from, target, read_only))
        }
        (kind @ (source::Type::Secret | source::Type::CsiVolume | source::Type::Unknown), ..) => {
            Err(format!("source.type {} is not supported with type DOCKER", kind.as_str_name()))
        }
        (kind, ..) => Err(format!(
            "source.type is {}, but source.{} is not set",
            kind.as_str_name(),
            kind.as_str_name().to_lowercase()
        )),
    }
}

/// Where in the container; a relative path is below the sandbox there.
fn target(path: &str) -> Result<String, String> {
    let climbs = Path::new(path).components().any(|c| c == Component::ParentDir);
    match path {
        "" => Err("container_path is empty".to_owned()),
        _ if climbs => Err(format!("container_path `{path}` must not hold `..`")),
        "/" => Err("container_path `/` would hide the image".to_owned()),
        _ if path.starts_with('/') => Ok(path.to_owned()),
        _ => Ok(format!("{SANDBOX}/{path}")),
    }
}

/// A path of this machine; a relative one is below the sandbox.
fn host(
    sandbox: &Path,
    path: &str,
    field: &str,
    folders: &mut Vec<PathBuf>,
) -> Result<PathBuf, String> {
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    inside(sandbox, path, field, folders)
}

fn inside(
    sandbox: &Path,
    path: &str,
    field: &str,
    folders: &mut Vec<PathBuf>,
) -> Result<PathBuf, String> {
    let relative = path.trim_start_matches('/');
    let plain = Path::new(relative).components().all(|c| matches!(c, Component::Normal(_)));
    if relative.is_empty() || !plain {
        return Err(format!("{field} `{path}` is no path below the sandbox"));
    }
    let folder = sandbox.join(relative);
    folders.push(folder.clone());
    Ok(folder)
}

fn bind(from: &Path, target: String, read_only: bool) -> Mount {
    Mount {
        target: Some(target),
        source: Some(from.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

/// A volume of the engine's that goes away with the container.
fn anonymous(target: String) -> Mount {
    Mount { target: Some(target), typ: Some(MountType::VOLUME), ..Mount::default() }
}

fn named(volume: &source::DockerVolume, target: String, read_only: bool) -> Result<Mount, String> {
    if volume.name.is_empty() {
        return Err("source.docker_volume.name is empty".to_owned());
    }
    let options = volume.driver_options.iter().flat_map(|options| &options.parameter);
    let options = options.map(|option| (option.key.clone(), option.value.clone())).collect();
    let driver_config = volume
        .driver
        .clone()
        .map(|name| MountVolumeOptionsDriverConfig { name: Some(name), options: Some(options) });
    Ok(Mount {
        source: Some(volume.name.clone()),
        read_only: Some(read_only),
        volume_options: driver_config
            .is_some()
            .then(|| MountVolumeOptions { driver_config, ..Default::default() }),
        ..anonymous(target)
    })
}
