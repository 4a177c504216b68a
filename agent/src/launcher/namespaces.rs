//! Namespaces: new ones, and those of another container.

use std::{fs::File, io, os::fd::AsRawFd as _};

use nix::{
    libc,
    sched::{CloneFlags, setns, unshare},
    unistd,
};

use super::{isolation::Isolation, process::Process};

/// Namespaces by which the kernel's `/proc/<pid>/ns` knows them, in the order in which
/// they are entered: after the mounts no path means what it did.
const KINDS: [(CloneFlags, &str); 5] = [
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWPID, "pid"),
    (CloneFlags::CLONE_NEWNS, "mnt"),
];

/// Open namespaces of a process.
pub(super) struct Opened(Vec<(CloneFlags, &'static str, File)>);

impl Opened {
    /// Those of a process that is what it was recorded to be, where they are other
    /// than this process' own.
    pub(super) fn of(process: Process, wanted: CloneFlags) -> Result<Self, String> {
        let mut opened = Vec::new();
        for (flag, name) in KINDS {
            if !wanted.contains(flag) {
                continue;
            }
            let theirs = format!("/proc/{}/ns/{name}", process.pid);
            let failed = |e: io::Error| format!("cannot enter the namespace {theirs}: {e}");
            let file = File::open(&theirs).map_err(failed)?;
            if same(&file, &format!("/proc/self/ns/{name}")).map_err(failed)? {
                continue;
            }
            opened.push((flag, name, file));
        }
        // Looked at last: until now the pid was that of the recorded process.
        match process.exists() {
            Ok(true) => Ok(Self(opened)),
            Ok(false) => Err("the container whose namespaces are wanted has ended".to_owned()),
            Err(e) => Err(format!("reading /proc: {e}")),
        }
    }

    /// Enters that of pids, for the next child. Returns the others, and whether there
    /// was one.
    pub(super) fn enter_pid(self) -> Result<(Self, bool), String> {
        let is_pid = |(flag, ..): &(CloneFlags, _, _)| *flag == CloneFlags::CLONE_NEWPID;
        let (pid, others): (Vec<_>, Vec<_>) = self.0.into_iter().partition(is_pid);
        let entered = !pid.is_empty();
        Self(pid).enter()?;
        Ok((Self(others), entered))
    }

    /// Enters them. A pid namespace is entered by the next child only.
    pub(super) fn enter(self) -> Result<(), String> {
        self.0.into_iter().try_for_each(|(flag, name, file)| {
            setns(&file, flag).map_err(|e| format!("cannot enter a {name} namespace: {}", e.desc()))
        })
    }
}

fn same(file: &File, path: &str) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (a, b) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// In the launcher: the namespace of its only child's pids. Its own stays.
pub(super) fn of_the_child(isolation: &Isolation) -> Result<(), String> {
    if isolation.pid {
        return unshare(CloneFlags::CLONE_NEWPID)
            .map_err(|e| format!("cannot make a pid namespace: {}", e.desc()));
    }
    match &isolation.join {
        Some(join) if join.pid => Opened::of(join.process, CloneFlags::CLONE_NEWPID)?.enter(),
        _ => Ok(()),
    }
}

/// In the child: all others but that of mounts.
pub(super) fn set_up(isolation: &Isolation) -> Result<(), String> {
    if let Some(join) = &isolation.join {
        let wanted = flags(join.ipc, join.uts, join.network);
        if !wanted.is_empty() {
            Opened::of(join.process, wanted)?.enter()?;
        }
    }
    let own = flags(isolation.ipc, isolation.uts, isolation.network);
    if !own.is_empty() {
        unshare(own).map_err(|e| format!("cannot make namespaces: {}", e.desc()))?;
    }
    if isolation.network {
        raise_loopback().map_err(|e| format!("cannot raise the loopback device: {e}"))?;
    }
    match &isolation.hostname {
        Some(name) => unistd::sethostname(name)
            .map_err(|e| format!("cannot set the hostname `{name}`: {}", e.desc())),
        None => Ok(()),
    }
}

fn flags(ipc: bool, uts: bool, network: bool) -> CloneFlags {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWIPC, ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, uts);
    flags.set(CloneFlags::CLONE_NEWNET, network);
    flags
}

fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes is a valid request; its name stays ended by a zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let ioctl = |number, request: &mut libc::ifreq| {
        // SAFETY: both requests read and write an `ifreq` and keep no pointer to it.
        match unsafe { libc::ioctl(socket.as_raw_fd(), number, request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    ioctl(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the call above filled in the flags.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    ioctl(libc::SIOCSIFFLAGS, &mut request)
}
