//! Running one more program in a container: `exec` in place of a plan's path.
//!
//! The agent starts it with a socket as its input, by which it sends the program's
//! input and output and a [`Request`], and hears [`Answer`]s. When the socket ends, so
//! does the program, with all that descends from it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IoSliceMut, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use nix::{
    fcntl::OFlag,
    libc,
    sched::CloneFlags,
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{self, ForkResult},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::WaitOptions,
};
use serde::{Deserialize, Serialize};

use super::{
    LaunchError, Plan, child, init, memory,
    namespaces::Opened,
    privileges,
    process::{self, Process},
    program, supervise,
};
use crate::containerizer::Program;

/// In place of a plan's path.
pub const WORD: &str = "exec";

/// The version of request and answers that is spoken.
pub const VERSION: u32 = 1;

/// The program's stdin, stdout and stderr.
pub const DESCRIPTORS: usize = 3;

/// No request is longer, in bytes: the kernel takes no longer command line either.
const LONGEST: u64 = 8 << 20;

/// Between two looks for what a program has left in a pid namespace.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// The group of terminals, if the machine has the usual one.
const TTY_GROUP: u32 = 5;

/// What is to be run, and where. Its length in bytes goes before it (8, native),
/// together with the [`DESCRIPTORS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub v: u32,
    /// The plan of the container.
    pub plan: PathBuf,
    /// The container's first process.
    pub target: Process,
    /// What runs.
    pub program: Program,
    /// On top of the container's own.
    pub environment: BTreeMap<String, String>,
    /// Whether the descriptors are a terminal, which becomes its own.
    pub terminal: bool,
}

/// One line of JSON each: whether it runs, and then how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The program runs.
    Started,
    /// It does not, and why.
    Failed(String),
    /// It has ended, as `waitpid` tells it.
    Ended(i32),
}

/// Does all of it.
pub(super) fn run() -> Result<(), LaunchError> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(system("taking the socket"))?;
    let mut agent = UnixStream::from(stdin);
    let answer = match enter(&mut agent) {
        Ok(status) => Answer::Ended(status),
        Err(failure) => Answer::Failed(failure),
    };
    tell(&agent, &answer).map_err(system("telling the agent"))
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::System { doing, source }
}

fn tell(mut agent: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    agent.write_all(&line)
}

fn cannot<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> String {
    move |error| format!("cannot {what}: {error}")
}

fn enter(agent: &mut UnixStream) -> Result<i32, String> {
    let (request, streams) = receive(agent).map_err(cannot("understand the agent"))?;
    if request.v != VERSION {
        return Err(format!(
            "the agent speaks version {} of the launcher's protocol, and this launcher only \
             version {VERSION}",
            request.v
        ));
    }
    let plan = Plan::read(&request.plan).map_err(|e| e.to_string())?;
    // A session of its own, so that no signal to the agent's process group reaches it;
    // it may be one that leads a process group already.
    let _ = unistd::setsid();
    prctl::set_child_subreaper(true).map_err(cannot("become a subreaper"))?;
    let mut child_end = SigSet::empty();
    child_end.add(Signal::SIGCHLD);
    child_end.thread_block().map_err(cannot("block signals"))?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let ends = SignalFd::with_flags(&child_end, flags).map_err(cannot("wait for signals"))?;

    let (namespaces, foreign) = Opened::of(request.target, all()).and_then(|opened| {
        // Before the fork, of which only the child is in the pid namespace then; and
        // before the paths of the cgroups mean something else.
        opened.enter_pid()
    })?;
    let (errors, child_errors) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(cannot("make a pipe"))?;
    let told = foreign.then(|| unistd::pipe2(OFlag::O_CLOEXEC)).transpose();
    let (told, child_tells) = told.map_err(cannot("make a pipe"))?.unzip();
    // SAFETY: this process has one thread (see `run`), so the child may do anything.
    let pid = match unsafe { unistd::fork() }.map_err(cannot("fork"))? {
        ForkResult::Child => {
            drop((errors, told));
            let ties = Ties { streams, errors: &child_errors, status: child_tells };
            let failure = become_program(&plan, request, namespaces, ties);
            child::fail(child_errors, failure.err().flatten())
        }
        ForkResult::Parent { child } => child.as_raw(),
    };
    drop((child_errors, child_tells, streams, namespaces, plan));
    let mut failure = String::new();
    File::from(errors).read_to_string(&mut failure).map_err(cannot("start the program"))?;
    if !failure.is_empty() {
        return Err(failure);
    }
    tell(agent, &Answer::Started).map_err(cannot("tell the agent"))?;
    memory::give_back();
    match told {
        Some(told) => wait_for_overseer(agent, &ends, pid, told),
        None => wait(agent, &ends, pid),
    }
}

fn all() -> CloneFlags {
    CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
}

fn receive(agent: &mut UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; 8];
    let read = recvmsg(
        &*agent,
        &mut [IoSliceMut::new(&mut length)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    )?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "this is no request");
    let streams: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let length = u64::from_ne_bytes(length);
    if read.bytes != 8 || streams.len() != DESCRIPTORS || length > LONGEST {
        return Err(malformed());
    }
    let mut text = Vec::new();
    agent.take(length).read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, streams))
}

