//! What joins the core with the world: one task owns the core, everything else
//! sends it events and carries out its effects.

mod check;
mod collect;
mod container;
mod monitor;
pub(crate) mod outgoing;
mod owner;
mod registry;
mod start;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use mezz_http::Room;
use mezz_proto::{mezz::v1::AgentMessage, time::Time};
use thiserror::Error;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{collect::Collector, monitor::Monitor, owner::Owner, registry::Registry};
use crate::{
    api::{self, About, Executors, Index, Pages, Peer, Rooms, Roster, Served, Turn},
    containerizer::{self, ContainerError},
    core::{ConnectionId, Event, LinkId},
    fetcher,
    link::{self, LinkOptions},
    metrics::Metrics,
    options::AgentOptions,
    store::StoreError,
};

/// Events that may wait for the core; whoever brings more waits.
const EVENTS: usize = 1024;

/// Room in the queues to the master and to each executor beyond two messages
/// for each task that may live; a peer that reads slower than this is cut off.
const QUEUE_ROOM: usize = 1024;

/// How often [`cleanup`] waits for containers to end; each time takes seconds.
const CLEANUPS: usize = 3;

/// What reaches the task that owns the core.
pub(crate) enum Input {
    /// For the core itself.
    Core(Event),
    /// An executor's call, with what it holds until it is taken: room of its body, if it
    /// came by itself, and its turn, if it is an update.
    Call { event: Event, room: Option<Room>, turn: Option<Turn> },
    /// A connection to a master.
    LinkUp {
        link: LinkId,
        master: Arc<str>,
        sender: mpsc::Sender<AgentMessage>,
        /// Ends the connection.
        close: CancellationToken,
    },
    /// A connection of an executor.
    ExecutorOpened { connection: ConnectionId, peer: Peer },
}

/// Why an agent did not start, or ended.
#[derive(Debug, Error)]
pub enum AgentError {
    /// An option is wrong. The text names it.
    #[error("{0}")]
    Options(String),
    /// A folder or file below `work_dir` cannot be made or read.
    #[error("--work-dir: {doing} {path}")]
    WorkDir {
        /// What.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be opened, read or written.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// The thread that writes the store has panicked.
    #[error(
        "the store's thread has ended unasked, which is a defect of Mezz; its last words are in \
         the agent's stderr. Nothing that runs is harmed: start the agent again"
    )]
    StoreThread,
    /// Containers cannot be run as the options want.
    #[error("containers cannot be run")]
    Containerizer(#[from] containerizer::OpenError),
    /// Containers of an earlier run cannot be taken up.
    #[error("containers of an earlier run cannot be taken up")]
    Recovery(#[source] ContainerError),
    /// The listener or the fetcher failed.
    #[error("{doing} failed")]
    Io {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The fetcher cannot be made.
    #[error("the fetcher cannot be made")]
    Fetcher(#[source] fetcher::SetupError),
    /// The master refused the agent for good, for what it is: its version, its options,
    /// or another agent with its id. Its containers go on, for an agent that is started
    /// as it should be finds them again.
    #[error(
        "the master refused this agent for good: {0}. Its tasks, if any, were left running; to \
         join as a new agent, stop them and remove `meta` in its --work-dir"
    )]
    Refused(String),
    /// The master refused the agent because an operator has given it up. Its containers
    /// were ended before.
    #[error(
        "this agent was given up: {reason}. {}",
        match left {
            0 => "Nothing that it ran is left".to_owned(),
            left => format!(
                "Of what it ran, {left} containers did not end in time; they are ended when an \
                 agent is started here again"
            ),
        }
    )]
    Gone {
        /// The master's sentence.
        reason: String,
        /// Containers that did not end in time.
        left: usize,
    },
}

/// The time now: the wall clock when the program started, and what passed since.
/// So no jump of the wall clock delays or hastens a deadline.
pub(crate) fn now() -> Time {
    static STARTED: OnceLock<(Duration, Instant)> = OnceLock::new();
    let (wall, started) = STARTED.get_or_init(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        (since.unwrap_or_default(), Instant::now())
    });
    Time::ZERO + *wall + started.elapsed()
}

