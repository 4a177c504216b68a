//! Removing the sandboxes of containers that ended long ago (rule 56).

use std::{path::Path, sync::Arc, time::Duration};

use mezz_proto::ids::ContainerId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::now;
use crate::{api::Index, core::StoreOp};

/// The longest pause between two looks, as Mesos does.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The shortest, so that a tiny retention does not keep the agent busy.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until `stop`; what comes out is to be stored.
pub(super) fn start(
    index: Arc<Index>,
    retention: Duration,
    stop: CancellationToken,
) -> mpsc::Receiver<Vec<StoreOp>> {
    let (sender, receiver) = mpsc::channel(1);
    let pause = (retention / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    tokio::spawn(async move {
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let index = Arc::clone(&index);
            let collected = tokio::task::spawn_blocking(move || collect(&index, retention)).await;
            let Ok(ops) = collected else { return };
            if !ops.is_empty() && sender.send(ops).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn collect(index: &Index, retention: Duration) -> Vec<StoreOp> {
    let mut ops = Vec::new();
    for record in index.expired(now(), retention) {
        let path = Path::new(&record.path);
        match std::fs::remove_dir_all(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = record.path, %error, "a sandbox was not removed; again later");
                continue;
            }
        }
        remove_empty_parents(path);
        let container = ContainerId::from(record.container_id);
        index.forget(&container);
        ops.push(StoreOp::RemoveSandbox(container));
    }
    ops
}

/// `runs`, the executor's folder, `executors` and the framework's, where nothing
/// else is left in them.
fn remove_empty_parents(sandbox: &Path) {
    let Some(runs) = sandbox.parent() else { return };
    let latest = runs.join("latest");
    if std::fs::symlink_metadata(&latest).is_ok() && !latest.exists() {
        let _ = std::fs::remove_file(&latest);
    }
    for folder in runs.ancestors().take(4) {
        // Fails for a folder that is not empty, which is what is wanted.
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::SandboxRecord;

    #[test]
    fn removes_the_expired_sandbox_and_empty_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let executors = folder.path().join("slaves/S/frameworks/F/executors");
        let sandbox = |executor: &str| executors.join(executor).join("runs/c");
        for executor in ["old", "young"] {
            std::fs::create_dir_all(sandbox(executor)).unwrap();
            std::os::unix::fs::symlink("c", executors.join(executor).join("runs/latest")).unwrap();
        }
        let record = |executor: &str, ended_at: u64| SandboxRecord {
            container_id: executor.into(),
            framework_id: "F".into(),
            executor_id: executor.into(),
            path: sandbox(executor).display().to_string(),
            ended_at: Some(ended_at),
        };
        let records = vec![record("old", 1), record("young", now().as_nanos())];
        let index = Index::new(None, records, Vec::new());
        let ops = collect(&index, Duration::from_secs(3600));
        assert_eq!(ops, [StoreOp::RemoveSandbox("old".into())]);
        assert!(!executors.join("old").exists());
        assert!(sandbox("young").exists());
        assert!(collect(&index, Duration::from_secs(3600)).is_empty());
    }
}
