//! Simulated agents: real `AgentLink` streams over real sockets, and tasks that
//! run for no time at all.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mezz_proto::{
    LEADER_KEY, LINK_PROTOCOL,
    mezz::v1::{self as mezz, agent_message, master_message},
    resources::{Dialect, Resources},
    search::Search,
    v1,
};
use rand::RngExt;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::encoded::{Encoded, connect};

/// Messages that one simulated agent may have under way to the master.
const QUEUE: usize = 4096;

/// Pauses between attempts to connect grow from this …
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// … to this; then an agent gives up.
const LAST_PAUSE: Duration = Duration::from_secs(3);

/// For all of them to be registered.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Pauses of an agent that looks for a leader, as `mezz agent` has them.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the simulated agents are.
#[derive(Clone, Debug)]
pub struct AgentsOptions {
    /// host:port of each master.
    pub masters: Vec<String>,
    /// How many.
    pub agents: usize,
    /// TCP connections that they share; 0 for one each.
    pub connections: usize,
    /// What each has, as text.
    pub resources: String,
    /// Whether tasks end as soon as they run, or run for ever.
    pub finish: bool,
    /// Whether an agent that lost its link looks for the leader, as a real one does;
    /// else that is an error.
    pub returns: bool,
}

/// What they have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Agents (re-)registered.
    pub registered: AtomicU64,
    /// Tasks launched.
    pub launched: AtomicU64,
    /// Terminal updates acknowledged.
    pub finished: AtomicU64,
    /// Agents that were refused, or lost their link for good.
    pub broken: AtomicU64,
    last_terminal: Mutex<Option<Instant>>,
}

impl Seen {
    /// When the newest terminal update was sent.
    pub fn last_terminal(&self) -> Option<Instant> {
        self.last_terminal.lock().ok().and_then(|at| *at)
    }
}

