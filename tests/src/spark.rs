//! What the tests of Spark, in either mode, look for.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::{Cluster, PATIENCE, eventually, processes_of};

/// Main classes of executors.
const EXECUTORS: [&str; 2] = ["CoarseGrainedExecutorBackend", "FineExecutorBackend"];

/// The JVMs of running executors, below the cluster's folder.
///
/// # Errors
/// When the processes cannot be listed.
pub fn executors(cluster: &Cluster) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for pid in processes_of(cluster.folder())? {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let program = line.split('\0').next().unwrap_or_default();
        if program.ends_with("java") && EXECUTORS.iter().any(|class| line.contains(class)) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// Waits until there are no executors, tasks and frameworks.
///
/// # Errors
/// When some are left after [`PATIENCE`].
pub fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    eventually(PATIENCE, "executors and framework are gone", || {
        let left =
            (executors(cluster)?, cluster.list("frameworks", &[])?, cluster.list("tasks", &[])?);
        let gone = left.0.is_empty() && left.1.is_empty() && left.2.is_empty();
        Ok(if gone { Ok(()) } else { Err(format!("{left:?}")) })
    })
}
