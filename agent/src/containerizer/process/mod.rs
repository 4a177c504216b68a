//! Containers that are processes of this machine, each under its launcher, with or
//! without cgroups.
//!
//! What is known of a container is on disk, in `<work_dir>/containers/<id>`, so that
//! an agent that comes back knows as much as the one before.

mod container;
mod exec;
mod hand_over;
mod isolation;
mod launch;
mod recover;
mod terminal;
mod user;
mod volume;
mod watch;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use container::{Container, State};
use mezz_proto::{ids::ContainerId, resources::Resources};

pub(crate) use hand_over::hand_over;
pub(crate) use user::look_up as look_up_user;

use super::{
    Ability, Addressee, BoxFuture, ContainerError, ContainerSpec, Containerizer, Exec, ExecSpec,
    OpenError, Recovery, Statistics, Termination,
    cgroup::{Bounds, Cgroups},
    table::{self, Table},
};
use crate::{
    launcher::process,
    options::{AgentOptions, IsolationOptions, LauncherCommand},
};

/// How long a killed container may take to be gone; a process in the hands of a
/// broken disk may take for ever.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// What the names of folders begin with that are being removed.
const REMOVED: &str = ".removed-";

/// All containers of one agent.
pub(super) struct Processes(Arc<Inner>);

struct Inner {
    cgroups: Option<Box<dyn Cgroups>>,
    /// `<work_dir>/containers`.
    directory: PathBuf,
    launcher: LauncherCommand,
    cpu_quota: bool,
    isolation: IsolationOptions,
    containers: Table<Container>,
}

impl Processes {
    pub(super) fn open(
        options: &AgentOptions,
        cgroups: Option<Box<dyn Cgroups>>,
    ) -> Result<Self, OpenError> {
        let directory = options.work_dir.join("containers");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .and_then(|()| fs::canonicalize(&directory))
            .map(|directory| {
                Self(Arc::new(Inner {
                    cgroups,
                    directory,
                    launcher: options.launcher.clone(),
                    cpu_quota: options.cgroup_cpu_quota,
                    isolation: options.isolation.clone(),
                    containers: Table::default(),
                }))
            })
            .map_err(|source| OpenError::WorkDir { path: directory, source })
    }
}

/// An error on a container that runs.
fn operation(
    id: &ContainerId,
    doing: &'static str,
) -> impl FnOnce(io::Error) -> ContainerError + use<> {
    let id = id.clone();
    move |source| ContainerError::Operation { id, doing, source }
}

/// Runs what may block outside of the runtime's workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

