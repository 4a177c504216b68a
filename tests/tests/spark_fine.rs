//! Real Apache Spark in fine-grained mode on a real cluster: each of its tasks is
//! one of the cluster's. `./test.sh` installs Spark.

#![allow(clippy::expect_used)]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, FIRST, Mode::Fine, PATIENCE, QUICK_LOSS, SECOND, SLOW, eventually,
    example, executors, executors_run, go, http_get, nothing_is_left, prepared_value, sidecar,
    small_cluster, submit, two_step_program,
};
use rustix::process::Signal;
use serde_json::Value;

/// A job that does not end.
const ENDLESS: &str = "sc.parallelize([1], 1).map(lambda i: time.sleep(600)).count()\n";

/// Spark's own among these tasks: others hold what the start of an executor takes.
fn sparks(tasks: &[Value]) -> impl Iterator<Item = &Value> {
    tasks.iter().filter(|task| task["id"].as_str().is_some_and(|id| id.parse::<u64>().is_ok()))
}

/// Waits until there are tasks. Short ones are never told to run.
fn work_begins(cluster: &Cluster) -> Result<()> {
    eventually(PATIENCE, "tasks run", || {
        let tasks = cluster.list("tasks", &[])?;
        Ok(if tasks.is_empty() { Err("none".to_owned()) } else { Ok(()) })
    })
}

/// Waits until so many tasks are told to run.
fn tasks_run(cluster: &Cluster, count: usize) -> Result<()> {
    eventually(PATIENCE, &format!("{count} tasks run"), || {
        let tasks = cluster.list("tasks", &[])?;
        let running = tasks.iter().filter(|t| t["state"] == "TASK_RUNNING").count();
        Ok(if running >= count { Ok(()) } else { Err(format!("{tasks:?}")) })
    })
}

/// Counts words; then has 16 tasks at once, which wait for each other; then says how many there
/// were in all. Before each but the first it waits for a file.
const COUNTED: &str = r#"
import os, runpy, sys, time
from pyspark.sql import SparkSession
wordcount, text, folder = sys.argv[1:]
stop, SparkSession.stop = SparkSession.stop, lambda self: None
sys.argv = [wordcount, text]
runpy.run_path(wordcount, run_name="__main__")
spark = SparkSession.builder.getOrCreate()
sc = spark.sparkContext
def wait(name):
    while not os.path.exists(os.path.join(folder, name)):
        time.sleep(0.05)
def meet(i):
    open(os.path.join(folder, f"meet{i}"), "w").close()
    for _ in range(1200):
        if all(os.path.exists(os.path.join(folder, f"meet{n}")) for n in range(16)):
            return 1
        time.sleep(0.05)
    return 0
# The driver is among them.
while sc._jsc.sc().getExecutorMemoryStatus().size() < 3:
    time.sleep(0.05)
print("counted", flush=True)
wait("batch")
print("met", sum(sc.parallelize(range(16), 16).map(meet).collect()), flush=True)
wait("end")
status = sc.statusTracker()
while status.getActiveJobsIds():
    time.sleep(0.05)
stages = {s for job in status.getJobIdsForGroup() for s in status.getJobInfo(job).stageIds}
print("tasks", sum(status.getStageInfo(s).numCompletedTasks for s in stages), flush=True)
stop(spark)
"#;

/// What the master has counted: ACCEPT calls, and tasks that it sent to agents.
fn launches(cluster: &Cluster) -> Result<[u64; 2]> {
    let (_, page) = http_get(&format!("http://{}/metrics", cluster.master_address()))?;
    let count = |name: &str| {
        let value = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|v| v.parse().ok()).with_context(|| format!("no {name}: {page}"))
    };
    Ok([
        count("mezz_master_events_total{kind=\"call_accept\"}")?,
        count("mezz_master_tasks_launched_total")?,
    ])
}

