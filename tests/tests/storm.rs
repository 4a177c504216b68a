//! Thousands of agents that come at once, over real sockets, to real masters with a real
//! etcd that stands still, is compacted and defragmented meanwhile. The agents are
//! simulated: of theirs there is only the link.

#![allow(clippy::expect_used)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use etcd_client::Client;
use mezz_proto::{
    LINK_PROTOCOL, TRIED_KEY,
    mezz::v1::{
        self as mezz, agent_link_client::AgentLinkClient, agent_message::Message,
        master_message::Message as Told,
    },
    resources::{Dialect, Resources},
    v1,
};
use mezz_tests::{Cluster, ClusterOptions, Etcd, PATIENCE, eventually, http_get};
use rustix::process::Signal;
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

const AGENTS: usize = 2_000;

/// That they share.
const CONNECTIONS: usize = 8;

/// How long etcd stands still: as long as one attempt to write waits for it, and far
/// shorter than the leader's lease.
const STANDSTILL: Duration = Duration::from_secs(3);
const LEASE: &str = "30s";

/// Records in a transaction of etcd's.
const IN_ONE: usize = 127;

/// What the agents were told.
#[derive(Default)]
struct Heard {
    /// By the first master, and by the second.
    ids: [Mutex<BTreeSet<String>>; 2],
    refused: Mutex<Vec<String>>,
}

