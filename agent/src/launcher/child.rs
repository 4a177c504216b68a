//! From the fork to the exec: what the container's first process does before it is
//! the task's program.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{self, ForkResult},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Plan, init, mounts, namespaces, privileges, program};
use crate::containerizer::Program;

/// Status of a child that could not become the program. Nobody sees it: the
/// message tells.
const FAILED: i32 = 127;

/// What ties it to its launcher.
pub(super) struct Ties {
    /// A byte comes when the start is on record; its end when it never will.
    pub(super) go: OwnedFd,
    /// Takes the reason why the program does not run. Closed when it does.
    pub(super) errors: OwnedFd,
    /// Takes the program's status when an init stands above it.
    pub(super) status: Option<OwnedFd>,
}

/// Becomes the program, or says on `ties.errors` why not and ends.
pub(super) fn run(plan: &Plan, ties: Ties) -> ! {
    let Ties { go, errors, status } = ties;
    let Err(failure) = become_program(plan, go, &errors, status);
    fail(errors, failure)
}

/// Says why nothing runs, if there is anything to say, and ends.
pub(super) fn fail(errors: OwnedFd, failure: Option<String>) -> ! {
    if let Some(text) = failure {
        let _ = File::from(errors).write_all(text.as_bytes());
    }
    // SAFETY: ends this process at once; the launcher's exit handlers are not ours.
    unsafe { libc::_exit(FAILED) }
}

/// `None` as the error: the launcher has given up.
fn become_program(
    plan: &Plan,
    go: OwnedFd,
    errors: &OwnedFd,
    status: Option<OwnedFd>,
) -> Result<Infallible, Option<String>> {
    die_with_the_launcher(errors)?;
    unistd::setsid().map_err(|e| failed("a session of its own", e))?;
    let null = open_null()?;
    join(&plan.join)?;
    let isolation = &plan.isolation;
    namespaces::set_up(isolation)?;
    if let Some(mounts) = &isolation.mounts {
        mounts::set_up(mounts, isolation, plan.user.as_ref())?;
    }
    if plan.program == Program::Hold {
        wait_for(go)?;
        init::hold(&null);
    }
    if isolation.pid {
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { unistd::fork() }.map_err(|e| failed("the program's process", e))? {
            ForkResult::Parent { child } => {
                // The other ends wait for these.
                drop(go);
                close(errors);
                init::stand_by(child.as_raw(), status, &null);
            }
            ForkResult::Child => {
                unistd::setsid().map_err(|e| failed("a session of its own", e))?;
            }
        }
    }
    privileges::limit(&isolation.rlimits)?;
    privileges::become_user(plan.user.as_ref(), isolation)?;
    // Only now, so that a directory that the user may not enter is an error, and so is
    // a log that the user may not write, whatever a link makes of it.
    enter(&plan.directory)?;
    redirect(&null, &open_log(&plan.stdout)?, &open_log(&plan.stderr)?)?;
    reset_signals()?;
    if !isolation.pid {
        // Again after the change of user, which clears it. With a pid namespace the
        // init's end is the program's.
        die_with_the_launcher(errors)?;
    }
    close_on_exec();
    let program = program::Exec::new(&plan.program, &plan.environment).map_err(Some)?;
    wait_for(go)?;
    Err(Some(program.exec()))
}

/// Waits until the launcher lets it go.
fn wait_for(go: OwnedFd) -> Result<(), Option<String>> {
    match File::from(go).read(&mut [0]) {
        Ok(1) => Ok(()),
        _ => Err(None),
    }
}

/// In the process that stays behind after a fork.
pub(super) fn close(errors: &OwnedFd) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the owner of this descriptor never runs again in this process.
    unsafe { libc::close(errors.as_raw_fd()) };
}

/// Its parent's pid would not do: in a pid namespace it has none.
pub(super) fn die_with_the_launcher(errors: &OwnedFd) -> Result<(), Option<String>> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| failed("a signal for the end", e))?;
    let mut reader = [PollFd::new(errors, PollFlags::empty())];
    let now = Timespec::default();
    match poll(&mut reader, Some(&now)) {
        Ok(1..) => Err(None),
        _ => Ok(()),
    }
}

pub(super) fn open_null() -> Result<File, String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| format!("cannot open /dev/null: {e}"))
}

/// Enters cgroups.
pub(super) fn join(files: &[PathBuf]) -> Result<(), String> {
    files.iter().try_for_each(|file| {
        let joined = OpenOptions::new().write(true).open(file).and_then(|mut f| f.write_all(b"0"));
        joined.map_err(|e| format!("cannot join the cgroup of {}: {e}", file.display()))
    })
}

pub(super) fn enter(directory: &Path) -> Result<(), String> {
    unistd::chdir(directory)
        .map_err(|e| format!("cannot enter the directory {}: {}", directory.display(), e.desc()))
}

fn failed(what: &str, error: Errno) -> String {
    format!("cannot set up {what}: {}", error.desc())
}

/// With the program's own rights, and never through a link that something in the
/// sandbox may have planted.
fn open_log(path: &Path) -> Result<File, String> {
    let cannot = |e: std::io::Error| format!("cannot open {}: {e}", path.display());
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(format!("cannot open {}: it is no regular file", path.display()));
    }
    Ok(file)
}

pub(super) fn redirect(
    stdin: &impl std::os::fd::AsFd,
    stdout: &impl std::os::fd::AsFd,
    stderr: &impl std::os::fd::AsFd,
) -> Result<(), String> {
    unistd::dup2_stdin(stdin.as_fd())
        .and_then(|()| unistd::dup2_stdout(stdout.as_fd()))
        .and_then(|()| unistd::dup2_stderr(stderr.as_fd()))
        .map_err(|e| failed("its input and output", e))
}

/// A program expects every signal at its default and none blocked.
pub(super) fn reset_signals() -> Result<(), String> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. SIGKILL, SIGSTOP and libc's own refuse.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    SigSet::empty().thread_set_mask().map_err(|e| failed("its signals", e))
}

/// Whatever the agent let slip through. A kernel without the call has only what is
/// marked already.
pub(super) fn close_on_exec() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: marks file descriptors, closes none.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
}
