//! What the tests of Spark, in either mode, look for.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use anyhow::{Context, Result};

use crate::{Cluster, PATIENCE, eventually, prepared, processes_of};

/// Main classes of executors.
const EXECUTORS: [&str; 2] = ["CoarseGrainedExecutorBackend", "FineExecutorBackend"];

/// Of `mezz spark`, what runs an application.
const APPLICATIONS: [&str; 4] = ["submit", "shell", "pyspark", "sql"];

/// For JVMs with short runs of much code: compiling it well costs more than it gives.
const QUICK: &str = "-XX:TieredStopAtLevel=1";

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
    let (what, rest) = words.split_first().context("one of Spark's programs")?;
    let mut command = cluster.client(["spark", what]);
    if APPLICATIONS.contains(what) {
        let option = format!("spark.executor.defaultJavaOptions={QUICK}");
        command.env("SPARK_SUBMIT_OPTS", QUICK).args(["--conf", &option]);
    }
    command
        .args(rest)
        .env("SPARK_HOME", prepared(spark)?)
        .env("PYSPARK_PYTHON", prepared("MEZZ_TEST_PYTHON")?)
        .env("MEZZ_SPARK_BRIDGE", prepared("MEZZ_SPARK_BRIDGE")?)
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    Ok(command)
}

/// Where any of these words is seen by somebody who looks at the cluster: in its lists,
/// on the command line of one of its processes, in a file below its folder, unless that
/// is one of master or agent that nobody but its owner may read.
///
/// # Errors
/// When something cannot be looked at.
pub fn places_of(cluster: &Cluster, words: &[&str]) -> Result<Vec<String>> {
    let seen = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        words.iter().any(|word| text.contains(word))
    };
    let mut places = Vec::new();
    for (list, args) in
        [("frameworks", &[][..]), ("agents", &[]), ("offers", &[]), ("tasks", &["--completed"])]
    {
        for item in cluster.list(list, args)? {
            if seen(item.to_string().as_bytes()) {
                places.push(format!("mezz {list}: {item}"));
            }
        }
    }
    for pid in processes_of(cluster.folder())? {
        // A process may end while it is looked at.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if seen(&line) {
            places.push(format!("command line: {}", String::from_utf8_lossy(&line)));
        }
    }
    let mut folders = vec![(cluster.folder().to_path_buf(), false, false)];
    while let Some((folder, closed, served)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            // A file may go while it is looked at.
            let Ok(data) = entry.metadata() else { continue };
            // Sandboxes are served by the agent, whoever may open their files here.
            let served = served || path.ends_with("slaves");
            let closed = !served && (closed || data.permissions().mode() & 0o077 == 0);
            if kind.is_dir() {
                folders.push((path, closed, served));
            } else if kind.is_file() && !closed && seen(&std::fs::read(&path).unwrap_or_default()) {
                places.push(path.display().to_string());
            }
        }
    }
    Ok(places)
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
