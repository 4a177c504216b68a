//! The life of containers: a task for each, from its sandbox to its end.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mezz_proto::{error::chain, ids::ContainerId, resources::Resources};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Input,
    check::Checks,
    registry::{Container, Registry},
};
use crate::{
    containerizer::{Containerizer, Program, Termination},
    core::{Event, Launch, Probe, ProbeId},
    fetcher::Fetcher,
    metrics::Metrics,
};

/// Containers that are being started at one time; more would only take turns at
/// the processors.
const LAUNCHES: usize = 16;

/// Containers whose files are being fetched at one time.
const FETCHES: usize = 16;

/// A container that could not be destroyed or waited for is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// An ended container's statistics come within this or not at all.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// So much of the end of `stderr` goes into the report of a container that used
/// up its memory, in bytes.
const TAIL: i64 = 2048;

/// What all containers share.
struct Shared {
    containerizer: Arc<dyn Containerizer>,
    fetcher: Fetcher,
    metrics: Arc<Metrics>,
    inputs: mpsc::Sender<Input>,
    launches: Semaphore,
    fetches: Semaphore,
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
            fetches: Semaphore::new(FETCHES),
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

    pub(super) fn signal(&self, id: ContainerId, signal: i32) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            if let Err(error) = shared.containerizer.signal(&id, signal).await {
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
        let prepared = async {
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
            if !launch.uris.is_empty() {
                let _slot = self.fetches.acquire().await;
                let (sandbox, user) = (&launch.spec.sandbox, launch.spec.user.as_deref());
                let fetched = self.fetcher.fetch(&launch.uris, sandbox, user).await;
                fetched.map_err(|error| format!("cannot fetch: {}", chain(&error)))?;
            }
            let prepared = self.containerizer.prepare(&launch.spec).await;
            prepared.map_err(|error| chain(&error))?;
            Ok::<_, String>(self.launches.acquire().await)
        };
        let early = || Err("it was ended before it was started".to_owned());
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = destroy.cancelled() => return Some(early()),
            prepared = prepared => match prepared {
                Ok(slot) => slot,
                Err(error) => return Some(Err(error)),
            },
        };
        let launched = self.containerizer.launch(launch.spec).await;
        drop(slot);
        Some(launched.map_err(|error| chain(&error)))
    }

    /// Until its end, which is reported.
    async fn follow(&self, container: &Container) {
        let id = &container.id;
        let mut bounds = container.bounds.subscribe();
        // What was changed before this is not lost.
        bounds.mark_changed();
        let (mut destroying, mut refused) = (false, false);
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
        let limitation = container.limitation().filter(|_| destroying);
        if let Some(limitation) = &limitation {
            self.metrics.limited(limitation.kind);
        }
        let id = id.clone();
        let ended = Event::ContainerEnded { container: id, termination, stderr_tail, limitation };
        let _ = self.inputs.send(Input::Core(ended)).await;
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

/// What tasks write is for their user and the agent, not for every user of the
/// machine: Spark keeps its data there.
const SANDBOX_MODE: u32 = 0o750;

/// The members of a pod, of whatever user, reach their sandboxes through its own.
const POD_MODE: u32 = 0o711;

/// Before anything is fetched for nothing.
fn check_user(name: &str) -> Result<(), String> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("user `{name}` does not exist on this agent")),
        Err(error) => Err(format!("looking up the user `{name}`: {error}")),
    }
}

/// Makes the folder and the files for output, and points `link`, or `latest` beside it,
/// at it (rule 56).
/// The files are there to be read before anything runs.
///
/// All of it is the agent's own, and so is what is fetched into it, so that no process
/// of the task's user can play tricks with links meanwhile. The containerizer gives it
/// to the user last.
fn make_sandbox(sandbox: &Path, mode: u32, link: Option<&Path>) -> Result<(), String> {
    let failed = |doing: &str, error: &dyn std::error::Error| {
        format!("sandbox {}: {doing}: {}", sandbox.display(), chain(error))
    };
    sandbox
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        // Never an older one, for the id is new: that might be somebody else's.
        .and_then(|()| std::fs::create_dir(sandbox))
        .and_then(|()| std::fs::set_permissions(sandbox, Permissions::from_mode(mode)))
        .map_err(|error| failed("cannot be made", &error))?;
    let logs = ["stdout", "stderr"].map(|name| sandbox.join(name));
    for log in &logs {
        let mut options = std::fs::OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o644).open(log);
        made.map_err(|error| failed("its logs cannot be made", &error))?;
    }
    if let (Some(runs), Some(name)) = (sandbox.parent(), sandbox.file_name()) {
        let (link, target) = match link {
            None => (runs.join("latest"), PathBuf::from(name)),
            // Both are in folders of one folder.
            Some(link) => {
                let folder = runs.file_name().unwrap_or_default();
                (link.to_owned(), Path::new("..").join(folder).join(name))
            }
        };
        let folder = link.parent().unwrap_or(runs);
        // Replaced in one step: a reader always finds one. The helper's name is
        // the container's own, so two launches do not meet.
        let mut fresh = std::ffi::OsString::from(".latest-");
        fresh.push(name);
        let fresh = folder.join(fresh);
        std::fs::create_dir_all(folder)
            .and_then(|()| symlink(target, &fresh))
            .and_then(|()| std::fs::rename(&fresh, &link))
            .map_err(|error| failed("the link to it", &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_points_at_the_newest_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let sandbox = folder.path().join("runs").join(name);
            make_sandbox(&sandbox, SANDBOX_MODE, None).unwrap();
        }
        let latest = std::fs::read_link(folder.path().join("runs/latest")).unwrap();
        assert_eq!(latest, Path::new("b"));
        for name in ["stdout", "stderr"] {
            assert_eq!(std::fs::read(folder.path().join("runs/b").join(name)).unwrap(), b"");
        }
    }

    #[test]
    fn a_members_sandbox_is_found_by_its_task() {
        let pod = tempfile::tempdir().unwrap();
        let link = pod.path().join("tasks/t");
        for name in ["a", "b"] {
            let sandbox = pod.path().join("containers").join(name);
            make_sandbox(&sandbox, SANDBOX_MODE, Some(&link)).unwrap();
            assert_eq!(link.canonicalize().unwrap(), sandbox.canonicalize().unwrap());
        }
        assert!(!pod.path().join("containers/latest").exists());
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = check_user("nobody-of-that-name").unwrap_err();
        assert!(error.contains("nobody-of-that-name"), "{error}");
    }

    #[test]
    fn a_folder_that_is_there_is_no_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        let error = make_sandbox(folder.path(), SANDBOX_MODE, None).unwrap_err();
        assert!(error.contains("cannot be made: File exists"), "{error}");
    }

    #[test]
    fn the_tail_starts_at_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{}\nlast line\n", "x".repeat(3000));
        std::fs::write(folder.path().join("stderr"), text).unwrap();
        assert_eq!(tail(folder.path()).as_deref(), Some("last line"));
    }
}
