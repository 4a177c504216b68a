//! One container, as this agent process knows it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use mezz_proto::ids::ContainerId;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};
use tokio::sync::watch;

use super::Termination;
use crate::containerizer::cgroup::Bounds;
use crate::launcher::{process::Process, record::Started};

/// Where it is in its life.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// The launcher has not yet said that it runs.
    Starting,
    /// It runs.
    Running(Launcher),
    /// It has ended. How it did.
    Ended(Termination),
    /// It never started, and is forgotten.
    Failed,
}

/// A launcher that lives, or did a moment ago, by a handle that never means another
/// process.
#[derive(Clone, Debug)]
pub(super) struct Launcher {
    pub(super) pidfd: Arc<OwnedFd>,
}

impl Launcher {
    /// A child of this process that has not been waited for.
    pub(super) fn of_child(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pidfd: Arc::new(pidfd_open(pid, PidfdFlags::empty())?) })
    }

    /// The process of a record; none when it has ended.
    pub(super) fn of(process: Process) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(process.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // Looked at after the handle was taken: if the pid is still the recorded
        // process now, the handle is too.
        Ok(process.exists()?.then(|| Self { pidfd: Arc::new(pidfd) }))
    }

    /// Whether it has ended, be it reaped or not. Not, as long as that cannot be found out.
    pub(super) fn is_dead(&self) -> bool {
        let now = Timespec::default();
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0)
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// One container.
pub(super) struct Container {
    pub(super) id: ContainerId,
    /// Once known. Not set when its pids are of an earlier start of the machine.
    started: OnceLock<Started>,
    state: watch::Sender<State>,
    /// What it is held to; unknown until this process has set all of it.
    bounds: Mutex<Option<Bounds>>,
}

impl Container {
    pub(super) fn new(id: ContainerId, state: State) -> Arc<Self> {
        let (state, bounds) = (watch::Sender::new(state), Mutex::default());
        Arc::new(Self { id, started: OnceLock::new(), state, bounds })
    }

    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(super) fn set_started(&self, started: Started) {
        // Set once per container; a second record would say the same.
        let _ = self.started.set(started);
    }

    pub(super) fn started(&self) -> Option<&Started> {
        self.started.get()
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(&*self.state.borrow(), State::Ended(_) | State::Failed)
    }

    /// Waits for a state; also comes back when there will be no other.
    pub(super) async fn until(&self, mut wanted: impl FnMut(&State) -> bool) {
        // An error means that the sender is gone, which `self` holds.
        let wanted = |s: &State| wanted(s) || matches!(s, State::Ended(_) | State::Failed);
        let _ = self.state.subscribe().wait_for(wanted).await;
    }

    /// Waits for its end; none if it never started.
    pub(super) async fn ended(&self) -> Option<Termination> {
        self.until(|_| false).await;
        match &*self.state.borrow() {
            State::Ended(termination) => Some(termination.clone()),
            _ => None,
        }
    }

    /// Holds it to these bounds by `set`, which is told what it is held to now, if that is
    /// known, and says whether all was set. One call at a time.
    pub(super) fn hold_to(
        &self,
        bounds: Bounds,
        set: impl FnOnce(Option<&Bounds>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut held = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        // Half of it may be set when it fails.
        let before = held.take();
        *held = set(before.as_ref())?.then_some(bounds);
        Ok(())
    }

    /// Tells the launcher to kill all of its descendants.
    pub(super) fn order_to_kill(&self) -> io::Result<()> {
        let launcher = match &*self.state.borrow() {
            State::Running(launcher) => launcher.clone(),
            _ => return Ok(()),
        };
        launcher.signal(KILL_ALL)
    }
}

/// [`crate::launcher::KILL_ALL`], as this library names it.
const KILL_ALL: rustix::process::Signal = rustix::process::Signal::USR1;
const _: () = assert!(KILL_ALL.as_raw() == crate::launcher::KILL_ALL as i32);