impl Inner {
    /// Every pid that belongs to it.
    fn pids(&self, container: &Container) -> io::Result<Vec<i32>> {
        // Its launcher's pid may be another's by now, and to look for it takes long.
        if container.has_ended() {
            return Ok(Vec::new());
        }
        match (&self.cgroups, container.started()) {
            (Some(cgroups), _) => Ok(cgroups.processes(container.id.as_str())?),
            (None, Some(started)) => process::descendants(started.launcher.pid),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// All of it at once. The launcher finds descendants however they hide from it;
    /// the cgroup finds those that are left when the launcher is gone.
    fn kill(&self, container: &Container) -> io::Result<()> {
        container.order_to_kill()?;
        match &self.cgroups {
            Some(cgroups) => Ok(cgroups.kill(container.id.as_str())?),
            None => Ok(()),
        }
    }

    async fn destroy(self: Arc<Self>, id: ContainerId) -> Result<(), ContainerError> {
        let container = self.containers.get(&id)?;
        container.until(|state| !matches!(state, State::Starting)).await;
        if container.has_ended() {
            return Ok(());
        }
        let killed = Arc::clone(&container);
        blocking(move || self.kill(&killed)).await.map_err(operation(&id, "killing it"))?;
        let ended = container.until(|state| matches!(state, State::Ended(_)));
        tokio::time::timeout(KILL_PATIENCE, ended)
            .await
            .map(drop)
            .map_err(|_| operation(&id, "killing it")(io::ErrorKind::TimedOut.into()))
    }

    async fn signal(
        self: Arc<Self>,
        id: ContainerId,
        signal: i32,
        to: Addressee,
    ) -> Result<(), ContainerError> {
        let container = self.containers.get(&id)?;
        container.until(|state| !matches!(state, State::Starting)).await;
        if container.has_ended() {
            return Ok(());
        }
        let send = move || match to {
            Addressee::Tree => process::send_to_all(self.pids(&container)?, signal),
            Addressee::FirstProcess => {
                let first = container.started().map(|started| process::program_of(started.child));
                first.transpose()?.flatten().map_or(Ok(()), |pid| process::send(pid, signal))
            }
        };
        blocking(send).await.map_err(operation(&id, "sending a signal"))
    }

    async fn update(
        self: Arc<Self>,
        id: ContainerId,
        resources: Resources,
        limits: BTreeMap<String, f64>,
    ) -> Result<(), ContainerError> {
        let container = self.containers.get(&id)?;
        container.until(|state| !matches!(state, State::Starting)).await;
        if container.has_ended() {
            return Ok(());
        }
        let bounds = Bounds::new(&resources, &limits, self.cpu_quota);
        blocking(move || match &self.cgroups {
            Some(cgroups) => container.hold_to(bounds, |before| {
                Ok(cgroups.update(container.id.as_str(), &bounds, before)?)
            }),
            None => Ok(()),
        })
        .await
        .map_err(operation(&id, "changing its limits"))
    }

    async fn statistics(self: Arc<Self>, id: ContainerId) -> Result<Statistics, ContainerError> {
        let container = self.containers.get(&id)?;
        blocking(move || match &self.cgroups {
            Some(cgroups) => Ok(cgroups.statistics(container.id.as_str())),
            None => {
                let pids = self.pids(&container)?.len().try_into().ok();
                Ok(Statistics { pids, ..Statistics::default() })
            }
        })
        .await
        .map_err(operation(&id, "reading its statistics"))
    }

    async fn remove(self: Arc<Self>, id: ContainerId) -> Result<(), ContainerError> {
        let container = self.containers.get(&id)?;
        if !container.has_ended() {
            let busy = io::Error::new(io::ErrorKind::ResourceBusy, "it has not ended");
            return Err(operation(&id, "removing it")(busy));
        }
        let inner = Arc::clone(&self);
        blocking(move || inner.clean_up(container.id.as_str()))
            .await
            .map_err(operation(&id, "removing it"))?;
        self.containers.lock().remove(&id);
        Ok(())
    }

    /// Takes the launcher's files away in one step, so that a slow launcher whose
    /// cancellation is being removed cannot record a start in its place.
    fn withdraw(&self, id: &str) -> io::Result<()> {
        let to = self.removed(id);
        remove_all(&to)?;
        match fs::rename(self.directory.join(id), to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Where the files of a container go on their way out.
    fn removed(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{REMOVED}{id}"))
    }

    /// Removes the cgroup and the launcher's files of a container that has ended.
    fn clean_up(&self, id: &str) -> io::Result<()> {
        self.withdraw(id)?;
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove(id)?;
        }
        remove_all(&self.removed(id))
    }
}

/// The network namespace of a container that runs, when it is another than ours.
fn network(container: &Container) -> io::Result<Option<PathBuf>> {
    let Some(started) = container.started().filter(|_| !container.has_ended()) else {
        return Ok(None);
    };
    let path = PathBuf::from(format!("/proc/{}/ns/net", started.child.pid));
    let theirs = fs::read_link(&path);
    // Looked at last: until now the pid was that of the container.
    if !started.child.exists()? {
        return Ok(None);
    }
    Ok((theirs? != fs::read_link("/proc/self/ns/net")?).then_some(path))
}

/// A folder that is not there is no error.
fn remove_all(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

impl Containerizer for Processes {
    fn name(&self) -> &'static str {
        self.0.cgroups.as_ref().map_or("none", |cgroups| cgroups.name())
    }

    fn launch(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<u32, ContainerError>> {
        let (inner, id) = (Arc::clone(&self.0), spec.id.clone());
        table::launch(id, inner.launch(spec))
    }

    fn wait(&self, id: &ContainerId) -> BoxFuture<'_, Result<Termination, ContainerError>> {
        let container = self.0.containers.get(id);
        let unknown = ContainerError::Unknown(id.clone());
        Box::pin(async move { container?.ended().await.ok_or(unknown) })
    }

    fn signal(
        &self,
        id: &ContainerId,
        signal: i32,
        to: Addressee,
    ) -> BoxFuture<'_, Result<(), ContainerError>> {
        Box::pin(Arc::clone(&self.0).signal(id.clone(), signal, to))
    }

    fn destroy(&self, id: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>> {
        Box::pin(Arc::clone(&self.0).destroy(id.clone()))
    }

    fn update(
        &self,
        id: &ContainerId,
        resources: Resources,
        limits: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), ContainerError>> {
        Box::pin(Arc::clone(&self.0).update(id.clone(), resources, limits))
    }

    fn statistics(&self, id: &ContainerId) -> BoxFuture<'_, Result<Statistics, ContainerError>> {
        Box::pin(Arc::clone(&self.0).statistics(id.clone()))
    }

    fn processes(&self, id: &ContainerId) -> BoxFuture<'_, Result<Vec<i32>, ContainerError>> {
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        Box::pin(async move {
            let container = inner.containers.get(&id)?;
            blocking(move || inner.pids(&container))
                .await
                .map_err(operation(&id, "looking for its processes"))
        })
    }

    fn network(&self, id: &ContainerId) -> BoxFuture<'_, Result<Option<PathBuf>, ContainerError>> {
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        Box::pin(async move {
            let container = inner.containers.get(&id)?;
            blocking(move || network(&container))
                .await
                .map_err(operation(&id, "looking for its network"))
        })
    }

    fn exec(
        &self,
        id: &ContainerId,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Exec, ContainerError>> {
        let id = id.clone();
        // A task of its own, as for a launch: then what was started is ended too.
        let task = tokio::spawn(Arc::clone(&self.0).exec(id.clone(), spec));
        Box::pin(async move {
            task.await.unwrap_or_else(|e| Err(operation(&id, exec::DOING)(io::Error::other(e))))
        })
    }

    fn abilities(&self) -> Vec<Ability> {
        vec![Ability { name: self.name(), version: None, problem: None }]
    }

    fn recover(&self, known: Vec<ContainerId>) -> BoxFuture<'_, Result<Recovery, ContainerError>> {
        Box::pin(Arc::clone(&self.0).recover(known))
    }

    fn remove(&self, id: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>> {
        Box::pin(Arc::clone(&self.0).remove(id.clone()))
    }
}
