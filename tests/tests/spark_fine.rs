//! Real Apache Spark in fine-grained mode on a real cluster: each of its tasks is
//! one of the cluster's. `./test.sh` installs Spark.

#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, eventually, executors, nothing_is_left, prepared,
};
use rustix::process::Signal;

/// One executor and one task at a time fit on each agent; the driver is outside.
fn cluster() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:1;mem:1400;disk:1000".to_owned(),
        ..Default::default()
    })
}

/// Starts a PySpark program by `mezz spark submit --mode fine`.
fn submit(
    cluster: &Cluster,
    spark: &str,
    conf: &[&str],
    program: &Path,
    args: &[&str],
) -> Result<Process> {
    let mut command = cluster.client(["spark", "submit", "--mode", "fine"]);
    command
        .env("SPARK_HOME", prepared(spark)?)
        .env("PYSPARK_PYTHON", prepared("MEZZ_TEST_PYTHON")?)
        .env("MEZZ_SPARK_BRIDGE", prepared("MEZZ_SPARK_BRIDGE")?)
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    for pair in ["spark.executor.memory=512m", "spark.ui.enabled=false"].iter().chain(conf) {
        command.args(["--conf", pair]);
    }
    command.arg(program).args(args);
    Process::start("spark", cluster.folder(), command)
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spark-framework/examples").join(name)
}

