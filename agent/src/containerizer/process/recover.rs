//! After an agent's start: which containers are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::Arc,
};

use mezz_proto::ids::ContainerId;
use rustix::process::Signal;

use super::{
    ContainerError, Inner, blocking,
    container::{Container, Launcher, State},
    operation, watch,
};
use crate::launcher::{
    process,
    record::{self, Beginning, Started},
};

/// A container that a launcher had started, and the launcher if it lives.
struct Found {
    id: ContainerId,
    /// Only if the machine has not restarted since.
    started: Option<Started>,
    launcher: Option<Launcher>,
}

impl Inner {
    pub(super) async fn recover(
        self: Arc<Self>,
        known: Vec<ContainerId>,
    ) -> Result<BTreeMap<ContainerId, bool>, ContainerError> {
        let inner = Arc::clone(&self);
        let (found, mut unknown) = blocking(move || inner.scan())
            .await
            .map_err(operation(&ContainerId::new("(all)"), "looking for containers"))?;

        let known: BTreeSet<_> = known.into_iter().collect();
        let mut out: BTreeMap<_, _> = known.iter().map(|id| (id.clone(), false)).collect();
        for found in found {
            if known.contains(&found.id) {
                out.insert(found.id.clone(), true);
                self.adopt(found);
            } else {
                tracing::warn!(container = %found.id, "ending a container that nobody knows");
                unknown.insert(found.id.clone());
                if let Some(launcher) = &found.launcher {
                    let id = found.id.clone();
                    end(launcher).await.map_err(operation(&id, "ending it"))?;
                }
            }
        }
        let inner = Arc::clone(&self);
        blocking(move || inner.sweep(&unknown))
            .await
            .map_err(operation(&ContainerId::new("(unknown)"), "removing what was left"))?;
        Ok(out)
    }

    /// Those that were started, and the names of those that never were, which never
    /// will be from now on.
    fn scan(&self) -> io::Result<(Vec<Found>, BTreeSet<ContainerId>)> {
        let (mut found, mut others) = (Vec::new(), BTreeSet::new());
        let boot_id = process::boot_id()?;
        for entry in fs::read_dir(&self.directory)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let id = ContainerId::new(&name);
            match record::cancel(&self.directory.join(&name)) {
                Ok(Beginning::Started(started)) => {
                    let started = (started.boot_id == boot_id).then_some(started);
                    let launcher = match &started {
                        Some(started) => Launcher::of(started.launcher)?,
                        None => None,
                    };
                    found.push(Found { id, started, launcher });
                }
                Ok(Beginning::Cancelled) => _ = others.insert(id),
                Err(error) => {
                    tracing::error!(container = %id, %error, "giving up an unreadable container");
                    others.insert(id);
                }
            }
        }
        if let Some(cgroups) = &self.cgroups {
            let started: BTreeSet<_> = found.iter().map(|f| f.id.clone()).collect();
            let left = cgroups.list()?.into_iter().map(ContainerId::from);
            others.extend(left.filter(|id| !started.contains(id)));
        }
        Ok((found, others))
    }

    fn adopt(self: &Arc<Self>, found: Found) {
        let Found { id, started, launcher } = found;
        let state = launcher.clone().map_or(State::Starting, State::Running);
        let container = Container::new(id.clone(), state);
        if let Some(started) = started {
            container.set_started(started);
        }
        self.containers().insert(id, Arc::clone(&container));
        watch::watch(Arc::clone(self), container, launcher);
    }

    fn sweep(&self, ids: &BTreeSet<ContainerId>) -> io::Result<()> {
        for id in ids {
            if let Some(cgroups) = &self.cgroups {
                cgroups.kill(id.as_str())?;
            }
            self.clean_up(id.as_str())?;
        }
        Ok(())
    }
}

/// Has a launcher kill its container, and waits for both.
async fn end(launcher: &Launcher) -> io::Result<()> {
    launcher.signal(Signal::USR1)?;
    tokio::time::timeout(super::KILL_PATIENCE, watch::until_dead(launcher))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
