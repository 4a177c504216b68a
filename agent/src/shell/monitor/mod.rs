//! What is looked at while containers run: what they use, what is in their sandboxes,
//! where they listen, and how long their logs are.
//!
//! Each of them is one task that goes over the containers one by one, so that none
//! takes more than a part of one processor, however many containers there are; and each
//! container gets a bounded part of that, whatever it makes for us to look at.

mod disk;
mod logs;
mod ports;
mod totals;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mezz_proto::resources::Resources;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::registry::{Container, Registry};
use crate::{
    api::Index,
    containerizer::{ContainerError, Containerizer, Limitation},
    metrics::Metrics,
    options::{AgentOptions, MonitorOptions},
};

/// What a container or its engine has not answered by then is left out this time.
const ANSWER: Duration = Duration::from_secs(5);

/// How much of one container is looked at in one pass.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Files, or whatever it is.
    entries: u64,
    time: Duration,
}

/// Seconds on a disk that has to be asked for each file, less from the cache.
const BUDGET: Budget = Budget { entries: 1_000_000, time: Duration::from_secs(10) };

/// What is left of a [`Budget`].
struct Allowance {
    entries: u64,
    end: Instant,
}

impl Budget {
    fn begin(self) -> Allowance {
        Allowance { entries: self.entries, end: Instant::now() + self.time }
    }
}

impl Allowance {
    /// Takes one entry, if it may still be looked at.
    fn take(&mut self) -> bool {
        // The clock is read now and then only.
        if self.entries == 0 || self.entries.is_multiple_of(256) && Instant::now() >= self.end {
            return false;
        }
        self.entries -= 1;
        true
    }
}

/// What the monitors share.
pub(super) struct Monitor {
    pub(super) registry: Arc<Registry>,
    pub(super) containerizer: Arc<dyn Containerizer>,
    pub(super) index: Arc<Index>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) options: MonitorOptions,
    /// All that the agent offers.
    pub(super) resources: Resources,
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
}

impl Monitor {
    /// All that run, those of an engine last, for it may hang.
    fn engines_last(&self) -> Vec<Arc<Container>> {
        let mut all = self.registry.running();
        all.sort_by_cached_key(|container| self.containerizer.is_of_engine(&container.id));
        all
    }

    /// Waits for an answer about one container, but not for ever.
    async fn ask<T>(
        &self,
        container: &Container,
        question: impl Future<Output = Result<T, ContainerError>>,
    ) -> Answer<T> {
        match tokio::time::timeout(ANSWER, question).await {
            Ok(Ok(answer)) => Answer::Given(answer),
            Err(_) if self.containerizer.is_of_engine(&container.id) => Answer::Hung,
            Ok(Err(_)) | Err(_) => Answer::None,
        }
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

/// What was found out about one container.
enum Answer<T> {
    Given(T),
    /// It has just ended, or takes too long.
    None,
    /// Its engine hangs: others of it need not be asked in this pass.
    Hung,
}

/// Rests as long as the work took, so that a monitor is busy half of the time at most.
async fn rest(since: Instant) {
    tokio::time::sleep(since.elapsed().min(Duration::from_secs(60))).await;
}
