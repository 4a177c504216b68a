//! Real Apache Spark on a real cluster. `./test.sh` installs it.
//!
//! What is killed under a job, and where it is tested. Executors in Docker differ from
//! others only in what holds them.
//!
//! | | coarse | fine | driver on the cluster | executors in Docker |
//! |---|---|---|---|---|
//! | an executor | `a_killed_executor…` | `spark_fine::a_killed_executor…` | `dispatcher::faults_under…` | `spark_docker::faults_under…` |
//! | an agent's program | `an_agent_restart…` | `spark_fine::restarts_of…` | `dispatcher::faults_under…` | `spark_docker::faults_under…` |
//! | an agent with all on it | `spark_coarse` | `spark_fine::stragglers…` | `dispatcher::a_supervised_driver…` | |
//! | the master | `a_master_restart…` | `spark_fine::restarts_of…` | `dispatcher::a_master_restart…` | |
//! | the dispatcher | | | `dispatcher::a_killed_dispatcher…` | |
//! | the sidecar | `a_killed_executor…` | `spark_fine::stragglers…` | `dispatcher::faults_under…` | |
//! | the driver | `a_killed_driver…` | `spark_fine::a_driver_killed…` | `dispatcher::a_supervised_driver…` | `spark_docker::faults_under…` |

#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, eventually, executors, nothing_is_left, sidecar,
    spark_command,
};
use rustix::process::Signal;

/// Two executors of one core fit, one on each agent; the driver is outside.
fn cluster() -> Result<Cluster> {
    Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:1;mem:1400;disk:1000".to_owned(),
        ..Default::default()
    })
}

/// Starts a PySpark program by `mezz spark submit`.
fn submit(
    cluster: &Cluster,
    spark: &str,
    conf: &[&str],
    program: &Path,
    args: &[&str],
) -> Result<Process> {
    let mut command = spark_command(cluster, spark, &["submit"])?;
    for pair in ["spark.executor.memory=512m", "spark.ui.enabled=false"].iter().chain(conf) {
        command.args(["--conf", pair]);
    }
    command.arg(program).args(args);
    Process::start("spark", cluster.folder(), command)
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spark-framework/examples").join(name)
}

/// A program of the test's own; it prints `started`, then waits for the file `go`
/// in the cluster's folder between two jobs that need every executor.
fn two_step_program(cluster: &Cluster) -> Result<PathBuf> {
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
slow = sc.parallelize(range(40), 40).map(lambda i: (time.sleep(0.1), i)[1]).sum()
print("second", slow, sum(v for _, v in pairs.collect()), flush=True)
"#
        ),
    )?;
    Ok(path)
}

const FIRST: &str = "first 1999000";
const SECOND: &str = "second 780 1999000";

