//! Real Apache Spark on a real cluster. `./test.sh` installs it.
//!
//! What is killed under a job, and where it is tested. Executors in Docker differ from
//! others only in what holds them.
//!
//! | | coarse | fine | driver on the cluster | executors in Docker |
//! |---|---|---|---|---|
//! | an executor | `a_killed_executor…` | `spark_fine::a_killed_executor…` | `dispatcher::faults_under…` | `spark_docker::faults_under…` |
//! | an agent's program | `restarts_of…` | `spark_fine::restarts_of…` | `dispatcher::faults_under…` | `spark_docker::faults_under…` |
//! | an agent with all on it | `spark_coarse::blocks_move…` | `spark_fine::stragglers…` | `dispatcher::a_supervised_driver…` | `spark_docker::faults_under…` |
//! | the master | `restarts_of…` | `spark_fine::restarts_of…` | `dispatcher::a_master_restart…` | `spark_docker::faults_under…` |
//! | the dispatcher | | | `dispatcher::a_killed_dispatcher…` | |
//! | the sidecar | `a_killed_executor…` | `spark_fine::stragglers…` | `dispatcher::faults_under…` | `spark_docker::pi_and…fine…` |
//! | the driver's JVM | `a_killed_driver…` | `spark_fine::a_killed_executor…` | `dispatcher::a_supervised_driver…` | `spark_docker::faults_under…` |
//! | the driver with its sidecar | | `spark_fine::a_driver_killed…` | `dispatcher::a_supervised_driver…` | |

#![allow(clippy::expect_used)]

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use mezz_proto::{
    mezz::v1::{ListTasksRequest, operator_client::OperatorClient},
    resources::Resources,
    v1::TaskState,
};
use mezz_tests::{
    Cluster, ClusterOptions, FIRST, Mode::Coarse, PATIENCE, SECOND, SLOW, asking_frameworks,
    eventually, example, executors, executors_run, go, nothing_is_left, prepared, sidecar,
    small_cluster, spark_command, submit, submit_by, two_step_program,
};
use rustix::process::Signal;
use tonic::transport::Endpoint;

/// In Spark's folder; `mezz spark archive` makes it.
const ARCHIVE: &str = "mezz-classes.jsa";

/// And an archive of classes that does not fit changes nothing, and is nowhere spoken of.
/// Executors are spread over agents, each of which has room for both. The master asks who
/// frameworks are. The other tests run the newer Spark.
#[test]
fn the_same_jar_serves_spark_3_5() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions {
        agents: 2,
        resources: "cpus:2;mem:2800;disk:1000".to_owned(),
        master_args: asking_frameworks().to_vec(),
        ..Default::default()
    })?;
    let secret = cluster.folder().join("secret");
    std::fs::write(&secret, "s3cret\n")?;
    let secret = format!("spark.mezz.secret.file={}", secret.display());
    let (real, home) = (prepared("MEZZ_TEST_SPARK_3_HOME")?, cluster.folder().join("spark"));
    std::fs::create_dir(&home)?;
    for part in ["bin", "jars", "python"] {
        std::os::unix::fs::symlink(real.join(part), home.join(part))?;
    }
    let of_4 = prepared("MEZZ_TEST_SPARK_HOME")?.join(ARCHIVE);
    ensure!(of_4.is_file(), "there is no {}: run ./test.sh", of_4.display());
    std::os::unix::fs::symlink(of_4, home.join(ARCHIVE))?;
    let mut command = spark_command(&cluster, "MEZZ_TEST_SPARK_3_HOME", &["submit"])?;
    command.env("SPARK_HOME", &home);
    let who = ["spark.mezz.principal=spark", &secret];
    let conf = ["spark.cores.max=2", "spark.authenticate=true", who[0], who[1]];
    let mut job = submit_by(command, &cluster, &conf, &example("pi.py"), &["4"])?;
    let end = job.wait(PATIENCE * 3)?.success()?;
    let said: Vec<&str> = end.stdout.lines().collect();
    ensure!(said.len() == 1 && said[0].starts_with("pi is roughly 3.1"), "{end}");
    let tasks = cluster.list("tasks", &["--completed"])?;
    let agents: BTreeSet<String> = tasks.iter().map(|t| t["agent_id"].to_string()).collect();
    ensure!(agents.len() == 2, "executors on {agents:?}: {tasks:?}");
    for task in tasks {
        let id = task["id"].as_str().context("a task's id")?;
        let said = cluster.mezz(["logs", id])?.success()?.stdout;
        ensure!(said.is_empty(), "executor {id} said {said}");
    }
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// Whether this JVM has mapped the archive of Spark's classes.
fn shares_classes(pid: i32) -> Result<bool> {
    Ok(std::fs::read_to_string(format!("/proc/{pid}/maps"))?.contains(ARCHIVE))
}

