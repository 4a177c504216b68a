//! Real processes, a real etcd of three members, and a network that is cut: whatever is cut
//! off from whatever, there is one leader at most, what runs goes on, and two frameworks that
//! keep books account for every task.

#![allow(clippy::expect_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mezz_sdk::v1::TaskState;
use mezz_tests::{
    Cluster, ClusterOptions, Etcd, Ledger, LedgerOptions, Network, PATIENCE, eventually,
};
use rustix::process::Signal;

const LEASE: Duration = Duration::from_secs(5);

/// Two masters, two agents, three members of etcd, frameworks and somebody who looks, each on
/// a machine of its own.
const NODES: [&str; 9] =
    ["master0", "master1", "agent0", "agent1", "etcd0", "etcd1", "etcd2", "frameworks", "client"];
const MEMBERS: [&str; 3] = ["etcd0", "etcd1", "etcd2"];

struct World {
    cluster: Cluster,
    network: Network,
    /// Is told of lost agents by TASK_UNREACHABLE.
    aware: Ledger,
    /// By TASK_LOST.
    unaware: Ledger,
    watch: Watch,
    // After the masters, so that they do not see it go.
    etcd: Etcd,
}

impl World {
    fn start() -> Result<Self> {
        let network = Network::new(&NODES)?;
        let etcd = ["--heartbeat-interval=100", "--election-timeout=500"];
        let etcd = Etcd::start_members(MEMBERS.len(), Some(&network), &etcd)?;
        let (registry, lease) = (etcd.registry("mezz"), format!("{}s", LEASE.as_secs()));
        let mut args = vec!["--registry", &registry, "--leader-lease", &lease];
        args.extend(["--heartbeat-interval=1s", "--ping-interval=1s", "--max-missed-pings=3"]);
        args.push("--agent-reregister-timeout=30s");
        let cluster = Cluster::start(ClusterOptions {
            masters: 2,
            agents: 2,
            resources: "cpus:2;mem:512;disk:1000".to_owned(),
            master_args: args.into_iter().map(str::to_owned).collect(),
            network: Some(network.clone()),
            ..Default::default()
        })?;
        let masters: Vec<_> = (0..2).map(|n| cluster.address_of_master(n).to_owned()).collect();
        let start = |name, aware| ledger(&cluster, &network, name, aware, Duration::from_secs(600));
        let (aware, unaware) = (start("aware", true)?, start("unaware", false)?);
        let watch = Watch::start(&network, &masters);
        let world = Self { cluster, network, aware, unaware, watch, etcd };
        world.all_run()?;
        Ok(world)
    }

    fn ledger(&self, name: &str, aware: bool, failover_timeout: Duration) -> Result<Ledger> {
        ledger(&self.cluster, &self.network, name, aware, failover_timeout)
    }

    fn leads(&self, master: usize) -> bool {
        matches!(self.cluster.ask_master(master, "/health"), Ok((200, page)) if page == "ok")
    }

    fn leader(&self) -> Result<usize> {
        eventually(PATIENCE, "a master leads", || {
            Ok((0..2).find(|&n| self.leads(n)).ok_or_else(String::new))
        })
    }

