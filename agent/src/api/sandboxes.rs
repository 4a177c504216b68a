//! Sandboxes by the paths that tools of Mesos know (behaviour rules 56 and 89): the real
//! ones, and `/frameworks/F/executors/E/runs/latest`. Everything else is nowhere.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use mezz_proto::ids::{ContainerId, FrameworkId, TaskId};

use super::{
    Index, Served,
    files::{CHUNK, FileError, Listed, Reader, list_whole},
};
use crate::core::TaskKey;

/// A path below a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sandbox: PathBuf,
    /// From there on; empty is the sandbox itself.
    pub(super) rest: String,
}

/// A part of a file, and how long the file is.
pub(super) struct Part {
    pub(super) size: u64,
    pub(super) data: Vec<u8>,
}

/// Where a path leads, if it is one of a sandbox that is there.
pub(super) fn resolve(served: &Served, path: &str) -> Option<Place> {
    place(&served.index, &served.work_dir, path)
}

fn place(index: &Index, work_dir: &Path, path: &str) -> Option<Place> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let ["frameworks", framework, "executors", executor, kind, name, rest @ ..] = &parts[..] {
        let folder = index.folder(framework, executor)?;
        let sandbox = match *kind {
            "runs" => run(index, &folder, name)?,
            "tasks" => {
                let key =
                    TaskKey { framework: FrameworkId::new(framework), task: TaskId::new(name) };
                index.files(&key)?.sandbox
            }
            _ => return None,
        };
        return Some(Place { sandbox, rest: rest.join("/") });
    }
    let below = Path::new(path).strip_prefix(work_dir).ok()?;
    let names: Vec<&str> = below
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => Some(".."),
        })
        .collect::<Option<_>>()?;
    // slaves/S/frameworks/F/executors/E/runs/C
    let (folder, after) = names.split_at_checked(7)?;
    let (name, rest) = after.split_first()?;
    let folder = folder.iter().fold(work_dir.to_owned(), |path, name| path.join(name));
    Some(Place { sandbox: run(index, &folder, name)?, rest: rest.join("/") })
}

/// A run of an executor, by its container or as the newest.
fn run(index: &Index, folder: &Path, name: &str) -> Option<PathBuf> {
    match name {
        "latest" => index.latest(folder),
        name => index.sandbox(&ContainerId::new(name)).filter(|path| path.parent() == Some(folder)),
    }
}

/// What a folder holds, under the names by which it was asked for.
///
/// # Errors
/// [`FileError`].
pub(super) fn browse(asked: &str, place: &Place) -> Result<Vec<Listed>, FileError> {
    let mut entries = list_whole(&place.sandbox, &place.rest)?;
    let asked = asked.trim_end_matches('/');
    for entry in &mut entries {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        entry.path = format!("{asked}/{name}");
    }
    Ok(entries)
}

/// At most [`CHUNK`] bytes from `offset` on; none without an offset.
///
/// # Errors
/// [`FileError`].
pub(super) fn read(
    place: &Place,
    offset: Option<u64>,
    length: Option<u64>,
) -> Result<Part, FileError> {
    let mut reader = Reader::open(&place.sandbox, &place.rest, 0)?;
    let size = reader.size();
    let Some(offset) = offset.filter(|offset| *offset < size) else {
        return Ok(Part { size, data: Vec::new() });
    };
    reader.offset = offset;
    let data = reader.next(length.unwrap_or(u64::MAX).min(CHUNK as u64))?;
    Ok(Part { size, data })
}

/// `drwxr-xr-x`.
pub(super) fn mode_text(mode: u32) -> String {
    use rustix::fs::FileType;
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        _ => '-',
    };
    let bits = (0..9).map(|bit| match mode & (0o400 >> bit) {
        0 => '-',
        _ => ['r', 'w', 'x'][bit % 3],
    });
    std::iter::once(kind).chain(bits).collect()
}

/// Names of users and groups, looked up once for a listing.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    pub(super) fn user(&mut self, id: u32) -> String {
        let look = || {
            let user = nix::unistd::User::from_uid(id.into()).ok().flatten();
            user.map_or_else(|| id.to_string(), |user| user.name)
        };
        self.users.entry(id).or_insert_with(look).clone()
    }

    pub(super) fn group(&mut self, id: u32) -> String {
        let look = || {
            let group = nix::unistd::Group::from_gid(id.into()).ok().flatten();
            group.map_or_else(|| id.to_string(), |group| group.name)
        };
        self.groups.entry(id).or_insert_with(look).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::SandboxRecord;

    fn record(container: &str, ended_at: Option<u64>) -> SandboxRecord {
        SandboxRecord {
            container_id: container.into(),
            framework_id: "F".into(),
            executor_id: "E".into(),
            path: format!("/w/slaves/S/frameworks/F/executors/E/runs/{container}"),
            ended_at,
        }
    }

    #[test]
    fn only_sandboxes_have_paths() {
        let all = vec![record("a", Some(1)), record("b", None), record("c", Some(2))];
        let index = Index::new(None, all, Vec::new());
        let find = |path: &str| {
            place(&index, Path::new("/w"), path).map(|place| {
                let name = place.sandbox.file_name().unwrap().to_str().unwrap().to_owned();
                (name, place.rest)
            })
        };
        let found = |name: &str, rest: &str| Some((name.to_owned(), rest.to_owned()));
        let real = "/w/slaves/S/frameworks/F/executors/E/runs";
        assert_eq!(find("/frameworks/F/executors/E/runs/latest"), found("b", ""));
        assert_eq!(find("frameworks/F/executors/E/runs/a/stdout"), found("a", "stdout"));
        assert_eq!(find(&format!("{real}/c/x/y/")), found("c", "x/y"));
        assert_eq!(find(&format!("{real}/latest/x")), found("b", "x"));
        // Left for the kernel to refuse.
        assert_eq!(find(&format!("{real}/a/../../x")), found("a", "../../x"));
        for nowhere in [
            "",
            "/",
            "/etc/passwd",
            "/w",
            "/w/meta/agent.redb",
            "/w/slaves/S/frameworks/F/executors/E/runs",
            "/w/slaves/S/frameworks/F/executors/E/runs/d",
            "/w/slaves/S/frameworks/F/executors/E/runs/../runs/a",
            "/w/slaves/S/frameworks/G/executors/E/runs/a",
            "/w/x/../slaves/S/frameworks/F/executors/E/runs/a",
            "/w/../w/slaves/S/frameworks/F/executors/E/runs/a",
            "/frameworks/F/executors/E/runs",
            "/frameworks/F/executors/G/runs/a",
            "/frameworks/F/executors/E/runs/..",
        ] {
            assert_eq!(find(nowhere), None, "{nowhere}");
        }
        for container in ["a", "b", "c"] {
            index.forget(&container.into());
        }
        assert_eq!(find("/frameworks/F/executors/E/runs/latest"), None);
    }

    #[test]
    fn modes_are_read_as_ls_shows_them() {
        assert_eq!(mode_text(0o040_755), "drwxr-xr-x");
        assert_eq!(mode_text(0o100_640), "-rw-r-----");
        assert_eq!(mode_text(0o120_777), "lrwxrwxrwx");
    }
}
