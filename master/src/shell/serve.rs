//! Puts a master together, and takes it down again.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinError,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    clock::Clock,
    core_loop::{CoreLoop, Input, Outputs},
    elected,
    flags::flags,
    handle::CoreHandle,
    limits::{CHANGE_BATCHES, CONNECTIONS, METRICS_UPKEEP, SHUTDOWN_GRACE},
    metrics::Metrics,
    read_model::ReadModel,
    writer::write_registry,
};
use crate::{
    allocator::DrfAllocator,
    api::{Api, Door, Front, Identity, leader_routes},
    core::Core,
    election::Tenure,
    options::{CoreOptions, MasterOptions, RegistryOptions},
    registry::{FileRegistry, MemoryRegistry, Registry, RegistryError},
};

/// Why a master stopped by itself, or did not start.
#[derive(Debug, Error)]
pub enum MasterError {
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The listening socket does not say where it listens.
    #[error("cannot tell the address that the master listens on")]
    Listener(#[source] io::Error),
    /// The metrics cannot be set up.
    #[error("cannot set up metrics")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
    /// A part of the master failed: a fault in Mezz.
    #[error("the master's {part} failed; please report this")]
    Failed {
        /// Which.
        part: &'static str,
        /// How.
        #[source]
        source: JoinError,
    },
}

/// Runs a master on this socket until `shutdown` is cancelled. Several may run in
/// one process.
///
/// An empty `master_id` is replaced by a new UUID, an empty address by that of
/// `advertise` or of the socket.
///
/// # Errors
/// [`MasterError`] when it cannot start, or must stop because the registry
/// cannot be written.
pub async fn serve(
    options: MasterOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), MasterError> {
    // Each way is a large future; together, and copied, they would fill a thread's stack.
    match options.registry.clone() {
        RegistryOptions::Memory => {
            Box::pin(run(options, MemoryRegistry::new(), listener, shutdown)).await
        }
        RegistryOptions::File(path) => {
            let registry = tokio::task::spawn_blocking(move || FileRegistry::open(&path))
                .await
                .map_err(|source| MasterError::Failed { part: "registry", source })??;
            Box::pin(run(options, registry, listener, shutdown)).await
        }
        RegistryOptions::Etcd(etcd) => {
            Box::pin(elected::run(options, etcd, listener, shutdown)).await
        }
    }
}

async fn run<R: Registry>(
    options: MasterOptions,
    registry: R,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), MasterError> {
    // Also when this future is dropped, everything stops.
    let stop = shutdown.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let process = Process::new(&options, &listener, stop.clone())?;
    let id = process.core.master_id.clone();
    let term = process.begin(registry, Tenure::unlimited(), id).await?;
    process.serve_while(listener, term.run(stop)).await
}

/// What lasts from the start of the process to its end, however often it leads.
pub(super) struct Process {
    core: CoreOptions,
    cluster: Option<String>,
    clock: Clock,
    flags: BTreeMap<String, String>,
    pub(super) front: Front,
    pub(super) stop: CancellationToken,
}

impl Process {
    pub(super) fn new(
        options: &MasterOptions,
        listener: &TcpListener,
        stop: CancellationToken,
    ) -> Result<Self, MasterError> {
        let core = complete(options, listener)?;
        let clock = Clock::start();
        let cluster = options.cluster.clone();
        let flags = flags(options, &core);
        let identity = identity(&core, cluster.clone(), clock, flags.clone());
        let metrics = Arc::new(Metrics::new().map_err(MasterError::Metrics)?);
        let door = Door::new(options.authentication.as_ref());
        let front = Front::new(identity, metrics, stop.clone(), door);
        Ok(Self { core, cluster, clock, flags, front, stop })
    }

    /// host:port that peers are told.
    pub(super) fn address(&self) -> &str {
        &self.core.address
    }

    /// Begins to lead: reads the registry and starts to serve. Every leadership has an
    /// id of its own, so that no id that it makes was made before.
    pub(super) async fn begin<R: Registry>(
        &self,
        mut registry: R,
        tenure: Tenure,
        master_id: String,
    ) -> Result<Term<R>, MasterError> {
        let recovered = registry.load().await?;
        let options = CoreOptions { master_id, ..self.core.clone() };
        let identity = identity(&options, self.cluster.clone(), self.clock, self.flags.clone());
        info!(
            master_id = identity.id,
            address = identity.address,
            agents = recovered.agents.len(),
            frameworks = recovered.frameworks.len(),
            "the master leads; so many are known from the registry"
        );
        let metrics = Arc::new(Metrics::new().map_err(MasterError::Metrics)?);
        let allocator = Box::new(DrfAllocator::new(options.allocator.clone()));
        // The machine's clock may have been set since the process was started.
        let clock = Clock::start();
        let core = Core::new(options, allocator, recovered, clock.now());
        let model = Arc::new(ReadModel::default());
        model.apply(core.initial_changes());
        let (handle, inputs) = CoreHandle::new();
        let api = Api {
            core: handle,
            model: model.clone(),
            metrics: metrics.clone(),
            identity,
            elected: clock.start_time(),
        };
        self.front.lead(leader_routes(api));
        Ok(Term { registry, core, model, metrics, inputs, tenure, clock })
    }

