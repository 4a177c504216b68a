//! What is looked at while containers run: what they use, what is in their sandboxes,
//! where they listen, and how long their logs are.
//!
//! Each of them is one task that goes over the containers one by one, so that none
//! takes more than a part of one processor, however many containers there are.

mod disk;
mod logs;
mod ports;
mod totals;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use mezz_proto::resources::Resources;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::registry::{Container, Registry};
use crate::{
    api::Index,
    containerizer::{Containerizer, Limitation},
    metrics::Metrics,
    options::{AgentOptions, MonitorOptions},
};

/// What the monitors share.
pub(super) struct Monitor {
    pub(super) registry: Arc<Registry>,
    pub(super) containerizer: Arc<dyn Containerizer>,
    pub(super) index: Arc<Index>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) options: MonitorOptions,
    /// All that the agent offers.
    pub(super) resources: Resources,
    pub(super) work_dir: PathBuf,
    /// Cuts short what takes long.
    pub(super) stop: CancellationToken,
}

impl Monitor {
    pub(super) fn new(
        options: &AgentOptions,
        registry: Arc<Registry>,
        containerizer: Arc<dyn Containerizer>,
        index: Arc<Index>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            containerizer,
            index,
            metrics,
            options: options.monitor.clone(),
            resources: options.resources.clone(),
            work_dir: options.work_dir.clone(),
            stop,
        })
    }

    /// Runs all until `stop`.
    pub(super) fn start(self: Arc<Self>, tasks: &TaskTracker) {
        let monitors = [totals::run, disk::run, ports::run, logs::run]
            as [fn(Arc<Self>) -> crate::containerizer::BoxFuture<'static, ()>; 4];
        for monitor in monitors {
            let (monitor, stop) = (monitor(Arc::clone(&self)), self.stop.clone());
            tasks.spawn(async move {
                stop.run_until_cancelled(monitor).await;
            });
        }
    }

    /// Whether our launcher runs it, and not an engine with logs of its own.
    fn is_ours(&self, container: &Container) -> bool {
        self.work_dir.join("containers").join(container.id.as_str()).is_dir()
    }
}

/// Reports what a container took too much of, or ends it for that.
fn too_much(container: &Container, enforce: bool, limitation: Limitation) {
    let Limitation { kind, message } = &limitation;
    if enforce {
        tracing::warn!(container = %container.id, ?kind, "ended: {message}");
        container.limit(limitation);
    } else {
        tracing::warn!(container = %container.id, ?kind, "goes on: {message}");
    }
}

/// Rests as long as the work took, so that a monitor is busy half of the time at most.
async fn rest(since: Instant) {
    tokio::time::sleep(since.elapsed().min(Duration::from_secs(60))).await;
}
