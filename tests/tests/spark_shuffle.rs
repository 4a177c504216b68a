//! The external shuffle service with real Apache Spark. `./test.sh` installs it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, QUICK_LOSS, eventually, executors, nothing_is_left,
    processes_of, signal, spark_command,
};
use rustix::process::Signal;

const SERVICE: &str = "org.apache.spark.deploy.ExternalShuffleService";

/// Names of this machine, one for each agent: to Spark they are hosts of their own.
const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "127.0.0.2"];

/// Agents with room for an executor and a service each. Their ports are not those of
/// another test that runs at the same time.
fn cluster(agents: usize, master_args: &[&str]) -> Result<Cluster> {
    let first = 20_000 + std::process::id() % 100 * 100;
    Cluster::start(ClusterOptions {
        agents,
        resources: format!("cpus:1.2;mem:1400;disk:1000;ports:[{first}-{}]", first + 99),
        master_args: master_args.iter().map(|&arg| arg.to_owned()).collect(),
        hostnames: HOSTS.map(str::to_owned).to_vec(),
        ..Default::default()
    })
}

/// An agent that has a running shuffle service, by its id and its number.
fn serving_agent(cluster: &Cluster) -> Result<(String, usize)> {
    let tasks = cluster.list("tasks", &[])?;
    let service = |id: &str| id.starts_with("shuffle-");
    let runs = tasks
        .iter()
        .find(|t| t["state"] == "TASK_RUNNING" && t["id"].as_str().is_some_and(service));
    let id = runs.and_then(|t| t["agent_id"].as_str()).context("a service runs")?.to_owned();
    let agents = cluster.list("agents", &[])?;
    let agent = agents.iter().find(|a| a["id"] == *id).context("its agent")?;
    let number = HOSTS.iter().position(|host| agent["hostname"] == **host);
    Ok((id, number.context("its host")?))
}

/// The folder of an agent.
fn folder_of(cluster: &Cluster, agent: usize) -> PathBuf {
    cluster.folder().join(format!("agent{agent}"))
}

/// Those that work below this folder.
fn working_in(folder: &Path, pids: BTreeSet<i32>) -> BTreeSet<i32> {
    let here = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    pids.into_iter().filter(here).collect()
}

/// Counts how often the tasks of its map stage ran, in jobs that read what that stage wrote.
/// Before each but the first it waits for a file of the job's name.
fn program(cluster: &Cluster) -> Result<PathBuf> {
    let path = cluster.folder().join("shuffle.py");
    let folder = cluster.folder();
    std::fs::write(
        &path,
        format!(
            r#"
import os, sys, time
from pyspark.sql import SparkSession
sc = SparkSession.builder.appName("shuffle").getOrCreate().sparkContext
# A registered executor takes no tasks until all of it has started.
if sc.getConf().get("spark.scheduler.minRegisteredResourcesRatio") == "1.0":
    while sc._jsc.sc().getExecutorMemoryStatus().size() < 3:
        time.sleep(0.05)
ran = sc.accumulator(0)
def pair(i):
    ran.add(1)
    if i % 500 == 0:
        time.sleep(0.5)
    return (i % 10, i)
pairs = sc.parallelize(range(2000), 4).map(pair).reduceByKey(lambda a, b: a + b, 4)
for name in ["first"] + sys.argv[1:]:
    while name != "first" and not os.path.exists(os.path.join({folder:?}, name)):
        time.sleep(0.05)
    print(name, sum(v for _, v in pairs.collect()), "mapped", ran.value, flush=True)
"#
        ),
    )?;
    Ok(path)
}

/// Starts it, with these jobs after the first.
fn submit(cluster: &Cluster, spark: &str, conf: &[&str], jobs: &[&str]) -> Result<Process> {
    let program = program(cluster)?;
    let mut command = spark_command(cluster, spark, &["submit"])?;
    let all = [
        "spark.ui.enabled=false",
        "spark.executor.memory=512m",
        "spark.shuffle.service.enabled=true",
        "spark.mezz.shuffle.service.memory=300m",
    ];
    for pair in all.iter().chain(conf) {
        command.args(["--conf", pair]);
    }
    command.arg(program).args(jobs);
    Process::start("spark", cluster.folder(), command)
}

