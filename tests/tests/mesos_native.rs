//! JVM programs written for Mesos' native library, with libmezzmesos.so in its place: a
//! framework and an executor of ours that go through the API, and unmodified Apache Spark 3.5
//! in both of its modes for Mesos. `./test.sh` installs Spark, whose jars have the API.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, QUICK, QUICK_LOSS, asking_frameworks,
    clean_command, eventually, nothing_is_left, prepared,
};

const SPARK: &str = "MEZZ_TEST_SPARK_3_HOME";

/// A whole part of the framework's: some JVMs start in it, one after the other.
const PART: Duration = Duration::from_secs(180);

/// The library that cargo built beside the tests' programs.
fn library() -> Result<PathBuf> {
    let name = "libmezzmesos.so";
    let beside = std::env::current_exe()?
        .ancestors()
        .skip(1)
        .take(2)
        .map(|p| p.join(name))
        .find(|p| p.exists());
    beside.with_context(|| format!("{name} is not built: `cargo build -p mezz-mesos-native`"))
}

fn cluster(options: ClusterOptions) -> Result<Cluster> {
    let library = library()?.to_string_lossy().into_owned();
    let mut agent_args = vec!["--native-library".to_owned(), library];
    agent_args.extend(options.agent_args);
    Cluster::start(ClusterOptions { agent_args, ..options })
}

/// The framework and the executor, compiled for one test.
struct Java {
    class_path: String,
    executor: String,
}

impl Java {
    fn compile(cluster: &Cluster) -> Result<Self> {
        let jars = prepared(SPARK)?.join("jars");
        let is_mesos = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mesos-"))
        };
        let jar = std::fs::read_dir(jars)?.filter_map(|e| Some(e.ok()?.path())).find(is_mesos);
        let jar = jar.context("the jar of Mesos among Spark's")?;
        let classes = cluster.folder().join("classes");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mesos-native/tests/java");
        let output = Command::new("javac")
            .args(["-nowarn", "-d"])
            .arg(&classes)
            .arg("-cp")
            .arg(&jar)
            .args(["NativeFramework.java", "NativeExecutor.java"].map(|name| sources.join(name)))
            .output()
            .context("javac, of a JDK")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let class_path = format!("{}:{}", classes.display(), jar.display());
        let executor = format!("exec java {QUICK} -Xshare:auto -cp {class_path} NativeExecutor");
        Ok(Self { class_path, executor })
    }

    /// Starts a part of the framework in the cluster's folder.
    fn start(&self, cluster: &Cluster, part: &str, master: &str) -> Result<Process> {
        let mut command = clean_command("java");
        command
            .env("MESOS_NATIVE_JAVA_LIBRARY", library()?)
            .current_dir(cluster.folder())
            .args([QUICK, "-Xcheck:jni", "-cp", &self.class_path, "NativeFramework"])
            .args([part, master, &self.executor]);
        Process::start(part, cluster.folder(), command)
    }
}

/// All that executors wrote to their standard output.
fn outputs_of_executors(folder: &Path) -> Result<String> {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all += &outputs_of_executors(&entry.path())?;
        } else if entry.file_name() == "stdout" {
            all += &std::fs::read_to_string(entry.path())?;
        }
    }
    Ok(all)
}

fn eventually_written(cluster: &Cluster, texts: &[&str]) -> Result<()> {
    eventually(PATIENCE, &format!("executors write {texts:?}"), || {
        let written = outputs_of_executors(&cluster.folder().join("agent0"))?;
        let all = texts.iter().all(|text| written.contains(text));
        Ok(if all { Ok(()) } else { Err(written) })
    })
}

fn names_of_frameworks(cluster: &Cluster) -> Result<Vec<String>> {
    let list = cluster.list("frameworks", &[])?;
    Ok(list.iter().filter_map(|f| f["name"].as_str()).map(str::to_owned).collect())
}