/// What ties a program to its launcher.
struct Ties<'a> {
    streams: Vec<OwnedFd>,
    /// Takes the reason why it does not run. Closed when it does.
    errors: &'a OwnedFd,
    /// Takes its status, from an overseer; with a pid namespace only.
    status: Option<OwnedFd>,
}

fn become_program(
    plan: &Plan,
    request: Request,
    namespaces: Opened,
    ties: Ties<'_>,
) -> Result<std::convert::Infallible, Option<String>> {
    let Ties { streams, errors, status } = ties;
    child::die_with_the_launcher(errors)?;
    unistd::setsid().map_err(cannot("make a session"))?;
    let null = child::open_null()?;
    child::join(&plan.join)?;
    namespaces.enter()?;
    if let Some(status) = status {
        prctl::set_child_subreaper(true).map_err(cannot("become a subreaper"))?;
        // Signals to the container are for the program, which takes all again.
        SigSet::all().thread_block().map_err(cannot("block signals"))?;
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { unistd::fork() }.map_err(cannot("fork"))? {
            ForkResult::Parent { child } => {
                // The launcher waits for its end.
                child::close(errors);
                init::oversee(child.as_raw(), status, &null);
            }
            ForkResult::Child => {
                child::die_with_the_launcher(errors)?;
                unistd::setsid().map_err(cannot("make a session"))?;
            }
        }
    }
    let [stdin, stdout, stderr] = streams.as_slice() else { return Err(None) };
    if request.terminal {
        // SAFETY: takes a terminal that nobody has, and no pointer.
        if unsafe { libc::ioctl(stdin.as_raw_fd(), libc::TIOCSCTTY, 0) } != 0 {
            return Err(Some(cannot("take the terminal")(io::Error::last_os_error())));
        }
        if let Some(user) = &plan.user {
            let (uid, group) = (unistd::Uid::from_raw(user.uid), unistd::Gid::from_raw(TTY_GROUP));
            unistd::fchown(stdin, Some(uid), Some(group)).map_err(cannot("give the terminal"))?;
        }
    }
    let isolation = &plan.isolation;
    privileges::limit(&isolation.rlimits)?;
    privileges::become_user(plan.user.as_ref(), isolation)?;
    child::enter(&plan.directory)?;
    child::redirect(stdin, stdout, stderr)?;
    child::reset_signals()?;
    // Again after the change of user, which clears it.
    child::die_with_the_launcher(errors)?;
    child::close_on_exec();
    let mut environment = plan.environment.clone();
    environment.extend(request.environment);
    let program = program::Exec::new(&request.program, &environment).map_err(Some)?;
    Err(Some(program.exec()))
}

/// Waits for the program's end, or the agent's, which ends it; then ends what descends
/// from it.
fn wait(agent: &UnixStream, ends: &SignalFd, program: i32) -> Result<i32, String> {
    let mut status = None;
    while status.is_none() {
        reap(program, &mut status)?;
        if status.is_some() {
            break;
        }
        let mut both = [PollFd::new(agent, PollFlags::IN), PollFd::new(ends, PollFlags::IN)];
        until_ready(&mut both, None)?;
        // Nothing more is ever said to us: this is its end.
        if !both[0].revents().is_empty() {
            break;
        }
        while let Ok(Some(_)) = ends.read_signal() {}
    }
    supervise::end_all(program, &mut status).map_err(|e| e.to_string())?;
    Ok(status.unwrap_or(libc::SIGKILL))
}

/// The same with an overseer between: it is left alone until nothing descends from it,
/// since what does would go to the namespace's init with its end, out of our sight.
fn wait_for_overseer(
    agent: &UnixStream,
    ends: &SignalFd,
    overseer: i32,
    told: OwnedFd,
) -> Result<i32, String> {
    let mut either = [PollFd::new(agent, PollFlags::IN), PollFd::new(&told, PollFlags::IN)];
    while either.iter().all(|one| one.revents().is_empty()) {
        until_ready(&mut either, None)?;
    }
    let has_told = !either[1].revents().is_empty();
    let mut status = [0; 4];
    // Nothing is told when somebody has killed it.
    let status = if has_told && File::from(told).read_exact(&mut status).is_ok() {
        i32::from_ne_bytes(status)
    } else {
        libc::SIGKILL
    };
    let mut ended = None;
    loop {
        reap(overseer, &mut ended)?;
        if ended.is_some() {
            return Ok(status);
        }
        for pid in process::descendants(overseer).map_err(cannot("read /proc"))? {
            let _ = process::send(pid, libc::SIGKILL);
        }
        // It may have forked while we looked.
        until_ready(&mut [PollFd::new(ends, PollFlags::IN)], Some(&LOOK_AGAIN))?;
        while let Ok(Some(_)) = ends.read_signal() {}
    }
}

fn reap(child: i32, status: &mut Option<i32>) -> Result<(), String> {
    supervise::reap(child, status, WaitOptions::NOHANG).map(drop).map_err(|e| e.to_string())
}

fn until_ready(of: &mut [PollFd<'_>], patience: Option<&Timespec>) -> Result<(), String> {
    match poll(of, patience) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(cannot("wait")(e)),
    }
}
