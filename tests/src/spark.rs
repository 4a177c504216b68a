//! What the tests of Spark, in either mode, look for.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{Cluster, ClusterOptions, PATIENCE, Process, eventually, prepared, processes_of};

/// Main classes of executors.
const EXECUTORS: [&str; 2] = ["CoarseGrainedExecutorBackend", "FineExecutorBackend"];

/// Of `mezz spark`, what runs an application.
const APPLICATIONS: [&str; 4] = ["submit", "shell", "pyspark", "sql"];

/// An option for JVMs with short runs of much code: compiling it well costs more than it gives.
pub const QUICK: &str = "-XX:TieredStopAtLevel=1";

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

/// Waits until so many run. An application may begin its work before all of them do.
///
/// # Errors
/// When there are not, or the processes cannot be listed.
pub fn executors_run(cluster: &Cluster, count: usize) -> Result<BTreeSet<i32>> {
    eventually(PATIENCE, &format!("{count} executors run"), || {
        let now = executors(cluster)?;
        Ok(if now.len() == count { Ok(now) } else { Err(format!("{now:?}")) })
    })
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
    } else if *what == "history" {
        command.env("SPARK_HISTORY_OPTS", QUICK);
    }
    command
        .args(rest)
        .env("SPARK_HOME", prepared(spark)?)
        .env("PYSPARK_PYTHON", prepared("MEZZ_TEST_PYTHON")?)
        .env("MEZZ_SPARK_BRIDGE", prepared("MEZZ_SPARK_BRIDGE")?)
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    Ok(command)
}

/// How an application uses its executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each is a task of the cluster.
    Coarse,
    /// Each task of Spark's is one of the cluster's.
    Fine,
}

/// A cluster of two agents, on each of which one small executor with one core fits, or in
/// fine-grained mode one and a task; the driver is outside.
///
/// # Errors
/// When it does not start.
pub fn small_cluster() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:1;mem:1400;disk:1000".to_owned(),
        ..Default::default()
    })
}

/// Starts a PySpark program by `mezz spark submit`, with the Spark that this variable names
/// and small executors.
///
/// # Errors
/// When `./test.sh` has not set Spark up, or the program does not start.
pub fn submit(
    cluster: &Cluster,
    mode: Mode,
    spark: &str,
    conf: &[&str],
    program: &Path,
    args: &[&str],
) -> Result<Process> {
    let words: &[&str] = match mode {
        Mode::Coarse => &["submit"],
        Mode::Fine => &["submit", "--mode", "fine"],
    };
    submit_by(spark_command(cluster, spark, words)?, cluster, conf, program, args)
}

/// The same, by such a [`spark_command`].
///
/// # Errors
/// When the program does not start.
pub fn submit_by(
    mut command: Command,
    cluster: &Cluster,
    conf: &[&str],
    program: &Path,
    args: &[&str],
) -> Result<Process> {
    for pair in ["spark.executor.memory=512m", "spark.ui.enabled=false"].iter().chain(conf) {
        command.args(["--conf", pair]);
    }
    command.arg(program).args(args);
    Process::start("spark", cluster.folder(), command)
}

/// What is in this folder of [`spark_archive`].
pub const ARCHIVED_SPARK: &str = "spark-to-be-fetched";

/// A `.tgz` with the Spark that this variable names, made in this folder: without its jars,
/// which are large, but for the one that starts it. Who uses it names those of the installed one.
///
/// # Errors
/// When `./test.sh` has not set Spark up, or the archive cannot be made.
pub fn spark_archive(spark: &str, folder: &Path) -> Result<PathBuf> {
    let home = prepared(spark)?;
    let top = folder.join(ARCHIVED_SPARK);
    for inner in ["bin", "jars", "python"] {
        std::fs::create_dir_all(top.join(inner))?;
    }
    for name in ["spark-class", "spark-submit", "load-spark-env.sh"] {
        std::fs::copy(home.join("bin").join(name), top.join("bin").join(name))?;
    }
    for jar in std::fs::read_dir(home.join("jars"))? {
        let jar = jar?;
        if jar.file_name().to_string_lossy().starts_with("spark-launcher") {
            std::fs::copy(jar.path(), top.join("jars").join(jar.file_name()))?;
        }
    }
    let run = |command: &mut Command| -> Result<()> {
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    run(Command::new("cp").arg("-r").arg(home.join("python/lib")).arg(top.join("python")))?;
    let archive = folder.join("spark.tgz");
    run(Command::new("tar").arg("-C").arg(folder).arg("-czf").arg(&archive).arg(ARCHIVED_SPARK))?;
    Ok(archive)
}

/// One of the programs for users.
pub fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spark-framework/examples").join(name)
}

/// What a [`two_step_program`] says after its first job.
pub const FIRST: &str = "first 1999000";

/// A second step for it: four seconds of work, for every executor.
pub const SLOW: &str = r#"
slow = sc.parallelize(range(40), 40).map(lambda i: (time.sleep(0.1), i)[1]).sum()
print("second", slow, sum(v for _, v in pairs.collect()), flush=True)
"#;

/// What it says after that.
pub const SECOND: &str = "second 780 1999000";

/// Writes a program that runs a job with a shuffle, says [`FIRST`], waits for [`go`], and
/// runs `second`. That may use `sc`, `pairs`, `os` and `time`.
///
/// # Errors
/// When it cannot be written.
pub fn two_step_program(cluster: &Cluster, second: &str) -> Result<PathBuf> {
    let path = cluster.folder().join("two_step.py");
    let go = cluster.folder().join(GO);
    std::fs::write(
        &path,
        format!(
            r#"
import os, time
from pyspark.sql import SparkSession
sc = SparkSession.builder.appName("two-step").getOrCreate().sparkContext
pairs = sc.parallelize(range(2000), 8).map(lambda i: (i % 10, i)).reduceByKey(lambda a, b: a + b, 4)
pairs.cache()
print("first", sum(v for _, v in pairs.collect()), flush=True)
while not os.path.exists({go:?}):
    time.sleep(0.05)
{second}
"#
        ),
    )?;
    Ok(path)
}

/// In the cluster's folder.
const GO: &str = "go";

/// Lets a [`two_step_program`] go on.
///
/// # Errors
/// When a file cannot be written.
pub fn go(cluster: &Cluster) -> Result<()> {
    Ok(std::fs::write(cluster.folder().join(GO), "")?)
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
