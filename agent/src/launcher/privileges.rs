//! What a program may do: its user, capabilities and limits.

use std::io;

use nix::{
    libc,
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd,
};

use super::{
    Credentials,
    isolation::{Isolation, Rlimit},
};

/// No kernel has more.
const CAPABILITIES: u32 = 64;

/// Root is a user like others: it gets no capabilities by being root
/// (`SECBIT_NOROOT`).
const NO_ROOT: libc::c_ulong = 1;

/// Limits its processes.
pub(super) fn limit(rlimits: &[Rlimit]) -> Result<(), String> {
    // A crash must not fill the disk; the program may raise it again.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
    for limit in rlimits {
        let value = libc::rlimit64 {
            rlim_cur: limit.soft.unwrap_or(libc::RLIM64_INFINITY),
            rlim_max: limit.hard.unwrap_or(libc::RLIM64_INFINITY),
        };
        let none = std::ptr::null_mut();
        // SAFETY: reads one limit; the old one is not wanted.
        if unsafe { libc::prlimit64(0, limit.resource as _, &value, none) } != 0 {
            let error = io::Error::last_os_error();
            return Err(format!("cannot set the limit {}: {error}", limit.resource));
        }
    }
    Ok(())
}

/// Becomes the user, with the capabilities that the plan says and no others.
pub(super) fn become_user(user: Option<&Credentials>, isolation: &Isolation) -> Result<(), String> {
    let (bounding, effective) = (isolation.bounding, isolation.effective);
    if let Some(bounding) = bounding {
        bound(bounding)?;
    }
    if effective.is_some() {
        prctl(libc::PR_SET_SECUREBITS, NO_ROOT, 0, "make root a user like others")?;
        prctl(libc::PR_SET_KEEPCAPS, 1, 0, "keep capabilities")?;
    }
    if let Some(user) = user {
        change_user(user)?;
    }
    if let Some(effective) = effective {
        // What is dropped goes from all sets at once; what stays is inherited.
        set_capabilities(effective)?;
        let ambient = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        for capability in bits(effective) {
            prctl(libc::PR_CAP_AMBIENT, ambient, capability, "pass on a capability")?;
        }
    }
    // Who can choose what stands in /etc must not become root by a program that asks there.
    let plain = user.is_some_and(|user| user.uid != 0);
    if isolation.no_new_privileges || (plain && isolation.mounts.is_some()) {
        prctl::set_no_new_privs()
            .map_err(|e| format!("cannot give up new privileges: {}", e.desc()))?;
    }
    Ok(())
}

/// For a process of ours that tasks can see: whoever gets hold of it gains nothing.
pub(super) fn renounce() -> Result<(), String> {
    if unistd::geteuid().is_root() {
        bound(0)?;
        set_capabilities(0)?;
    }
    prctl::set_no_new_privs()
        .and_then(|()| prctl::set_dumpable(false))
        .map_err(|e| format!("cannot give up privileges: {}", e.desc()))
}

fn bits(mask: u64) -> impl Iterator<Item = libc::c_ulong> {
    (0..CAPABILITIES).filter(move |bit| mask & (1 << bit) != 0).map(libc::c_ulong::from)
}

/// Gives up all capabilities but these, for good.
fn bound(bounding: u64) -> Result<(), String> {
    for capability in bits(!bounding) {
        // SAFETY: no memory is involved.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if known < 0 {
            // Later than the last that this kernel knows.
            break;
        }
        if known > 0 {
            prctl(libc::PR_CAPBSET_DROP, capability, 0, "drop a capability")?;
        }
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits.
const VERSION: u32 = 0x2008_0522;

fn set_capabilities(mask: u64) -> Result<(), String> {
    let header = Header { version: VERSION, pid: 0 };
    let word = |bits: u64| {
        let bits = (bits & u64::from(u32::MAX)) as u32;
        Sets { effective: bits, permitted: bits, inheritable: bits }
    };
    let sets = [word(mask), word(mask >> 32)];
    // SAFETY: reads a header and two sets, which is what this version says.
    if unsafe { libc::syscall(libc::SYS_capset, &header, sets.as_ptr()) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!("cannot take the capabilities {mask:#x}, which the agent must have: {error}"))
}

fn prctl(
    option: libc::c_int,
    a: libc::c_ulong,
    b: libc::c_ulong,
    what: &str,
) -> Result<(), String> {
    // SAFETY: none of the options used here takes a pointer.
    if unsafe { libc::prctl(option, a, b, 0, 0) } == 0 {
        return Ok(());
    }
    Err(format!("cannot {what}: {}", io::Error::last_os_error()))
}

fn change_user(user: &Credentials) -> Result<(), String> {
    let groups: Vec<_> = user.groups.iter().map(|g| unistd::Gid::from_raw(*g)).collect();
    let (uid, gid) = (unistd::Uid::from_raw(user.uid), unistd::Gid::from_raw(user.gid));
    unistd::setgroups(&groups)
        .and_then(|()| unistd::setresgid(gid, gid, gid))
        .and_then(|()| unistd::setresuid(uid, uid, uid))
        .map_err(|e| format!("cannot run as the user with uid {uid}: {}", e.desc()))
}
