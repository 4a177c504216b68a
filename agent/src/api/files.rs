//! Reading files of a sandbox, and of nothing else.
//!
//! A task writes its sandbox as it likes: a link to `/etc/shadow`, a pipe that
//! nobody feeds, a folder in place of a file. The kernel itself is told not to
//! leave the folder, so that no race lets a path escape.

use std::{
    ffi::OsStr,
    fs::File,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use mezz_proto::mezz::v1::FileEntry;
use rustix::{
    fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};
use thiserror::Error;

/// Largest part of a file that is held in memory, in bytes.
pub(crate) const CHUNK: usize = 64 << 10;

/// Entries that one listing shows at most.
const MAX_ENTRIES: usize = 10_000;

/// Why a file of a sandbox is not shown.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    /// The path is not one below the sandbox.
    #[error("path `{0}` is not below the sandbox; it must be relative, without `..`")]
    Outside(String),
    /// There is nothing.
    #[error("there is no `{0}` in the sandbox")]
    Missing(String),
    /// It is a folder, a pipe or the like.
    #[error("`{0}` is no regular file")]
    NotAFile(String),
    /// It is no folder.
    #[error("`{0}` is no folder")]
    NotAFolder(String),
    /// The system refuses.
    #[error("`{path}` cannot be read: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Opens what `path` names below `sandbox`.
fn open(sandbox: &Path, path: &str, flags: OFlags) -> Result<OwnedFd, FileError> {
    let outside = || FileError::Outside(path.to_owned());
    let mut relative = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(outside());
            }
        }
    }
    if relative.as_os_str().is_empty() {
        relative.push(".");
    }
    let failed = |error: Errno| match error {
        Errno::NOENT | Errno::NOTDIR => FileError::Missing(path.to_owned()),
        Errno::XDEV | Errno::LOOP => outside(),
        error => FileError::Io { path: path.to_owned(), source: error.into() },
    };
    // A pipe without a writer must not hold the thread.
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let folder = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let root = openat(CWD, sandbox, folder, Mode::empty()).map_err(failed)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, &relative, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => {
            open_step_by_step(root, &relative, flags).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

/// For kernels without `openat2`: follows no links at all.
fn open_step_by_step(root: OwnedFd, path: &Path, last: OFlags) -> Result<OwnedFd, Errno> {
    let names: Vec<&OsStr> = path.iter().collect();
    let mut at = root;
    for (n, name) in names.iter().enumerate() {
        let folder = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let flags = if n + 1 == names.len() { last } else { folder };
        at = openat(&at, *name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(at)
}

/// A regular file of the sandbox.
pub(crate) fn open_file(sandbox: &Path, path: &str) -> Result<File, FileError> {
    let file = File::from(open(sandbox, path, OFlags::empty())?);
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if regular { Ok(file) } else { Err(FileError::NotAFile(path.to_owned())) }
}

/// A file or folder, as a listing shows it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// From the sandbox on.
    pub(crate) path: String,
    pub(crate) size: u64,
    /// As the kernel has it, with the file's kind.
    pub(crate) mode: u32,
    /// Seconds since the epoch.
    pub(crate) mtime: i64,
    pub(crate) nlink: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Listed {
    pub(crate) fn is_folder(&self) -> bool {
        rustix::fs::FileType::from_raw_mode(self.mode) == rustix::fs::FileType::Directory
    }
}

/// What a folder of the sandbox holds, sorted by path.
pub(crate) fn list(sandbox: &Path, path: &str) -> Result<Vec<FileEntry>, FileError> {
    let entry = |listed: Listed| FileEntry {
        directory: listed.is_folder(),
        path: listed.path,
        size: listed.size,
        modified_time: listed.mtime as f64,
    };
    Ok(list_whole(sandbox, path)?.into_iter().map(entry).collect())
}

/// As [`list`], with all that is known of each.
pub(crate) fn list_whole(sandbox: &Path, path: &str) -> Result<Vec<Listed>, FileError> {
    let folder = open(sandbox, path, OFlags::empty())?;
    let io = |error: Errno| match error {
        Errno::NOTDIR => FileError::NotAFolder(path.to_owned()),
        error => FileError::Io { path: path.to_owned(), source: error.into() },
    };
    let mut entries = Vec::new();
    for entry in Dir::read_from(&folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        // It may be gone again.
        let Ok(stat) = rustix::fs::statat(&folder, name, flags) else { continue };
        entries.push(Listed {
            path: Path::new(path).join(&*name.to_string_lossy()).to_string_lossy().into_owned(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            mtime: stat.st_mtime,
            nlink: stat.st_nlink,
            uid: stat.st_uid,
            gid: stat.st_gid,
        });
        if entries.len() == MAX_ENTRIES {
            break;
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// A file that is read from one offset on, part by part.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    path: String,
    /// Of the next byte.
    pub(crate) offset: u64,
    rotations: Option<Rotations>,
}

/// A log that is too long is put aside as `path.1` and cut to nothing, in this order.
#[derive(Debug)]
struct Rotations {
    sandbox: PathBuf,
    old: String,
    /// The file that was put aside last.
    last: Option<FileId>,
    /// One that is yet to be read to its end.
    unread: Option<File>,
}

/// Device, inode and the time of its last change.
type FileId = (u64, u64, i64, i64);

fn id_of(file: &File) -> Option<FileId> {
    let meta = file.metadata().ok()?;
    Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

impl Reader {
    /// `offset` below zero counts from the end.
    pub(crate) fn open(sandbox: &Path, path: &str, offset: i64) -> Result<Self, FileError> {
        let file = open_file(sandbox, path)?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let offset = match u64::try_from(offset) {
            Ok(offset) => offset,
            Err(_) => size.saturating_sub(offset.unsigned_abs()),
        };
        Ok(Self { file, path: path.to_owned(), offset, rotations: None })
    }

    /// How long the file is now, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// From what comes next on.
    pub(crate) fn open_at_end(sandbox: &Path, path: &str) -> Result<Self, FileError> {
        let mut reader = Self::open(sandbox, path, 0)?;
        reader.offset = reader.file.metadata().map_or(0, |metadata| metadata.len());
        Ok(reader)
    }

    /// Reads on where the file starts anew when it is put aside, without losing the
    /// end of what was put aside. The offset starts anew too.
    pub(crate) fn over_rotations(mut self, sandbox: &Path) -> Self {
        let old = format!("{}.1", self.path);
        let aside = open_file(sandbox, &old).ok();
        let last = aside.as_ref().and_then(id_of);
        // Who comes back to where the file no longer is: it was put aside meanwhile.
        let unread = aside.filter(|_| self.file.metadata().is_ok_and(|m| m.len() < self.offset));
        self.rotations = Some(Rotations { sandbox: sandbox.to_owned(), old, last, unread });
        self
    }

    /// The next part; empty at the file's end.
    pub(crate) fn next(&mut self, most: u64) -> Result<Vec<u8>, FileError> {
        if let Some(rotations) = &mut self.rotations {
            if rotations.unread.is_none()
                && let Ok(aside) = open_file(&rotations.sandbox, &rotations.old)
                && let id = id_of(&aside)
                && id != rotations.last
            {
                rotations.last = id;
                rotations.unread = Some(aside);
            }
            if let Some(aside) = &rotations.unread {
                let part = read_part(aside, &self.path, self.offset, most)?;
                if !part.is_empty() {
                    self.offset += part.len() as u64;
                    return Ok(part);
                }
                rotations.unread = None;
                self.offset = 0;
            }
        }
        let part = read_part(&self.file, &self.path, self.offset, most)?;
        self.offset += part.len() as u64;
        Ok(part)
    }
}

fn read_part(file: &File, path: &str, offset: u64, most: u64) -> Result<Vec<u8>, FileError> {
    let most = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
    let mut part = vec![0; most];
    let read = file
        .read_at(&mut part, offset)
        .map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    part.truncate(read);
    Ok(part)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn sandbox() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("sandbox");
        fs::create_dir_all(inside.join("sub")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::write(inside.join("stdout"), "0123456789").unwrap();
        fs::write(inside.join("sub/x"), "x").unwrap();
        symlink("../secret", inside.join("out")).unwrap();
        symlink("/etc/passwd", inside.join("absolute")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        folder
    }

    fn read(folder: &tempfile::TempDir, path: &str) -> Result<Vec<u8>, FileError> {
        Reader::open(&folder.path().join("sandbox"), path, 0)?.next(100)
    }

    #[test]
    fn reads_below_the_sandbox() {
        let folder = sandbox();
        assert_eq!(read(&folder, "stdout").unwrap(), b"0123456789");
        assert_eq!(read(&folder, "./sub/x").unwrap(), b"x");
        let mut tail = Reader::open(&folder.path().join("sandbox"), "stdout", -3).unwrap();
        assert_eq!(tail.next(2).unwrap(), b"78");
        assert_eq!(tail.next(100).unwrap(), b"9");
        assert_eq!(tail.next(100).unwrap(), b"");
    }

    #[test]
    fn a_follower_reads_over_rotations() {
        let folder = sandbox();
        let root = folder.path().join("sandbox");
        let follow = |offset| Reader::open(&root, "stdout", offset).unwrap().over_rotations(&root);
        let rotate = |more: &str, fresh: &str| {
            let text = fs::read_to_string(root.join("stdout")).unwrap();
            fs::write(root.join("aside"), text + more).unwrap();
            fs::write(root.join("stdout"), fresh).unwrap();
            fs::rename(root.join("aside"), root.join("stdout.1")).unwrap();
        };
        let mut reader = follow(8);
        assert_eq!(reader.next(100).unwrap(), b"89");
        rotate("ab", "c");
        assert_eq!(reader.next(1).unwrap(), b"a");
        assert_eq!(reader.next(100).unwrap(), b"b");
        assert_eq!((reader.next(100).unwrap(), reader.offset), (b"c".to_vec(), 1));
        // Longer than before already.
        rotate("d", "efgh");
        assert_eq!(reader.next(100).unwrap(), b"d");
        assert_eq!(reader.next(100).unwrap(), b"efgh");
        assert_eq!(reader.next(100).unwrap(), b"");
        // One that comes back, with a byte unread.
        rotate("ijkl", "m");
        let mut reader = follow(7);
        assert_eq!(reader.next(100).unwrap(), b"l");
        assert_eq!(reader.next(100).unwrap(), b"m");
    }

    #[test]
    fn no_path_leaves_the_sandbox() {
        let folder = sandbox();
        for path in ["../secret", "/etc/passwd", "sub/../../secret", "out", "absolute", "up/secret"]
        {
            let error = read(&folder, path).unwrap_err();
            assert!(matches!(error, FileError::Outside(_)), "{path}: {error}");
        }
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let folder = sandbox();
        let root = || openat(CWD, folder.path().join("sandbox"), OFlags::RDONLY, Mode::empty());
        let open = |path: &str| open_step_by_step(root().unwrap(), Path::new(path), OFlags::RDONLY);
        assert!(open("sub/x").is_ok());
        for path in ["out", "absolute", "up/secret"] {
            assert!(open(path).is_err(), "{path}");
        }
    }

    #[test]
    fn shows_regular_files_only() {
        let folder = sandbox();
        assert!(matches!(read(&folder, "sub"), Err(FileError::NotAFile(_))));
        assert!(matches!(read(&folder, "nothing"), Err(FileError::Missing(_))));
        let pipe = folder.path().join("sandbox/pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&folder, "pipe"), Err(FileError::NotAFile(_))));
    }

    #[test]
    fn lists_a_folder() {
        let folder = sandbox();
        let root = folder.path().join("sandbox");
        let names: Vec<String> =
            list(&root, "").unwrap().into_iter().map(|entry| entry.path).collect();
        assert_eq!(names, ["absolute", "out", "stdout", "sub", "up"]);
        assert_eq!(list(&root, "sub").unwrap()[0].path, "sub/x");
        assert!(matches!(list(&root, "stdout"), Err(FileError::NotAFolder(_))));
        assert!(matches!(list(&root, "up"), Err(FileError::Outside(_))));
    }
}
