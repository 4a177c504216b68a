//! Two Spark applications in fine-grained mode and a batch framework want all that they
//! can get: they take turns on the same cores, task by task, by the weights of their
//! roles.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mezz_proto::{
    mezz::v1::{ListRolesRequest, operator_client::OperatorClient},
    resources::Resources,
};
use mezz_tests::{
    Cluster, ClusterOptions, PATIENCE, Process, eventually, example_program, nothing_is_left,
    spark_command,
};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// More than there are: tasks sleep. Many, since all that is free is offered to one at a
/// time, and one core must not be much.
const CORES: f64 = 64.0;

/// Roles, and what weights of 2, 1 and 1 promise them.
const SHARES: [(&str, f64); 3] = [("twice", 0.5), ("once", 0.25), ("batch", 0.25)];

/// How far a share may be from that, as a part of it.
const STRAY: f64 = 0.05;

/// For how long it is looked at.
const MINUTE: Duration = Duration::from_secs(60);

/// Every task sleeps in the JVM, so that one costs next to nothing: some longer, some
/// shorter, so that they do not end together.
const BUSY: &str = r#"
from pyspark.sql import SparkSession
spark = SparkSession.builder.appName("busy").getOrCreate()
sleep = "reflect('java.lang.Thread', 'sleep', 4000 + 100 * pmod(id, 10)) AS slept"
spark.range(0, 3000, 1, 3000).selectExpr(sleep).write.format("noop").mode("overwrite").save()
"#;

/// The same in the shell.
const SLEEP: &str = "exec sleep 4.$((ITEM % 10))";

fn spark(cluster: &Cluster, role: &str) -> Result<Process> {
    let program = cluster.folder().join("busy.py");
    std::fs::write(&program, BUSY)?;
    let mut command =
        spark_command(cluster, "MEZZ_TEST_SPARK_HOME", &["submit", "--mode", "fine"])?;
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

/// Whoever asks the master what is held.
struct Looker {
    runtime: Runtime,
    operator: OperatorClient<Channel>,
}

impl Looker {
    fn new(cluster: &Cluster) -> Result<Self> {
        let runtime = Runtime::new()?;
        let master = Endpoint::from_shared(format!("http://{}", cluster.master_address()))?;
        let operator = OperatorClient::new(runtime.block_on(master.connect())?);
        Ok(Self { runtime, operator })
    }

    /// Cores that each role's tasks hold.
    fn held(&mut self) -> Result<[f64; 3]> {
        let roles = self.runtime.block_on(self.operator.list_roles(ListRolesRequest {}))?;
        let roles = roles.into_inner().roles;
        let mut held = [0.0; 3];
        for (held, (name, _)) in held.iter_mut().zip(SHARES) {
            if let Some(role) = roles.iter().find(|role| role.name == name) {
                *held = Resources::from_proto(&role.allocated)?.scalar("cpus").to_f64();
            }
        }
        Ok(held)
    }
}

/// Waits until the first so many roles have about what they were promised, or more.
fn shared(looker: &mut Looker, jobs: &mut [Process], roles: usize) -> Result<()> {
    eventually(PATIENCE * 2, "everybody has its share", || {
        still_run(jobs)?;
        let held = looker.held()?;
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
        resources: format!("cpus:{CORES};mem:16000;disk:1000"),
        // An offer has all that is left of its agent in it, and counts for its framework until
        // it is answered: of one agent with memory to spare that is more than any tasks hold.
        master_args: ["--weights", "twice=2", "--fair-sharing-excluded", "mem,disk"]
            .map(str::to_owned)
            .to_vec(),
        ..Default::default()
    })?;
    let mut looker = Looker::new(&cluster)?;
    let mut jobs = vec![spark(&cluster, "twice")?, spark(&cluster, "once")?];
    // Batch comes when they are there: with all cores to itself it would start so many
    // programs that they could hardly begin.
    shared(&mut looker, &mut jobs, 2)?;
    let mut batch = std::process::Command::new(example_program("batch_queue")?);
    batch
        .args(["--master", cluster.master_address(), "--role", "batch", "--resources", "cpus:1"])
        .args(["--parallel", "64", "--total", "100000", SLEEP]);
    jobs.push(Process::start("batch", cluster.folder(), batch)?);
    shared(&mut looker, &mut jobs, 3)?;

    let (start, mut last) = (Instant::now(), Instant::now());
    let mut core_seconds = [0.0; 3];
    while start.elapsed() < MINUTE {
        // What is looked at changes within seconds.
        std::thread::sleep(Duration::from_millis(100));
        let held = looker.held()?;
        let now = Instant::now();
        for (sum, held) in core_seconds.iter_mut().zip(held) {
            *sum += held * (now - last).as_secs_f64();
        }
        last = now;
    }
    still_run(&mut jobs)?;
    let total: f64 = core_seconds.iter().sum();
    let shares = core_seconds.map(|sum| sum / total);
    let in_use = total / (last - start).as_secs_f64();
    println!("shares {shares:?}, {in_use:.1} cores in use");

    for framework in cluster.list("frameworks", &[])? {
        let id = framework["id"].as_str().context("an id")?;
        cluster.mezz(["framework", "teardown", id])?.success()?;
    }
    nothing_is_left(&cluster)?;
    for job in &mut jobs {
        job.wait(PATIENCE)?;
        // Python is Spark's child, and sees its end at its next call.
        job.signal_group(Signal::KILL)?;
    }
    for ((role, promised), share) in SHARES.iter().zip(&shares) {
        ensure!((share / promised - 1.0).abs() <= STRAY, "{role} had {share}, of all: {shares:?}");
    }
    ensure!(in_use >= 0.9 * CORES, "only {in_use} cores were in use");
    cluster.stop()
}
