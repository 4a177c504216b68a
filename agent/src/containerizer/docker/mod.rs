//! Containers of a Docker engine on this machine.
//!
//! The engine holds what there is: containers are found again by their labels, and
//! `<work_dir>/docker/<id>` only tells that there was one and how far its output was
//! copied. `<work_dir>/docker.json` tells in which engine that was. The engine may restart, or be away, at any time; what was asked of it then
//! fails or waits, and nothing is given up.

mod container;
mod credentials;
mod engine;
mod exec;
#[cfg(test)]
mod fake;
mod gpus;
mod guard;
mod identity;
mod launch;
mod limits;
mod logs;
mod parameters;
mod ports;
mod position;
mod proc;
mod pull;
mod recover;
mod spec;
mod statistics;
mod volumes;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bollard::query_parameters::KillContainerOptionsBuilder;
use container::Container;
use engine::{Engine, EngineError};
use gpus::Gpus;
use identity::Identity;
use mezz_proto::{ids::ContainerId, resources::Resources};
use pull::Pulls;
use tokio_util::sync::CancellationToken;

pub use engine::EngineAddress;
pub(super) use recover::refuse_to_abandon;

use super::{
    Ability, Addressee, BoxFuture, ContainerError, ContainerSpec, Containerizer, Exec, ExecSpec,
    OpenError, Recovery, Statistics, Termination,
    cgroup::Bounds,
    table::{self, Table},
};
use crate::options::{AgentOptions, IsolationOptions};

/// How long a killed container may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// Between two looks at the engine.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// All Docker containers of one agent.
pub(super) struct DockerContainers(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    pulls: Arc<Pulls>,
    /// `<work_dir>/docker`.
    directory: PathBuf,
    identity: Arc<Identity>,
    cpu_quota: bool,
    pids_limit: u64,
    /// What the operator allows.
    isolation: IsolationOptions,
    /// How many the agent offers: the first ones of the machine.
    gpus: u64,
    containers: Table<Container>,
    /// Whether all containers are known that the store knows.
    recovered: AtomicBool,
    /// When the agent, or this part of it, ends.
    stop: CancellationToken,
}

impl DockerContainers {
    /// Called in a runtime, on which the engine is watched.
    pub(super) fn open(options: &AgentOptions, address: EngineAddress) -> Result<Self, OpenError> {
        let directory = options.work_dir.join("docker");
        let directory = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .and_then(|()| fs::canonicalize(&directory))
            .map_err(|source| OpenError::WorkDir { path: directory, source })?;
        let identity = Identity::open(&options.work_dir)
            .map_err(|(path, source)| OpenError::WorkDir { path, source })?;
        let identity = Arc::new(identity);
        let engine = Arc::new(Engine::new(address, Arc::clone(&identity)));
        let inner = Arc::new(Inner {
            pulls: Pulls::new(Arc::clone(&engine), options.docker.config.clone()),
            engine,
            directory,
            identity,
            cpu_quota: options.cgroup_cpu_quota,
            pids_limit: options.isolation.pids_limit,
            isolation: options.isolation.clone(),
            gpus: options.resources.scalar("gpus").to_f64() as u64,
            containers: Table::default(),
            recovered: AtomicBool::new(false),
            stop: CancellationToken::new(),
        });
        let probed = Arc::clone(&inner);
        tokio::spawn(async move {
            let stop = probed.stop.clone();
            stop.run_until_cancelled(probed.look_after()).await;
        });
        Ok(Self(inner))
    }

    /// Whether a container is one of these.
    pub(super) fn has(&self, id: &ContainerId) -> bool {
        self.0.containers.lock().contains_key(id)
    }
}

impl Drop for DockerContainers {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

/// An error on a container that runs.
fn operation(
    id: &ContainerId,
    doing: &'static str,
) -> impl FnOnce(EngineError) -> ContainerError + use<> {
    let id = id.clone();
    move |error| ContainerError::Operation { id, doing, source: error.into() }
}

impl Inner {
    /// Gives GPUs to a container that no other one has which may still run.
    fn take_gpus(&self, container: &Container, wanted: u64) -> Result<Gpus, String> {
        let containers = self.containers.lock();
        let taken = containers.values().filter(|other| !other.has_ended());
        let gpus = Gpus::choose(wanted, self.gpus, taken.map(|other| other.gpus()))?;
        container.set_gpus(gpus);
        Ok(gpus)
    }

    /// Where is written how far its output is.
    fn record(&self, id: &ContainerId) -> PathBuf {
        self.directory.join(id.as_str())
    }

