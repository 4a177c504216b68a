//! The first process of a pid namespace, the one that holds a pod, and the one above a
//! program that entered such a namespace: all do nothing but reap.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use nix::{
    libc,
    sys::signal::{SigSet, Signal},
    unistd,
};
use rustix::process::{WaitOptions, wait};

use super::{memory, privileges};

/// Stands by until the program ends, tells its status, and ends; with it everything
/// in its namespace does.
///
/// Signals are not passed on: the agent sends them to every process of a container.
pub(super) fn stand_by(program: i32, status: Option<OwnedFd>, null: &File) -> ! {
    detach(null, status.as_ref());
    if privileges::renounce().is_err() {
        end(1);
    }
    let Some(status) = status else { end(0) };
    memory::give_back_later();
    loop {
        if let Some(end) = reap(program) {
            let _ = File::from(status).write_all(&end.to_ne_bytes());
            break;
        }
        if let Ok(memory::TIME_TO_GIVE_BACK) = awaited().wait() {
            memory::give_back();
        }
    }
    end(0)
}

/// Tells the status of a program when it ends, and stays until nothing descends from it:
/// in a pid namespace orphans go to its init, or to the nearest subreaper in it, which
/// this process is.
pub(super) fn oversee(program: i32, status: OwnedFd, null: &File) -> ! {
    detach(null, Some(&status));
    memory::give_back();
    if privileges::renounce().is_err() {
        end(1);
    }
    let mut status = Some(File::from(status));
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, end))) if pid.as_raw_nonzero().get() == program => {
                let told = status.take();
                let _ = told.map(|mut status| status.write_all(&end.as_raw().to_ne_bytes()));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => end(0),
        }
    }
}

/// Holds what a pod's containers share, until it is told to end.
pub(super) fn hold(null: &File) -> ! {
    detach(null, None);
    memory::give_back();
    if privileges::renounce().is_err() {
        end(1);
    }
    loop {
        let _ = reap(0);
        if let Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) = awaited().wait() {
            end(0);
        }
    }
}

/// Blocked since the launcher's start.
fn awaited() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        memory::TIME_TO_GIVE_BACK,
    ] {
        signals.add(signal);
    }
    signals
}

/// Lets go of all that others wait for the end of.
fn detach(null: &File, keep: Option<&OwnedFd>) {
    for stream in [unistd::dup2_stdin, unistd::dup2_stdout, unistd::dup2_stderr] {
        let _ = stream(null.as_fd());
    }
    let keep = keep.map_or(2, |fd| fd.as_raw_fd()).unsigned_abs();
    for (first, last) in [(3, keep.saturating_sub(1)), (keep.max(2) + 1, libc::c_uint::MAX)] {
        if first <= last {
            // SAFETY: whoever owns these descriptors never runs again in this process.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// Reaps all that have ended. The status of the program, if it is among them.
fn reap(program: i32) -> Option<i32> {
    let mut status = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, end))) if pid.as_raw_nonzero().get() == program => {
                status = Some(end.as_raw());
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return status,
        }
    }
}

fn end(status: i32) -> ! {
    // SAFETY: ends this process at once; the launcher's exit handlers are not ours.
    unsafe { libc::_exit(status) }
}
