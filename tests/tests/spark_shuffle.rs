//! The external shuffle service with real Apache Spark. `./test.sh` installs it.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, eventually, executors, nothing_is_left,
    processes_of, signal, spark_command,
};
use rustix::process::Signal;

const SERVICE: &str = "org.apache.spark.deploy.ExternalShuffleService";

/// Two agents with room for an executor and a service each. Their ports are not those
/// of another test that runs at the same time.
fn cluster() -> Result<Cluster> {
    let first = 20_000 + std::process::id() % 100 * 100;
    Cluster::start(ClusterOptions {
        agents: 2,
        resources: format!("cpus:1.2;mem:1400;disk:1000;ports:[{first}-{}]", first + 99),
        ..Default::default()
    })
}

/// Counts how often the tasks of its map stage ran, between two jobs that read what
/// that stage wrote. Between them it waits for the file `go`.
fn program(cluster: &Cluster) -> Result<PathBuf> {
    let path = cluster.folder().join("shuffle.py");
    let go = cluster.folder().join("go");
    std::fs::write(
        &path,
        format!(
            r#"
import os, time
from pyspark.sql import SparkSession
sc = SparkSession.builder.appName("shuffle").getOrCreate().sparkContext
ran = sc.accumulator(0)
def pair(i):
    ran.add(1)
    if i % 500 == 0:
        time.sleep(0.5)
    return (i % 10, i)
pairs = sc.parallelize(range(2000), 4).map(pair).reduceByKey(lambda a, b: a + b, 4)
print("first", sum(v for _, v in pairs.collect()), "mapped", ran.value, flush=True)
while not os.path.exists({go:?}):
    time.sleep(0.05)
print("second", sum(v for _, v in pairs.collect()), "mapped", ran.value, flush=True)
"#
        ),
    )?;
    Ok(path)
}

/// The JVMs of shuffle services, below the cluster's folder.
fn services(cluster: &Cluster) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for pid in processes_of(cluster.folder())? {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        let java = words.next().is_some_and(|program| program.ends_with(b"java"));
        if java && words.any(|word| word == SERVICE.as_bytes()) {
            found.insert(pid);
        }
    }
    Ok(found)
}

const DYNAMIC: [&str; 4] = [
    "spark.dynamicAllocation.enabled=true",
    "spark.dynamicAllocation.initialExecutors=2",
    "spark.dynamicAllocation.maxExecutors=2",
    "spark.dynamicAllocation.executorIdleTimeout=3s",
];

/// Everything that was written is there when everyone who wrote it is gone, and so are
/// the services that were told of it. Executors that are not given back are killed.
fn outputs_survive_their_executors(spark: &str, conf: &[&str]) -> Result<()> {
    let cluster = cluster()?;
    let program = program(&cluster)?;
    let mut command = spark_command(&cluster, spark, &["submit"])?;
    let all = [
        "spark.ui.enabled=false",
        "spark.executor.memory=512m",
        "spark.shuffle.service.enabled=true",
        "spark.mezz.shuffle.service.memory=300m",
    ];
    for pair in all.iter().chain(conf) {
        command.args(["--conf", pair]);
    }
    command.arg(program);
    let mut job = Process::start("spark", cluster.folder(), command)?;
    job.wait_for_output("first 1999000 mapped 2000", PATIENCE * 4)?;
    if !conf.contains(&DYNAMIC[0]) {
        for pid in executors(&cluster)? {
            signal(pid, Signal::KILL)?;
        }
    }
    eventually(PATIENCE, "no executor is left", || {
        let left = executors(&cluster)?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    let before = services(&cluster)?;
    ensure!(!before.is_empty(), "no shuffle service runs: {:?}", cluster.list("tasks", &[])?);
    for pid in &before {
        signal(*pid, Signal::KILL)?;
    }
    eventually(PATIENCE, "the services are started again", || {
        let now = services(&cluster)?;
        let back = now.len() == before.len() && now.is_disjoint(&before);
        Ok(if back { Ok(()) } else { Err(format!("{before:?}, now {now:?}")) })
    })?;
    std::fs::write(cluster.folder().join("go"), "")?;
    job.wait_for_output("second 1999000", PATIENCE * 4)?;
    let end = job.wait(PATIENCE)?.success()?;
    ensure!(end.stdout.contains("second 1999000 mapped 2000"), "the stage ran again: {end}");
    nothing_is_left(&cluster)?;
    let tasks = cluster.list("tasks", &["--completed"])?;
    let started =
        tasks.iter().filter(|t| t["id"].as_str().is_some_and(|id| id.starts_with("shuffle-")));
    ensure!(started.count() == before.len(), "more services than needed: {tasks:?}");
    cluster.stop()
}

#[test]
fn shuffle_services_outlive_executors_and_their_own_crash() -> Result<()> {
    let secure = [
        "spark.authenticate=true",
        "spark.authenticate.secret=hush-hush",
        "spark.network.crypto.enabled=true",
        "spark.io.encryption.enabled=true",
    ];
    outputs_survive_their_executors("MEZZ_TEST_SPARK_HOME", &[&DYNAMIC[..], &secure].concat())
}

#[test]
fn shuffle_services_of_spark_3_5_do_so_too() -> Result<()> {
    outputs_survive_their_executors("MEZZ_TEST_SPARK_3_HOME", &DYNAMIC)
}

#[test]
fn shuffle_services_outlive_fine_grained_executors() -> Result<()> {
    let fine = ["spark.mezz.coarse=false", "spark.io.encryption.enabled=true"];
    outputs_survive_their_executors("MEZZ_TEST_SPARK_HOME", &fine)
}
