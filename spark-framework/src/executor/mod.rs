//! `mezz spark-executor`: a custom executor of the cluster for fine-grained mode.
//!
//! The agent starts it with the first task of an application, and it starts Spark's
//! JVM as its child, which stays as long as the application and runs all its tasks
//! on this agent. The two exchange a JSON object a line: tasks and kills one way,
//! states and results the other.
//!
//! A task that is over within a moment is never reported as running: that would only
//! hold its result up, because an agent has one update of a task under way at a time.

mod jvm;
mod message;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    process::ExitStatus,
    time::Duration,
};

use mezz_proto::{
    resources::Resources,
    v1::{self, TaskState},
};
use mezz_sdk::executor::{
    self, Event, Events, Executor, ExecutorOptions, OptionsError, UpdateError,
};
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

pub use self::message::{
    Begin, DataError, KillOrder, MAX_SECRET_SETTINGS, SECRET_SETTINGS, read_task_data, task_data,
    write_secret_settings,
};
use self::{
    jvm::Jvm,
    message::{FromJvm, ToJvm, VERSION},
};

/// The subcommand of `mezz` that this is.
pub const COMMAND: &str = "spark-executor";

/// How long the JVM may take to begin.
const HELLO_TIMEOUT: Duration = Duration::from_secs(120);
/// A task that is not over so long after it was sent is reported as running.
const RUNNING_DELAY: Duration = Duration::from_millis(250);
/// How long what the JVM said last may take to be read after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Of the time that the agent gives for shutting down, what is left for our own end.
const OWN_END: Duration = Duration::from_secs(1);
/// Before an update is tried again that the agent has no room for.
const RETRY: Duration = Duration::from_millis(100);
/// Orders that wait for the kill that they belong to; more are forgotten.
const MAX_ORDERS: usize = 10_000;

