//! Two masters on one etcd: the leader is killed, paused, stopped, cut off from etcd.
//! What runs goes on, the other one leads, and all find it.

#![allow(clippy::expect_used)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mezz_proto::mezz::v1::{
    GetMasterRequest, OperatorKillTaskRequest, operator_client::OperatorClient,
};
use mezz_tests::{Cluster, ClusterOptions, Etcd, PATIENCE, Process, eventually, http_get};
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};

/// The shortest that etcd gives.
const LEASE: &str = "2s";

struct World {
    cluster: Cluster,
    // After the cluster, so that the masters do not see it go.
    etcd: Etcd,
}

impl World {
    fn start(lease: &str) -> Result<Self> {
        let etcd = Etcd::start(&[])?;
        let args = ["--registry", &etcd.registry("mezz"), "--leader-lease", lease];
        let cluster = Cluster::start(ClusterOptions {
            masters: 2,
            master_args: args.map(str::to_owned).to_vec(),
            // Where standbys wait for a leader, an agent never pauses for so long.
            agent_args: ["--register-backoff-min=1h", "--register-backoff-max=1h"]
                .map(str::to_owned)
                .to_vec(),
            ..Default::default()
        })?;
        let world = Self { cluster, etcd };
        // The second is there when it knows of the first.
        world.wait_for_page(1, &format!("leader is {}", world.cluster.address_of_master(0)))?;
        Ok(world)
    }

    fn wait_for_page(&self, master: usize, text: &str) -> Result<()> {
        let url = format!("http://{}/health", self.cluster.address_of_master(master));
        eventually(PATIENCE, &format!("master {master} says `{text}`"), || {
            Ok(match http_get(&url) {
                Ok((200, page)) if page.contains(text) => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })
    }

    fn wait_for_leader(&self, master: usize) -> Result<()> {
        self.wait_for_page(master, "ok")
    }

    /// The framework and the agent are there again, and the task runs.
    fn all_is_back(&self, framework: &serde_json::Value) -> Result<()> {
        eventually(PATIENCE, "agent, framework and task are back", || {
            let list = |what: &str| self.cluster.list(what, &[]).map_err(|e| format!("{e:#}"));
            let look = || -> Result<_, String> {
                Ok((list("agents")?, list("frameworks")?, list("tasks")?))
            };
            let (agents, frameworks, tasks) = match look() {
                Ok(lists) => lists,
                Err(error) => return Ok(Err(error)),
            };
            let back = agents.iter().any(|a| a["status"] == "active")
                && frameworks.iter().any(|f| f["id"] == *framework && f["status"] == "active")
                && tasks.len() == 1
                && tasks[0]["state"] == "TASK_RUNNING";
            Ok(if back { Ok(()) } else { Err(format!("{agents:?} {frameworks:?} {tasks:?}")) })
        })
    }

    fn job(&self) -> Result<Job> {
        let go = self.cluster.folder().join("go");
        let script = format!(
            "echo started; while [ ! -e {} ]; do sleep 0.05; done; echo done; exit 3",
            go.display()
        );
        let run = self.cluster.spawn("job", ["run", "--name", "job", "--", "sh", "-c", &script])?;
        eventually(PATIENCE, "the task runs", || {
            let tasks = self.cluster.list("tasks", &[])?;
            let running = tasks.iter().any(|t| t["state"] == "TASK_RUNNING");
            Ok(if running { Ok(()) } else { Err(format!("{tasks:?}")) })
        })?;
        let framework = self.cluster.list("frameworks", &[])?[0]["id"].clone();
        let task = self.cluster.list("tasks", &[])?[0]["id"].as_str().unwrap_or("").to_owned();
        Ok(Job { run, go, framework, task })
    }
}

/// One task that runs until the test makes a file, and then ends with status 3.
struct Job {
    run: Process,
    go: std::path::PathBuf,
    framework: serde_json::Value,
    task: String,
}

impl Job {
    fn ends_as_it_should(mut self) -> Result<()> {
        std::fs::write(&self.go, "")?;
        let end = self.run.wait(PATIENCE)?;
        ensure!(end.code == Some(3), "{:?}\n{end}", end.code);
        // Its output was followed all the time: once, not once for each leader.
        ensure!(end.stdout.matches("started").count() == 1, "{end}");
        Ok(())
    }
}

fn client(address: &str) -> Result<OperatorClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(OperatorClient::new(endpoint.connect_lazy()))
}

/// The status line and the headers of an answer.
fn head(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split("\r\n\r\n").next().unwrap_or_default().to_owned())
}

