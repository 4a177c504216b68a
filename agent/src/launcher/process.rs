//! Processes by pid and start time, and their descendants, from `/proc`.

use std::{collections::BTreeSet, fs, io};

use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Clock ticks from the machine's start to its own.
    pub start: u64,
}

impl Process {
    /// The process that has this pid now.
    ///
    /// # Errors
    /// When there is none, or `/proc` is not to be read.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = Stat::of(pid)?;
        Ok(Self { pid, start: stat.start })
    }

    /// Whether it still exists, if only as a zombie.
    ///
    /// # Errors
    /// When that cannot be found out, for want of file descriptors for one.
    pub fn exists(&self) -> io::Result<bool> {
        match Self::of(self.pid) {
            Ok(now) => Ok(now == *self),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // It ended while its file was read.
            Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// The part of `/proc/<pid>/stat` that is used here.
struct Stat {
    parent: i32,
    session: i32,
    start: u64,
}

impl Stat {
    fn of(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("stat of {pid}")))
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in brackets; it may hold anything,
        // brackets and spaces included, so fields are counted from the last one.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let start = fields.nth(15)?.parse().ok()?;
        Some(Self { parent, session, start })
    }
}

/// Every process as (pid, stat). Those that end meanwhile are left out, and those
/// that this process may not see.
fn all() -> io::Result<Vec<(i32, Stat)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        match Stat::of(pid) {
            Ok(stat) => out.push((pid, stat)),
            Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(e) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {}
                _ => return Err(e),
            },
        }
    }
    Ok(out)
}

/// The pids of all descendants of a process, parents before children.
///
/// # Errors
/// When `/proc` is not to be read.
pub fn descendants(ancestor: i32) -> io::Result<Vec<i32>> {
    let all = all()?;
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

/// The pids of a session that `leader` has founded, also when the leader has gone:
/// the kernel gives a pid to nobody else while a session bears it.
///
/// # Errors
/// When `/proc` is not to be read.
pub fn session(leader: Process) -> io::Result<BTreeSet<i32>> {
    let all = all()?;
    let taken_over = all.iter().any(|(pid, s)| *pid == leader.pid && s.start != leader.start);
    if taken_over {
        return Ok(BTreeSet::new());
    }
    Ok(all.iter().filter(|(_, s)| s.session == leader.pid).map(|(pid, _)| *pid).collect())
}

/// The leaders of sessions whose command line ends with this argument. Each is to be
/// looked at again once there is a handle to it.
///
/// # Errors
/// When `/proc` is not to be read.
pub fn leaders_with_last_argument(argument: &std::ffi::OsStr) -> io::Result<Vec<Process>> {
    let leaders = all()?.into_iter().filter(|(pid, stat)| stat.session == *pid);
    Ok(leaders
        .filter(|(pid, _)| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let line = line.strip_suffix(b"\0").unwrap_or(&line);
                line.rsplit(|byte| *byte == 0).next() == Some(argument.as_encoded_bytes())
            })
        })
        .map(|(pid, stat)| Process { pid, start: stat.start })
        .collect())
}

/// The pid of a container's program, which its launcher has started as `child`: that
/// itself, or, where that is the init of a pid namespace that stands by, the process that
/// it has started first. `None` when it has ended.
///
/// # Errors
/// When `/proc` is not to be read.
pub fn program_of(child: Process) -> io::Result<Option<i32>> {
    let program = match innermost_pid(child.pid)? {
        Some((1, true)) => descendants(child.pid)?
            .into_iter()
            .find(|pid| matches!(innermost_pid(*pid), Ok(Some((SECOND, true))))),
        Some(_) => Some(child.pid),
        None => None,
    };
    // Looked at last: until now the pid was that of the container.
    let there = child.exists()?;
    Ok(program.filter(|_| there))
}

/// The pid that comes after an init's, in its namespace.
const SECOND: i32 = 2;

/// A process's pid in its own pid namespace, and whether that is another than ours.
fn innermost_pid(pid: i32) -> io::Result<Option<(i32, bool)>> {
    let gone = |e: &io::Error| {
        e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH)
    };
    let status = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(e) if gone(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let mut pids = pids.unwrap_or_default().split_ascii_whitespace();
    let (ours, theirs) = (pids.next(), pids.next_back());
    let innermost = theirs.or(ours).and_then(|pid| pid.parse().ok());
    Ok(innermost.map(|innermost| (innermost, theirs.is_some())))
}

/// Sends a signal to all of these, also to those after one that refuses.
///
/// # Errors
/// The first that there was, as of [`send`].
pub fn send_to_all(pids: impl IntoIterator<Item = i32>, signal: i32) -> io::Result<()> {
    let mut sent = Ok(());
    for pid in pids {
        sent = sent.and(send(pid, signal));
    }
    sent
}

/// Sends a signal by number (real-time ones too) to a pid; a process that is gone
/// is no error.
///
/// # Errors
/// `EPERM`, or `EINVAL` for a number that is no signal.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    if unsafe { nix::libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        gone if gone.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// Of this start of the machine; another after each.
///
/// # Errors
/// When `/proc` is not to be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_nasty_name_is_read() {
        let line = "42 (a) R 1 (b) S 7 42 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.session, stat.start), (7, 40, 98765));
    }

    #[test]
    fn a_pid_with_another_start_is_another_process() {
        let me = Process::of(std::process::id() as i32).unwrap();
        assert!(me.exists().unwrap());
        assert!(!Process { start: me.start + 1, ..me }.exists().unwrap());
        assert!(!Process { pid: i32::MAX, ..me }.exists().unwrap());
    }

    #[test]
    fn one_that_may_not_be_signalled_does_not_shield_the_others() {
        use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
        const NOBODY: u32 = 65_534;
        let sleep = || std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut ours = sleep();
        let mut theirs = std::process::Command::new("sleep").arg("60").uid(NOBODY).spawn().unwrap();
        let pids = [ours.id() as i32, theirs.id() as i32];
        let sent = std::thread::spawn(move || {
            // SAFETY: reads no memory. The raw call changes this thread only, unlike libc's.
            let done =
                unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(done, 0, "this test needs root");
            send_to_all(pids, nix::libc::SIGTERM)
        });
        let sent = sent.join().unwrap();
        let ended = theirs.wait().unwrap();
        assert!(ours.try_wait().unwrap().is_none());
        ours.kill().unwrap();
        ours.wait().unwrap();
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(ended.signal(), Some(nix::libc::SIGTERM));
    }

    #[test]
    fn leaders_are_found_by_their_last_argument() {
        // Not a leader, since nothing made it one.
        let mut child = std::process::Command::new("sleep").arg("61.25").spawn().unwrap();
        let mut leader =
            std::process::Command::new("setsid").args(["sleep", "61.25"]).spawn().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let found = loop {
            let found = leaders_with_last_argument("61.25".as_ref()).unwrap();
            if !found.is_empty() || std::time::Instant::now() > end {
                break found;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        for one in [&mut child, &mut leader] {
            one.kill().unwrap();
            one.wait().unwrap();
        }
        assert_eq!(found.iter().map(|p| p.pid).collect::<Vec<_>>(), [leader.id() as i32]);
    }

    #[test]
    fn children_are_descendants() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = descendants(std::process::id() as i32).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&(child.id() as i32)));
    }
}
