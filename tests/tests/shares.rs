//! Two Spark applications in fine-grained mode and a batch framework want all that they
//! can get: they take turns on the same cores, task by task, by the weights of their
//! roles.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, eventually, example_program, nothing_is_left,
    prepared,
};
use rustix::process::Signal;

/// More than there are: tasks sleep. Many, since all that is free is offered to one at a
/// time, and one core must not be much.
const CORES: f64 = 32.0;

/// Roles, and what weights of 2, 1 and 1 promise them.
const SHARES: [(&str, f64); 3] = [("twice", 0.5), ("once", 0.25), ("batch", 0.25)];

/// How far a share may be from that.
const STRAY: f64 = 0.05;

/// For how long it is looked at.
const MINUTE: Duration = Duration::from_secs(60);

/// Every task sleeps in the JVM, so that one costs next to nothing: some longer, some
/// shorter, so that they do not end together.
const BUSY: &str = r#"
from pyspark.sql import SparkSession
spark = SparkSession.builder.appName("busy").getOrCreate()
sleep = "reflect('java.lang.Thread', 'sleep', 1000 + 100 * pmod(id, 10)) AS slept"
spark.range(0, 6000, 1, 6000).selectExpr(sleep).write.format("noop").mode("overwrite").save()
"#;

/// The same in the shell.
const SLEEP: &str = "exec sleep 1.$((ITEM % 10))";

fn spark(cluster: &Cluster, role: &str) -> Result<Process> {
    let program = cluster.folder().join("busy.py");
    std::fs::write(&program, BUSY)?;
    let mut command = cluster.client(["spark", "submit", "--mode", "fine"]);
    command
        .env("SPARK_HOME", prepared("MEZZ_TEST_SPARK_HOME")?)
        .env("PYSPARK_PYTHON", prepared("MEZZ_TEST_PYTHON")?)
        .env("MEZZ_SPARK_BRIDGE", prepared("MEZZ_SPARK_BRIDGE")?)
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    for pair in [
        &format!("spark.mezz.role={role}"),
        "spark.executor.memory=512m",
        "spark.ui.enabled=false",
        "spark.ui.showConsoleProgress=false",
    ] {
        command.args(["--conf", pair]);
    }
    command.arg(program);
    Process::start(role, cluster.folder(), command)
}

/// Cores that each role's tasks hold.
fn held(cluster: &Cluster) -> Result<[f64; 3]> {
    let roles = cluster.list("roles", &[])?;
    Ok(SHARES.map(|(name, _)| {
        let role = roles.iter().find(|r| r["name"] == name);
        role.and_then(|r| r["allocated"]["cpus"].as_f64()).unwrap_or(0.0)
    }))
}

/// Waits until the first so many roles have about what they were promised, or more.
fn shared(cluster: &Cluster, jobs: &mut [Process], roles: usize) -> Result<()> {
    eventually(PATIENCE * 2, "everybody has its share", || {
        still_run(jobs)?;
        let held = held(cluster)?;
        let good = held.iter().zip(SHARES).take(roles).all(|(h, (_, s))| *h >= s * CORES * 0.8);
        Ok(if good { Ok(()) } else { Err(format!("{held:?}")) })
    })
}

fn still_run(jobs: &mut [Process]) -> Result<()> {
    for job in jobs {
        ensure!(job.running(), "it ended too early: {}", job.stderr());
    }
    Ok(())
}

#[test]
fn frameworks_share_cores_by_their_weights() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions {
        // So much memory that cores are what everybody has most of …
        resources: format!("cpus:{CORES};mem:200000;disk:1000"),
        master_args: vec!["--weights".to_owned(), "twice=2".to_owned()],
        ..Default::default()
    })?;
    // … and hardly any of it to offer: an offer has all that is left of its agent in it,
    // and counts for its framework until it is answered.
    let ballast =
        ["--role", "ballast", "--resources", "mem:197000;disk:1000", "--", "sleep", "600"];
    let mut ballast = cluster.spawn("ballast", [&["run"], &ballast[..]].concat())?;
    ballast.wait_for_output("TASK_RUNNING", PATIENCE)?;
    let mut jobs = vec![spark(&cluster, "twice")?, spark(&cluster, "once")?];
    // Batch comes when they are there: with all cores to itself it would start so many
    // programs that they could hardly begin.
    shared(&cluster, &mut jobs, 2)?;
    let mut batch = std::process::Command::new(example_program("batch_queue")?);
    batch
        .args(["--master", cluster.master_address(), "--role", "batch", "--resources", "cpus:1"])
        .args(["--parallel", "64", "--total", "100000", SLEEP]);
    jobs.push(Process::start("batch", cluster.folder(), batch)?);
    shared(&cluster, &mut jobs, 3)?;

    let (start, mut sums, mut looks) = (Instant::now(), [0.0; 3], 0.0);
    while start.elapsed() < MINUTE {
        for (sum, held) in sums.iter_mut().zip(held(&cluster)?) {
            *sum += held;
        }
        looks += 1.0;
        // What is looked at changes within a second.
        std::thread::sleep(Duration::from_millis(150));
    }
    still_run(&mut jobs)?;
    let total: f64 = sums.iter().sum();
    let shares = sums.map(|sum| sum / total);
    println!("shares {shares:?}, {:.1} cores in use, {looks} looks", total / looks);

    for framework in cluster.list("frameworks", &[])? {
        let id = framework["id"].as_str().context("an id")?;
        cluster.mezz(["framework", "teardown", id])?.success()?;
    }
    nothing_is_left(&cluster)?;
    for job in jobs.iter_mut().chain([&mut ballast]) {
        job.wait(PATIENCE)?;
        // Python is Spark's child, and sees its end at its next call.
        job.signal_group(Signal::KILL)?;
    }
    for ((role, promised), share) in SHARES.iter().zip(&shares) {
        ensure!((share - promised).abs() <= STRAY, "{role} had {share}, of all: {shares:?}");
    }
    ensure!(total / looks >= 0.75 * CORES, "only {} cores were in use", total / looks);
    cluster.stop()
}
