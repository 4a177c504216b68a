//! The life of containers: a task for each, from its sandbox to its end.

mod sandbox;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mezz_proto::{error::chain, ids::ContainerId, resources::Resources, v1::container_info};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::sandbox::{POD_MODE, SANDBOX_MODE, check_user, make_sandbox};
use super::{
    Input,
    check::Checks,
    registry::{Container, Registry},
};
use crate::{
    containerizer::{
        Addressee, ContainerError, ContainerSpec, Containerizer, Program, Termination,
    },
    core::{Event, Launch, Probe, ProbeId},
    fetcher::Fetcher,
    metrics::Metrics,
};

/// Containers of each kind that are being started at one time; more would only take turns
/// at the processors.
const LAUNCHES: usize = 16;

/// How often a container's image is fetched that others remove at once.
const IMAGES: usize = 3;

/// What is being started when the agent stops gets so long to be there: an engine that
/// hangs keeps no agent from ending.
const GOODBYE: Duration = Duration::from_secs(5);

/// A container that could not be destroyed or waited for is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// An ended container's statistics come within this or not at all.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// So much of the end of `stderr` goes into the report of a container that used
/// up its memory, in bytes.
const TAIL: i64 = 2048;

/// A place among those that start.
type Slot<'a> = Option<SemaphorePermit<'a>>;

/// What all containers share.
struct Shared {
    containerizer: Arc<dyn Containerizer>,
    fetcher: Fetcher,
    metrics: Arc<Metrics>,
    inputs: mpsc::Sender<Input>,
    /// Of processes of this machine.
    launches: Semaphore,
    /// Of an engine, which may hang; nobody else waits for it.
    engine_launches: Semaphore,
}

/// Starts and follows containers.
pub(super) struct Runner {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    checks: Checks,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Runner {
    pub(super) fn new(
        containerizer: Arc<dyn Containerizer>,
        fetcher: Fetcher,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        inputs: mpsc::Sender<Input>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let checks =
            Checks::new(Arc::clone(&containerizer), inputs.clone(), tasks.clone(), stop.clone());
        let shared = Shared {
            containerizer,
            fetcher,
            metrics,
            inputs,
            launches: Semaphore::new(LAUNCHES),
            engine_launches: Semaphore::new(LAUNCHES),
        };
        Self { shared: Arc::new(shared), registry, checks, tasks, stop }
    }

    pub(super) fn launch(&self, launch: Launch) {
        let spec = &launch.spec;
        let (id, held) = (spec.id.clone(), spec.resources.clone());
        let container = self.registry.add(id, spec.sandbox.clone(), held, true);
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        self.tasks.spawn(async move {
            let id = container.id.clone();
            let event = match shared.start(launch, &container.destroy, &stop).await {
                // The agent ends; the next one finds what has become of it.
                None => return,
                Some(Ok(pid)) => Event::ContainerLaunched { container: id, pid },
                Some(Err(error)) => Event::LaunchFailed { container: id, error },
            };
            let running = matches!(event, Event::ContainerLaunched { .. });
            if running {
                container.runs();
            }
            if shared.inputs.send(Input::Core(event)).await.is_ok() && running {
                stop.run_until_cancelled(shared.follow(&container)).await;
            }
        });
    }

    pub(super) fn watch(&self, id: ContainerId, sandbox: PathBuf, held: Resources) {
        let container = self.registry.add(id, sandbox, held, false);
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(shared.follow(&container)).await;
        });
    }

    pub(super) fn destroy(&self, id: &ContainerId) {
        if let Some(container) = self.registry.get(id) {
            container.destroy.cancel();
        }
    }

    pub(super) fn update(
        &self,
        id: &ContainerId,
        resources: Resources,
        limits: BTreeMap<String, f64>,
    ) {
        self.registry.update(id, resources, limits);
    }

    pub(super) fn signal(&self, id: ContainerId, signal: i32, to: Addressee) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            if let Err(error) = shared.containerizer.signal(&id, signal, to).await {
                // It has just ended, or its grace will end it.
                tracing::debug!(container = %id, signal, error = chain(&error), "not signalled");
            }
        });
    }

    pub(super) fn probe(
        &self,
        id: ContainerId,
        probe: ProbeId,
        what: Probe,
        timeout: Option<Duration>,
    ) {
        self.checks.probe(id, probe, what, timeout);
    }

    /// There is nothing left to be done to it.
    pub(super) fn ended(&self, id: &ContainerId) {
        self.registry.remove(id);
        self.checks.ended(id);
    }

    pub(super) fn remove(&self, id: ContainerId) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            if let Err(error) = shared.containerizer.remove(&id).await {
                tracing::warn!(
                    container = %id, error = chain(&error),
                    "an ended container was not cleaned up; the next start of the agent will"
                );
            }
        });
    }
}

