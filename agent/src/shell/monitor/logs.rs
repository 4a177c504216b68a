//! Bounds `stdout` and `stderr`: what is too long is copied to `stdout.1`, what was there
//! to `stdout.2`, and the file is cut to nothing. The program writes on to the same file,
//! which the launcher has opened for appending; what it writes between the copy's end and
//! the cut is lost, as with every tool that does it this way. What an engine's container
//! writes is appended by us, and comes here too.
//!
//! The sandbox is its task's, who may have put links and other files in the places of
//! ours: nothing is followed, and only plain files with one name are touched.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, statat, unlinkat};

use super::Monitor;
use crate::containerizer::BoxFuture;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(monitor: Arc<Monitor>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let max = monitor.options.log_max_bytes;
        if max == 0 {
            return;
        }
        loop {
            tokio::time::sleep(INTERVAL).await;
            let monitor = Arc::clone(&monitor);
            let looked = tokio::task::spawn_blocking(move || {
                for container in monitor.registry.running() {
                    // Copies are long, and the agent's end does not wait for all of them.
                    if monitor.stop.is_cancelled() {
                        return;
                    }
                    for name in ["stdout", "stderr"] {
                        // Most are short: no more than one call for each.
                        let path = container.sandbox.join(name);
                        let long = path.symlink_metadata().is_ok_and(|m| m.len() > max);
                        if long && let Err(error) = rotate(&container.sandbox, name, max) {
                            tracing::debug!(container = %container.id, name, %error, "log not rotated");
                        }
                    }
                }
            });
            if looked.await.is_err() {
                return;
            }
        }
    })
}

/// Puts the end of it aside, at most twice `max` bytes: more is there only when nobody
/// looked for long, and copying all might fill the disk.
fn rotate(sandbox: &Path, name: &str, max: u64) -> io::Result<()> {
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let folder = openat(CWD, sandbox, open | OFlags::DIRECTORY, Mode::empty())?;
    let mut log = File::from(openat(&folder, name, open | OFlags::RDWR, Mode::empty())?);
    let meta = log.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err(io::Error::other("it is no plain file with one name"));
    }
    let [first, second] = [1, 2].map(|n| format!("{name}.{n}"));
    let fresh = format!(".{name}.rotating");
    let _ = unlinkat(&folder, &*fresh, AtFlags::empty());
    let mode = Mode::from_raw_mode(0o600);
    let new =
        openat(&folder, &*fresh, open | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)?;
    let mut new = File::from(new);
    let copied = copy_end(&mut log, &mut new, max, &meta);
    // A full disk is a reason more to cut it.
    log.set_len(0)?;
    if let Err(error) = copied {
        let _ = unlinkat(&folder, &*fresh, AtFlags::empty());
        return Err(error);
    }
    if statat(&folder, &*first, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        renameat(&folder, &*first, &folder, &*second)?;
    }
    // Last: by this name's new file, who follows the log knows that it was cut.
    renameat(&folder, &*fresh, &folder, &*first)?;
    Ok(())
}

fn copy_end(log: &mut File, to: &mut File, max: u64, meta: &std::fs::Metadata) -> io::Result<()> {
    log.seek(SeekFrom::Start(meta.len().saturating_sub(max.saturating_mul(2))))?;
    rustix::fs::fchown(
        &*to,
        Some(rustix::fs::Uid::from_raw(meta.uid())),
        Some(rustix::fs::Gid::from_raw(meta.gid())),
    )?;
    rustix::fs::fchmod(&*to, Mode::from_raw_mode(0o644))?;
    // Also what comes meanwhile, but not endlessly.
    io::copy(&mut log.take(max.saturating_mul(3)), to)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write as _,
        os::unix::fs::symlink,
    };

    use super::*;

    #[test]
    fn two_old_files_are_kept_and_the_writer_writes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut log = OpenOptions::new().append(true).create(true).open(path("stdout")).unwrap();
        for text in ["one", "two", "three"] {
            log.write_all(text.as_bytes()).unwrap();
            rotate(folder.path(), "stdout", 4).unwrap();
        }
        log.write_all(b"now").unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!((read("stdout.2"), read("stdout.1")), ("two".into(), "three".into()));
        assert_eq!(read("stdout"), "now");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        log.write_all(b", after a long time").unwrap();
        rotate(folder.path(), "stdout", 4).unwrap();
        assert_eq!(read("stdout.1"), "ong time", "at most twice the limit");
    }

    #[test]
    fn what_is_not_a_plain_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (sandbox, secret) = (folder.path().join("sandbox"), folder.path().join("secret"));
        fs::create_dir(&sandbox).unwrap();
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, sandbox.join("stdout")).unwrap();
        fs::hard_link(&secret, sandbox.join("stderr")).unwrap();
        for name in ["stdout", "stderr"] {
            rotate(&sandbox, name, 1).unwrap_err();
        }
        fs::remove_file(sandbox.join("stdout")).unwrap();
        fs::write(sandbox.join("stdout"), "text").unwrap();
        symlink(&secret, sandbox.join("stdout.1")).unwrap();
        symlink(&secret, sandbox.join(".stdout.rotating")).unwrap();
        rotate(&sandbox, "stdout", 10).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(fs::read_to_string(sandbox.join("stdout.1")).unwrap(), "text");
    }
}
