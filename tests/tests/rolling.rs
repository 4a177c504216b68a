//! Everything is restarted, one after the other, under two Spark applications, one in each
//! mode: masters, agents, and the members of etcd. `./test.sh` installs Spark.

#![allow(clippy::expect_used)]

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, Etcd, PATIENCE, Process, eventually, executors, nothing_is_left,
    spark_command,
};
use rustix::process::Signal;

/// Sums and shuffles until the test makes a file, and checks each answer.
const PROGRAM: &str = r#"
import os, sys, time
from pyspark.sql import SparkSession
sc = SparkSession.builder.appName("rolling").getOrCreate().sparkContext
rounds, last = 0, False
while not last:
    last = os.path.exists(sys.argv[1])
    slow = sc.parallelize(range(100), 2).map(lambda i: (time.sleep(0.002), i % 10, i)[1:])
    got = sorted(slow.reduceByKey(lambda a, b: a + b, 2).collect())
    assert got == [(k, 450 + 10 * k) for k in range(10)], got
    rounds += 1
    print("round", rounds, flush=True)
print("all rounds right", flush=True)
"#;

struct Application {
    mode: &'static str,
    job: Process,
}

impl Application {
    fn submit(cluster: &Cluster, mode: &'static str) -> Result<Self> {
        let program = cluster.folder().join("rolling.py");
        std::fs::write(&program, PROGRAM)?;
        let mut command =
            spark_command(cluster, "MEZZ_TEST_SPARK_HOME", &["submit", "--mode", mode])?;
        for pair in ["spark.executor.memory=512m", "spark.ui.enabled=false", "spark.cores.max=1"] {
            command.args(["--conf", pair]);
        }
        command.arg(program).arg(cluster.folder().join("go"));
        let job = Process::start(mode, cluster.folder(), command)?;
        Ok(Self { mode, job })
    }

    fn rounds(&self) -> usize {
        self.job.stdout().matches("round ").count()
    }

    /// Waits until a round is right that was begun after this.
    fn wait_for_rounds(&mut self) -> Result<()> {
        let from = self.rounds();
        eventually(PATIENCE * 2, &format!("two more rounds in {} mode", self.mode), || {
            ensure!(self.job.running(), "{}: {}", self.mode, self.job.wait(PATIENCE)?);
            let now = self.rounds();
            Ok(if now >= from + 2 { Ok(()) } else { Err(format!("{from}, then {now}")) })
        })
    }
}

struct World {
    cluster: Cluster,
    applications: [Application; 2],
    // After the masters, so that they do not see it go.
    etcd: Etcd,
}

impl World {
    fn start() -> Result<Self> {
        let etcd = Etcd::start_members(3, None, &[])?;
        let args = ["--registry".to_owned(), etcd.registry("mezz")];
        let cluster = Cluster::start(ClusterOptions {
            masters: 2,
            agents: 2,
            resources: "cpus:2;mem:2800;disk:1000".to_owned(),
            master_args: args.to_vec(),
            ..Default::default()
        })?;
        let applications =
            [Application::submit(&cluster, "coarse")?, Application::submit(&cluster, "fine")?];
        Ok(Self { cluster, applications, etcd })
    }

    fn both_go_on(&mut self, after: &str, began: &mut Instant) -> Result<()> {
        for application in &mut self.applications {
            application.wait_for_rounds().with_context(|| after.to_owned())?;
        }
        eprintln!("{after}: {:.1} s", began.elapsed().as_secs_f64());
        *began = Instant::now();
        Ok(())
    }

    fn restart_master(&mut self, n: usize) -> Result<()> {
        self.cluster.master_of(n)?.signal(Signal::TERM)?;
        let end = self.cluster.master_of(n)?.wait(PATIENCE)?;
        ensure!(end.code == Some(0), "{end}");
        self.cluster.spawn_master(n)?;
        eventually(PATIENCE, &format!("master {n} knows the leader"), || {
            Ok(match self.cluster.ask_master(n, "/health") {
                Ok((200, page)) if page == "ok" || page.contains("leader is 1") => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })
    }

    fn restart_agent(&mut self, n: usize) -> Result<()> {
        self.cluster.agent(n)?.signal(Signal::TERM)?;
        let end = self.cluster.agent(n)?.wait(PATIENCE)?;
        ensure!(end.code == Some(0), "{end}");
        self.cluster.start_agent(n)?;
        self.cluster.wait_for_agents(2)
    }
}

#[test]
fn everything_is_restarted_under_spark_in_both_modes() -> Result<()> {
    let mut began = Instant::now();
    let mut world = World::start()?;
    world.both_go_on("start", &mut began)?;
    let before = executors(&world.cluster)?;
    ensure!(before.len() >= 2, "executors {before:?}");
    // The leader first, and then the one that took over from it.
    for n in 0..2 {
        world.restart_master(n)?;
        world.both_go_on(&format!("master {n}"), &mut began)?;
    }
    for n in 0..2 {
        world.restart_agent(n)?;
        world.both_go_on(&format!("agent {n}"), &mut began)?;
    }
    for n in 0..3 {
        world.etcd.kill_member(n)?;
        world.etcd.start_member(n)?;
    }
    world.both_go_on("etcd", &mut began)?;
    let after = executors(&world.cluster)?;
    ensure!(after.is_superset(&before), "executors before {before:?}, after {after:?}");
    std::fs::write(world.cluster.folder().join("go"), "")?;
    for application in &mut world.applications {
        let end = application.job.wait(PATIENCE)?.success()?;
        ensure!(end.stdout.contains("all rounds right"), "{}: {end}", application.mode);
    }
    nothing_is_left(&world.cluster)?;
    eprintln!("end: {:.1} s", began.elapsed().as_secs_f64());
    world.cluster.stop()
}