/// A set of running agents; they end when it is dropped.
pub struct Agents {
    /// Counts, as they grow.
    pub seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

impl Agents {
    /// Waits until so many are registered.
    pub async fn wait_registered(&self, count: usize) -> Result<()> {
        let end = Instant::now() + LONGEST_WAIT;
        while (self.seen.registered.load(Ordering::Relaxed) as usize) < count {
            if self.seen.broken.load(Ordering::Relaxed) > 0 {
                bail!("a simulated agent lost its link, or was refused");
            }
            if Instant::now() > end {
                bail!(
                    "only {:?} of {count} agents are registered after {LONGEST_WAIT:?}",
                    self.seen.registered
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

/// Tasks that an agent says it has when it re-registers.
#[derive(Clone, Debug)]
pub struct Carried {
    /// Of which framework.
    pub framework: v1::FrameworkInfo,
    /// How many, each of this many cpus and MiB.
    pub tasks: usize,
    /// Of each task.
    pub resources: Resources,
}

/// Starts them all; returns at once. With `carried` they re-register under ids of
/// their own with running tasks, as after a master's restart.
pub fn start(options: &AgentsOptions, carried: Option<Carried>) -> Result<Agents> {
    let resources = Resources::parse(&options.resources).context("--resources")?;
    let seen = Arc::new(Seen::default());
    let endpoints = options
        .masters
        .iter()
        .map(|master| {
            Ok(Endpoint::from_shared(format!("http://{master}"))?
                .tcp_nodelay(true)
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(1 << 21))
        })
        .collect::<Result<Vec<_>>>()?;
    let shared: Vec<Vec<Channel>> = endpoints
        .iter()
        .map(|endpoint| (0..options.connections).map(|_| endpoint.connect_lazy()).collect())
        .collect();
    let mut tasks = JoinSet::new();
    for n in 0..options.agents {
        let channels: Vec<Channel> = endpoints
            .iter()
            .zip(&shared)
            .map(|(endpoint, shared)| match shared.len() {
                0 => endpoint.connect_lazy(),
                len => shared[n % len].clone(),
            })
            .collect();
        let agent = Agent {
            hello: Encoded::new(hello(n, &resources, carried.as_ref())),
            seen: seen.clone(),
            finish: options.finish,
        };
        if options.returns {
            let masters = options.masters.clone();
            tasks.spawn(async move { agent.run_returning(&masters, &channels).await });
            continue;
        }
        tasks.spawn(async move {
            if let Err(error) = agent.run(&channels[0]).await {
                agent.seen.broken.fetch_add(1, Ordering::Relaxed);
                eprintln!("simulated agent {n}: {error:#}");
            }
        });
    }
    Ok(Agents { seen, _tasks: tasks })
}

struct Agent {
    hello: Encoded,
    seen: Arc<Seen>,
    finish: bool,
}

impl Agent {
    /// Tries again until it is linked, for a listener's queue overflows when all
    /// come at once; a link that breaks later is an error.
    async fn run(&self, channel: &Channel) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        loop {
            let (out, queue) = mpsc::channel(QUEUE);
            out.send(self.hello.clone()).await?;
            match connect(channel.clone(), ReceiverStream::new(queue), None).await {
                Ok(stream) => return self.serve(stream, out, &mut None).await,
                Err(status) if pause > LAST_PAUSE => return Err(status.into()),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = pause.mul_f64(1.5);
        }
    }

    /// As a real agent's link: round after round, with what standbys are to know.
    async fn run_returning(&self, masters: &[String], channels: &[Channel]) {
        let mut search = Search::new(masters.to_vec(), BACKOFF);
        loop {
            while let Some(master) = search.target() {
                let place = masters.iter().position(|known| *known == master);
                let Some(channel) = place.and_then(|place| channels.get(place)) else {
                    continue;
                };
                part_of(search.crowd()).await;
                let (out, queue) = mpsc::channel(QUEUE);
                if out.send(self.hello.clone()).await.is_err() {
                    return;
                }
                let asked = Instant::now();
                let tried = search.tried.as_deref();
                match connect(channel.clone(), ReceiverStream::new(queue), tried).await {
                    Ok(stream) => {
                        let mut registered = None;
                        // However it ended: it is gone.
                        let _ = self.serve(stream, out, &mut registered).await;
                        search.lost(master, asked.elapsed());
                        if let Some(spread) = registered {
                            search.joined(spread);
                            part_of(spread).await;
                        }
                    }
                    Err(status) => match status.metadata().get(LEADER_KEY) {
                        Some(leader) => {
                            search.not_leading(leader.to_str().unwrap_or(""), asked.elapsed());
                        }
                        None => search.failed(master),
                    },
                }
            }
            part_of(search.pause()).await;
        }
    }

    async fn serve(
        &self,
        mut stream: tonic::Streaming<mezz::MasterMessage>,
        out: mpsc::Sender<Encoded>,
        spread: &mut Option<Duration>,
    ) -> Result<()> {
        let mut id = String::new();
        // The terminal update of each task, sent once the first is acknowledged.
        let mut next: HashMap<String, mezz::StatusUpdate> = HashMap::new();
        while let Some(incoming) = stream.message().await? {
            match incoming.message {
                Some(master_message::Message::Registered(registered)) => {
                    let millis = registered.return_spread_ms();
                    *spread = Some(Duration::from_millis(millis.into()));
                    id = registered.agent_id.value;
                    self.seen.registered.fetch_add(1, Ordering::Relaxed);
                }
                Some(master_message::Message::Refused(refused)) => {
                    if refused.permanent {
                        self.seen.broken.fetch_add(1, Ordering::Relaxed);
                    }
                    bail!("the master refuses a simulated agent: {}", refused.reason);
                }
                Some(master_message::Message::Ping(ping)) => {
                    out.send(Encoded::new(agent_message::Message::Pong(mezz::Pong {
                        number: ping.number,
                    })))
                    .await?;
                }
                Some(master_message::Message::RunTasks(run)) => {
                    let framework = run.framework.id.unwrap_or_default();
                    for task in run.tasks {
                        self.seen.launched.fetch_add(1, Ordering::Relaxed);
                        let update = |state| update(&id, &framework, &task.task_id, state);
                        if self.finish {
                            next.insert(
                                task.task_id.value.clone(),
                                update(v1::TaskState::TaskFinished),
                            );
                        }
                        let running = update(v1::TaskState::TaskRunning);
                        out.send(Encoded::new(agent_message::Message::StatusUpdate(running)))
                            .await?;
                    }
                }
                Some(master_message::Message::Acknowledgement(ack)) => {
                    match next.remove(&ack.task_id.value) {
                        Some(last) => {
                            if let Ok(mut at) = self.seen.last_terminal.lock() {
                                *at = Some(Instant::now());
                            }
                            out.send(Encoded::new(agent_message::Message::StatusUpdate(last)))
                                .await?;
                        }
                        None if self.finish => {
                            self.seen.finished.fetch_add(1, Ordering::Relaxed);
                        }
                        None => {}
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Waits for a random part of this time.
async fn part_of(time: Duration) {
    let random = time.mul_f64(rand::rng().random_range(0.0..=1.0));
    tokio::time::sleep(random).await;
}

/// What agent number `n` says first.
fn hello(n: usize, resources: &Resources, carried: Option<&Carried>) -> agent_message::Message {
    let id = format!("00000000-0000-0000-0000-000000000000-S{}", n);
    let agent = v1::AgentInfo {
        id: carried.map(|_| v1::AgentId { value: id.clone() }),
        hostname: format!("sim{}", n),
        port: Some(5051),
        resources: resources.to_proto(Dialect::Refined, None),
        ..Default::default()
    };
    let description = mezz::AgentDescription {
        agent,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: LINK_PROTOCOL,
        api_address: format!("127.0.0.1:{}", 10_000 + n % 50_000),
        ..Default::default()
    };
    let Some(carried) = carried else {
        return agent_message::Message::Register(mezz::Register { description });
    };
    let mut task = v1::Task {
        name: "carried".to_owned(),
        framework_id: carried.framework.id.clone().unwrap_or_default(),
        agent_id: v1::AgentId { value: id },
        resources: carried.resources.to_proto(Dialect::Refined, Some("*")),
        ..Default::default()
    };
    task.set_state(v1::TaskState::TaskRunning);
    let tasks = (0..carried.tasks)
        .map(|t| {
            let task_id = v1::TaskId { value: format!("t{}-{t}", n) };
            v1::Task { task_id, ..task.clone() }
        })
        .collect();
    agent_message::Message::Reregister(mezz::Reregister {
        description,
        tasks,
        frameworks: vec![carried.framework.clone()],
        ..Default::default()
    })
}

fn update(
    agent: &str,
    framework: &v1::FrameworkId,
    task: &v1::TaskId,
    state: v1::TaskState,
) -> mezz::StatusUpdate {
    let mut status = v1::TaskStatus {
        task_id: task.clone(),
        agent_id: Some(v1::AgentId { value: agent.to_owned() }),
        uuid: Some(Uuid::new_v4().as_bytes().to_vec()),
        timestamp: Some(0.0),
        ..Default::default()
    };
    status.set_state(state);
    status.set_source(v1::task_status::Source::Executor);
    let mut update =
        mezz::StatusUpdate { framework_id: framework.clone(), status, latest_state: 0 };
    update.set_latest_state(state);
    update
}