impl Heard {
    fn of(&self, master: usize) -> BTreeSet<String> {
        self.ids[master].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_for_all(&self, master: usize) -> Result<BTreeSet<String>> {
        eventually(PATIENCE, "all agents are registered", || {
            let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(refused.is_empty(), "{refused:?}");
            let ids = self.of(master);
            Ok(if ids.len() == AGENTS { Ok(ids) } else { Err(ids.len().to_string()) })
        })
    }
}

/// One agent's link: at one master after the other, with the id that it got.
async fn agent(n: usize, masters: [(String, Channel); 2], heard: Arc<Heard>) {
    let mut id: Option<String> = None;
    let mut tried: Option<String> = None;
    loop {
        for (master, (address, channel)) in masters.iter().enumerate() {
            let (out, queue) = mpsc::channel(16);
            let hello = mezz::AgentMessage { message: Some(hello(n, id.as_deref())) };
            if out.send(hello).await.is_err() {
                return;
            }
            let mut request = Request::new(ReceiverStream::new(queue));
            if let Some(Ok(tried)) = tried.as_deref().map(str::parse) {
                request.metadata_mut().insert(TRIED_KEY, tried);
            }
            let Ok(stream) = AgentLinkClient::new(channel.clone()).connect(request).await else {
                continue;
            };
            tried = Some(address.clone());
            let mut stream = stream.into_inner();
            while let Ok(Some(said)) = stream.message().await {
                match said.message {
                    Some(Told::Registered(registered)) => {
                        let mut ids =
                            heard.ids[master].lock().unwrap_or_else(PoisonError::into_inner);
                        ids.insert(registered.agent_id.value.clone());
                        id = Some(registered.agent_id.value);
                    }
                    Some(Told::Refused(refused)) => heard
                        .refused
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(refused.reason),
                    Some(Told::Ping(ping)) => {
                        let pong = Message::Pong(mezz::Pong { number: ping.number });
                        let pong = mezz::AgentMessage { message: Some(pong) };
                        if out.send(pong).await.is_err() {
                            break;
                        }
                    }
                    _ => {}
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn hello(n: usize, id: Option<&str>) -> Message {
    let resources = Resources::cpus_mem(8.0, 1024.0).to_proto(Dialect::Refined, None);
    let agent = v1::AgentInfo {
        id: id.map(|id| v1::AgentId { value: id.to_owned() }),
        hostname: format!("host{n}"),
        port: Some(5051),
        resources,
        ..Default::default()
    };
    let description = mezz::AgentDescription {
        agent,
        version: "storm".to_owned(),
        protocol: LINK_PROTOCOL,
        api_address: format!("host{n}:5051"),
        ..Default::default()
    };
    match id {
        None => Message::Register(mezz::Register { description }),
        Some(_) => Message::Reregister(mezz::Reregister { description, ..Default::default() }),
    }
}

struct World {
    cluster: Cluster,
    runtime: Runtime,
    /// Of etcd's.
    client: Client,
    // After the cluster, so that the masters do not see it go.
    etcd: Etcd,
}

impl World {
    fn start() -> Result<Self> {
        let etcd = Etcd::start(&[])?;
        let args = ["--registry", &etcd.registry("mezz"), "--leader-lease", LEASE];
        let cluster = Cluster::start(ClusterOptions {
            masters: 2,
            agents: 0,
            master_args: args.map(str::to_owned).to_vec(),
            ..Default::default()
        })?;
        let runtime = Runtime::new()?;
        let client = runtime.block_on(Client::connect([etcd.address()], None))?;
        let world = Self { cluster, runtime, client, etcd };
        world.wait_for(1, "/health", "standby; the leader is 127")?;
        Ok(world)
    }

    fn page(&self, master: usize, path: &str) -> Result<String, String> {
        match http_get(&format!("http://{}{path}", self.cluster.address_of_master(master))) {
            Ok((200, page)) => Ok(page),
            other => Err(format!("{other:?}")),
        }
    }

    fn wait_for(&self, master: usize, path: &str, text: &str) -> Result<()> {
        eventually(PATIENCE, &format!("master {master} says `{text}` at {path}"), || {
            Ok(self
                .page(master, path)
                .and_then(|page| if page.contains(text) { Ok(()) } else { Err(page) }))
        })
    }

    /// How many transactions the leader has written.
    fn transactions(&mut self) -> Result<u64> {
        let got = self.runtime.block_on(self.client.get("/mezz/v1/writer", None))?;
        let number = got.kvs().first().context("no leader has written yet")?.value_str()?;
        let (_, number) = number.split_once(':').context("FENCE:NUMBER")?;
        Ok(number.parse()?)
    }

    fn storm(&self) -> Result<Arc<Heard>> {
        let heard = Arc::new(Heard::default());
        let _in = self.runtime.enter();
        let channels = |master: usize| -> Result<Vec<Channel>> {
            let address = self.cluster.address_of_master(master);
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            Ok((0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect())
        };
        let (first, second) = (channels(0)?, channels(1)?);
        for n in 0..AGENTS {
            let at = |master: usize, channels: &[Channel]| {
                let address = self.cluster.address_of_master(master).to_owned();
                (address, channels[n % CONNECTIONS].clone())
            };
            let masters = [at(0, &first), at(1, &second)];
            self.runtime.spawn(agent(n, masters, heard.clone()));
        }
        Ok(heard)
    }
}

/// Compacts and defragments again and again, until it is told to stop.
async fn compact(mut client: Client, stop: Arc<AtomicBool>) -> Result<usize> {
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let put = client.put("/other", "x", None).await?;
        client.compact(put.header().context("a header")?.revision(), None).await?;
        client.maintenance_client().defragment().await?;
        done += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(done)
}

/// Admission is batched: whatever comes while a write is under way is one more write. So
/// a storm costs as many transactions as etcd's limits ask for, not one for each agent.
/// Nobody is told of anything that is not written, and nothing is lost: neither by an etcd
/// that stands still, nor by one that is compacted while the next leader reads it.
#[test]
fn a_storm_of_agents_is_admitted_in_few_transactions_and_none_is_lost() -> Result<()> {
    let mut world = World::start()?;
    let before = world.transactions()?;
    world.etcd.pause()?;
    let standstill = Instant::now();
    let heard = world.storm()?;
    // The core has admitted all, and still answers.
    let admitted = format!("mezz_master_agent_registrations_total {AGENTS}\n");
    world.wait_for(0, "/metrics", &admitted)?;
    world.wait_for(0, "/health", "ok")?;
    ensure!(heard.of(0).is_empty(), "told before it was written: {}", heard.of(0).len());
    std::thread::sleep(STANDSTILL.saturating_sub(standstill.elapsed()));
    world.etcd.go_on()?;
    let ids = heard.wait_for_all(0)?;
    let transactions = world.transactions()? - before;
    // The first was under way when the others came, and is perhaps of one agent.
    let most = AGENTS.div_ceil(IN_ONE) as u64 + 2;
    ensure!(transactions <= most, "{transactions} transactions, not {most}, for {AGENTS} agents");

    let stop = Arc::new(AtomicBool::new(false));
    let compacting = world.runtime.spawn(compact(world.client.clone(), stop.clone()));
    world.cluster.master_of(0)?.signal(Signal::TERM)?;
    let back = heard.wait_for_all(1)?;
    stop.store(true, Ordering::Relaxed);
    let compactions = world.runtime.block_on(compacting)??;
    ensure!(compactions > 0, "etcd was not compacted");
    ensure!(back == ids, "the second leader knows other agents");
    for (status, count) in [("active", AGENTS), ("recovering", 0), ("unreachable", 0)] {
        let line = format!("mezz_master_agents{{status=\"{status}\"}} {count}\n");
        world.wait_for(1, "/metrics", &line)?;
    }
    // What is as it was is not written again.
    let transactions = world.transactions()?;
    ensure!(transactions <= 4, "{transactions} transactions for agents that only came back");
    let end = world.cluster.master_of(0)?.wait(PATIENCE)?;
    ensure!(end.code == Some(0), "{end}");
    world.cluster.spawn_master(0)?;
    world.wait_for(0, "/health", "standby; the leader is 127")?;
    world.runtime.shutdown_background();
    world.cluster.stop()
}
