//! What coarse-grained mode promises beyond running: resources of executors, moving
//! away from a drained agent, and leaving to others what it cannot use. With real
//! Apache Spark on a real cluster; `./test.sh` installs it.

#![allow(clippy::expect_used)]

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _, time::Instant};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, QUICK_LOSS, eventually, executors, nothing_is_left,
    spark_command,
};
use serde_json::Value;

fn cluster(agents: usize, resources: &str) -> Result<Cluster> {
    Cluster::start(ClusterOptions { agents, resources: resources.to_owned(), ..Default::default() })
}

/// Starts a PySpark program of the test's own by `mezz spark submit`. Its text may
/// call `wait("FILE")`, which waits for a file in the cluster's folder.
fn submit(
    cluster: &Cluster,
    spark: &str,
    name: &str,
    conf: &[&str],
    program: &str,
) -> Result<Process> {
    let path = cluster.folder().join(format!("{name}.py"));
    let prelude = r#"
import os, sys, time
from pyspark import SparkContext, StorageLevel, TaskContext
def wait(name):
    while not os.path.exists(os.path.join(FOLDER, name)):
        time.sleep(0.05)
"#;
    let folder = format!("FOLDER = {:?}\n", cluster.folder());
    let context = format!("sc = SparkContext(appName={name:?})\n");
    std::fs::write(&path, [&folder, prelude, &context, program].concat())?;
    let mut command = spark_command(cluster, spark, &["submit"])?;
    for pair in ["spark.executor.memory=512m", "spark.ui.enabled=false"].iter().chain(conf) {
        command.args(["--conf", pair]);
    }
    command.arg(path);
    Process::start(name, cluster.folder(), command)
}

fn go(cluster: &Cluster, name: &str) -> Result<()> {
    Ok(std::fs::write(cluster.folder().join(name), "")?)
}

/// The agents of tasks in this state.
fn agents_of(tasks: &[Value], state: &str) -> BTreeSet<String> {
    let of = tasks.iter().filter(|t| t["state"] == state);
    of.filter_map(|t| t["agent_id"].as_str()).map(ToOwned::to_owned).collect()
}