    fn wait_until_standby(&self, master: usize, text: &str) -> Result<()> {
        eventually(PATIENCE, &format!("master {master} stands by: {text}"), || {
            Ok(match self.cluster.ask_master(master, "/health") {
                Ok((200, page)) if page.contains(text) => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })
    }

    /// Both frameworks' long tasks run, one on each agent, and short ones come and go.
    fn all_run(&self) -> Result<()> {
        for ledger in [&self.aware, &self.unaware] {
            ledger.wait_for_long(2, TaskState::TaskRunning)?;
            ledger.wait_for_progress()?;
        }
        Ok(())
    }
}

fn ledger(
    cluster: &Cluster,
    network: &Network,
    name: &str,
    partition_aware: bool,
    failover_timeout: Duration,
) -> Result<Ledger> {
    Ledger::start(LedgerOptions {
        name: name.to_owned(),
        masters: (0..2).map(|n| cluster.address_of_master(n).to_owned()).collect(),
        partition_aware,
        failover_timeout,
        folder: cluster.folder().to_owned(),
        node: Some((network.clone(), "frameworks".to_owned())),
    })
}

/// Looks all the time who leads.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, usize)>>,
}

impl Watch {
    fn start(network: &Network, masters: &[String]) -> Self {
        let (network, masters) = (network.clone(), masters.to_vec());
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let look = move || {
            let mut seen = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                for (n, master) in masters.iter().enumerate() {
                    let page = mezz_tests::http_get(&format!("http://{master}/health"));
                    if page.is_ok_and(|page| page == (200, "ok".to_owned())) {
                        seen.push((Instant::now(), n));
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(seen)
        };
        let thread = std::thread::spawn(move || {
            network.within("client", look).expect("a look at the masters")
        });
        Self { stop, thread }
    }

    /// The leaders in their order. One that still leads after it has seen another one lead
    /// would be there twice within less than a lease.
    fn leaders(self) -> Result<Vec<usize>> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().ok().context("the watch has panicked")?;
        let mut leaders: Vec<(Instant, usize)> = Vec::new();
        for (at, leader) in seen {
            match leaders.last() {
                Some(&(_, last)) if last == leader => {}
                Some(&(since, last))
                    if leaders.len() > 1 && at - since < Duration::from_millis(500) =>
                {
                    bail!("{leader} led before and after {last}")
                }
                _ => leaders.push((at, leader)),
            }
        }
        Ok(leaders.into_iter().map(|(_, leader)| leader).collect())
    }
}

/// What took how long.
fn step<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = act().with_context(|| what.to_owned())?;
    eprintln!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    Ok(done)
}

#[test]
fn faults_of_the_network_and_of_etcd_lose_and_invent_nothing() -> Result<()> {
    let mut world = step("start", World::start)?;
    let first = world.leader()?;
    step("one member of etcd after the other", || one_member(&mut world, first))?;
    step("all members of etcd", || all_members(&mut world))?;
    step("leader cut off from etcd", || leader_from_etcd(&world))?;
    step("agents cut off", || agents(&world))?;
    step("frameworks cut off", || frameworks(&world))?;
    step("settling", || {
        let World { cluster, aware, unaware, watch, .. } = world;
        let leaders = watch.leaders()?;
        eprintln!("leaders in their order: {leaders:?}");
        for ledger in [aware, unaware] {
            let account = ledger.settle(&[])?;
            ensure!(account.ended > 10 && account.dropped < account.ended / 2, "{account:?}");
        }
        cluster.stop()
    })
}

/// Any one of three members stands still, or dies, and nobody but the leader's log notices.
fn one_member(world: &mut World, leader: usize) -> Result<()> {
    let subscriptions = world.aware.subscriptions();
    for member in 0..MEMBERS.len() {
        world.etcd.signal_member(member, Signal::STOP)?;
        // For longer than it takes until the lease is to be renewed.
        let end = Instant::now() + LEASE / 2;
        while Instant::now() < end {
            ensure!(world.leads(leader), "the leader fell with member {member}");
            world.aware.wait_for_progress()?;
        }
        world.etcd.signal_member(member, Signal::CONT)?;
    }
    for member in 0..MEMBERS.len() {
        world.etcd.kill_member(member)?;
        world.aware.wait_for_progress()?;
        world.etcd.start_member(member)?;
        ensure!(world.leads(leader), "the leader fell with member {member}");
    }
    let now = world.aware.subscriptions();
    let reason = world.aware.reason();
    ensure!(now == subscriptions, "the framework was disconnected: {reason}");
    world.all_run()
}

/// Two die: nobody leads. The third, too, and all come back.
fn all_members(world: &mut World) -> Result<()> {
    let leader = world.leader()?;
    let ran = world.aware.ran()?.len();
    for member in 0..2 {
        world.etcd.kill_member(member)?;
    }
    world.wait_until_standby(leader, "the leader is not known")?;
    ensure!(!world.leads(1 - leader), "the other one leads without etcd");
    // It has last heard of the leader when etcd ended.
    world.wait_until_standby(1 - leader, "the leader is not known")?;
    world.etcd.kill_member(2)?;
    world.etcd.start_all()?;
    world.leader()?;
    world.all_run()?;
    ensure!(world.aware.ran()?.len() > ran, "no task was started since");
    Ok(())
}

/// It must stop before its lease can have passed to the other one, which the watch looks at.
fn leader_from_etcd(world: &World) -> Result<()> {
    let leader = world.leader()?;
    let node = format!("master{leader}");
    let cut = Instant::now();
    for member in MEMBERS {
        world.network.part(&node, member)?;
    }
    world.wait_until_standby(leader, "standby")?;
    let stopped = cut.elapsed();
    ensure!(stopped < LEASE, "it led for {stopped:?}");
    let other = 1 - leader;
    eventually(LEASE * 2, "the other one leads", || {
        Ok(if world.leads(other) { Ok(()) } else { Err(String::new()) })
    })?;
    eprintln!(
        "cut off from etcd, it stopped after {:.2} s, and the other one led after {:.2} s",
        stopped.as_secs_f64(),
        cut.elapsed().as_secs_f64()
    );
    world.all_run()?;
    world.network.heal()?;
    let address = world.cluster.address_of_master(other);
    world.wait_until_standby(leader, &format!("the leader is {address}"))
}

/// One agent from both masters, the other one from the leader alone, for longer than the
/// leader waits.
fn agents(world: &World) -> Result<()> {
    let leader = world.leader()?;
    let node = format!("master{leader}");
    for master in ["master0", "master1"] {
        world.network.part("agent0", master)?;
    }
    world.network.part("agent1", &node)?;
    world.aware.wait_for_long(2, TaskState::TaskUnreachable)?;
    world.unaware.wait_for_long(2, TaskState::TaskLost)?;
    let agents = world.cluster.list("agents", &[])?;
    ensure!(agents.iter().all(|a| a["status"] != "active"), "{agents:?}");
    world.network.heal()?;
    // They were never ended: those of the framework that knows of partitions not, nor the
    // others, which hear that they run after they have heard that they were lost.
    world.all_run()?;
    ensure!(world.leader()? == leader);
    Ok(())
}

/// Both ways, and each way alone.
fn frameworks(world: &World) -> Result<()> {
    let node = format!("master{}", world.leader()?);
    let (leader, all) = (node.as_str(), "frameworks");
    step("both ways", || cut_off(world, &[(all, leader), (leader, all)], None))?;
    step("what the frameworks say", || cut_off(world, &[(all, leader)], None))?;
    step("what the leader says", || {
        // The leader hears that the connection is closed, and this one may not be away.
        let brief = world.ledger("brief", true, Duration::from_secs(1))?;
        let id = brief.framework()?.value;
        cut_off(world, &[(leader, all)], Some(&id))?;
        eventually(PATIENCE, "it is told that it was away for too long", || {
            Ok(brief.error().filter(|e| e.contains("removed")).ok_or_else(String::new))
        })?;
        eventually(PATIENCE, "its tasks have ended", || {
            let mut tasks = world.cluster.list("tasks", &[])?;
            tasks.retain(|task| task["framework_id"] == *id);
            Ok(if tasks.is_empty() { Ok(()) } else { Err(format!("{tasks:?}")) })
        })
    })?;
    world.all_run()
}

/// Until both frameworks have noticed, and this one is removed.
fn cut_off(world: &World, cuts: &[(&str, &str)], removed: Option<&str>) -> Result<()> {
    let both = [&world.aware, &world.unaware];
    let before = both.map(|ledger| (ledger.subscriptions(), ledger.disconnections()));
    for (from, to) in cuts {
        world.network.cut(from, to)?;
    }
    for (ledger, (_, before)) in both.into_iter().zip(before) {
        eventually(PATIENCE, "the framework notices", || {
            Ok(if ledger.disconnections() > before { Ok(()) } else { Err(String::new()) })
        })?;
    }
    if let Some(id) = removed {
        eventually(PATIENCE, "the framework is removed", || {
            let list = world.cluster.list("frameworks", &[])?;
            Ok(if list.iter().any(|f| f["id"] == id) { Err(format!("{list:?}")) } else { Ok(()) })
        })?;
    }
    world.network.heal()?;
    for (ledger, (before, _)) in both.into_iter().zip(before) {
        ledger.wait_for_progress()?;
        ensure!(ledger.subscriptions() > before, "it was not subscribed again");
    }
    Ok(())
}
