//! After an agent's start: which containers are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::Arc,
    time::Duration,
};

use mezz_proto::ids::ContainerId;
use rustix::process::Signal;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    ContainerError, Inner, KILL_PATIENCE, REMOVED, Recovery, blocking,
    container::{Container, Launcher, State},
    operation, remove_all, watch,
};
use crate::launcher::{
    plan, process,
    record::{self, Beginning, Started},
};

/// So long the agent's start waits for containers that nobody knows to end; a process
/// in the hands of a broken disk may take for ever, and goes on in the background.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(5);

/// Containers that are being ended at one time.
const ORPHANS_AT_ONCE: usize = 16;

/// The first and the longest wait before one is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A container that a launcher had started, and the launcher if it lives.
struct Found {
    id: ContainerId,
    /// Only if the machine has not restarted since.
    started: Option<Started>,
    launcher: Option<Launcher>,
}

/// Containers to be ended and removed, with the launchers that live.
type Orphans = BTreeMap<ContainerId, Vec<Launcher>>;

impl Inner {
    pub(super) async fn recover(
        self: Arc<Self>,
        known: Vec<ContainerId>,
    ) -> Result<Recovery, ContainerError> {
        let inner = Arc::clone(&self);
        let (found, mut orphans) = blocking(move || inner.scan())
            .await
            .map_err(operation(&ContainerId::new("(all)"), "looking for containers"))?;

        let mut known: BTreeMap<_, _> = known.into_iter().map(|id| (id, false)).collect();
        for found in found {
            if let Some(there) = known.get_mut(&found.id) {
                *there = true;
                self.adopt(found);
            } else {
                tracing::warn!(container = %found.id, "ending a container that nobody knows");
                orphans.insert(found.id, found.launcher.into_iter().collect());
            }
        }
        let unended = self.end_all(orphans).await;
        Ok(Recovery { known, unended })
    }

    /// Those that were started, and those that never were (which never will be from
    /// now on) or whose record nobody understands.
    fn scan(&self) -> io::Result<(Vec<Found>, Orphans)> {
        let (mut found, mut others) = (Vec::new(), Orphans::new());
        let boot_id = process::boot_id()?;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !entry.file_type()?.is_dir() {
                continue;
            }
            if name.starts_with(REMOVED) {
                remove_all(&entry.path())?;
                continue;
            }
            let id = ContainerId::new(name);
            match record::cancel(&entry.path()) {
                Ok(Beginning::Started(started)) => {
                    let started = (started.boot_id == boot_id).then_some(started);
                    let launcher = match &started {
                        Some(started) => Launcher::of(started.launcher)?,
                        None => None,
                    };
                    // What cannot be read now is not to be taken for no record later.
                    match record::ended(&entry.path()) {
                        Err(e) if !e.is_malformed() => {
                            return Err(io::Error::new(e.source.kind(), e));
                        }
                        _ => found.push(Found { id, started, launcher }),
                    }
                }
                Ok(Beginning::Cancelled) => _ = others.insert(id, Vec::new()),
                Err(error) if error.is_malformed() => {
                    tracing::error!(container = %id, %error, "giving up an unreadable container");
                    let launchers = self.launchers(&id)?;
                    others.insert(id, launchers);
                }
                Err(error) => return Err(io::Error::new(error.source.kind(), error)),
            }
        }
        if let Some(cgroups) = &self.cgroups {
            let started: BTreeSet<_> = found.iter().map(|f| f.id.clone()).collect();
            for id in cgroups.list()?.into_iter().map(ContainerId::from) {
                if !started.contains(&id) {
                    others.entry(id).or_default();
                }
            }
        }
        Ok((found, others))
    }

    /// The launchers of a container of which no record tells, by their command line.
    fn launchers(&self, id: &ContainerId) -> io::Result<Vec<Launcher>> {
        let plan = self.directory.join(id.as_str()).join(plan::FILE);
        let mut launchers = Vec::new();
        for process in process::leaders_with_last_argument(plan.as_os_str())? {
            launchers.extend(Launcher::of(process)?);
        }
        Ok(launchers)
    }

    fn adopt(self: &Arc<Self>, found: Found) {
        let Found { id, started, launcher } = found;
        let state = launcher.clone().map_or(State::Starting, State::Running);
        let container = Container::new(id.clone(), state);
        if let Some(started) = started {
            container.set_started(started);
        }
        self.containers.lock().insert(id, Arc::clone(&container));
        watch::watch(Arc::clone(self), container, launcher);
    }

    /// Ends and removes all; returns those that are not ended soon, which is gone on
    /// with in the background.
    async fn end_all(self: &Arc<Self>, orphans: Orphans) -> BTreeSet<ContainerId> {
        let slots = Arc::new(Semaphore::new(ORPHANS_AT_ONCE));
        let mut unended: BTreeSet<_> = orphans.keys().cloned().collect();
        let mut tasks = JoinSet::new();
        for (id, launchers) in orphans {
            let (inner, slots) = (Arc::clone(self), Arc::clone(&slots));
            tasks.spawn(async move {
                inner.end_for_good(&id, &launchers, &slots).await;
                id
            });
        }
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                if let Ok(id) = ended {
                    unended.remove(&id);
                }
            }
        };
        if tokio::time::timeout(ORPHAN_PATIENCE, all).await.is_err() {
            tracing::warn!(
                containers = ?unended,
                "containers that nobody knows do not end; the agent goes on trying, and what they \
                 use is not held back from others"
            );
            tasks.detach_all();
        }
        unended
    }

    async fn end_for_good(
        self: &Arc<Self>,
        id: &ContainerId,
        launchers: &[Launcher],
        slots: &Semaphore,
    ) {
        let (mut pause, longest) = AGAIN;
        loop {
            let slot = slots.acquire().await;
            let Err(error) = self.end(id, launchers).await else { return };
            drop(slot);
            tracing::warn!(
                container = %id, %error,
                "a container that nobody knows is not ended; again in {pause:?}"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// One try. Its files stay until it has ended.
    async fn end(self: &Arc<Self>, id: &ContainerId, launchers: &[Launcher]) -> io::Result<()> {
        let mut ended = Ok(());
        for launcher in launchers {
            ended = ended.and(end(launcher).await);
        }
        let (inner, id) = (Arc::clone(self), id.clone());
        blocking(move || {
            let id = id.as_str();
            if ended.is_ok() {
                inner.withdraw(id)?;
            }
            if let Some(cgroups) = &inner.cgroups {
                cgroups.kill(id)?;
            }
            ended.and_then(|()| inner.clean_up(id))
        })
        .await
    }
}

/// Has a launcher kill its container, and waits for both.
async fn end(launcher: &Launcher) -> io::Result<()> {
    launcher.signal(Signal::USR1)?;
    tokio::time::timeout(KILL_PATIENCE, watch::until_dead(launcher))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "its launcher does not end"))
}
