//! Removing the sandboxes of containers that ended long ago (rule 56).
//!
//! How long is long depends on how full their disk is: the retention when it is nearly
//! empty, nothing at all from nine tenths on.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mezz_proto::{ids::ContainerId, time::Time};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{now, registry::Registry};
use crate::{
    api::Index,
    core::{StoreOp, escape},
    metrics::Metrics,
};

/// A disk that is fuller than this keeps no sandbox of an ended container.
const FULLEST: f64 = 0.9;

/// The shortest pause, so that a tiny retention does not keep the agent busy.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// A sandbox that the store does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Orphan {
    path: PathBuf,
    /// Its last change.
    since: Time,
}

/// Finds sandboxes of containers that neither the store knows nor the containerizer is
/// still ending. Before any is made.
pub(super) fn orphans(
    work_dir: &Path,
    known: &HashSet<PathBuf>,
    unended: &BTreeSet<ContainerId>,
) -> Vec<Orphan> {
    let unended: HashSet<String> = unended.iter().map(|id| escape(id.as_str())).collect();
    let below = |folders: Vec<PathBuf>, name: &str| -> Vec<PathBuf> {
        let entries = folders.iter().flat_map(|folder| fs::read_dir(folder.join(name)));
        let folders = entries.flatten().flatten().filter(|entry| {
            // No links, such as `latest`.
            entry.file_type().is_ok_and(|kind| kind.is_dir())
        });
        folders.map(|entry| entry.path()).collect()
    };
    let agents = below(vec![work_dir.to_owned()], "slaves");
    let executors = below(below(agents, "frameworks"), "executors");
    let runs = below(executors, "runs").into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !known.contains(path) && !unended.contains(&*name)
    });
    let since = |path: &Path| {
        let changed = fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok()?;
        changed.duration_since(std::time::UNIX_EPOCH).ok()
    };
    runs.map(|path| Orphan { since: Time::ZERO + since(&path).unwrap_or_default(), path }).collect()
}

/// What is needed to remove sandboxes.
pub(super) struct Collector {
    pub(super) index: Arc<Index>,
    pub(super) registry: Arc<Registry>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) work_dir: PathBuf,
    /// Those of ended containers are kept so long on an empty disk.
    pub(super) retention: Duration,
    /// Between two looks.
    pub(super) interval: Duration,
    pub(super) orphans: Vec<Orphan>,
}

impl Collector {
    /// Looks again and again until `stop`; what comes out is to be stored.
    pub(super) fn start(mut self, stop: CancellationToken) -> mpsc::Receiver<Vec<StoreOp>> {
        let (sender, receiver) = mpsc::channel(1);
        let pause = (self.retention / 4).max(SHORTEST_PAUSE).min(self.interval);
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
                let collected = tokio::task::spawn_blocking(move || {
                    let used = self.disk_use();
                    let ops = self.collect(used);
                    (self, ops)
                });
                let Ok((back, ops)) = collected.await else { return };
                self = back;
                if !ops.is_empty() && sender.send(ops).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn disk_use(&self) -> f64 {
        let used = disk_use(&self.work_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "how full the disk of the --work-dir is cannot be told");
            0.0
        });
        self.metrics.disk_use.set(used);
        used
    }

    fn collect(&mut self, used: f64) -> Vec<StoreOp> {
        let age = self.retention.mul_f64((FULLEST - used).max(0.0));
        let (now, mut ops) = (now(), Vec::new());
        for record in self.index.expired(now, age) {
            let path = Path::new(&record.path);
            // A pod's own container may end before those in it.
            if self.registry.lives_in(path) || !remove(path) {
                continue;
            }
            let container = ContainerId::from(record.container_id);
            self.index.forget(&container);
            ops.push(StoreOp::RemoveSandbox(container));
        }
        let (registry, index) = (&self.registry, &self.index);
        self.orphans.retain(|Orphan { path, since }| {
            let due = *since + age <= now && !registry.lives_in(path) && !index.has_below(path);
            !(due && remove(path))
        });
        ops
    }
}

/// Of the file system's room for users, from 0 to 1.
fn disk_use(folder: &Path) -> io::Result<f64> {
    let found = rustix::fs::statvfs(folder)?;
    let used = found.f_blocks.saturating_sub(found.f_bfree);
    let all = used + found.f_bavail;
    Ok(if all == 0 { 0.0 } else { used as f64 / all as f64 })
}