    fn forget_record(&self, id: &ContainerId) {
        if let Err(error) = fs::remove_file(self.record(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(container = %id, %error, "the record of a container is left");
        }
    }

    /// Asks now and then whether the engine answers, and ends what should not be there:
    /// what could not be while it was away.
    async fn look_after(&self) {
        loop {
            if self.engine.probe().await
                && self.recovered.load(Ordering::Acquire)
                && let Err(error) = self.end_strangers().await
            {
                tracing::debug!(%error, "looking for containers that nobody knows");
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    async fn kill(&self, container: &Container, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let name = &container.name;
        let killed = self
            .engine
            .call(|link| async move { link.kill_container(name, Some(options)).await })
            .await;
        match killed {
            // It does not run any more.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other,
        }
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), ContainerError> {
        let container = self.containers.get(id)?;
        if !container.runs().await {
            return Ok(());
        }
        let failed = |error| operation(id, "sending a signal")(error);
        let signal = match signal {
            // The image may say by which signal it wants to be stopped.
            nix::libc::SIGTERM => match self.inspect(&container).await {
                Ok(now) => now.config.and_then(|config| config.stop_signal),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(failed(error)),
            },
            nix::libc::SIGKILL => {
                container.set_killed();
                None
            }
            _ => None,
        }
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| signal.to_string());
        self.kill(&container, &signal).await.map_err(failed)
    }

    async fn destroy(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.containers.get(id)?;
        if !container.runs().await {
            return Ok(());
        }
        container.set_killed();
        self.kill(&container, "SIGKILL").await.map_err(operation(id, "killing it"))?;
        tokio::time::timeout(KILL_PATIENCE, container.ended()).await.map(drop).map_err(|_| {
            ContainerError::Operation {
                id: id.clone(),
                doing: "killing it",
                source: io::ErrorKind::TimedOut.into(),
            }
        })
    }

    async fn update(&self, id: &ContainerId, bounds: Bounds) -> Result<(), ContainerError> {
        let container = self.containers.get(id)?;
        if !container.runs().await {
            return Ok(());
        }
        let failed = |error| operation(id, "changing its limits")(error);
        let now = self.inspect(&container).await.map_err(failed)?;
        let change = limits::change(&bounds, &now.host_config.unwrap_or_default());
        let name = &container.name;
        self.engine
            .call(|link| async move { link.update_container(name, change).await })
            .await
            .map_err(failed)
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.containers.get(id)?;
        if !container.has_ended() {
            let busy = io::Error::new(io::ErrorKind::ResourceBusy, "it has not ended");
            let id = id.clone();
            return Err(ContainerError::Operation { id, doing: "removing it", source: busy });
        }
        // Forgotten first: if the engine is away now, it is a stranger's when that is back.
        self.containers.lock().remove(id);
        self.forget_record(id);
        self.withdraw(&container.name).await.map_err(operation(id, "removing it"))
    }
}

impl Containerizer for DockerContainers {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn prepare(&self, spec: &ContainerSpec) -> BoxFuture<'_, Result<(), ContainerError>> {
        let (id, info) = (spec.id.clone(), spec.info.clone());
        Box::pin(async move { self.0.prepare(&id, info.as_deref()).await })
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
        _to: Addressee,
    ) -> BoxFuture<'_, Result<(), ContainerError>> {
        let id = id.clone();
        Box::pin(async move { self.0.signal(&id, signal).await })
    }

    fn destroy(&self, id: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>> {
        let id = id.clone();
        Box::pin(async move { self.0.destroy(&id).await })
    }

    fn update(
        &self,
        id: &ContainerId,
        resources: Resources,
        limits: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), ContainerError>> {
        let id = id.clone();
        let bounds = Bounds::new(&resources, &limits, self.0.cpu_quota);
        Box::pin(async move { self.0.update(&id, bounds).await })
    }

    fn statistics(&self, id: &ContainerId) -> BoxFuture<'_, Result<Statistics, ContainerError>> {
        let id = id.clone();
        Box::pin(async move { self.0.statistics(&id).await })
    }

    fn processes(&self, id: &ContainerId) -> BoxFuture<'_, Result<Vec<i32>, ContainerError>> {
        let id = id.clone();
        Box::pin(async move { self.0.processes(&id).await })
    }

    fn network(&self, id: &ContainerId) -> BoxFuture<'_, Result<Option<PathBuf>, ContainerError>> {
        let id = id.clone();
        Box::pin(async move { self.0.network(&id).await })
    }

    fn exec(
        &self,
        id: &ContainerId,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Exec, ContainerError>> {
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        Box::pin(async move { inner.exec(&id, spec).await })
    }

    fn abilities(&self) -> Vec<Ability> {
        vec![self.0.engine.ability()]
    }

    fn recover(&self, known: Vec<ContainerId>) -> BoxFuture<'_, Result<Recovery, ContainerError>> {
        Box::pin(Arc::clone(&self.0).recover(known))
    }

    fn remove(&self, id: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>> {
        let id = id.clone();
        Box::pin(async move { self.0.remove(&id).await })
    }
}
