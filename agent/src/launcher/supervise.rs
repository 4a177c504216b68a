//! The launcher's own life: fork, record, wait, record.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{self, ForkResult},
};
use rustix::process::{WaitOptions, wait as wait_any};

use super::{
    KILL_ALL, LaunchError, Plan, STARTED, child, memory, namespaces,
    process::{self, Process},
    record::{self, Ended, Started},
    runtime_directory, say,
};
use crate::containerizer::Program;

/// Does all of a launcher's work.
pub(super) fn supervise(plan: &Path) -> Result<(), LaunchError> {
    let directory = runtime_directory(plan);
    let plan = Plan::read(plan)?;
    leave_the_agent()?;
    let signals = block_signals()?;

    let end = record::reserve_end(&directory)?;
    let system = LaunchError::system;
    let (errors, child_errors) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(system("pipe"))?;
    let (child_go, go) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(system("pipe"))?;
    let (status, child_status) = status_pipe(&plan)?;
    namespaces::of_the_child(&plan.isolation).map_err(LaunchError::Isolation)?;
    // SAFETY: this process has one thread (see `run`), so the child may do anything.
    let pid = match unsafe { unistd::fork() }.map_err(system("fork"))? {
        ForkResult::Child => {
            drop((errors, go, status));
            let ties = child::Ties { go: child_go, errors: child_errors, status: child_status };
            child::run(&plan, ties)
        }
        ForkResult::Parent { child } => child.as_raw(),
    };
    drop((child_go, child_errors, child_status));
    drop(plan);

    if !record_start(&directory, pid)? {
        return Err(LaunchError::Cancelled);
    }
    let failure = let_go(go, errors)?;
    say(&format!("{STARTED}{pid}"));
    close_stdout()?;
    memory::give_back_later();

    let first = wait(&signals, pid)?;
    let wait_status = if failure.is_some() { None } else { told(status).or(first) };
    // Whatever becomes of the record, nothing of the container stays.
    let written = end.write(&Ended { v: record::VERSION, wait_status, failure });
    end_all(pid, &mut None)?;
    Ok(written?)
}

/// A session of its own, so that neither Ctrl-C nor a signal to the agent's process
/// group reaches it; and orphans in the container become its children.
fn leave_the_agent() -> Result<(), LaunchError> {
    match unistd::setsid() {
        // Leads a process group already: started from a shell, by hand.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(LaunchError::system("setsid")(error)),
    }
    prctl::set_child_subreaper(true).map_err(LaunchError::system("becoming a subreaper"))
}

/// Blocked signals are taken one by one with `sigwait`.
fn block_signals() -> Result<SigSet, LaunchError> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        KILL_ALL,
        memory::TIME_TO_GIVE_BACK,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR2,
    ] {
        signals.add(signal);
    }
    signals.thread_block().map_err(LaunchError::system("blocking signals"))?;
    Ok(signals)
}

/// By which an init tells the status of the program below it: its own end says little.
fn status_pipe(plan: &Plan) -> Result<(Option<OwnedFd>, Option<OwnedFd>), LaunchError> {
    if !plan.isolation.pid || plan.program == Program::Hold {
        return Ok((None, None));
    }
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(LaunchError::system("pipe"))?;
    Ok((Some(reader), Some(writer)))
}

/// What an init that has ended told; nothing if it was killed.
fn told(status: Option<OwnedFd>) -> Option<i32> {
    let mut bytes = [0; 4];
    File::from(status?).read_exact(&mut bytes).ok()?;
    Some(i32::from_ne_bytes(bytes))
}

fn record_start(directory: &Path, child: i32) -> Result<bool, LaunchError> {
    let proc = |source| LaunchError::System { doing: "reading /proc", source };
    let record = Started {
        v: record::VERSION,
        boot_id: process::boot_id().map_err(proc)?,
        launcher: Process::of(unistd::getpid().as_raw()).map_err(proc)?,
        child: Process::of(child).map_err(proc)?,
    };
    Ok(record::write_started(directory, &record)?)
}

/// Lets the child exec, and returns what it says when it cannot.
fn let_go(go: OwnedFd, errors: OwnedFd) -> Result<Option<String>, LaunchError> {
    let mut text = String::new();
    File::from(go)
        .write_all(b"!")
        // A child that failed before is not there to read it; its message tells.
        .or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) })
        .and_then(|()| File::from(errors).read_to_string(&mut text))
        .map_err(|source| LaunchError::System { doing: "letting the program start", source })?;
    Ok(if text.is_empty() { None } else { Some(text) })
}

/// The agent reads up to the end of this pipe.
fn close_stdout() -> Result<(), LaunchError> {
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .map_err(|source| LaunchError::System { doing: "opening /dev/null", source })?;
    unistd::dup2_stdout(null.as_fd()).map_err(LaunchError::system("dup2"))
}

/// Waits for the container's first process, reaping orphans meanwhile.
fn wait(signals: &SigSet, first: i32) -> Result<Option<i32>, LaunchError> {
    let mut status = None;
    loop {
        let more = reap(first, &mut status, WaitOptions::NOHANG)?;
        if status.is_some() || !more {
            return Ok(status);
        }
        match signals.wait().map_err(LaunchError::system("waiting for a signal"))? {
            KILL_ALL => {
                end_all(first, &mut status)?;
                return Ok(status);
            }
            memory::TIME_TO_GIVE_BACK => memory::give_back(),
            _ => {}
        }
    }
}

/// Kills whatever descends from this process, until nothing does. Whoever is orphaned
/// becomes a child of the launcher, so none gets away.
pub(super) fn end_all(first: i32, status: &mut Option<i32>) -> Result<(), LaunchError> {
    let me = unistd::getpid().as_raw();
    while reap(first, status, WaitOptions::NOHANG)? {
        let descendants = process::descendants(me)
            .map_err(|source| LaunchError::System { doing: "reading /proc", source })?;
        for pid in descendants {
            let _ = process::send(pid, nix::libc::SIGKILL);
        }
        if !reap_one(first, status, WaitOptions::empty())? {
            break;
        }
    }
    Ok(())
}

/// Reaps all that have ended. Whether there are more children.
pub(super) fn reap(
    first: i32,
    status: &mut Option<i32>,
    how: WaitOptions,
) -> Result<bool, LaunchError> {
    loop {
        match wait_any(how) {
            Ok(Some((pid, end))) => note(first, status, pid.as_raw_nonzero().get(), end.as_raw()),
            Ok(None) => return Ok(true),
            Err(rustix::io::Errno::CHILD) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(LaunchError::System { doing: "wait", source: e.into() }),
        }
    }
}

/// Reaps one. Whether there was one.
fn reap_one(first: i32, status: &mut Option<i32>, how: WaitOptions) -> Result<bool, LaunchError> {
    loop {
        match wait_any(how) {
            Ok(Some((pid, end))) => {
                note(first, status, pid.as_raw_nonzero().get(), end.as_raw());
                return Ok(true);
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(false),
            Err(e) => return Err(LaunchError::System { doing: "wait", source: e.into() }),
        }
    }
}

fn note(first: i32, status: &mut Option<i32>, pid: i32, end: i32) {
    if pid == first {
        *status = Some(end);
    }
}
