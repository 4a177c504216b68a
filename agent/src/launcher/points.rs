//! Where something is mounted. What is missing is made, but only where that changes
//! nothing of anybody else's: in the sandbox, in `/tmp` when that is its own, and in the
//! layer above an image; never in a volume.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{self as rfs, CWD, OFlags, ResolveFlags},
    io::Errno,
};

use super::{
    Credentials,
    mounts::{Done, TMP_FOLDER, failed, open},
};

/// The points of one container.
pub(super) struct Points<'a> {
    /// The sandbox, as the container sees it, once it is where it belongs.
    pub(super) sandbox: Option<&'a Path>,
    /// Whether `/tmp` is its own.
    pub(super) own_tmp: bool,
    /// Whether an image is the root.
    pub(super) image: bool,
    /// Why nothing can be made in an image.
    pub(super) why_not: Option<String>,
    /// Who gets what is made in the sandbox.
    pub(super) user: Option<&'a Credentials>,
}

impl Points<'_> {
    /// The point at a path: relative to the sandbox unless absolute.
    pub(super) fn of(&self, path: &Path, folder: bool) -> Done<OwnedFd> {
        let own = [self.sandbox, self.own_tmp.then_some(Path::new(TMP_FOLDER))];
        for base in own.into_iter().flatten() {
            // These may hold links that somebody planted.
            match path.strip_prefix(base) {
                Ok(rest) if rest.components().next().is_some() => {
                    return beneath(base, rest, folder, self.user);
                }
                _ => {}
            }
        }
        if let Some(sandbox) = self.sandbox.filter(|_| path.is_relative()) {
            return beneath(sandbox, path, folder, self.user);
        }
        if !self.image {
            return open(CWD, path, OFlags::PATH)
                .map_err(failed(format!("mount something at {}", path.display())));
        }
        // The folder of devices is mounted, and its own.
        let base = if path != "/dev" && path.starts_with("/dev") { "/dev" } else { "/" };
        let rest = path.strip_prefix(base).unwrap_or(path);
        let made = find(Path::new(base), rest, folder, None, ResolveFlags::IN_ROOT);
        made.map_err(|error| match &self.why_not {
            Some(why) if error.raw_os_error() == Some(nix::libc::EROFS) => format!(
                "the image has no {}, where something is to be mounted, and a layer cannot be laid \
                 over it ({why}); make it in the image",
                path.display()
            ),
            _ => format!("cannot mount something at {}: {error}", path.display()),
        })
    }
}

/// Opens a path in a folder of somebody else, out of which it cannot lead. What is
/// missing is made, for the user.
pub(crate) fn beneath(
    base: &Path,
    path: &Path,
    folder: bool,
    user: Option<&Credentials>,
) -> Done<OwnedFd> {
    find(base, path, folder, user, ResolveFlags::BENEATH).map_err(failed(format!(
        "open {} in {}",
        path.display(),
        base.display()
    )))
}

fn find(
    base: &Path,
    path: &Path,
    folder: bool,
    user: Option<&Credentials>,
    how: ResolveFlags,
) -> io::Result<OwnedFd> {
    let base = open(CWD, base, OFlags::PATH | OFlags::DIRECTORY)?;
    let how = how | ResolveFlags::NO_MAGICLINKS;
    let look = |path: &Path, how| {
        rfs::openat2(&base, path, OFlags::PATH | OFlags::CLOEXEC, rfs::Mode::empty(), how)
    };
    let mut so_far = PathBuf::from(".");
    let mut found = look(&so_far, how)?;
    let names: Vec<_> = path.components().filter(|c| !matches!(c, Component::CurDir)).collect();
    for (n, name) in names.iter().enumerate() {
        let parent = so_far.clone();
        so_far.push(name);
        found = match look(&so_far, how) {
            Err(Errno::NOENT) => {
                // What is mounted in between is not ours to change.
                let parent = look(&parent, how | ResolveFlags::NO_XDEV).map_err(|e| match e {
                    Errno::XDEV => io::Error::other("it is in a volume, in which nothing is made"),
                    e => e.into(),
                })?;
                match create(&parent, Path::new(name), folder || n + 1 < names.len(), user) {
                    // Another member of the pod was faster.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    created => created?,
                }
                look(&so_far, how)?
            }
            found => found?,
        };
    }
    Ok(found)
}

fn create(
    parent: &OwnedFd,
    name: &Path,
    folder: bool,
    user: Option<&Credentials>,
) -> io::Result<()> {
    if folder {
        rfs::mkdirat(parent, name, 0o755.into())?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rfs::openat(parent, name, flags, 0o644.into())?;
    }
    let Some(user) = user else { return Ok(()) };
    let (uid, gid) = (rfs::Uid::from_raw(user.uid), rfs::Gid::from_raw(user.gid));
    Ok(rfs::chownat(parent, name, Some(uid), Some(gid), rfs::AtFlags::SYMLINK_NOFOLLOW)?)
}
