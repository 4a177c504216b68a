//! Volumes: from the framework's words to what is mounted.

use std::path::{Component, Path, PathBuf};

use mezz_proto::v1::{
    Volume as VolumeInfo,
    volume::{self, Mode, source, source::sandbox_path},
};

use crate::{
    containerizer::host_paths,
    launcher::isolation::{Source, Volume},
};

/// In the framework's order, in which they are mounted; of the machine only what is
/// allowed. The error names the field.
pub(super) fn volumes(
    infos: &[VolumeInfo],
    sandbox: &Path,
    parent: Option<&Path>,
    allowed: Option<&[PathBuf]>,
) -> Result<Vec<Volume>, String> {
    infos
        .iter()
        .enumerate()
        .map(|(n, info)| {
            let field = format!("container.volumes[{n}]");
            let to = container_path(&field, &info.container_path)?;
            let from = from(&field, info, sandbox, parent, allowed)?;
            Ok(Volume { from, to, read_only: info.mode() == Mode::Ro })
        })
        .collect()
}

fn container_path(field: &str, path: &str) -> Result<PathBuf, String> {
    let to = PathBuf::from(path);
    let names = to.components().filter(|c| matches!(c, Component::Normal(_))).count();
    if names == 0 || to.components().any(|c| c == Component::ParentDir) {
        return Err(format!("{field}.container_path: `{path}` is no place for a volume"));
    }
    Ok(to)
}

fn from(
    field: &str,
    info: &VolumeInfo,
    sandbox: &Path,
    parent: Option<&Path>,
    allowed: Option<&[PathBuf]>,
) -> Result<Source, String> {
    if info.image.is_some() {
        return Err(format!("{field}.image: images are no volumes on this agent"));
    }
    match (&info.host_path, &info.source) {
        (Some(_), Some(_)) => Err(format!("{field}: host_path and source exclude each other")),
        (Some(path), None) => host(&format!("{field}.host_path"), sandbox, path, allowed),
        (None, Some(source)) => {
            from_source(&format!("{field}.source"), source, sandbox, parent, allowed)
        }
        (None, None) => Err(format!("{field}: neither host_path nor source says what it holds")),
    }
}

fn from_source(
    field: &str,
    source: &volume::Source,
    sandbox: &Path,
    parent: Option<&Path>,
    allowed: Option<&[PathBuf]>,
) -> Result<Source, String> {
    match source.r#type() {
        source::Type::HostPath => {
            let host = source.host_path.as_ref();
            let host = host.ok_or_else(|| format!("{field}.host_path: not set"))?;
            if host.mount_propagation.is_some() {
                return Err(format!(
                    "{field}.host_path.mount_propagation: mounts stay in their container"
                ));
            }
            self::host(&format!("{field}.host_path.path"), sandbox, &host.path, allowed)
        }
        source::Type::SandboxPath => {
            let path = source.sandbox_path.as_ref();
            let path = path.ok_or_else(|| format!("{field}.sandbox_path: not set"))?;
            let field = format!("{field}.sandbox_path");
            let base = match path.r#type() {
                sandbox_path::Type::Parent => parent.ok_or_else(|| {
                    format!("{field}.type: PARENT is for the containers of a pod")
                })?,
                sandbox_path::Type::Self_ | sandbox_path::Type::Unknown => sandbox,
            };
            in_sandbox(&format!("{field}.path"), base, &path.path)
        }
        other => Err(format!(
            "{field}.type: {} volumes are not supported by this agent; HOST_PATH and \
             SANDBOX_PATH are",
            other.as_str_name()
        )),
    }
}

/// A path of this machine; a relative one is below the sandbox.
fn host(
    field: &str,
    sandbox: &Path,
    path: &str,
    allowed: Option<&[PathBuf]>,
) -> Result<Source, String> {
    if Path::new(path).is_relative() {
        return in_sandbox(field, sandbox, path);
    }
    let found = host_paths::resolve(allowed, Path::new(path));
    found.map(Source::Host).map_err(|why| format!("{field}: {why}"))
}

fn in_sandbox(field: &str, base: &Path, path: &str) -> Result<Source, String> {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !Path::new(path).components().all(plain) {
        return Err(format!("{field}: `{path}` is no path in a sandbox"));
    }
    Ok(Source::Sandbox { base: base.to_path_buf(), path: path.into() })
}
