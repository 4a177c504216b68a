//! Waiting for a container's end.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{WaitId, WaitIdOptions, waitid},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep},
};

use super::{
    Inner, Termination, blocking,
    container::{Container, Launcher, State},
};
use crate::launcher::{process, record};

/// The alarm comes before the kill; so long the kill is waited for. It does not come
/// when the memory was freed meanwhile.
const KILL_DELAY: Duration = Duration::from_secs(2);

/// How often the kernel is asked whether it has killed, after an alarm.
const KILL_POLL: Duration = Duration::from_millis(5);

/// Starts a task that waits for the launcher's end (which is the container's) and
/// publishes how it ended. Without a launcher it has ended already.
pub(super) fn watch(inner: Arc<Inner>, container: Arc<Container>, launcher: Option<Launcher>) {
    tokio::spawn(async move {
        if let Some(launcher) = launcher {
            let dead = until_dead(&launcher);
            tokio::pin!(dead);
            let dead = tokio::select! {
                biased;
                dead = &mut dead => dead,
                () = inner.end_when_out_of_memory(&container) => dead.await,
            };
            if let Err(error) = dead {
                tracing::error!(container = %container.id, %error, "cannot wait for a launcher");
            }
        }
        let finished = Arc::clone(&container);
        let termination = blocking(move || Ok(inner.finish(&finished))).await;
        container.set(State::Ended(termination.unwrap_or_else(|error| Termination {
            wait_status: None,
            out_of_memory: None,
            failure: Some(format!("its end could not be found out: {error}")),
        })));
    });
}

/// Waits until a launcher has ended, and reaps it if it is a child of this process.
pub(super) async fn until_dead(launcher: &Launcher) -> io::Result<()> {
    let pidfd = Arc::clone(&launcher.pidfd);
    // SAFETY: the descriptor stays open and the same for as long as the handle owns it.
    let handle = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    let _ready = handle.readable().await?;
    // One that an earlier agent started is not ours, but init's.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(launcher.pidfd.as_fd()), options) {
        Ok(_) | Err(Errno::CHILD) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

impl Inner {
    /// Kills all of a container of which the kernel has killed one process for its
    /// memory (rule 64): the rest of it is of no use. Returns only then.
    async fn end_when_out_of_memory(self: &Arc<Self>, container: &Arc<Container>) {
        let (inner, it) = (Arc::clone(self), Arc::clone(container));
        let ended = self.out_of_memory(container.id.as_str()).await;
        let killed = match ended {
            Ok(()) => blocking(move || inner.kill(&it)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = killed {
            tracing::warn!(
                container = %container.id, %error,
                "a container that runs out of memory will lose single processes"
            );
        }
    }

    /// Waits until the kernel has killed a process of it for memory.
    async fn out_of_memory(self: &Arc<Self>, id: &str) -> io::Result<()> {
        let alarm = match &self.cgroups {
            Some(cgroups) => cgroups.memory_alarm(id)?,
            None => None,
        };
        let Some(alarm) = alarm else { return std::future::pending().await };
        // SAFETY: the descriptor stays open and the same for as long as the handle owns it.
        let alarm = unsafe { AsyncFd::register_with_interest(alarm, Interest::READABLE) }?;
        // Before the alarm was set there may have been a kill.
        let mut patience = Duration::ZERO;
        loop {
            if self.has_killed(id, patience).await {
                return Ok(());
            }
            alarm.readable().await?.clear_ready();
            silence(alarm.get_ref())?;
            patience = KILL_DELAY;
        }
    }

    async fn has_killed(&self, id: &str, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            if self.cgroups.as_ref().is_some_and(|cgroups| cgroups.out_of_memory(id).is_some()) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            sleep(KILL_POLL).await;
        }
    }

    /// What is to be said of a container whose launcher has ended. Kills what the
    /// launcher, if it died early, could not.
    fn finish(&self, container: &Container) -> Termination {
        let id = container.id.as_str();
        if let Err(error) = self.kill_remains(container) {
            tracing::error!(container = %id, %error, "could not kill what is left of a container");
        }
        let out_of_memory = self.cgroups.as_ref().and_then(|cgroups| cgroups.out_of_memory(id));
        let (wait_status, failure) = match record::ended(&self.directory.join(id)) {
            Ok(Some(end)) => (end.wait_status, end.failure),
            Ok(None) => (None, Some(lost())),
            Err(error) => (None, Some(format!("the record of its end is unreadable: {error}"))),
        };
        Termination { wait_status, out_of_memory, failure }
    }

    fn kill_remains(&self, container: &Container) -> io::Result<()> {
        match &self.cgroups {
            Some(cgroups) => Ok(cgroups.kill(container.id.as_str())?),
            None => {
                let Some(started) = container.started() else { return Ok(()) };
                if record::ended(&self.directory.join(container.id.as_str()))
                    .is_ok_and(|e| e.is_some())
                {
                    return Ok(());
                }
                process::session(started.child)?
                    .into_iter()
                    .try_for_each(|pid| process::send(pid, nix::libc::SIGKILL))
            }
        }
    }
}

/// Takes an alarm, so that the next one is noticed.
fn silence(alarm: &OwnedFd) -> io::Result<()> {
    match rustix::io::read(alarm, &mut [0; 8]) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn lost() -> String {
    "its launcher ended without a record of its end: it was killed, or the machine restarted"
        .to_owned()
}