/// Runs an agent on `listener` until `shutdown`. Its containers go on without
/// it, and the next agent with the same `work_dir` takes them up again; see
/// [`cleanup`] to end them.
///
/// # Errors
/// [`AgentError`] when it cannot start, when its store fails, or when the
/// master refuses it for good. Containers go on then, unless it is
/// [`Gone`](AgentError::Gone).
pub async fn serve(
    options: AgentOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let local = listener
        .local_addr()
        .map_err(|source| AgentError::Io { doing: "reading the listener's address", source })?;
    let started = start::start(&options, local).await?;
    let stop = shutdown.child_token();
    let (inputs, events) = mpsc::channel(EVENTS);
    let index = Arc::new(Index::new(
        started.core.agent_id().cloned(),
        started.sandboxes,
        started.sandbox_tasks,
    ));
    let executors = Arc::new(Executors::new(started.executors));
    let roster = Arc::new(Roster::default());
    let metrics = Arc::new(Metrics::new());
    let queue = options.max_tasks.saturating_mul(2).saturating_add(QUEUE_ROOM);
    let served = Arc::new(Served {
        index: Arc::clone(&index),
        executors: Arc::clone(&executors),
        roster: Arc::clone(&roster),
        about: About::new(&options, &started.api_address, local),
        pages: Pages::default(),
        containerizer: Arc::clone(&started.containerizer),
        metrics: Arc::clone(&metrics),
        work_dir: options.work_dir.clone(),
        inputs: inputs.clone(),
        executor_queue: queue,
        authenticate_executors: options.authenticate_http_executors,
        rooms: Rooms::default(),
        stop: stop.clone(),
    });
    let link =
        LinkOptions { masters: options.masters.clone(), backoff: options.register_backoff, queue };
    let tasks = TaskTracker::new();
    let registry = Arc::new(Registry::default());
    let containers = container::Runner::new(
        Arc::clone(&started.containerizer),
        started.fetcher,
        Arc::clone(&registry),
        Arc::clone(&metrics),
        inputs.clone(),
        tasks.clone(),
        stop.clone(),
    );
    tasks.spawn(Arc::clone(&metrics).upkeep(stop.clone()));
    let monitor = Monitor::new(
        &options,
        Arc::clone(&registry),
        Arc::clone(&started.containerizer),
        Arc::clone(&index),
        Arc::clone(&metrics),
        stop.clone(),
    );
    monitor.start(&tasks);
    let collector = Collector {
        index: Arc::clone(&index),
        registry,
        metrics: Arc::clone(&metrics),
        work_dir: options.work_dir.clone(),
        retention: options.sandbox_retention,
        interval: options.monitor.disk_watch_interval,
        orphans: started.orphans,
    };
    let owner =
        Owner::new(started.core, started.writer, containers, index, executors, roster, metrics);
    tasks.spawn(link::run(link, inputs, stop.clone()));
    tasks.spawn({
        let stop = stop.clone();
        async move {
            api::serve(listener, served).await;
            stop.cancel();
        }
    });
    tracing::info!(address = %local, containment = started.containerizer.name(), "agent started");
    let ended = owner.run(events, collector, &stop).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    tracing::info!("agent stopped");
    ended
}

/// Ends and removes every container that an agent with these options left
/// running. Not while such an agent runs.
///
/// # Errors
/// [`AgentError`] when the containers cannot be found or ended.
pub async fn cleanup(options: &AgentOptions) -> Result<(), AgentError> {
    let containerizer = containerizer::open(options)?;
    let mut unended = std::collections::BTreeSet::new();
    for _ in 0..CLEANUPS {
        unended = containerizer.recover(Vec::new()).await.map_err(AgentError::Recovery)?.unended;
        if unended.is_empty() {
            break;
        }
    }
    unended.pop_first().map_or(Ok(()), |id| {
        let source = std::io::ErrorKind::TimedOut.into();
        Err(AgentError::Recovery(ContainerError::Operation { id, doing: "ending it", source }))
    })
}
