//! What is in sandboxes, against the `disk` that their tasks hold (rule 64, disk/du).

use std::{
    collections::HashSet,
    ffi::CString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use mezz_proto::resources::{Amount, Resources};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};
use tokio_util::sync::CancellationToken;

use super::{Monitor, rest, too_much};
use crate::{
    api::DiskUse,
    containerizer::{BoxFuture, Limitation, LimitationKind},
    shell::registry::Container,
};

/// Folders deeper than this are not looked into: each level takes a file descriptor.
const DEEPEST: usize = 200;

/// A byte count of `st_blocks`.
const BLOCK: u64 = 512;

pub(super) fn run(monitor: Arc<Monitor>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        loop {
            tokio::time::sleep(monitor.options.container_disk_interval).await;
            let mut total = 0;
            for container in monitor.registry.running() {
                let begun = Instant::now();
                let (sandbox, asked) = (container.sandbox.clone(), Arc::clone(&monitor));
                // Asked at each folder: members may come to a pod while it is measured.
                let measured = tokio::task::spawn_blocking(move || {
                    measure(&sandbox, &|folder| asked.index.is_sandbox(folder), &asked.stop)
                });
                match measured.await {
                    Ok(Ok(used)) => {
                        total += used;
                        judge(&monitor, &container, used);
                    }
                    // It has just ended and was collected, or the agent ends.
                    Ok(Err(Errno::NOENT | Errno::CANCELED)) | Err(_) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(container = %container.id, %error, "its disk use is unknown");
                    }
                }
                rest(begun).await;
            }
            monitor.metrics.containers.disk.set(total as f64);
        }
    })
}

fn judge(monitor: &Monitor, container: &Container, used: u64) {
    let limit = limit(&container.held());
    monitor.index.measured(&container.id, DiskUse { used, limit });
    let Some(limit) = limit.filter(|limit| used > *limit) else {
        container.too_full.store(false, Ordering::Relaxed);
        return;
    };
    if container.too_full.swap(true, Ordering::Relaxed) {
        return;
    }
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let message = format!(
        "its sandbox holds {}, more than its disk resource of {}",
        mebibytes(used),
        mebibytes(limit)
    );
    let limitation = Limitation { kind: LimitationKind::Disk, message };
    too_much(container, monitor.options.enforce_disk_quota, limitation);
}

/// Bytes that it may have in its sandbox: what it holds of `disk`, but not on volumes.
fn limit(held: &Resources) -> Option<u64> {
    let disk = held.named("disk").filter(|resource| resource.identity.disk().is_none());
    let mebibytes = disk.filter_map(|resource| match &resource.amount {
        Amount::Scalar(scalar) => Some(scalar.to_f64()),
        _ => None,
    });
    mebibytes.reduce(|a, b| a + b).map(|mebibytes| (mebibytes * f64::from(1 << 20)) as u64)
}

struct Folder {
    path: PathBuf,
    entries: Dir,
}

/// Bytes on the disk of all that is below `sandbox`, without sandboxes of others, other file systems, and what links point to. Files with several names count once.
fn measure(
    sandbox: &Path,
    is_other: &dyn Fn(&Path) -> bool,
    stop: &CancellationToken,
) -> Result<u64, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: &dyn AsFd, name: &std::ffi::CStr| -> Result<(OwnedFd, Dir), Errno> {
        let folder = openat(at.as_fd(), name, flags, Mode::empty())?;
        let entries = Dir::read_from(&folder)?;
        Ok((folder, entries))
    };
    let name = CString::new(sandbox.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let (root, entries) = open(&CWD, &name)?;
    let device = rustix::fs::fstat(&root)?.st_dev;
    let (mut used, mut seen) = (0, HashSet::new());
    let mut stack = vec![Folder { path: sandbox.to_owned(), entries }];
    while let Some(folder) = stack.last_mut() {
        // The agent's end does not wait for a sandbox of millions of files.
        if stop.is_cancelled() {
            return Err(Errno::CANCELED);
        }
        let Some(entry) = folder.entries.next() else {
            stack.pop();
            continue;
        };
        // What goes away meanwhile is not there.
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let at = folder.entries.fd()?;
        let Ok(stat) = statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if stat.st_dev != device {
            continue;
        }
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_folder && stat.st_nlink > 1 && !seen.insert(stat.st_ino) {
            continue;
        }
        let path =
            is_folder.then(|| folder.path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
        if path.as_deref().is_some_and(is_other) {
            continue;
        }
        used += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
        if let Some(path) = path
            && let Ok((_, entries)) = open(&at, name)
            && stack.len() < DEEPEST
        {
            stack.push(Folder { path, entries });
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_is_in_a_folder_is_counted_once_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = folder.path().join("sandbox");
        fs::create_dir_all(sandbox.join("a/b")).unwrap();
        fs::create_dir_all(sandbox.join("tasks/t")).unwrap();
        let large = vec![1; 1 << 20];
        fs::write(folder.path().join("outside"), &large).unwrap();
        fs::write(sandbox.join("tasks/t/other"), &large).unwrap();
        fs::write(sandbox.join("a/b/file"), &large).unwrap();
        fs::hard_link(sandbox.join("a/b/file"), sandbox.join("again")).unwrap();
        symlink(folder.path(), sandbox.join("up")).unwrap();
        symlink(folder.path().join("outside"), sandbox.join("out")).unwrap();
        let other = sandbox.join("tasks/t");
        let others = |folder: &Path| folder == other;
        let stop = CancellationToken::new();
        let used = measure(&sandbox, &others, &stop).unwrap();
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&used), "{used}");
        assert!(measure(&sandbox, &|_| false, &stop).unwrap() >= 2 << 20);
        assert_eq!(measure(&folder.path().join("gone"), &others, &stop), Err(Errno::NOENT));
        stop.cancel();
        assert_eq!(measure(&sandbox, &others, &stop), Err(Errno::CANCELED));
    }

    #[test]
    fn a_limit_needs_a_disk_resource() {
        let held = |text: &str| limit(&Resources::parse(text).unwrap());
        assert_eq!(held("cpus:1;disk:2"), Some(2 << 20));
        assert_eq!(held("cpus:1"), None);
    }
}