fn begin(cluster: &Cluster, job: &str) -> Result<()> {
    Ok(std::fs::write(cluster.folder().join(job), "")?)
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
    let cluster = cluster(2, &[])?;
    let mut job = submit(&cluster, spark, conf, &["second"])?;
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
    begin(&cluster, "second")?;
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

/// Spark is told at once what is gone: with a service that is ended for good, and with an
/// agent that dies. Nothing else is computed again, and executors are replaced elsewhere.
#[test]
fn what_a_lost_service_served_is_computed_again() -> Result<()> {
    let mut cluster = cluster(3, &QUICK_LOSS)?;
    // Each has a part of the work.
    let all = "spark.scheduler.minRegisteredResourcesRatio=1.0";
    let conf = ["spark.executor.instances=2", all];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &["second", "third"])?;
    job.wait_for_output("first 1999000 mapped 2000", PATIENCE * 4)?;
    eventually(PATIENCE, "two services", || {
        let now = services(&cluster)?;
        Ok(if now.len() == 2 { Ok(()) } else { Err(format!("{now:?}")) })
    })?;
    // All that its agent has of it, the shell that would start it again included.
    let (first, number) = serving_agent(&cluster)?;
    for pid in processes_of(&folder_of(&cluster, number))? {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        let shell = words.next() == Some(b"/bin/sh") && words.any(|w| w == SERVICE.as_bytes());
        if shell {
            // A part of it may have ended with another.
            let _ = signal(pid, Signal::KILL);
        }
    }
    let gone = format!("Shuffle files lost for worker {first}");
    job.wait_for_output(&gone, PATIENCE)?;
    begin(&cluster, "second")?;
    job.wait_for_output("second 1999000 mapped", PATIENCE)?;
    let mapped: u32 = eventually(PATIENCE, "the whole line", || {
        let said = job.stdout();
        let line = said.lines().find_map(|line| line.strip_prefix("second 1999000 mapped "));
        Ok(line.and_then(|n| n.parse().ok()).ok_or_else(|| said.clone()))
    })?;
    ensure!(mapped > 2000 && mapped < 4000, "what was lost, and nothing else: {mapped}");

    let (lost, number) = serving_agent(&cluster)?;
    cluster.lose_agent(number)?;
    job.wait_for_output(&format!("(agent {lost}) is gone"), PATIENCE)?;
    begin(&cluster, "third")?;
    job.wait_for_output("third 1999000", PATIENCE)?;
    let end = job.wait(PATIENCE)?.success()?;
    // Its service may be told of first.
    let told = |line: &str| line.contains("ended: ") && line.contains("it was lost with its agent");
    ensure!(end.stderr.lines().any(told), "the reason is told: {end}");
    ensure!(!end.stderr.contains("FetchFailed"), "Spark knew what was lost: {end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// Executors of a drained agent move their shuffle files away while its service still
/// serves them; then it ends by itself.
#[test]
fn a_service_outlasts_the_executors_of_a_drained_agent() -> Result<()> {
    let cluster = cluster(2, &[])?;
    let conf = [
        "spark.executor.instances=2",
        "spark.decommission.enabled=true",
        // It looks so often whether all is moved, and stays until it has.
        "spark.storage.decommission.replicationReattemptInterval=3s",
    ];
    let mut job = submit(&cluster, "MEZZ_TEST_SPARK_HOME", &conf, &["second"])?;
    job.wait_for_output("first 1999000 mapped 2000", PATIENCE * 4)?;
    eventually(PATIENCE, "two services", || {
        let now = services(&cluster)?;
        Ok(if now.len() == 2 { Ok(()) } else { Err(format!("{now:?}")) })
    })?;
    let (agent, number) = serving_agent(&cluster)?;
    let folder = folder_of(&cluster, number);
    let mut drain =
        cluster.spawn("drain", ["agent", "drain", &agent, "--grace", "2m", "--wait"])?;
    eventually(PATIENCE, "the agent is drained", || {
        let serving = working_in(&folder, services(&cluster)?);
        // Looked at later: those that are there now were there then.
        let working = working_in(&folder, executors(&cluster)?);
        ensure!(working.is_empty() || !serving.is_empty(), "{working:?} are without a service");
        let left = processes_of(&folder)?;
        let drained = serving.is_empty() && working.is_empty() && !drain.running();
        Ok(if drained { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    drain.wait(PATIENCE)?.success()?;
    job.wait_for_output(&format!("(agent {agent}) is gone"), PATIENCE)?;
    begin(&cluster, "second")?;
    job.wait_for_output("second 1999000 mapped 2000", PATIENCE)?;
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}