#[test]
fn the_leader_is_killed_and_etcd_is_away() -> Result<()> {
    let mut world = World::start(LEASE)?;
    let job = world.job()?;
    let other = world.cluster.address_of_master(1).to_owned();

    let killed = Instant::now();
    world.cluster.master_of(0)?.kill_9()?;
    // A command that comes before the next leader waits for it, and says so.
    let agents = world.cluster.mezz(["agents"])?.success()?;
    let waited = "for a master to lead: ";
    ensure!(agents.stderr.contains(waited), "{agents}");
    world.wait_for_leader(1)?;
    eprintln!("the standby led {:.2} s after kill -9", killed.elapsed().as_secs_f64());
    world.all_is_back(&job.framework)?;
    eprintln!("all was back after {:.2} s", killed.elapsed().as_secs_f64());

    // The killed one comes back as a standby, and sends everybody on.
    world.cluster.spawn_master(0)?;
    world.wait_for_page(0, &format!("leader is {other}"))?;
    let standby = world.cluster.address_of_master(0).to_owned();
    let moved = head(&standby, "/some/path?x=1")?;
    ensure!(moved.starts_with("HTTP/1.0 307 ") || moved.starts_with("HTTP/1.1 307 "), "{moved}");
    // Without a scheme (rule 2).
    let location = format!("location: //{other}/some/path?x=1");
    ensure!(moved.to_lowercase().contains(&location), "{moved}");
    let (_, metrics) = http_get(&format!("http://{standby}/metrics"))?;
    ensure!(metrics.contains("mezz_master_leading 0"), "{metrics}");
    // A client that knows only the standby finds the leader.
    let agents = world.cluster.mezz(["agents", "--master", &standby])?.success()?;
    ensure!(agents.stdout.contains("active"), "{agents}");

    // Nobody may lead while etcd does not answer for longer than the lease.
    world.etcd.pause()?;
    world.wait_for_page(1, "leader is not known")?;
    for (patience, text) in
        [("0", "no master leads: "), ("1200ms", "no master leads, for 1200ms now")]
    {
        let list = world.cluster.mezz(["agents", "--leader-timeout", patience])?;
        ensure!(list.code == Some(1) && list.stderr.contains(text), "{list}");
        ensure!(list.stderr.contains("knows of no leader"), "{list}");
    }
    world.etcd.go_on()?;
    world.all_is_back(&job.framework)?;
    job.ends_as_it_should()?;
    world.cluster.stop()
}

#[test]
fn a_leader_that_was_paused_does_nothing_when_it_goes_on() -> Result<()> {
    let mut world = World::start(LEASE)?;
    let job = world.job()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let _in = runtime.enter();
    let mut operator = client(world.cluster.address_of_master(0))?;
    // Connects while it can be answered.
    let before = runtime.block_on(operator.get_master(GetMasterRequest {}))?.into_inner();
    ensure!(before.leader.as_deref() == Some(world.cluster.address_of_master(0)), "{before:?}");

    world.cluster.master_of(0)?.signal(Signal::STOP)?;
    let framework_id = job.framework.as_str().context("an id")?.to_owned();
    let task_id = job.task.clone();
    let kill = runtime.spawn(async move {
        let request = OperatorKillTaskRequest { task_id, framework_id: Some(framework_id) };
        operator.kill_task(request).await
    });
    world.wait_for_leader(1)?;
    // It finds an order to kill the task in its socket, and agents and frameworks that
    // still hold on to it.
    world.cluster.master_of(0)?.signal(Signal::CONT)?;
    let answer = runtime.block_on(kill)?;
    let status = answer.err().context("the deposed leader did as it was told")?;
    ensure!(status.code() == tonic::Code::Unavailable, "{status:?}");
    world.all_is_back(&job.framework)?;
    let leader = world.cluster.address_of_master(1).to_owned();
    world.wait_for_page(0, &format!("leader is {leader}"))?;
    world.cluster.master_of(0)?.wait_for_output("this master leads no more", PATIENCE)?;
    job.ends_as_it_should()?;
    world.cluster.stop()
}

#[test]
fn a_leader_that_is_stopped_hands_over_at_once() -> Result<()> {
    // Far longer than the test waits.
    let mut world = World::start("300s")?;
    let job = world.job()?;
    let stopped = Instant::now();
    world.cluster.master_of(0)?.signal(Signal::TERM)?;
    world.wait_for_leader(1)?;
    eprintln!("handed over within {:.2} s", stopped.elapsed().as_secs_f64());
    let end = world.cluster.master_of(0)?.wait(PATIENCE)?;
    ensure!(end.code == Some(0), "{end}");
    world.all_is_back(&job.framework)?;
    job.ends_as_it_should()?;
    // A rolling restart comes back to the first one.
    world.cluster.spawn_master(0)?;
    world.wait_for_page(0, "leader is")?;
    world.cluster.master_of(1)?.signal(Signal::TERM)?;
    world.wait_for_leader(0)?;
    world.cluster.master_of(1)?.wait(PATIENCE)?;
    world.cluster.spawn_master(1)?;
    eventually(Duration::from_secs(30), "the agent is back", || {
        let agents = world.cluster.list("agents", &[]).unwrap_or_default();
        let back = agents.iter().any(|a| a["status"] == "active");
        Ok(if back { Ok(()) } else { Err(format!("{agents:?}")) })
    })?;
    world.cluster.stop()
}