    /// Serves the socket until `work` is done, and lets the connections end.
    pub(super) async fn serve_while(
        &self,
        listener: TcpListener,
        work: impl Future<Output = Result<(), MasterError>>,
    ) -> Result<(), MasterError> {
        let address = self.address();
        let stop = self.stop.clone().cancelled_owned();
        let mut server = tokio::spawn(mezz_http::serve(
            self.front.clone().router(),
            listener,
            CONNECTIONS,
            stop,
        ));
        tokio::pin!(work);
        let mut served = None;
        let worked = tokio::select! {
            worked = &mut work => worked,
            early = &mut server => {
                served = Some(early);
                self.stop.cancel();
                work.await
            }
        };
        self.stop.cancel();
        let served = match served {
            Some(served) => served,
            None => match timeout(SHUTDOWN_GRACE, &mut server).await {
                Ok(served) => served,
                Err(_) => {
                    warn!("some connections did not end in time; they are cut");
                    server.abort();
                    Ok(())
                }
            },
        };
        worked?;
        served.map_err(|source| MasterError::Failed { part: "server", source })?;
        info!(address, "the master has stopped");
        Ok(())
    }
}

/// A leadership that is about to begin.
pub(super) struct Term<R> {
    registry: R,
    core: Core,
    model: Arc<ReadModel>,
    metrics: Arc<Metrics>,
    inputs: mpsc::Receiver<Input>,
    tenure: Tenure,
    clock: Clock,
}

impl<R: Registry> Term<R> {
    /// Decides until `stop` is cancelled, the tenure ends or the registry fails; then
    /// what was decided in time is written.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), MasterError> {
        let Self { registry, core, model, metrics, inputs, tenure, clock } = self;
        let (writes, queue) = mpsc::unbounded_channel();
        let (written_sender, written) = watch::channel(0);
        let (changes, changes_receiver) = mpsc::channel(CHANGE_BATCHES);
        // Ends the parts below when this leadership ends by itself, or is dropped.
        let over = stop.child_token();
        let _over_on_drop = over.clone().drop_guard();
        let writer = tokio::spawn(write_registry(registry, queue, written_sender, metrics.clone()));
        let reading = tokio::task::spawn_blocking(move || model.follow(changes_receiver));
        tokio::spawn(upkeep(metrics.clone(), over.clone()));
        let outputs = Outputs { writes, written, changes };
        let core_loop = CoreLoop::new(core, clock, tenure, outputs, metrics);
        let ended = tokio::spawn(core_loop.run(inputs, over)).await;
        // The loop has dropped its ends of the queues: the writer writes the rest and
        // ends, and so does the read model.
        let written = writer.await;
        let followed = reading.await;
        let failed = |part| move |source| MasterError::Failed { part, source };
        ended.map_err(failed("core"))?;
        written.map_err(failed("registry writer"))??;
        followed.map_err(failed("read model"))?;
        Ok(())
    }
}

fn identity(
    core: &CoreOptions,
    cluster: Option<String>,
    clock: Clock,
    flags: BTreeMap<String, String>,
) -> Arc<Identity> {
    Arc::new(Identity {
        id: core.master_id.clone(),
        address: core.address.clone(),
        version: env!("CARGO_PKG_VERSION"),
        cluster,
        clock,
        flags,
    })
}

/// The core's options with what only the start can tell.
fn complete(options: &MasterOptions, listener: &TcpListener) -> Result<CoreOptions, MasterError> {
    let mut core = options.core.clone();
    if core.master_id.is_empty() {
        core.master_id = uuid::Uuid::new_v4().to_string();
    }
    if core.address.is_empty() {
        core.address = match &options.advertise {
            Some(address) => address.clone(),
            None => {
                let bound = listener.local_addr().map_err(MasterError::Listener)?;
                advertised(bound, &hostname())
            }
        };
    }
    Ok(core)
}

/// What peers are told of a bound address: a wildcard is no address to connect
/// to, so the machine's name stands in for it.
fn advertised(bound: SocketAddr, hostname: &str) -> String {
    if bound.ip().is_unspecified() {
        format!("{hostname}:{}", bound.port())
    } else {
        bound.to_string()
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

async fn upkeep(metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut tick = interval(METRICS_UPKEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        metrics.upkeep();
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