/// Whether it is gone. Tried again later if not.
fn remove(sandbox: &Path) -> bool {
    match fs::remove_dir_all(sandbox) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let path = sandbox.display();
            tracing::warn!(%path, %error, "a sandbox was not removed; again later");
            return false;
        }
    }
    remove_empty_parents(sandbox);
    true
}

/// `runs`, the executor's folder, `executors` and the framework's, where nothing
/// else is left in them.
fn remove_empty_parents(sandbox: &Path) {
    let Some(runs) = sandbox.parent() else { return };
    // The folder of one that runs in a pod is its pod's.
    if !runs.ends_with("runs") {
        return;
    }
    let latest = runs.join("latest");
    if fs::symlink_metadata(&latest).is_ok() && !latest.exists() {
        let _ = fs::remove_file(&latest);
    }
    for folder in runs.ancestors().take(4) {
        // Fails for a folder that is not empty, which is what is wanted.
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::SandboxRecord;

    fn collector(work_dir: &Path, records: Vec<SandboxRecord>, orphans: Vec<Orphan>) -> Collector {
        Collector {
            index: Arc::new(Index::new(None, records, Vec::new())),
            registry: Arc::default(),
            metrics: Arc::new(Metrics::new()),
            work_dir: work_dir.to_owned(),
            retention: Duration::from_secs(3600),
            interval: Duration::from_secs(60),
            orphans,
        }
    }

    fn sandbox(work_dir: &Path, executor: &str) -> PathBuf {
        let executor = work_dir.join("slaves/S/frameworks/F/executors").join(executor);
        let sandbox = executor.join("runs/c");
        fs::create_dir_all(&sandbox).unwrap();
        std::os::unix::fs::symlink("c", executor.join("runs/latest")).unwrap();
        sandbox
    }

    fn record(executor: &str, path: &Path, ended_at: Option<u64>) -> SandboxRecord {
        SandboxRecord {
            container_id: executor.into(),
            framework_id: "F".into(),
            executor_id: executor.into(),
            path: path.display().to_string(),
            ended_at,
        }
    }

    #[test]
    fn removes_the_expired_sandbox_and_empty_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let [old, young] = ["old", "young"].map(|name| sandbox(folder.path(), name));
        let records =
            vec![record("old", &old, Some(1)), record("young", &young, Some(now().as_nanos()))];
        let mut collector = collector(folder.path(), records, vec![]);
        assert_eq!(collector.collect(0.0), [StoreOp::RemoveSandbox("old".into())]);
        assert!(!folder.path().join("slaves/S/frameworks/F/executors/old").exists());
        assert!(young.exists());
        assert!(collector.collect(0.0).is_empty());
        assert!(collector.collect(0.85).is_empty(), "3 min are kept");
        assert_eq!(collector.collect(0.9), [StoreOp::RemoveSandbox("young".into())]);
    }

    #[test]
    fn what_somebody_lives_in_stays() {
        let folder = tempfile::tempdir().unwrap();
        let pod = sandbox(folder.path(), "pod");
        let mut collector = collector(folder.path(), vec![record("pod", &pod, Some(1))], vec![]);
        let registry = Arc::clone(&collector.registry);
        registry.add("t".into(), pod.join("tasks/t"), Default::default(), true);
        assert!(collector.collect(0.0).is_empty() && pod.exists());
        registry.remove(&"t".into());
        assert_eq!(collector.collect(0.0), [StoreOp::RemoveSandbox("pod".into())]);
    }

    #[test]
    fn sandboxes_that_nobody_knows_are_found_and_go_by_their_age() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["old", "new", "known", "ending"].map(|name| sandbox(folder.path(), name));
        let [old, new, known, ending] = &paths;
        fs::rename(ending, ending.with_file_name("e")).unwrap();
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::open(old).unwrap().set_modified(long_ago).unwrap();
        let found = orphans(
            folder.path(),
            &HashSet::from([known.clone()]),
            &BTreeSet::from([ContainerId::from("e")]),
        );
        let mut names: Vec<_> = found.iter().map(|orphan| &orphan.path).collect();
        names.sort();
        assert_eq!(names, [new, old]);
        let mut collector = collector(folder.path(), vec![], found);
        assert!(collector.collect(0.0).is_empty());
        assert!(!old.exists() && new.exists() && known.exists());
        assert_eq!(collector.orphans.len(), 1);
    }
}