/// Why an executor ended before it was told to.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// Not started by an agent.
    #[error("mezz {COMMAND} is started by an agent")]
    Options(#[from] OptionsError),
    /// A task that is not ours.
    #[error("task {task}")]
    Data {
        /// Its id.
        task: String,
        /// What is wrong.
        #[source]
        source: DataError,
    },
    /// The first task does not say how to begin.
    #[error("task {0} came before the executor was told how to begin")]
    NotBegun(String),
    /// The variable with the secret settings is not as the sidecar writes it.
    #[error("{SECRET_SETTINGS} is not understood; use the same mezz on all machines")]
    SecretSettings(#[source] serde_json::Error),
    /// No argv.
    #[error("the executor was told no command")]
    NoCommand,
    /// No JVM.
    #[error("cannot start {program}; is Java installed there on this machine?")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It hangs.
    #[error("the JVM did not begin within {} s", HELLO_TIMEOUT.as_secs())]
    NoHello,
    /// Plugin and program of different versions.
    #[error(
        "the Spark plugin on this machine speaks version {0} of the protocol, this mezz {VERSION}; \
         use mezz-spark-bridge.jar and mezz of the same release"
    )]
    Version(u32),
    /// The agent will have none of us.
    #[error("the agent refuses this executor: {0}")]
    Refused(String),
    /// The machine refuses something.
    #[error("cannot {doing}")]
    System {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs until the agent says so, or the JVM ends; returns the exit status to end
/// with.
///
/// # Errors
/// [`ExecutorError`] says what is wrong.
pub async fn run_executor() -> Result<u8, ExecutorError> {
    let options = ExecutorOptions::from_vars(|name| std::env::var(name).ok())?;
    let grace = options.shutdown_grace_period;
    let secrets = match std::env::var(SECRET_SETTINGS) {
        Ok(text) => serde_json::from_str(&text).map_err(ExecutorError::SecretSettings)?,
        Err(_) => BTreeMap::new(),
    };
    let (executor, events) = executor::connect(options);
    let mut run = Run {
        executor: executor.clone(),
        jvm: None,
        secrets,
        cores: 1,
        greeted: None,
        starts: Vec::new(),
        told_up: false,
        orders: BTreeMap::new(),
        running: BTreeSet::new(),
        unsaid: VecDeque::new(),
    };
    let result = run.run(events, grace).await;
    // What was said last is to arrive. When the agent is gone, nobody waits for it.
    let _ = executor.stop().await;
    result
}

struct Run {
    executor: Executor,
    jvm: Option<Jvm>,
    /// Settings that came by the environment.
    secrets: BTreeMap<String, String>,
    /// Of the machine.
    cores: u32,
    /// Until when the JVM must have said hello; `None` when it has.
    greeted: Option<Instant>,
    /// Tasks that are over when it has.
    starts: Vec<String>,
    /// Whether anything was reported yet: the sidecar waits for a first word.
    told_up: bool,
    orders: BTreeMap<u64, KillOrder>,
    /// Tasks that were sent to the JVM and are not over.
    running: BTreeSet<u64>,
    /// Those of them that were not yet reported as running, and when to do so.
    unsaid: VecDeque<(Instant, u64)>,
}

enum Happened {
    Agent(Option<Event>),
    Jvm(Option<FromJvm>),
    Due,
}

impl Run {
    async fn run(&mut self, mut events: Events, grace: Duration) -> Result<u8, ExecutorError> {
        loop {
            let due = self.greeted.into_iter().chain(self.unsaid.front().map(|(at, _)| *at)).min();
            let happened = tokio::select! {
                biased;
                message = next_of(&mut self.jvm) => Happened::Jvm(message),
                event = events.next() => Happened::Agent(event),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Happened::Due,
            };
            match happened {
                Happened::Jvm(Some(message)) => self.heard(message).await?,
                Happened::Jvm(None) => return self.jvm_ended().await,
                Happened::Agent(Some(Event::Shutdown) | None) => {
                    self.shut_down(grace).await?;
                    return Ok(0);
                }
                Happened::Agent(Some(event)) => self.told(event).await?,
                Happened::Due => self.due().await?,
            }
        }
    }

    async fn told(&mut self, event: Event) -> Result<(), ExecutorError> {
        match event {
            Event::Subscribed { agent, .. } => {
                let cpus = Resources::from_proto(&agent.resources).map(|r| r.scalar("cpus"));
                self.cores = cpus.map_or(1, |c| c.to_f64().ceil().max(1.0) as u32);
                info!(host = agent.hostname, "subscribed");
            }
            Event::Launch(task) => self.launch(&task).await?,
            Event::LaunchGroup(tasks) => {
                for task in tasks {
                    self.launch(&task).await?;
                }
            }
            Event::Kill { task_id, .. } => {
                let Ok(tid) = task_id.value.parse::<u64>() else { return Ok(()) };
                let order = self.orders.remove(&tid);
                let (interrupt, reason) = order
                    .map_or((false, "killed".to_owned()), |order| (order.interrupt, order.reason));
                self.send(&ToJvm::Kill { tid, interrupt, reason: &reason }).await;
            }
            Event::Message(data) => match serde_json::from_slice::<KillOrder>(&data) {
                Ok(order) => {
                    if self.orders.len() >= MAX_ORDERS {
                        self.orders.clear();
                    }
                    self.orders.insert(order.tid, order);
                }
                Err(error) => warn!(%error, "a message is not understood"),
            },
            Event::Disconnected { reason } => info!(reason, "the agent is away"),
            Event::Error(reason) => return Err(ExecutorError::Refused(reason)),
            Event::Shutdown => {}
        }
        Ok(())
    }

    async fn launch(&mut self, task: &v1::TaskInfo) -> Result<(), ExecutorError> {
        let id = &task.task_id.value;
        let (begin, data) = read_task_data(task.data())
            .map_err(|source| ExecutorError::Data { task: id.clone(), source })?;
        if self.jvm.is_none() {
            let mut begin = begin.ok_or_else(|| ExecutorError::NotBegun(id.clone()))?;
            begin.props.append(&mut self.secrets);
            self.jvm = Some(Jvm::start(&begin.command)?);
            self.greeted = Some(Instant::now() + HELLO_TIMEOUT);
            self.send(&ToJvm::Init {
                v: VERSION,
                exec: &begin.executor,
                host: &begin.host,
                app: &begin.app,
                cores: self.cores,
                props: &begin.props,
            })
            .await;
        }
        match data {
            // The start itself.
            [] if self.greeted.is_some() => self.starts.push(id.clone()),
            [] => self.report(id.clone(), TaskState::TaskFinished, None).await,
            data => {
                self.send(&ToJvm::task(data)).await;
                if let Ok(tid) = id.parse() {
                    self.running.insert(tid);
                    // The others begin with the JVM.
                    if self.greeted.is_none() {
                        self.begins(tid).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// The first word that comes from here is said at once.
    async fn begins(&mut self, tid: u64) {
        if self.told_up {
            self.unsaid.push_back((Instant::now() + RUNNING_DELAY, tid));
        } else {
            self.report(tid.to_string(), TaskState::TaskRunning, None).await;
        }
    }

    async fn send(&self, message: &ToJvm<'_>) {
        if let Some(jvm) = &self.jvm {
            jvm.send(message.to_line()).await;
        }
    }

    async fn heard(&mut self, message: FromJvm) -> Result<(), ExecutorError> {
        match message {
            FromJvm::Hello { v } if v != VERSION => Err(ExecutorError::Version(v)),
            FromJvm::Hello { .. } => {
                self.greeted = None;
                for start in std::mem::take(&mut self.starts) {
                    self.report(start, TaskState::TaskFinished, None).await;
                }
                for tid in self.running.clone() {
                    self.begins(tid).await;
                }
                Ok(())
            }
            FromJvm::Status { tid, state, data } => {
                let state = match state.as_str() {
                    "FINISHED" => TaskState::TaskFinished,
                    "KILLED" => TaskState::TaskKilled,
                    "RUNNING" | "LAUNCHING" => return Ok(()),
                    _ => TaskState::TaskFailed,
                };
                self.running.remove(&tid);
                self.orders.remove(&tid);
                let data = FromJvm::decode(&data);
                self.report(tid.to_string(), state, data).await;
                Ok(())
            }
        }
    }

    async fn report(&mut self, task: String, state: TaskState, data: Option<Vec<u8>>) {
        self.told_up = true;
        let mut status = v1::TaskStatus {
            task_id: v1::TaskId { value: task },
            state: state as i32,
            data: data.filter(|d| !d.is_empty()),
            ..Default::default()
        };
        while let Err(error) = self.executor.update(status.clone()).await {
            match error {
                UpdateError::TooMany { .. } => sleep(RETRY).await,
                // Without its result the task has failed.
                UpdateError::TooLarge { .. } if status.data.is_some() => {
                    status = v1::TaskStatus {
                        task_id: status.task_id,
                        state: TaskState::TaskFailed as i32,
                        message: Some(error.to_string()),
                        ..Default::default()
                    };
                }
                UpdateError::TooLarge { .. } => return,
                // The agent has ended us; its next event says so.
                UpdateError::Closed(_) => return,
            }
        }
    }

    async fn due(&mut self) -> Result<(), ExecutorError> {
        let now = Instant::now();
        if self.greeted.is_some_and(|until| until <= now) {
            return Err(ExecutorError::NoHello);
        }
        while let Some((at, tid)) = self.unsaid.front().copied()
            && at <= now
        {
            self.unsaid.pop_front();
            if self.running.contains(&tid) {
                self.report(tid.to_string(), TaskState::TaskRunning, None).await;
            }
        }
        Ok(())
    }

    /// It closes its socket only by ending.
    async fn jvm_ended(&mut self) -> Result<u8, ExecutorError> {
        let Some(jvm) = &mut self.jvm else { return Ok(0) };
        let status = match timeout(LAST_WORDS, jvm.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                warn!("the JVM lives on, but cannot be talked to; it is killed");
                jvm.kill();
                jvm.wait().await?
            }
        };
        warn!(%status, "the JVM has ended");
        Ok(exit_code(status))
    }

    async fn shut_down(&mut self, grace: Duration) -> Result<(), ExecutorError> {
        self.send(&ToJvm::Shutdown).await;
        let Some(jvm) = &mut self.jvm else { return Ok(()) };
        if timeout(grace.saturating_sub(OWN_END), jvm.wait()).await.is_err() {
            jvm.kill();
            jvm.wait().await?;
        }
        Ok(())
    }
}

/// What the JVM says; nothing, for ever, while there is none.
async fn next_of(jvm: &mut Option<Jvm>) -> Option<FromJvm> {
    match jvm {
        Some(jvm) => jvm.next().await,
        None => std::future::pending().await,
    }
}

/// As a shell would say it. Never 0: an executor that ends by itself has failed.
fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).ok().filter(|c| *c != 0).unwrap_or(1)
}
