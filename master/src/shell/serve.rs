//! Puts a master together, and takes it down again.

use std::{io, net::SocketAddr, sync::Arc};

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
    core_loop::{CoreLoop, Outputs},
    handle::CoreHandle,
    limits::{CHANGE_BATCHES, METRICS_UPKEEP, SHUTDOWN_GRACE},
    metrics::Metrics,
    read_model::ReadModel,
    writer::write_registry,
};
use crate::{
    allocator::DrfAllocator,
    api::{Api, Identity, serve_api},
    core::Core,
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
    /// The HTTP server cannot run.
    #[error("cannot serve on {address}")]
    Serve {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
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
    match options.registry.clone() {
        RegistryOptions::Memory => run(options, MemoryRegistry::new(), listener, shutdown).await,
        RegistryOptions::File(path) => {
            let registry = tokio::task::spawn_blocking(move || FileRegistry::open(&path))
                .await
                .map_err(|source| MasterError::Failed { part: "registry", source })??;
            run(options, registry, listener, shutdown).await
        }
    }
}

async fn run<R: Registry>(
    options: MasterOptions,
    mut registry: R,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), MasterError> {
    let clock = Clock::start();
    let core_options = complete(&options, &listener)?;
    let identity = Arc::new(Identity {
        id: core_options.master_id.clone(),
        address: core_options.address.clone(),
        version: env!("CARGO_PKG_VERSION"),
        cluster: options.cluster,
        clock,
    });
    let metrics = Arc::new(Metrics::new().map_err(MasterError::Metrics)?);

    let recovered = registry.load().await?;
    info!(
        master_id = identity.id,
        address = identity.address,
        agents = recovered.agents.len(),
        frameworks = recovered.frameworks.len(),
        "the master starts; so many are known from the registry"
    );
    let allocator = Box::new(DrfAllocator::new(core_options.allocator.clone()));
    let core = Core::new(core_options, allocator, recovered, clock.now());
    let model = Arc::new(ReadModel::default());
    model.apply(core.initial_changes());

    // Also when this future is dropped, everything stops.
    let stop = shutdown.child_token();
    let _stop_on_drop = stop.clone().drop_guard();

    let (writes, queue) = mpsc::unbounded_channel();
    let (written_sender, written) = watch::channel(0);
    let (changes, changes_receiver) = mpsc::channel(CHANGE_BATCHES);
    let (handle, inputs) = CoreHandle::new();
    let writer = tokio::spawn(write_registry(registry, queue, written_sender, metrics.clone()));
    let reading = tokio::spawn({
        let model = model.clone();
        async move { model.follow(changes_receiver).await }
    });
    tokio::spawn(upkeep(metrics.clone(), stop.clone()));
    let outputs = Outputs { writes, written, changes };
    let core_loop = CoreLoop::new(core, clock, outputs, metrics.clone());
    let mut core_loop = tokio::spawn(core_loop.run(inputs, stop.clone()));
    let address = identity.address.clone();
    let api = Api { core: handle, model, metrics, identity };
    let mut server = tokio::spawn(serve_api(api, listener, stop.clone().cancelled_owned()));

    let mut served = None;
    let ended = tokio::select! {
        ended = &mut core_loop => ended,
        early = &mut server => {
            served = Some(early);
            stop.cancel();
            core_loop.await
        }
    };
    stop.cancel();
    // The loop has dropped its ends of the queues: the writer writes the rest and
    // ends, and so does the read model.
    let written = writer.await;
    let followed = reading.await;
    let served = match served {
        Some(served) => served,
        None => match timeout(SHUTDOWN_GRACE, &mut server).await {
            Ok(served) => served,
            Err(_) => {
                warn!("some connections did not end in time; they are cut");
                server.abort();
                Ok(Ok(()))
            }
        },
    };

    let failed = |part| move |source| MasterError::Failed { part, source };
    ended.map_err(failed("core"))?;
    written.map_err(failed("registry writer"))??;
    followed.map_err(failed("read model"))?;
    served
        .map_err(failed("server"))?
        .map_err(|source| MasterError::Serve { address: address.clone(), source })?;
    info!(address, "the master has stopped");
    Ok(())
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