/// And what fits on an agent at once is launched at once, by one call.
#[test]
fn every_spark_task_is_one_of_the_clusters() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:4;mem:1400;disk:1000".to_owned(),
        ..Default::default()
    })?;
    let text = cluster.folder().join("text.txt");
    std::fs::write(&text, "to be or not to be\n".repeat(20_000))?;
    let text = text.to_str().context("a path in UTF-8")?;
    let program = cluster.folder().join("counted.py");
    std::fs::write(&program, COUNTED)?;
    let (wordcount, folder) = (example("wordcount.py"), cluster.folder().display().to_string());
    let mut job = submit(
        &cluster,
        Fine,
        "MEZZ_TEST_SPARK_HOME",
        &[
            "spark.authenticate=true",
            "spark.authenticate.secret=hush-hush",
            "spark.io.encryption.enabled=true",
            "spark.task.cpus=0.5",
        ],
        &program,
        &[&wordcount.display().to_string(), text, &folder],
    )?;
    job.wait_for_output("counted", PATIENCE * 2)?;
    let before = launches(&cluster)?;
    std::fs::write(cluster.folder().join("batch"), "")?;
    job.wait_for_output("met 16", PATIENCE)?;
    let [calls, tasks] = launches(&cluster)?;
    let new = [calls - before[0], tasks - before[1]];
    ensure!(new == [2, 16], "16 tasks, 8 on each agent: {new:?} calls and tasks");
    std::fs::write(cluster.folder().join("end"), "")?;
    let end = job.wait(PATIENCE)?.success()?;
    for word in ["to", "be"] {
        let right = end.stdout.lines().any(|l| l.contains(word) && l.contains("40,000"));
        ensure!(right, "no line with {word} and 40,000: {end}");
    }
    ensure!(!end.stderr.contains("hush-hush"), "the secret is in the log");
    let tasks = cluster.list("tasks", &["--completed"])?;
    let count = sparks(&tasks).count();
    let same = end.stdout.lines().any(|line| line == format!("tasks {count}"));
    ensure!(same && count > 16, "{count} in the cluster: {tasks:?}\n{end}");
    for task in sparks(&tasks) {
        ensure!(task["state"] == "TASK_FINISHED", "{task}");
    }
    ensure!(!format!("{tasks:?}").contains("hush-hush"), "the secret is in {tasks:?}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn the_same_jar_serves_spark_3_5() -> Result<()> {
    let cluster = small_cluster()?;
    let conf = ["spark.authenticate=true"];
    let mut job =
        submit(&cluster, Fine, "MEZZ_TEST_SPARK_3_HOME", &conf, &example("pi.py"), &["4"])?;
    let end = job.wait(PATIENCE * 3)?.success()?;
    ensure!(end.stdout.contains("pi is roughly 3.1"), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// What fine-grained mode is for: between its jobs an application holds memory only,
/// and others run on its cores.
#[test]
fn an_idle_application_holds_no_cores_and_is_offered_nothing() -> Result<()> {
    let cluster = small_cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &[], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    eventually(PATIENCE, "no task and no offer is left", || {
        let left = (cluster.list("tasks", &[])?, cluster.list("offers", &[])?);
        let none = left.0.is_empty() && left.1.is_empty();
        Ok(if none { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    let before = executors_run(&cluster, 2)?;
    let frameworks = cluster.list("frameworks", &[])?;
    let name = frameworks.first().context("a framework")?["id"].as_str().context("id")?.to_owned();
    eventually(PATIENCE, "offers are suppressed", || {
        let explained = cluster.mezz(["explain", "framework", &name])?.success()?.stdout;
        Ok(if explained.contains("suppress") { Ok(()) } else { Err(explained) })
    })?;
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

/// And of a driver whose JVM is killed the sidecar, which lives on, leaves nothing.
#[test]
fn a_killed_executor_is_replaced_and_the_answer_is_right() -> Result<()> {
    let cluster = small_cluster()?;
    let program = two_step_program(&cluster, &(SLOW.to_owned() + ENDLESS))?;
    // The master alone would wait for so long.
    let conf = ["spark.mezz.failoverTimeout=1h"];
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors_run(&cluster, 2)?;
    for pid in &before {
        mezz_tests::signal(*pid, Signal::KILL)?;
    }
    go(&cluster)?;
    // And once more, while it works.
    let again = eventually(PATIENCE, "there is a new executor, and tasks", || {
        let new = executors(&cluster)?.difference(&before).next().copied();
        let tasks = cluster.list("tasks", &[])?.len();
        Ok(new.filter(|_| tasks > 0).ok_or_else(|| format!("{new:?}, {tasks} tasks")))
    })?;
    mezz_tests::signal(again, Signal::KILL)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    // The reason is told.
    job.wait_for_output("ended: exited with status 137", PATIENCE)?;

    tasks_run(&cluster, 1)?;
    // `mezz spark submit` becomes spark-submit, which becomes the driver's JVM.
    job.kill_9()?;
    nothing_is_left(&cluster)?;
    // The Python program is Spark's own child; it would notice at its next call.
    job.signal_group(Signal::KILL)?;
    cluster.stop()
}

#[test]
fn a_driver_killed_with_its_sidecar_leaves_nothing() -> Result<()> {
    let cluster = small_cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    // Nobody can tell the master; it waits for so long.
    let conf = ["spark.mezz.failoverTimeout=1s"];
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    go(&cluster)?;
    work_begins(&cluster)?;
    job.signal_group(Signal::KILL)?;
    nothing_is_left(&cluster)?;
    job.wait(PATIENCE)?;
    cluster.stop()
}

/// A second copy of a task that hangs; tasks that go where their blocks are; an agent that
/// dies with all that is on it; the sidecar's death: one application after another would
/// take four times as long.
#[test]
fn stragglers_local_blocks_lost_agents_and_a_dead_sidecar() -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:1;mem:1400;disk:1000".to_owned(),
        master_args: QUICK_LOSS.map(str::to_owned).to_vec(),
        // Spark puts the second copy of a task on another host.
        hostnames: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        ..Default::default()
    })?;
    let marks = cluster.folder().to_str().context("a path in UTF-8")?.to_owned();
    let straggler = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/straggler.py");
    let program = cluster.folder().join("trials.py");
    let rest = r#"
def where(i):
    # Each agent has one of these two at least.
    if i < 2:
        meet(i, "where")
    return os.getcwd()
cached = sc.parallelize(range(8), 8).map(where).cache()
places = len(set(cached.collect()))
moved = sum(cached.map(lambda place: place != os.getcwd()).collect())
print("places", places, "moved", moved, flush=True)
pairs = sc.parallelize(range(2000), 8).map(lambda i: (i % 10, i)).reduceByKey(lambda a, b: a + b, 4)
pairs.cache()
print("first", sum(v for _, v in pairs.collect()), flush=True)
slow = sc.parallelize(range(40), 40).map(lambda i: (time.sleep(0.1), i)[1]).sum()
print("second", slow, sum(v for _, v in pairs.collect()), flush=True)
"#;
    std::fs::write(&program, std::fs::read_to_string(straggler)? + rest + ENDLESS)?;
    let conf = [
        "spark.speculation=true",
        "spark.speculation.quantile=0.5",
        "spark.speculation.multiplier=1.5",
        // A busy machine may keep a task waiting longer than Spark waits by itself.
        "spark.locality.wait=15s",
        "spark.mezz.failoverTimeout=1s",
    ];
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[&marks])?;
    job.wait_for_output("copies 1", PATIENCE * 2)?;
    // One of them has the core that the killed copy had.
    job.wait_for_output("met 2", PATIENCE)?;
    let ended = cluster.list("tasks", &["--completed"])?;
    for (copy, state) in [("0.0", "TASK_KILLED"), ("0.1", "TASK_FINISHED")] {
        let name = format!("task {copy} in stage 0.0");
        let of = |task: &&Value| task["name"].as_str().is_some_and(|n| n.starts_with(&name));
        let task = sparks(&ended).find(of).with_context(|| format!("no {name}: {ended:?}"))?;
        ensure!(task["state"] == state, "{task}");
    }

    job.wait_for_output(FIRST, PATIENCE)?;
    let right = job.stdout().contains("places 2 moved 0");
    ensure!(right, "tasks run where their blocks are: {}", job.stdout());
    work_begins(&cluster)?;
    cluster.lose_agent(1)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    cluster.start_agent(1)?;
    cluster.wait_for_agents(2)?;

    tasks_run(&cluster, 1)?;
    mezz_tests::signal(sidecar(&cluster)?, Signal::KILL)?;
    let end = job.wait(PATIENCE)?;
    ensure!(end.code != Some(0) && end.stderr.contains("spark-sidecar"), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn restarts_of_master_and_agents_under_a_job_change_nothing() -> Result<()> {
    let mut cluster = small_cluster()?;
    let program = two_step_program(
        &cluster,
        &(SLOW.to_owned()
            + r#"
while not os.path.exists("go-on"):
    time.sleep(0.05)
print("third", sc.parallelize(range(3), 3).map(lambda i: (time.sleep(5), i)[1]).sum(), flush=True)
"#),
    )?;
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &[], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors_run(&cluster, 2)?;
    go(&cluster)?;
    work_begins(&cluster)?;
    cluster.master()?.kill_9()?;
    cluster.start_master()?;
    for n in 0..2 {
        cluster.agent(n)?.kill_9()?;
        cluster.start_agent(n)?;
    }
    cluster.wait_for_agents(2)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    ensure!(executors(&cluster)? == before, "the executors are the same");
    // A master that remembers nothing knows no task until the agents are back.
    std::fs::write(cluster.folder().join("go-on"), "")?;
    tasks_run(&cluster, 2)?;
    cluster.master()?.kill_9()?;
    for n in 0..2 {
        cluster.agent(n)?.kill_9()?;
    }
    cluster.set_master_args(&["--registry", "memory"]);
    cluster.start_master()?;
    eventually(PATIENCE, "the driver is back", || {
        let frameworks = cluster.list("frameworks", &[])?;
        Ok(if frameworks.len() == 1 { Ok(()) } else { Err(format!("{frameworks:?}")) })
    })?;
    for n in 0..2 {
        cluster.start_agent(n)?;
    }
    job.wait_for_output("third 3", PATIENCE)?;
    ensure!(executors(&cluster)? == before, "the executors are still the same");
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn a_cancelled_job_ends_its_tasks_at_once() -> Result<()> {
    let cluster = small_cluster()?;
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
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &[], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    go(&cluster)?;
    tasks_run(&cluster, 2)?;
    std::fs::write(cluster.folder().join("cancel"), "")?;
    job.wait_for_output("cancelled True", PATIENCE)?;
    job.wait_for_output("after 45", PATIENCE)?;
    job.wait(PATIENCE)?.success()?;
    let ended = cluster.list("tasks", &["--completed"])?;
    let killed = sparks(&ended).filter(|t| t["state"] == "TASK_KILLED").count();
    ensure!(killed == 2, "{killed} tasks were killed: {ended:?}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn what_fine_grained_mode_cannot_do_is_said() -> Result<()> {
    let cluster = small_cluster()?;
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
        let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &[conf], &program, &[])?;
        let end = job.wait(PATIENCE * 2)?;
        ensure!(end.code != Some(0) && end.stderr.contains(said), "{conf}: {end}");
    }
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn executors_that_cannot_start_fail_the_job_after_a_few_attempts() -> Result<()> {
    let cluster = small_cluster()?;
    let conf = ["spark.mezz.executor.bridge=/no/such/bridge.jar"];
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &conf, &example("pi.py"), &["2"])?;
    let end = job.wait(PATIENCE * 3)?;
    for said in [
        "5 attempts in a row to start executors failed",
        "(agent ",
        "last words: Caused by: java.lang.ClassNotFoundException: dev.mezz.spark",
    ] {
        ensure!(end.code != Some(0) && end.stderr.contains(said), "{said}: {end}");
    }
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// Nothing would be heard of it but Spark's own word that it has no resources.
#[test]
fn an_application_that_no_agent_can_run_says_why() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions {
        agent_args: ["--docker", "none"].map(str::to_owned).to_vec(),
        ..Default::default()
    })?;
    let image = prepared_value("MEZZ_TEST_SPARK_IMAGE")?;
    let image = format!("spark.mezz.executor.docker.image={image}");
    let conf = [image.as_str()];
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &conf, &example("pi.py"), &["2"])?;
    job.wait_for_output("Waiting for executors: no agent that is offered has room", PATIENCE * 2)?;
    job.wait_for_output("127.0.0.1 has no Docker engine", PATIENCE)?;
    job.signal_group(Signal::INT)?;
    job.wait(PATIENCE)?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// Spark cannot end executors of a cluster that it does not know: we do.
#[test]
fn an_executor_that_hangs_is_replaced() -> Result<()> {
    let cluster = small_cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let conf = [
        "spark.storage.blockManagerHeartbeatTimeoutMs=8s",
        "spark.network.timeoutInterval=1s",
        "spark.executor.heartbeatInterval=2s",
    ];
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors_run(&cluster, 2)?;
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
    let cluster = small_cluster()?;
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
    let mut job = submit(&cluster, Fine, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    let end = job.wait(PATIENCE * 3)?;
    ensure!(end.code != Some(0), "{end}");
    ensure!(end.stderr.contains("raise spark.executor.memoryOverhead"), "the hint is given: {end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}