#[test]
fn word_count_counts_right_on_executors_of_two_agents() -> Result<()> {
    let cluster = cluster()?;
    let text = cluster.folder().join("text.txt");
    std::fs::write(&text, "to be or not to be\n".repeat(20_000))?;
    let text = text.to_str().context("a path in UTF-8")?;
    let mut job = submit(
        &cluster,
        "MEZZ_TEST_SPARK_HOME",
        &["spark.cores.max=2"],
        &example("wordcount.py"),
        &[text],
    )?;
    let end = job.wait(PATIENCE * 3)?.success()?;
    for word in ["to", "be"] {
        let right = end.stdout.lines().any(|l| l.contains(word) && l.contains("40,000"));
        ensure!(right, "no line with {word} and 40,000: {end}");
    }
    let tasks = cluster.list("tasks", &["--completed"])?;
    let agents: std::collections::BTreeSet<String> =
        tasks.iter().map(|t| t["agent_id"].to_string()).collect();
    ensure!(agents.len() == 2, "executors on {agents:?}: {tasks:?}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn the_same_jar_serves_spark_3_5() -> Result<()> {
    let cluster = cluster()?;
    let mut job = submit(
        &cluster,
        "MEZZ_TEST_SPARK_3_HOME",
        &["spark.cores.max=2"],
        &example("pi.py"),
        &["4"],
    )?;
    let end = job.wait(PATIENCE * 3)?.success()?;
    ensure!(end.stdout.contains("pi is roughly 3.1"), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn a_master_restart_under_a_job_changes_nothing() -> Result<()> {
    let mut cluster = cluster()?;
    let program = two_step_program(&cluster)?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &["spark.cores.max=2"], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors(&cluster)?;
    cluster.master()?.kill_9()?;
    cluster.start_master()?;
    std::fs::write(cluster.folder().join("go"), "")?;
    cluster.wait_for_agents(2)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    ensure!(!before.is_empty(), "there were executors");
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn an_agent_restart_under_a_job_keeps_its_executors() -> Result<()> {
    let mut cluster = cluster()?;
    let program = two_step_program(&cluster)?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &["spark.cores.max=2"], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors(&cluster)?;
    for n in 0..2 {
        cluster.agent(n)?.kill_9()?;
        cluster.start_agent(n)?;
    }
    cluster.wait_for_agents(2)?;
    let after = executors(&cluster)?;
    ensure!(before == after && !before.is_empty(), "executors before {before:?}, after {after:?}");
    std::fs::write(cluster.folder().join("go"), "")?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// And a killed sidecar ends the job, with the right error.
#[test]
fn a_killed_executor_is_replaced_and_the_answer_is_right() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(&cluster)?;
    let endless = "sc.parallelize([1], 1).map(lambda i: time.sleep(600)).count()\n";
    std::fs::write(&program, std::fs::read_to_string(&program)? + endless)?;
    let conf = ["spark.cores.max=2", "spark.mezz.failoverTimeout=1s"];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors(&cluster)?;
    mezz_tests::signal(*before.first().context("an executor")?, Signal::KILL)?;
    std::fs::write(cluster.folder().join("go"), "")?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    let launched =
        cluster.list("tasks", &[])?.len() + cluster.list("tasks", &["--completed"])?.len();
    ensure!(launched > before.len(), "{launched} executors in all, {} before", before.len());
    mezz_tests::signal(sidecar(&cluster)?, Signal::KILL)?;
    let end = job.wait(PATIENCE)?;
    ensure!(end.code != Some(0) && end.stderr.contains("spark-sidecar"), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn a_killed_driver_leaves_nothing() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(&cluster)?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &["spark.cores.max=2"], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    // `mezz spark submit` becomes spark-submit, which becomes the driver's JVM.
    job.kill_9()?;
    nothing_is_left(&cluster)?;
    // The Python program is Spark's own child; it would notice at its next call.
    job.signal_group(Signal::KILL)?;
    cluster.stop()
}

/// The copy that loses is killed, and its core is there for others.
#[test]
fn a_second_copy_of_a_straggler_ends_the_job() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:1;mem:1400;disk:1000".to_owned(),
        // Spark puts the second copy of a task on another host.
        hostnames: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        ..Default::default()
    })?;
    let marks = cluster.folder().to_str().context("a path in UTF-8")?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/straggler.py");
    let conf = [
        "spark.cores.max=2",
        "spark.speculation=true",
        "spark.speculation.quantile=0.5",
        "spark.speculation.multiplier=1.5",
    ];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[marks])?;
    let end = job.wait(PATIENCE * 2)?.success()?;
    ensure!(end.stdout.contains("copies 1") && end.stdout.contains("met 2"), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn ctrl_c_ends_the_job_its_executors_and_its_framework() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(&cluster)?;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &["spark.cores.max=2"], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    job.signal_group(Signal::INT)?;
    let end = job.wait(PATIENCE)?;
    ensure!(end.code != Some(0), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn dynamic_allocation_grows_and_shrinks() -> Result<()> {
    let cluster = cluster()?;
    let program = two_step_program(&cluster)?;
    let conf = [
        "spark.dynamicAllocation.enabled=true",
        "spark.dynamicAllocation.shuffleTracking.enabled=true",
        "spark.dynamicAllocation.shuffleTracking.timeout=1s",
        "spark.dynamicAllocation.minExecutors=0",
        "spark.dynamicAllocation.maxExecutors=2",
        "spark.dynamicAllocation.executorIdleTimeout=1s",
        "spark.dynamicAllocation.cachedExecutorIdleTimeout=1s",
    ];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    eventually(PATIENCE, "idle executors are given back", || {
        let left = executors(&cluster)?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    std::fs::write(cluster.folder().join("go"), "")?;
    eventually(PATIENCE, "two executors are back", || {
        let now = executors(&cluster)?;
        Ok(if now.len() == 2 { Ok(()) } else { Err(format!("{now:?}")) })
    })?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
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
    let conf =
        ["spark.cores.max=1", "spark.task.maxFailures=1", "spark.executor.memoryOverhead=128m"];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    let end = job.wait(PATIENCE * 3)?;
    ensure!(end.code != Some(0), "{end}");
    ensure!(end.stderr.contains("spark.executor.memoryOverhead"), "the hint is given: {end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}