/// A program of the test's own. It prints `first`, waits for the file `go` in the
/// cluster's folder, and runs this in between and at the end.
fn two_step_program(cluster: &Cluster, second: &str) -> Result<PathBuf> {
    let path = cluster.folder().join("two_step.py");
    let go = cluster.folder().join("go");
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

const FIRST: &str = "first 1999000";
const SLOW: &str = r#"
slow = sc.parallelize(range(40), 40).map(lambda i: (time.sleep(0.1), i)[1]).sum()
print("second", slow, sum(v for _, v in pairs.collect()), flush=True)
"#;
const SECOND: &str = "second 780 1999000";

fn go(cluster: &Cluster) -> Result<()> {
    Ok(std::fs::write(cluster.folder().join("go"), "")?)
}

#[test]
fn every_spark_task_is_one_of_the_clusters() -> Result<()> {
    let cluster = cluster()?;
    let text = cluster.folder().join("text.txt");
    std::fs::write(&text, "to be or not to be\n".repeat(20_000))?;
    let text = text.to_str().context("a path in UTF-8")?;
    let mut job = submit(
        &cluster,
        "MEZZ_TEST_SPARK_HOME",
        &[
            "spark.authenticate=true",
            "spark.authenticate.secret=hush-hush",
            "spark.io.encryption.enabled=true",
        ],
        &example("wordcount.py"),
        &[text],
    )?;
    let end = job.wait(PATIENCE * 3)?.success()?;
    for word in ["to", "be"] {
        let right = end.stdout.lines().any(|l| l.contains(word) && l.contains("40,000"));
        ensure!(right, "no line with {word} and 40,000: {end}");
    }
    ensure!(!end.stderr.contains("hush-hush"), "the secret is in the log");
    let tasks = cluster.list("tasks", &["--completed"])?;
    ensure!(tasks.len() >= 2, "at least two stages: {tasks:?}");
    for task in &tasks {
        ensure!(task["state"] == "TASK_FINISHED", "{task}");
        ensure!(!task.to_string().contains("hush-hush"), "the secret is in {task}");
    }
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn the_same_jar_serves_spark_3_5() -> Result<()> {
    let cluster = cluster()?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_3_HOME", &[], &example("pi.py"), &["4"])?;
    let end = job.wait(PATIENCE * 3)?.success()?;
    ensure!(end.stdout.contains("pi is roughly 3.1"), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// What fine-grained mode is for: between its jobs an application holds memory only,
/// and others run on its cores.
#[test]
fn an_idle_application_holds_no_cores_and_is_offered_nothing() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &[], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    eventually(PATIENCE, "no task and no offer is left", || {
        let left = (cluster.list("tasks", &[])?, cluster.list("offers", &[])?);
        let none = left.0.is_empty() && left.1.is_empty();
        Ok(if none { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    let before = executors(&cluster)?;
    ensure!(!before.is_empty(), "executors stay");
    let frameworks = cluster.list("frameworks", &[])?;
    let name = frameworks.first().context("a framework")?["id"].as_str().context("id")?.to_owned();
    let explained = cluster.mezz(["explain", "framework", &name])?.success()?.stdout;
    ensure!(explained.contains("suppress"), "{explained}");
    // Every core of the cluster, though not all of its memory.
    let others = cluster.mezz([
        "run",
        "--name",
        "batch",
        "--instances",
        "2",
        "--resources",
        "cpus:1;mem:64",
        "--",
        "true",
    ])?;
    others.success()?;
    ensure!(executors(&cluster)? == before, "executors are not disturbed");
    go(&cluster)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    ensure!(executors(&cluster)? == before, "executors are used again");
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn a_killed_executor_is_replaced_and_the_answer_is_right() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &[], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors(&cluster)?;
    for pid in &before {
        mezz_tests::signal(*pid, Signal::KILL)?;
    }
    go(&cluster)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    let end = job.wait(PATIENCE)?.success()?;
    ensure!(end.stderr.contains("ended: exited with status 137"), "the reason is told: {end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn a_killed_driver_leaves_nothing() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &[], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    job.kill_9()?;
    nothing_is_left(&cluster)?;
    // The Python program is Spark's own child; it would notice at its next call.
    job.signal_group(Signal::KILL)?;
    cluster.stop()
}

#[test]
fn restarts_of_master_and_agents_under_a_job_change_nothing() -> Result<()> {
    let mut cluster = cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &[], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors(&cluster)?;
    go(&cluster)?;
    eventually(PATIENCE, "tasks run", || {
        let tasks = cluster.list("tasks", &[])?;
        Ok(if tasks.is_empty() { Err("none".to_owned()) } else { Ok(()) })
    })?;
    cluster.master()?.kill_9()?;
    cluster.start_master()?;
    for n in 0..2 {
        cluster.agent(n)?.kill_9()?;
        cluster.start_agent(n)?;
    }
    cluster.wait_for_agents(2)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    ensure!(executors(&cluster)? == before, "the executors are the same");
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn a_cancelled_job_ends_its_tasks_at_once() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(
        &cluster,
        r#"
import threading
def long(i):
    time.sleep(600)
    return i
def run():
    sc.setJobGroup("g", "to be cancelled", interruptOnCancel=True)
    try:
        sc.parallelize(range(2), 2).map(long).sum()
    except Exception as e:
        print("cancelled", "cancel" in str(e).lower(), flush=True)
from pyspark import InheritableThread
worker = InheritableThread(target=run)
worker.start()
while len(sc.statusTracker().getActiveJobsIds()) == 0:
    time.sleep(0.05)
print("long", flush=True)
while not os.path.exists("cancel"):
    time.sleep(0.05)
sc.cancelJobGroup("g")
worker.join()
print("after", sc.parallelize(range(10), 2).sum(), flush=True)
"#,
    )?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &[], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    go(&cluster)?;
    eventually(PATIENCE, "two tasks run", || {
        let tasks = cluster.list("tasks", &[])?;
        let running = tasks.iter().filter(|t| t["state"] == "TASK_RUNNING").count();
        Ok(if running == 2 { Ok(()) } else { Err(format!("{tasks:?}")) })
    })?;
    std::fs::write(cluster.folder().join("cancel"), "")?;
    job.wait_for_output("cancelled True", PATIENCE)?;
    job.wait_for_output("after 45", PATIENCE)?;
    job.wait(PATIENCE)?.success()?;
    let killed = cluster.list("tasks", &["--completed"])?;
    let killed = killed.iter().filter(|t| t["state"] == "TASK_KILLED").count();
    ensure!(killed == 2, "{killed} tasks were killed");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn what_fine_grained_mode_cannot_do_is_said() -> Result<()> {
    let cluster = cluster()?;
    let program = cluster.folder().join("barrier.py");
    std::fs::write(
        &program,
        r#"
from pyspark.sql import SparkSession
sc = SparkSession.builder.appName("barrier").getOrCreate().sparkContext
sc.parallelize(range(2), 2).barrier().mapPartitions(lambda i: i).collect()
"#,
    )?;
    for (conf, said) in [
        ("spark.dynamicAllocation.enabled=true", "spark.dynamicAllocation.enabled makes no sense"),
        ("spark.executor.resource.gpu.amount=1", "fine-grained tasks get cores only"),
        ("spark.mezz.executor.cores=-1", "it must be a number of cores"),
        ("spark.app.name=barrier", "A barrier stage needs all of its tasks at once"),
    ] {
        let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &[conf], &program, &[])?;
        let end = job.wait(PATIENCE * 2)?;
        ensure!(end.code != Some(0) && end.stderr.contains(said), "{conf}: {end}");
    }
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn executors_that_cannot_start_fail_the_job_after_a_few_attempts() -> Result<()> {
    let cluster = cluster()?;
    let conf = ["spark.mezz.executor.bridge=/no/such/bridge.jar"];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &example("pi.py"), &["2"])?;
    let end = job.wait(PATIENCE * 3)?;
    let said = "5 attempts in a row to start executors failed";
    ensure!(end.code != Some(0) && end.stderr.contains(said), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// Spark cannot end executors of a cluster that it does not know: we do.
#[test]
fn an_executor_that_hangs_is_replaced() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let conf = [
        "spark.storage.blockManagerHeartbeatTimeoutMs=15s",
        "spark.network.timeoutInterval=1s",
        "spark.executor.heartbeatInterval=2s",
    ];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors(&cluster)?;
    for pid in &before {
        mezz_tests::signal(*pid, Signal::STOP)?;
    }
    go(&cluster)?;
    job.wait_for_output(SECOND, PATIENCE * 3)?;
    let after = executors(&cluster)?;
    ensure!(before.is_disjoint(&after), "executors before {before:?}, after {after:?}");
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn an_executor_killed_for_its_memory_is_reported_as_such() -> Result<()> {
    let cluster = cluster()?;
    let program = cluster.folder().join("greedy.py");
    std::fs::write(
        &program,
        r#"
from pyspark.sql import SparkSession
sc = SparkSession.builder.appName("greedy").getOrCreate().sparkContext
def eat(i):
    held = []
    while True:
        held.append(bytearray(1 << 24))
sc.parallelize([1], 1).map(eat).collect()
"#,
    )?;
    // Once is enough: the executor's end counts against its task.
    let conf = ["spark.task.maxFailures=1", "spark.executor.memoryOverhead=128m"];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    let end = job.wait(PATIENCE * 3)?;
    ensure!(end.code != Some(0), "{end}");
    ensure!(end.stderr.contains("raise spark.executor.memoryOverhead"), "the hint is given: {end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}
