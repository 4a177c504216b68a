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

use super::{BUDGET, Budget, Monitor, rest, too_much};
use crate::{
    api::DiskUse,
    containerizer::{BoxFuture, Limitation, LimitationKind},
    shell::registry::Container,
};

/// Folders deeper than this are not looked into: each level takes a file descriptor.
const DEEPEST: usize = 200;

/// A byte count of `st_blocks`.
const BLOCK: u64 = 512;

/// Files with several names that are remembered, so that each counts once; of what comes
/// then each name counts as its share of the file.
const REMEMBERED: usize = 100_000;

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
                    measure(&sandbox, &|folder| asked.index.is_sandbox(folder), BUDGET, &asked.stop)
                });
                match measured.await {
                    Ok(Ok(measured)) => {
                        total += measured.used;
                        judge(&monitor, &container, measured);
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

/// One that holds too much to be measured is judged by what was: it holds at least that.
fn judge(monitor: &Monitor, container: &Container, Measured { used, all }: Measured) {
    let limit = limit(&container.held());
    if !all && !container.too_much_kept.swap(true, Ordering::Relaxed) {
        let (entries, time) = (BUDGET.entries, BUDGET.time);
        tracing::warn!(
            container = %container.id, used,
            "its sandbox holds more than can be measured ({entries} files, {time:?}, folders \
             {DEEPEST} deep): its disk use is what was seen of it by then, and more in truth"
        );
    }
    monitor.index.measured(&container.id, DiskUse { used, limit });
    let Some(limit) = limit.filter(|limit| used > *limit) else {
        container.too_full.store(false, Ordering::Relaxed);
        return;
    };
    if container.too_full.swap(true, Ordering::Relaxed) {
        return;
    }
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let least = if all { "" } else { "at least " };
    let message = format!(
        "its sandbox holds {least}{}, more than its disk resource of {}",
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

/// What a sandbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    /// Bytes on the disk.
    used: u64,
    /// Whether there is nothing else.
    all: bool,
}

/// What is below `sandbox`, without sandboxes of others, other file systems, and what
/// links point to. Files with several names count once. What is beyond the budget or too
/// deep is left out.
fn measure(
    sandbox: &Path,
    is_other: &dyn Fn(&Path) -> bool,
    budget: Budget,
    stop: &CancellationToken,
) -> Result<Measured, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: &dyn AsFd, name: &std::ffi::CStr| -> Result<(OwnedFd, Dir), Errno> {
        let folder = openat(at.as_fd(), name, flags, Mode::empty())?;
        let entries = Dir::read_from(&folder)?;
        Ok((folder, entries))
    };
    let name = CString::new(sandbox.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let (root, entries) = open(&CWD, &name)?;
    let device = rustix::fs::fstat(&root)?.st_dev;
    let (mut used, mut all, mut seen) = (0, true, HashSet::new());
    let mut allowance = budget.begin();
    let mut stack = vec![Folder { path: sandbox.to_owned(), entries }];
    loop {
        let depth = stack.len();
        let Some(folder) = stack.last_mut() else { break };
        // The agent's end does not wait for a sandbox of millions of files.
        if stop.is_cancelled() {
            return Err(Errno::CANCELED);
        }
        let Some(entry) = folder.entries.next() else {
            stack.pop();
            continue;
        };
        if !allowance.take() {
            all = false;
            break;
        }
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
        #[allow(clippy::useless_conversion, reason = "it is narrower on other machines")]
        let names = if is_folder { 1 } else { u64::from(stat.st_nlink).max(1) };
        let remembered = names > 1 && seen.len() < REMEMBERED;
        if names > 1 && seen.contains(&stat.st_ino) || remembered && !seen.insert(stat.st_ino) {
            continue;
        }
        let path =
            is_folder.then(|| folder.path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
        if path.as_deref().is_some_and(is_other) {
            continue;
        }
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
        used += if remembered { bytes } else { bytes / names };
        let Some(path) = path else { continue };
        if depth >= DEEPEST {
            all = false;
        } else if let Ok((_, entries)) = open(&at, name) {
            stack.push(Folder { path, entries });
        }
    }
    Ok(Measured { used, all })
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
        let measured = |of: &Path| measure(of, &others, BUDGET, &stop);
        let Measured { used, all } = measured(&sandbox).unwrap();
        assert!(all && (1 << 20..(1 << 20) + (64 << 10)).contains(&used), "{used}");
        assert!(measure(&sandbox, &|_| false, BUDGET, &stop).unwrap().used >= 2 << 20);
        assert_eq!(measured(&folder.path().join("gone")), Err(Errno::NOENT));
        stop.cancel();
        assert_eq!(measured(&sandbox), Err(Errno::CANCELED));
    }

    #[test]
    fn however_much_there_is_only_so_much_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..2000 {
            fs::write(folder.path().join(n.to_string()), [1]).unwrap();
        }
        let stop = CancellationToken::new();
        let measured = |budget| measure(folder.path(), &|_| false, budget, &stop).unwrap();
        let whole = measured(BUDGET);
        assert!(whole.all && whole.used >= 2000 * BLOCK);
        let part = measured(Budget { entries: 1000, ..BUDGET });
        // Of the entries two may be the folder itself and what it is in.
        assert!(!part.all && part.used >= 998 * BLOCK && part.used < whole.used, "{part:?}");
        let begun = measured(Budget { time: std::time::Duration::ZERO, ..BUDGET });
        assert!(!begun.all && begun.used < part.used, "{begun:?}");
    }

    #[test]
    fn a_limit_needs_a_disk_resource() {
        let held = |text: &str| limit(&Resources::parse(text).unwrap());
        assert_eq!(held("cpus:1;disk:2"), Some(2 << 20));
        assert_eq!(held("cpus:1"), None);
    }
}
