//! Starts real `mezz` processes on loopback and looks at them from outside, as a
//! user does.
//!
//! The program is the one that cargo built beside the tests, or `MEZZ_BIN`.
//! When a test fails, the end of every process's log is printed.

mod cluster;
mod docker;
mod etcd;
mod folder;
mod ledger;
mod mesos;
mod network;
mod process;
mod serve;
mod spark;

pub use cluster::{Cluster, ClusterOptions, QUICK_LOSS, free_address};
pub use docker::{Containers, DockerNetwork, Registry, docker, volumes_of_this_machine};
pub use etcd::Etcd;
pub use folder::{COMPOSE_PROJECT, Folder};
pub use ledger::{Account, Ledger, LedgerOptions};
pub use mesos::{asking_frameworks, run_mesos_client};
pub use network::Network;
pub use process::{Finished, Process, clean_command, example_program, mezz_program};
pub use serve::FileServer;
pub use spark::{
    ARCHIVED_SPARK, FIRST, Mode, QUICK, SECOND, SLOW, example, executors, executors_run, go,
    http_get, nothing_is_left, places_of, sidecar, small_cluster, spark_archive, spark_command,
    submit, submit_by, two_step_program,
};

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a condition may take that normally holds within a second or two: the
/// machines are small and shared.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until `look` has an answer.
///
/// # Errors
/// After `patience`: what was waited for, and the last thing that `look` saw.
pub fn eventually<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<std::result::Result<T, String>>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        let saw = match look()? {
            Ok(answer) => return Ok(answer),
            Err(saw) => saw,
        };
        if Instant::now() >= end {
            bail!("{what}: not within {patience:?}; at the end: {saw}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A value that `./test.sh` sets up and passes on.
///
/// # Errors
/// When the variable is not set: what to do.
pub fn prepared_value(variable: &str) -> Result<String> {
    std::env::var(variable)
        .with_context(|| format!("{variable} is not set: run the tests by ./test.sh"))
}

/// A path that `./test.sh` sets up and passes on.
///
/// # Errors
/// When the variable is not set or names nothing: what to do.
pub fn prepared(variable: &str) -> Result<PathBuf> {
    let path = PathBuf::from(prepared_value(variable)?);
    if !path.exists() {
        bail!("{variable} is {}, which does not exist: run ./test.sh", path.display());
    }
    Ok(path)
}

/// The pids of processes that work in this folder or below it, or name it on
/// their command line: what a cluster in it has started.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn processes_of(folder: &Path) -> Result<Vec<i32>> {
    let name = folder.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        // A process may end while it is looked at.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let works_in = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if works_in.starts_with(folder) || String::from_utf8_lossy(&line).contains(&name) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Sends a signal to a process.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: i32, signal: rustix::process::Signal) -> Result<()> {
    let raw = pid;
    let pid = rustix::process::Pid::from_raw(pid).context("pid 0")?;
    rustix::process::kill_process(pid, signal).with_context(|| format!("signalling {pid:?}"))?;
    // Only a thread that runs hears of it, and on a busy machine the others go on until then.
    if signal == rustix::process::Signal::STOP {
        eventually(PATIENCE, "all its threads stand still", || {
            let run = running_threads(raw)?;
            Ok(if run.is_empty() { Ok(()) } else { Err(format!("{run:?}")) })
        })?;
    }
    Ok(())
}

/// The states of a process's threads that are not stopped.
fn running_threads(pid: i32) -> Result<Vec<char>> {
    let mut run = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        // Behind the name in parentheses, which may have some of its own.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        run.extend(state.filter(|state| *state != 'T'));
    }
    Ok(run)
}