/// Executors of the default profile have GPUs; and with a ratio of 1 the work begins
/// when all executors are there that fit into `spark.cores.max`, which here is less
/// than what was asked for and no multiple of an executor.
#[test]
fn spark_3_5_executors_have_gpus_and_all_executors_are_waited_for() -> Result<()> {
    let cluster = cluster(2, "cpus:3;mem:3000;disk:1000;gpus:2")?;
    let conf = [
        "spark.executor.cores=2",
        "spark.cores.max=5",
        "spark.executor.instances=9",
        "spark.executor.resource.gpu.amount=2",
        "spark.task.resource.gpu.amount=1",
        "spark.scheduler.minRegisteredResourcesRatio=1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime=1h",
    ];
    let program = r#"
def look(_):
    gpu = TaskContext.get().resources()["gpu"].addresses
    time.sleep(2)
    return [(os.getcwd(), gpu)]
seen = sc.parallelize(range(4), 4).mapPartitions(look).collect()
print("executors", len({place for place, _ in seen}), sorted(gpu for _, gpu in seen), flush=True)
"#;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_3_HOME", "default", &conf, program)?;
    let end = job.wait(PATIENCE * 2)?.success()?;
    let right = "executors 2 [['0'], ['0'], ['1'], ['1']]";
    ensure!(end.stdout.contains(right), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// A resource profile asks for them later: GPUs by number, FPGAs by the agent's names,
/// and licences by a discovery script.
#[test]
fn a_resource_profile_brings_executors_with_resources() -> Result<()> {
    let cluster = cluster(1, "cpus:2;mem:2048;disk:1000;gpus:2;fpga:{f7};licenses:3")?;
    let script = cluster.folder().join("licenses.sh");
    std::fs::write(&script, "#!/bin/sh\necho '{\"name\":\"licenses\",\"addresses\":[\"L4\"]}'\n")?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let conf = [
        "spark.executor.cores=1",
        "spark.dynamicAllocation.enabled=true",
        "spark.dynamicAllocation.shuffleTracking.enabled=true",
        "spark.dynamicAllocation.minExecutors=0",
        "spark.dynamicAllocation.initialExecutors=0",
    ];
    let program = r#"
from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests
executor = (ExecutorResourceRequests().cores(1).memory("512m").resource("gpu", 1)
    .resource("fpga", 1).resource("licenses", 1, discoveryScript=os.path.join(FOLDER, "licenses.sh")))
task = TaskResourceRequests().cpus(1).resource("gpu", 1).resource("fpga", 1).resource("licenses", 1)
profile = ResourceProfileBuilder().require(executor).require(task).build
def look(_):
    has = TaskContext.get().resources()
    return [(name, has[name].addresses) for name in sorted(has)]
print(sc.parallelize([0], 1).withResources(profile).mapPartitions(look).collect(), flush=True)
"#;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", "special", &conf, program)?;
    let end = job.wait(PATIENCE * 2)?.success()?;
    let right = "[('fpga', ['f7']), ('gpu', ['0']), ('licenses', ['L4'])]";
    ensure!(end.stdout.contains(right), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// Cached blocks and shuffle files move before the executor of a drained agent ends:
/// nothing is computed twice, and a task in Python that runs there comes to its end. Those of
/// an agent that dies are gone: they are computed again, by an executor elsewhere. The grace
/// that moving takes does not hold up the end of an application whose driver is killed.
#[test]
fn blocks_move_from_a_drained_agent_and_are_computed_again_after_a_dead_one() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions {
        agents: 3,
        resources: "cpus:1;mem:1400;disk:1000".to_owned(),
        master_args: QUICK_LOSS.map(str::to_owned).to_vec(),
        // To tell them apart: this is loopback too.
        hostnames: ["127.0.0.1", "localhost", "127.0.0.2"].map(str::to_owned).to_vec(),
        ..Default::default()
    })?;
    let conf = [
        "spark.executor.instances=2",
        "spark.decommission.enabled=true",
        "spark.storage.decommission.replicationReattemptInterval=1s",
    ];
    let program = r#"
computed, paired = sc.accumulator(0), sc.accumulator(0)
def compute(i):
    computed.add(1)
    return i
def pair(i):
    paired.add(1)
    return (i % 10, i)
kept = sc.parallelize(range(200), 4).map(compute).persist(StorageLevel.MEMORY_AND_DISK)
sums = kept.map(pair).reduceByKey(lambda a, b: a + b, 4)
print("first", sum(v for _, v in sums.collect()), computed.value, paired.value, flush=True)
def slow(i):
    open(os.path.join(FOLDER, f"ran-{TaskContext.get().taskAttemptId()}"), "w").close()
    wait("finish")
    return i
print("slow", sc.parallelize(range(2), 2).map(slow).sum(), flush=True)
wait("go")
print("second", sum(v for _, v in sums.collect()), kept.sum(), computed.value, paired.value,
    flush=True)
slow = sc.parallelize(range(60), 60).map(lambda i: (time.sleep(0.1), i)[1]).sum()
print("third", slow, sum(v for _, v in sums.collect()), kept.sum(), flush=True)
wait("never")
"#;
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", "moving", &conf, program)?;
    job.wait_for_output("first 19900 200 200", PATIENCE * 2)?;
    let agent = eventually(PATIENCE, "two executors", || {
        let agents = agents_of(&cluster.list("tasks", &[])?, "TASK_RUNNING");
        let first = agents.first().filter(|_| agents.len() == 2).cloned();
        Ok(first.ok_or_else(|| format!("{agents:?}")))
    })?;

    // One on each of them.
    let ran = || -> Result<usize> {
        let names = std::fs::read_dir(cluster.folder())?.flatten().map(|entry| entry.file_name());
        Ok(names.filter(|name| name.to_string_lossy().starts_with("ran-")).count())
    };
    eventually(PATIENCE, "two tasks in Python", || {
        let ran = ran()?;
        Ok(if ran == 2 { Ok(()) } else { Err(format!("{ran}")) })
    })?;
    let drain = ["agent", "drain", &agent, "--grace", "2m", "--wait"];
    let mut drain = cluster.spawn("drain", drain)?;
    // By now the signal has reached everything that it ever does.
    job.wait_for_output("decommissioned message", PATIENCE)?;
    go(&cluster, "finish")?;
    job.wait_for_output("slow 1", PATIENCE)?;
    ensure!(ran()? == 2, "none of them was run again: {}", job.stderr());
    drain.wait(PATIENCE)?.success()?;
    eventually(PATIENCE, "two executors elsewhere", || {
        let agents = agents_of(&cluster.list("tasks", &[])?, "TASK_RUNNING");
        let right = agents.len() == 2 && !agents.contains(&agent);
        Ok(if right { Ok(()) } else { Err(format!("{agents:?}")) })
    })?;
    go(&cluster, "go")?;
    job.wait_for_output("second", PATIENCE)?;
    ensure!(
        job.stdout().contains("second 19900 19900 200 200"),
        "nothing is computed again: {}",
        job.stdout()
    );

    // Room for what is lost next.
    cluster.mezz(["agent", "reactivate", &agent])?.success()?;
    let lost = agents_of(&cluster.list("tasks", &[])?, "TASK_RUNNING");
    let lost = lost.first().context("an executor runs")?.clone();
    let agents = cluster.list("agents", &[])?;
    let host = agents.iter().find(|a| a["id"] == *lost).context("its agent")?["hostname"].clone();
    let number = ["127.0.0.1", "localhost", "127.0.0.2"].iter().position(|name| host == **name);
    cluster.lose_agent(number.context("no such host")?)?;
    job.wait_for_output("third 1770 19900 19900", PATIENCE)?;
    eventually(PATIENCE, "two executors on the agents that are left", || {
        let agents = agents_of(&cluster.list("tasks", &[])?, "TASK_RUNNING");
        let right = agents.len() == 2 && !agents.contains(&lost);
        Ok(if right { Ok(()) } else { Err(format!("{agents:?}")) })
    })?;
    ensure!(job.stderr().contains("ended: it was lost with its agent"), "{}", job.stderr());
    job.kill_9()?;
    nothing_is_left(&cluster)?;
    job.signal_group(rustix::process::Signal::KILL)?;
    cluster.stop()
}

