//! Waiting for a container's end.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
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

/// The first and the longest wait between two looks at a launcher whose end the kernel
/// cannot be made to tell, for want of memory or room in its tables.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The record of the end is tried to be read for so long, if file descriptors or the
/// like are short.
const RECORD_PATIENCE: Duration = Duration::from_secs(20);

/// The pause between two tries.
const RECORD_AGAIN: Duration = Duration::from_millis(200);

/// Starts a task that waits for the launcher's end (which is the container's) and
/// publishes how it ended. Without a launcher it has ended already.
pub(super) fn watch(inner: Arc<Inner>, container: Arc<Container>, launcher: Option<Launcher>) {
    tokio::spawn(async move {
        if let Some(launcher) = launcher {
            let dead = until_dead(&launcher);
            tokio::pin!(dead);
            tokio::select! {
                biased;
                () = &mut dead => {}
                () = inner.end_when_out_of_memory(&container) => dead.await,
            }
        }
        let finished = Arc::clone(&container);
        let termination = blocking(move || Ok(inner.finish(&finished))).await;
        container.set(State::Ended(termination.unwrap_or_else(|error| {
            tracing::error!(container = %container.id, %error, "its end could not be found out");
            Termination { wait_status: None, out_of_memory: None, failure: None }
        })));
    });
}

/// Waits until a launcher has ended, and reaps it if it is a child of this process.
/// Comes back for no other reason: whatever is left of its container is killed then.
pub(super) async fn until_dead(launcher: &Launcher) {
    if let Err(error) = until_readable(&launcher.pidfd).await {
        tracing::warn!(%error, "a launcher's end will be noticed late, by looking for it");
    }
    let (mut pause, longest) = LOOKS;
    while !launcher.is_dead() {
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
    // One that an earlier agent started is not ours, but init's.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(launcher.pidfd.as_fd()), options) {
        Ok(_) | Err(Errno::CHILD) => {}
        Err(error) => tracing::warn!(%error, "a launcher that has ended cannot be reaped"),
    }
}

async fn until_readable(pidfd: &Arc<OwnedFd>) -> io::Result<()> {
    // SAFETY: the descriptor stays open and the same for as long as the handle owns it.
    let handle = unsafe { AsyncFd::register_with_interest(Arc::clone(pidfd), Interest::READABLE) }?;
    handle.readable().await.map(drop)
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
        let (inner, of) = (Arc::clone(self), id.to_owned());
        let alarm = blocking(move || match &inner.cgroups {
            Some(cgroups) => Ok(cgroups.memory_alarm(&of)?),
            None => Ok(None),
        });
        let alarm = alarm.await?;
        let Some(alarm) = alarm else { return std::future::pending().await };
        // SAFETY: the descriptor stays open and the same for as long as the handle owns it.
        let alarm = unsafe { AsyncFd::register_with_interest(alarm, Interest::READABLE) }?;
        // Before the alarm was set there may have been a kill.
        let mut patience = Duration::ZERO;
        loop {
            if self.has_killed(id, patience).await? {
                return Ok(());
            }
            alarm.readable().await?.clear_ready();
            silence(alarm.get_ref())?;
            patience = KILL_DELAY;
        }
    }

    async fn has_killed(self: &Arc<Self>, id: &str, patience: Duration) -> io::Result<bool> {
        let end = Instant::now() + patience;
        loop {
            let (inner, id) = (Arc::clone(self), id.to_owned());
            let killed = move || {
                let cgroups = inner.cgroups.as_ref();
                Ok(cgroups.is_some_and(|cgroups| cgroups.out_of_memory(&id).is_some()))
            };
            if blocking(killed).await? {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            sleep(KILL_POLL).await;
        }
    }

    /// What is to be said of a container whose launcher has ended. Kills what the
    /// launcher, if it died early, could not.
    fn finish(&self, container: &Container) -> Termination {
        let id = container.id.as_str();
        let killed = self.kill_remains(container);
        let out_of_memory = self.cgroups.as_ref().and_then(|cgroups| cgroups.out_of_memory(id));
        match (killed, &self.cgroups) {
            (Err(error), _) => {
                tracing::error!(container = %id, %error, "could not kill what is left of a container");
            }
            // Others may get what it had as soon as its end is told.
            (Ok(()), Some(cgroups)) => {
                if let Err(error) = cgroups.release(id) {
                    tracing::warn!(container = %id, %error, "an ended container keeps its GPUs or cores");
                }
            }
            (Ok(()), None) => {}
        }
        let (wait_status, failure) = match read_end(&self.directory.join(id)) {
            Ok(Some(end)) => (end.wait_status, end.failure),
            // It ran, and how it ended is not known: no failure to start.
            Ok(None) => {
                tracing::error!(
                    container = %id,
                    "its launcher ended without a record of its end: it was killed, or the \
                     machine restarted"
                );
                (None, None)
            }
            Err(error) => {
                tracing::error!(container = %id, %error, "the record of its end is unreadable");
                (None, None)
            }
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
                process::send_to_all(process::session(started.child)?, nix::libc::SIGKILL)
            }
        }
    }
}

/// Blocks while the record cannot be read for reasons that may pass.
fn read_end(directory: &Path) -> Result<Option<record::Ended>, record::RecordError> {
    let end = Instant::now() + RECORD_PATIENCE;
    loop {
        match record::ended(directory) {
            Err(error) if !error.is_malformed() && Instant::now() < end => {
                std::thread::sleep(RECORD_AGAIN);
            }
            read => return read,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_launcher_that_cannot_be_registered_is_not_taken_for_dead() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let launcher = Launcher::of_child(child.id()).unwrap();
        // The kernel refuses the same descriptor a second time.
        // SAFETY: the descriptor stays open and the same for as long as the handle owns it.
        let _first = unsafe {
            AsyncFd::register_with_interest(Arc::clone(&launcher.pidfd), Interest::READABLE)
        }
        .unwrap();
        let dead = until_dead(&launcher);
        tokio::pin!(dead);
        let early = tokio::time::timeout(Duration::from_millis(100), &mut dead).await;
        assert!(early.is_err(), "it lives");
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(30), dead).await.expect("its end is noticed");
        assert!(child.wait().is_err(), "it is reaped");
    }
}