fn no_frameworks(cluster: &Cluster) -> Result<()> {
    eventually(PATIENCE, "the framework is gone", || {
        let left = names_of_frameworks(cluster)?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
}

#[test]
fn a_framework_in_java_uses_every_call() -> Result<()> {
    let cluster = cluster(ClusterOptions {
        agent_args: vec!["--update-retry-min=300ms".to_owned()],
        ..Default::default()
    })?;
    let java = Java::compile(&cluster)?;
    let mut framework = java.start(&cluster, "api", cluster.master_address())?;
    framework.wait(PART)?.success()?;
    ensure!(framework.stdout().contains("DONE"), "{}", framework.stdout());
    eventually_written(
        &cluster,
        &[
            "registered e of native-api data our data",
            "sent a TASK_KILLED DRIVER_RUNNING",
            "error Attempted to send TASK_STAGING status update",
            "ended DRIVER_ABORTED",
            "shutdown\nended DRIVER_STOPPED",
        ],
    )?;
    no_frameworks(&cluster)?;
    cluster.stop()
}

/// The executor outlives its agent's restart, and both drivers the master's.
#[test]
fn a_framework_in_java_hears_of_every_loss() -> Result<()> {
    let mut cluster = cluster(ClusterOptions {
        master_args: QUICK_LOSS.map(str::to_owned).to_vec(),
        ..Default::default()
    })?;
    let java = Java::compile(&cluster)?;
    let mut framework = java.start(&cluster, "losses", cluster.master_address())?;
    framework.wait_for_output("KILL MASTER", PATIENCE)?;
    cluster.master()?.kill_9()?;
    cluster.start_master()?;
    framework.wait_for_output("RESTART AGENT", PATIENCE)?;
    cluster.agent(0)?.kill_9()?;
    eventually_written(&cluster, &["disconnected"])?;
    cluster.start_agent(0)?;
    eventually_written(&cluster, &["reregistered"])?;
    std::fs::write(cluster.folder().join("agent-back"), "")?;
    framework.wait_for_output("KILL AGENT", PATIENCE)?;
    cluster.lose_agent(0)?;
    framework.wait(PART)?.success()?;
    no_frameworks(&cluster)
}

#[test]
fn a_callback_that_throws_aborts_the_driver_and_stop_ends_the_framework() -> Result<()> {
    let cluster = cluster(ClusterOptions::default())?;
    let java = Java::compile(&cluster)?;
    let mut framework = java.start(&cluster, "aborts", cluster.master_address())?;
    framework.wait_for_output("ABORTED", PATIENCE)?;
    ensure!(framework.stderr().contains("thrown by a callback"), "{}", framework.stderr());
    eventually(PATIENCE, "an aborted driver holds no offers", || {
        let offers = cluster.list("offers", &[])?;
        Ok(if offers.is_empty() { Ok(()) } else { Err(format!("{offers:?}")) })
    })?;
    ensure!(names_of_frameworks(&cluster)? == ["native-aborts"]);
    std::fs::write(cluster.folder().join("go"), "")?;
    framework.wait(PATIENCE)?.success()?;
    no_frameworks(&cluster)?;
    cluster.stop()
}

#[test]
fn masters_that_cannot_be_are_refused_by_the_error_callback() -> Result<()> {
    let cluster = cluster(ClusterOptions::default())?;
    let java = Java::compile(&cluster)?;
    for (master, sentence) in [
        ("zk://zk1:2181,zk2:2181/mesos", "name the masters themselves"),
        ("local", "`mezz local`"),
        ("nowhere:99999", "write host:port"),
    ] {
        let mut framework = java.start(&cluster, "refused", master)?;
        let said = framework.wait(PATIENCE)?.success()?.stdout;
        let error = format!("error Failed to create a master detector for '{master}': ");
        ensure!(said.contains(&error) && said.contains(sentence), "{said}");
        ensure!(said.contains("DONE"), "{said}");
    }
    cluster.stop()
}

/// A program for Spark as it comes from PyPI; nothing of Mezz is in it or around it.
const PROGRAM: &str = r#"
import sys
from operator import add
from pyspark import SparkContext
sc = SparkContext(appName="unmodified")
print("master", sc.master, flush=True)
slices, step = 8, 20000
# Every point of a grid, so that the answer is always the same.
def inside(i):
    x = (i + 0.5) / step
    return 4.0 / (1.0 + x * x) / step
print("pi %.6f" % sc.parallelize(range(step), slices).map(inside).reduce(add), flush=True)
lines = ["to be or not to be", "that is the question"] * 500
counts = sc.parallelize(lines, 4).flatMap(lambda l: l.split()).map(lambda w: (w, 1)).reduceByKey(add, 3)
print("words", sorted(counts.collect()), flush=True)
sc.stop()
"#;

fn unmodified_spark(master_args: &[String], conf: &[&str]) -> Result<()> {
    let cluster = cluster(ClusterOptions {
        agents: 2,
        resources: "cpus:2;mem:1400;disk:1000;ports:[31000-31099]".to_owned(),
        master_args: master_args.to_vec(),
        ..Default::default()
    })?;
    let home = prepared(SPARK)?;
    let program = cluster.folder().join("program.py");
    std::fs::write(&program, PROGRAM)?;
    let mut command = clean_command(home.join("bin/spark-submit"));
    command
        .env("SPARK_HOME", &home)
        .env("PYSPARK_PYTHON", prepared("MEZZ_TEST_PYTHON")?)
        .env("SPARK_LOCAL_IP", "127.0.0.1")
        .env("SPARK_SUBMIT_OPTS", QUICK)
        .env("MESOS_NATIVE_JAVA_LIBRARY", library()?)
        .current_dir(cluster.folder())
        .args(["--master", &format!("mesos://{}", cluster.master_address())]);
    let quick = format!("spark.executor.extraJavaOptions={QUICK}");
    for pair in ["spark.executor.memory=512m", "spark.ui.enabled=false", &quick].iter().chain(conf)
    {
        command.args(["--conf", pair]);
    }
    command.arg(&program);
    let mut spark = Process::start("spark", cluster.folder(), command)?;
    let said = spark.wait(PART)?.success()?.stdout;
    ensure!(said.contains(&format!("master mesos://{}", cluster.master_address())), "{said}");
    ensure!(said.contains("pi 3.141593\n"), "{said}");
    let words = "words [('be', 1000), ('is', 500), ('not', 500), ('or', 500), ('question', 500), \
                 ('that', 500), ('the', 500), ('to', 1000)]";
    ensure!(said.contains(words), "{said}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn unmodified_spark_3_5_runs_coarse_grained() -> Result<()> {
    // To a master that asks who it is.
    let who = ["spark.mesos.principal=spark", "spark.mesos.secret=s3cret"];
    unmodified_spark(&asking_frameworks(), &["spark.cores.max=3", who[0], who[1]])
}

#[test]
fn unmodified_spark_3_5_runs_fine_grained() -> Result<()> {
    unmodified_spark(&[], &["spark.mesos.coarse=false"])
}