/// SPARK-20483 and SPARK-13001: the first has what it can have, though not all of
/// `spark.cores.max`; the second can use no agent there is. Neither keeps offers from
/// a third.
#[test]
fn applications_that_cannot_use_offers_leave_them_to_others() -> Result<()> {
    let cluster = cluster(2, "cpus:2;mem:1400;disk:1000")?;
    let satisfied = ["spark.executor.cores=2", "spark.cores.max=3"];
    let program = "print('ready', sc.parallelize([1], 1).count(), flush=True)\nwait('go')\n";
    let mut first = submit(&cluster, "MEZZ_TEST_SPARK_HOME", "satisfied", &satisfied, program)?;
    let choosy = ["spark.executor.cores=1", "spark.mezz.constraints=rack:elsewhere"];
    let program = "print('ready', flush=True)\nwait('go')\n";
    let mut second = submit(&cluster, "MEZZ_TEST_SPARK_HOME", "choosy", &choosy, program)?;
    first.wait_for_output("ready 1", PATIENCE * 2)?;
    second.wait_for_output("ready", PATIENCE * 2)?;
    second.wait_for_output("does not meet spark.mezz.constraints", PATIENCE)?;
    ensure!(executors(&cluster)?.len() == 1, "of 3 cores, one executor of 2 was made");

    for (name, word) in [("satisfied", "suppressed"), ("choosy", "refused")] {
        eventually(PATIENCE, &format!("{name}'s offers are {word}"), || {
            let explained = explain(&cluster, name)?;
            Ok(if explained.contains(word) { Ok(()) } else { Err(explained) })
        })?;
    }
    // Twice what is free at once, so that what comes back has to be offered again.
    let start = Instant::now();
    let run = ["run", "--name", "third", "--instances", "4", "--resources", "cpus:1;mem:64"];
    cluster.mezz(run.into_iter().chain(["--", "true"]))?.success()?;
    // What is refused for long is refused for ten times as long.
    ensure!(start.elapsed() < PATIENCE, "it took {:?}", start.elapsed());

    go(&cluster, "go")?;
    first.wait(PATIENCE)?.success()?;
    second.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// What the master says of why this framework gets no offers.
fn explain(cluster: &Cluster, name: &str) -> Result<String> {
    let frameworks = cluster.list("frameworks", &[])?;
    let framework = frameworks.iter().find(|f| f["name"] == name).context("no such framework")?;
    let id = framework["id"].as_str().context("a framework without an id")?;
    Ok(cluster.mezz(["explain", "framework", id])?.success()?.stdout)
}
