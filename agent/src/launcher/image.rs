//! An unpacked image as the root.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{self as rfs, CWD, OFlags, StatVfsMountFlags},
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
    process::{chdir, fchdir, pivot_root},
};

use super::mounts::{Done, failed, open, set_read_only};

/// A folder is made for each mount that the image has no place for, and nothing else.
const LAYER_BYTES: u32 = 1 << 20;

/// Makes an image the root; its own mounts, if it has any, stay behind. Containers share
/// its folder: what is made in the root goes into a layer of this container. Where the
/// kernel lays nothing over it the root cannot be written, and why not is returned.
pub(super) fn enter(image: &Path) -> Done<Option<String>> {
    let what = || format!("make {} the root", image.display());
    let folder = open(CWD, image, OFlags::PATH | OFlags::DIRECTORY).map_err(failed(what()))?;
    let why_not = match lay_over(image, &folder) {
        Ok(root) => {
            fchdir(root).map_err(failed(what()))?;
            None
        }
        Err(error) => {
            mount_bind(image, image).map_err(failed(what()))?;
            chdir(image).map_err(failed(what()))?;
            let root = open(CWD, Path::new("."), OFlags::PATH | OFlags::DIRECTORY);
            root.and_then(|root| set_read_only(root.as_fd(), 0)).map_err(failed(what()))?;
            Some(error.to_string())
        }
    };
    // The old root lies on top of the new one then.
    pivot_root(".", ".").map_err(failed(what()))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("leave the machine's root"))?;
    chdir("/").map_err(failed(what()))?;
    Ok(why_not)
}

/// Mounts the image with an empty layer above it. The layer is kept in memory, at the
/// image's own place, where in these mounts nobody looks any more.
fn lay_over(image: &Path, folder: &OwnedFd) -> io::Result<OwnedFd> {
    let is = rfs::fstat(folder)?;
    let data = format!("mode=0700,size={LAYER_BYTES}");
    let data = std::ffi::CString::new(data)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", image, "tmpfs", flags, Some(data.as_c_str()))?;
    lay(image, folder, &is).inspect_err(|_| {
        // Once: below it there may be the image as a mount of its own.
        let _ = unmount(image, UnmountFlags::DETACH);
    })
}

/// In the memory that is mounted at the image's place.
fn lay(image: &Path, folder: &OwnedFd, is: &rfs::Stat) -> io::Result<OwnedFd> {
    let memory = open(CWD, image, OFlags::PATH | OFlags::DIRECTORY)?;
    for name in ["upper", "work", "root"] {
        rfs::mkdirat(&memory, name, 0o700.into())?;
    }
    // The upper folder is what the root looks like.
    let (uid, gid) = (rfs::Uid::from_raw(is.st_uid), rfs::Gid::from_raw(is.st_gid));
    rfs::chownat(&memory, "upper", Some(uid), Some(gid), rfs::AtFlags::empty())?;
    let mode = rfs::Mode::from_raw_mode(is.st_mode);
    rfs::chmodat(&memory, "upper", mode, rfs::AtFlags::empty())?;

    // By descriptors, since a path may hold what means something else in these options.
    let at = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let data = format!("lowerdir=.,upperdir={at}/upper,workdir={at}/work");
    let data = std::ffi::CString::new(data)?;
    fchdir(folder)?;
    mount("overlay", format!("{at}/root"), "overlay", as_mounted(folder)?, Some(data.as_c_str()))?;
    open(memory.as_fd(), Path::new("root"), OFlags::PATH | OFlags::DIRECTORY)
}

/// What the image's file system is mounted with goes for the root too.
fn as_mounted(folder: &OwnedFd) -> io::Result<MountFlags> {
    let is = rfs::fstatvfs(folder)?.f_flag;
    let mut flags = MountFlags::empty();
    for (theirs, ours) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        flags.set(ours, is.contains(theirs));
    }
    Ok(flags)
}

/// Nothing can be made in the root any more.
pub(super) fn close() -> Done {
    let root = open(CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY);
    root.and_then(|root| set_read_only(root.as_fd(), 0)).map_err(failed("make the image read-only"))
}
