//! What the tests of Spark, in either mode, look for.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use anyhow::{Context, Result};

use crate::{Cluster, PATIENCE, eventually, prepared, processes_of};

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

/// The sidecar of a driver, below the cluster's folder.
///
/// # Errors
/// When there is none, or the processes cannot be listed.
pub fn sidecar(cluster: &Cluster) -> Result<i32> {
    let is_sidecar = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|argument| argument == b"spark-sidecar")
    };
    processes_of(cluster.folder())?.into_iter().find(is_sidecar).context("a sidecar")
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

/// A `mezz spark …` command for this cluster, with the Spark that this variable names
/// and the plugin.
///
/// # Errors
/// When `./test.sh` has not set them up.
pub fn spark_command(cluster: &Cluster, spark: &str, words: &[&str]) -> Result<Command> {
    let mut command = cluster.client(["spark"].iter().chain(words));
    command
        .env("SPARK_HOME", prepared(spark)?)
        .env("PYSPARK_PYTHON", prepared("MEZZ_TEST_PYTHON")?)
        .env("MEZZ_SPARK_BRIDGE", prepared("MEZZ_SPARK_BRIDGE")?)
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    Ok(command)
}

/// What answers at this `http://` address: its status and its body.
///
/// # Errors
/// When nothing does.
pub fn http_get(url: &str) -> Result<(u16, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not http"))?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address).with_context(|| format!("asking {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // In 1.0 the end of the answer is the end of the connection.
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer with a body")?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("a status")?;
    Ok((status, body.to_owned()))
}