impl Shared {
    /// `None` when the agent stops first.
    async fn start(
        &self,
        launch: Launch,
        destroy: &CancellationToken,
        stop: &CancellationToken,
    ) -> Option<Result<u32, String>> {
        let early = || Some(Err("it was ended before it was started".to_owned()));
        let furnished = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = destroy.cancelled() => return early(),
            furnished = self.furnish(&launch) => furnished,
        };
        if let Err(error) = furnished {
            return Some(Err(error));
        }
        let mut images = IMAGES;
        loop {
            let slot = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = destroy.cancelled() => return early(),
                slot = self.slot(&launch.spec) => slot,
            };
            let slot = match slot {
                Ok(slot) => slot,
                Err(error) => return Some(Err(chain(&error))),
            };
            let too_late = async {
                stop.cancelled().await;
                tokio::time::sleep(GOODBYE).await;
            };
            let launched = tokio::select! {
                launched = self.containerizer.launch(launch.spec.clone()) => launched,
                () = too_late => return None,
            };
            drop(slot);
            images -= 1;
            match launched {
                // Fetched again without a place among those that start.
                Err(ContainerError::ImageGone { .. }) if images > 0 => {}
                launched => return Some(launched.map_err(|error| chain(&error))),
            }
        }
    }

    /// Makes its sandbox, and brings what it wants to have there.
    async fn furnish(&self, launch: &Launch) -> Result<(), String> {
        let (sandbox, user) = (launch.spec.sandbox.clone(), launch.spec.user.clone());
        let link = launch.link.clone();
        let mode = match launch.spec.program {
            Program::Hold => POD_MODE,
            _ => SANDBOX_MODE,
        };
        let made = tokio::task::spawn_blocking(move || {
            user.as_deref().map_or(Ok(()), check_user)?;
            make_sandbox(&sandbox, mode, link.as_deref())
        });
        made.await.map_err(|_| "making the sandbox was cut short".to_owned())??;
        let (sandbox, user) = (&launch.spec.sandbox, launch.spec.user.as_deref());
        let fetched = self.fetcher.fetch(&launch.uris, &launch.framework, sandbox, user).await;
        fetched.map_err(|error| format!("cannot fetch: {}", chain(&error)))
    }

    /// A place among those that start, once its image is there.
    async fn slot(&self, spec: &ContainerSpec) -> Result<Slot<'_>, ContainerError> {
        self.containerizer.prepare(spec).await?;
        let docker = container_info::Type::Docker;
        let slots = match &spec.info {
            Some(info) if info.r#type() == docker => &self.engine_launches,
            _ => &self.launches,
        };
        // Closed by nobody.
        Ok(slots.acquire().await.ok())
    }

    /// Until its end, which is reported.
    async fn follow(&self, container: &Container) {
        let id = &container.id;
        let mut bounds = container.bounds.subscribe();
        // What was changed before this is not lost.
        bounds.mark_changed();
        let (mut destroying, mut refused, mut limited) = (false, false, false);
        let mut wait = self.containerizer.wait(id);
        let termination = loop {
            tokio::select! {
                ended = &mut wait => match ended {
                    Ok(termination) => break termination,
                    Err(error) => {
                        let error = chain(&error);
                        tracing::error!(container = %id, %error, "waiting for a container failed");
                        break Termination {
                            wait_status: None,
                            out_of_memory: None,
                            failure: None,
                        };
                    }
                },
                () = container.destroy.cancelled(), if !destroying => {
                    match self.containerizer.destroy(id).await {
                        Ok(()) => destroying = true,
                        Err(error) => {
                            let error = chain(&error);
                            tracing::error!(container = %id, %error, "not destroyed; again soon");
                            tokio::time::sleep(AGAIN).await;
                        }
                    }
                }
                () = container.limited.cancelled(), if !limited => {
                    limited = true;
                    self.tell_limited(container).await;
                }
                changed = bounds.changed(), if !destroying => {
                    // Its sender lives as long as this.
                    debug_assert!(changed.is_ok());
                    let newest = bounds.borrow_and_update().clone();
                    if let Some((resources, limits)) = newest
                        && let Err(error) = self.containerizer.update(id, resources, limits).await
                    {
                        if !refused {
                            let error = chain(&error);
                            tracing::warn!(
                                container = %id, %error, "its limits are not changed yet"
                            );
                        }
                        refused = true;
                        tokio::time::sleep(AGAIN).await;
                        bounds.mark_changed();
                    } else {
                        refused = false;
                    }
                }
            }
        };
        // What it used after the monitor last asked. Not worth waiting for.
        let used = tokio::time::timeout(LAST_WORDS, self.containerizer.statistics(id)).await;
        if let Ok(Ok(used)) = used {
            self.metrics.container_used(container.replace_used(used).as_ref(), &used);
        }
        let sandbox = container.sandbox.clone();
        let stderr_tail = match termination.out_of_memory {
            Some(_) => tokio::task::spawn_blocking(move || tail(&sandbox)).await.ok().flatten(),
            None => None,
        };
        let id = id.clone();
        let ended = Event::ContainerEnded { container: id, termination, stderr_tail };
        let _ = self.inputs.send(Input::Core(ended)).await;
    }

    /// The core has it destroyed, once it has stored why.
    async fn tell_limited(&self, container: &Container) {
        let Some(limitation) = container.limitation() else { return };
        self.metrics.limited(limitation.kind);
        let limited = Event::ContainerLimited { container: container.id.clone(), limitation };
        let _ = self.inputs.send(Input::Core(limited)).await;
    }
}

/// The end of `stderr`, from a whole line on.
fn tail(sandbox: &Path) -> Option<String> {
    let mut reader = crate::api::Reader::open(sandbox, "stderr", -TAIL).ok()?;
    let cut = reader.offset > 0;
    let bytes = reader.next(TAIL.unsigned_abs()).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = match text.split_once('\n') {
        Some((_, whole)) if cut => whole,
        _ => &text,
    };
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_starts_at_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{}\nlast line\n", "x".repeat(3000));
        std::fs::write(folder.path().join("stderr"), text).unwrap();
        assert_eq!(tail(folder.path()).as_deref(), Some("last line"));
    }
}