#[test]
fn restarts_of_master_and_agents_under_a_job_change_nothing() -> Result<()> {
    let mut cluster = small_cluster()?;
    let more = r#"
while not os.path.exists("go-on"):
    time.sleep(0.05)
print("third", sc.parallelize(range(3), 3).sum(), flush=True)
"#;
    let program = two_step_program(&cluster, &(SLOW.to_owned() + more))?;
    let mut job =
        submit(&cluster, Coarse, "MEZZ_TEST_SPARK_HOME", &["spark.cores.max=2"], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors_run(&cluster, 2)?;
    // `mezz spark submit` becomes the driver's JVM.
    for jvm in before.iter().copied().chain([job.pid()]) {
        ensure!(shares_classes(jvm)?, "{jvm} of {before:?} and the driver reads Spark's jars");
    }
    cluster.master()?.kill_9()?;
    cluster.start_master()?;
    go(&cluster)?;
    cluster.wait_for_agents(2)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    let both = executors(&cluster)?;
    ensure!(before == both, "executors {before:?}, then {both:?}");
    // One that remembers nothing knows no executor until the agents are back.
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
    cluster.wait_for_agents(2)?;
    std::fs::write(cluster.folder().join("go-on"), "")?;
    job.wait_for_output("third 3", PATIENCE)?;
    let after = executors(&cluster)?;
    ensure!(after == both, "executors before {both:?}, after {after:?}");
    job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// And a killed sidecar ends the job, with the right error.
#[test]
fn a_killed_executor_is_replaced_and_the_answer_is_right() -> Result<()> {
    let cluster = small_cluster()?;
    let endless = "sc.parallelize([1], 1).map(lambda i: time.sleep(600)).count()\n";
    let program = two_step_program(&cluster, &(SLOW.to_owned() + endless))?;
    let conf = ["spark.cores.max=2", "spark.mezz.failoverTimeout=1s"];
    let mut job = submit(&cluster, Coarse, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    let before = executors_run(&cluster, 2)?;
    let killed = *before.first().context("an executor")?;
    mezz_tests::signal(killed, Signal::KILL)?;
    go(&cluster)?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    let after = executors_run(&cluster, 2)?;
    ensure!(!after.contains(&killed) && after != before, "{killed} of {before:?}, now {after:?}");
    mezz_tests::signal(sidecar(&cluster)?, Signal::KILL)?;
    let end = job.wait(PATIENCE)?;
    ensure!(end.code != Some(0) && end.stderr.contains("spark-sidecar"), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn a_killed_driver_leaves_nothing() -> Result<()> {
    let cluster = small_cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let mut job =
        submit(&cluster, Coarse, "MEZZ_TEST_SPARK_HOME", &["spark.cores.max=2"], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    // `mezz spark submit` becomes spark-submit, which becomes the driver's JVM.
    job.kill_9()?;
    nothing_is_left(&cluster)?;
    // The Python program is Spark's own child; it would notice at its next call.
    job.signal_group(Signal::KILL)?;
    cluster.stop()
}

#[test]
fn what_cannot_start_fails_the_job_with_the_reason() -> Result<()> {
    let cluster = small_cluster()?;
    for (conf, said) in [
        // Two at first, then one at a time.
        ("spark.mezz.executor.home=/no/spark", "5 attempts in a row to start executors failed"),
        ("spark.mezz.bin=/no/such/mezz", "set spark.mezz.bin or MEZZ_BIN"),
    ] {
        let conf = ["spark.cores.max=2", conf];
        let mut job =
            submit(&cluster, Coarse, "MEZZ_TEST_SPARK_HOME", &conf, &example("pi.py"), &["2"])?;
        let end = job.wait(PATIENCE * 3)?;
        ensure!(end.code != Some(0) && end.stderr.contains(said), "{conf:?}: {end}");
    }
    let tried = cluster.list("tasks", &["--completed"])?.len();
    ensure!(tried == 6, "{tried} executors were tried");
    nothing_is_left(&cluster)?;
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
    let mut job = submit(&cluster, Coarse, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[marks])?;
    let end = job.wait(PATIENCE * 2)?.success()?;
    ensure!(end.stdout.contains("copies 1") && end.stdout.contains("met 2"), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

#[test]
fn ctrl_c_ends_the_job_its_executors_and_its_framework() -> Result<()> {
    let cluster = small_cluster()?;
    let program = two_step_program(&cluster, SLOW)?;
    let mut job =
        submit(&cluster, Coarse, "MEZZ_TEST_SPARK_HOME", &["spark.cores.max=2"], &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    job.signal_group(Signal::INT)?;
    let end = job.wait(PATIENCE)?;
    ensure!(end.code != Some(0), "{end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}

/// What a task held by the master's word.
struct Held {
    agent: String,
    state: TaskState,
    resources: Resources,
}

/// All executors that there ever were.
fn held(cluster: &Cluster) -> Result<Vec<Held>> {
    let master = Endpoint::from_shared(format!("http://{}", cluster.master_address()))?;
    let list = async {
        let all = ListTasksRequest { completed: Some(true), ..Default::default() };
        OperatorClient::new(master.connect_lazy()).list_tasks(all).await
    };
    let tasks = tokio::runtime::Runtime::new()?.block_on(list)?.into_inner().tasks;
    let held = tasks.into_iter().map(|record| {
        let (state, agent) = (record.task.state(), record.task.agent_id.value);
        Ok(Held { agent, state, resources: Resources::from_proto(&record.task.resources)? })
    });
    held.collect()
}

/// A home of Java with which no executor of the first agent starts.
fn bad_java(cluster: &Cluster) -> Result<String> {
    let home = cluster.folder().join("jdk");
    std::fs::create_dir_all(home.join("bin"))?;
    let program = home.join("bin/java");
    let script = "#!/bin/sh\ncase $PWD in */agent0/*) echo 'Error: broken Java' >&2; exit 1 ;; esac\n\
                  exec java \"$@\"\n";
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(home.display().to_string())
}

/// On what is reserved to its role, though another agent has more to offer; and without the
/// agent on which executors fail, though more is reserved there.
#[test]
fn dynamic_allocation_grows_and_shrinks() -> Result<()> {
    let agents = [
        "cpus:1;mem:1400;disk:1000;cpus(etl):3;mem(etl):3000",
        "cpus:1;mem:1400;disk:1000;cpus(etl):2;mem(etl):2000",
        "cpus:8;mem:9000;disk:1000",
    ];
    let cluster = Cluster::start(ClusterOptions {
        agents: agents.len(),
        resources_of_agents: agents.map(str::to_owned).to_vec(),
        ..Default::default()
    })?;
    let start = Instant::now();
    let program = two_step_program(&cluster, SLOW)?;
    let java = format!("spark.executorEnv.JAVA_HOME={}", bad_java(&cluster)?);
    let conf = [
        "spark.mezz.role=etl",
        &java,
        "spark.dynamicAllocation.enabled=true",
        "spark.dynamicAllocation.shuffleTracking.enabled=true",
        "spark.dynamicAllocation.shuffleTracking.timeout=1s",
        "spark.dynamicAllocation.minExecutors=0",
        "spark.dynamicAllocation.maxExecutors=2",
        "spark.dynamicAllocation.executorIdleTimeout=1s",
        "spark.dynamicAllocation.cachedExecutorIdleTimeout=1s",
    ];
    let mut job = submit(&cluster, Coarse, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    job.wait_for_output(FIRST, PATIENCE * 2)?;
    eventually(PATIENCE, "idle executors are given back", || {
        let left = executors(&cluster)?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    go(&cluster)?;
    eventually(PATIENCE, "two executors are back", || {
        let now = executors(&cluster)?;
        Ok(if now.len() == 2 { Ok(()) } else { Err(format!("{now:?}")) })
    })?;
    job.wait_for_output(SECOND, PATIENCE * 2)?;
    let end = job.wait(PATIENCE)?.success()?;
    nothing_is_left(&cluster)?;

    let (bad, good) = (cluster.id_of_agent(0)?, cluster.id_of_agent(1)?);
    let (failed, worked): (Vec<Held>, _) =
        held(&cluster)?.into_iter().partition(|h| h.agent == bad);
    ensure!(failed.iter().all(|h| h.state == TaskState::TaskFailed), "some ran on {bad}");
    // Two, and one more after each minute in which it was avoided.
    let most = 2 + start.elapsed().as_secs() / 60;
    ensure!((2..=most).contains(&(failed.len() as u64)), "{} failed: {end}", failed.len());
    let said = format!("2 executors in a row failed on 127.0.0.1 (agent {bad}): none is started");
    ensure!(end.stderr.contains(&said), "{said}: {end}");
    ensure!(worked.len() >= 2, "{} executors worked", worked.len());
    for Held { agent, resources, .. } in worked {
        let right = agent == good && resources.to_string() == "cpus(etl):1; mem(etl):896";
        ensure!(right, "{resources} on {agent}, not on {good}");
    }
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
    let conf =
        ["spark.cores.max=1", "spark.task.maxFailures=1", "spark.executor.memoryOverhead=128m"];
    let mut job = submit(&cluster, Coarse, "MEZZ_TEST_SPARK_HOME", &conf, &program, &[])?;
    let end = job.wait(PATIENCE * 3)?;
    ensure!(end.code != Some(0), "{end}");
    ensure!(end.stderr.contains("spark.executor.memoryOverhead"), "the hint is given: {end}");
    nothing_is_left(&cluster)?;
    cluster.stop()
}
