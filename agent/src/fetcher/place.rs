//! Where fetched files go: names may be hostile.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use super::{FetchReason, file_error};

/// A file that is removed unless it was renamed or is kept.
pub(super) struct Partial {
    pub(super) path: PathBuf,
}

impl Partial {
    /// It is whole, and stays.
    pub(super) fn keep(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Where a file goes, and where it is written first. Makes the directories between.
pub(super) fn place(sandbox: &Path, name: &str) -> Result<(PathBuf, Partial), FetchReason> {
    let bad = |problem| FetchReason::Name { name: name.to_owned(), problem };
    let relative = inside(Path::new(name)).map_err(bad)?;
    let target = sandbox.join(&relative);
    let parent = relative.parent().unwrap_or(Path::new(""));
    make_directories(sandbox, parent).map_err(file_error("creating its directory"))?;
    if fs::symlink_metadata(&target).is_ok_and(|m| m.is_dir()) {
        return Err(bad("a directory of this name is there"));
    }
    let last = relative.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = Partial { path: sandbox.join(parent).join(format!(".{last}.fetching")) };
    let _ = fs::remove_file(&partial.path);
    Ok((target, partial))
}

/// A path without `.`; none that is absolute, goes up, or is empty.
pub(super) fn inside(path: &Path) -> Result<PathBuf, &'static str> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) if part.len() > 240 => return Err("a part is too long"),
            Component::Normal(part) => out.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("it must not contain `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("it must be relative"),
        }
    }
    if out.as_os_str().is_empty() { Err("it is empty") } else { Ok(out) }
}

/// Makes the directories of a path below `root`, never through a link.
pub(super) fn make_directories(root: &Path, relative: &Path) -> io::Result<()> {
    let mut at = root.to_path_buf();
    for part in relative.components() {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(m) if m.is_dir() => {}
            Ok(_) => {
                let text = format!("{} is no directory", at.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&at)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fails where anything is, a link too.
pub(super) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}
