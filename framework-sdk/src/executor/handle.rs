//! What the executor's application holds: the calls and the events.

use mezz_proto::v1;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::driver::Command;
use crate::drive;

type Request = drive::Request<Command>;

/// The driver has ended: after [`Executor::stop`], after the last event, or
/// because [`Events`] was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the executor driver has ended")]
pub struct Closed;

/// Why an update was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UpdateError {
    /// The driver has ended or is about to: after [`Executor::stop`] nothing more
    /// may be reported.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// Too many updates wait for the agent's acknowledgement. Try again later.
    #[error(
        "{limit} updates, or {bytes} bytes of them, already wait for the agent to acknowledge \
         them; try again later"
    )]
    TooMany {
        /// How many may wait.
        limit: usize,
        /// And how large all of them may be together.
        bytes: usize,
    },
    /// No agent takes so large an update. Report the state with less `data`.
    #[error("the update is {bytes} bytes, and {limit} are allowed; report it with less `data`")]
    TooLarge {
        /// Its bytes on the wire.
        bytes: usize,
        /// How many an agent takes.
        limit: usize,
    },
}

/// Something that the agent, or the driver, tells the executor.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Subscribed: for the first time, or again after
    /// [`Disconnected`](Event::Disconnected).
    Subscribed {
        /// This executor.
        executor: Box<v1::ExecutorInfo>,
        /// Its framework.
        framework: Box<v1::FrameworkInfo>,
        /// Its agent.
        agent: Box<v1::AgentInfo>,
    },
    /// Run this task.
    Launch(Box<v1::TaskInfo>),
    /// Run these tasks together.
    LaunchGroup(Vec<v1::TaskInfo>),
    /// End this task. Report it as `TASK_KILLED` when it has ended.
    Kill {
        /// Which.
        task_id: v1::TaskId,
        /// In place of the task's own policy.
        kill_policy: Option<v1::KillPolicy>,
    },
    /// From the framework, at most once.
    Message(Vec<u8>),
    /// The agent is away. Tasks go on; updates are kept.
    Disconnected {
        /// Why, for people.
        reason: String,
    },
    /// End all tasks and exit within the grace period. The calls work on, so that
    /// the ends can be reported, as long as the agent is there.
    Shutdown,
    /// The agent refuses this executor for good. The last event.
    Error(String),
}

/// The events of one executor.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Event>,
}

impl Events {
    pub(super) fn new(queue: mpsc::Receiver<Event>) -> Self {
        Self { queue }
    }

    /// The next event; `None` when the driver has ended and all events were
    /// taken.
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.queue.recv().await
    }
}

/// The calls of one executor. Clones share the subscription.
///
/// # Errors
/// Every method fails with [`Closed`] once the driver has ended; only updates can
/// fail otherwise.
#[derive(Clone, Debug)]
pub struct Executor {
    commands: mpsc::Sender<Request>,
}

impl Executor {
    pub(super) fn new(commands: mpsc::Sender<Request>) -> Self {
        Self { commands }
    }

    /// Reports a task's state. Only `task_id` and `state` must be set; `uuid`,
    /// `timestamp`, `source`, `agent_id` and `executor_id` are filled in. Kept
    /// and told again until the agent has acknowledged it.
    ///
    /// # Errors
    /// [`UpdateError::TooMany`] while 10,000 updates, or 256 MiB of them, are not
    /// acknowledged, as may be when the agent is away for long, or the framework
    /// acknowledges nothing; [`UpdateError::TooLarge`] above 16 MiB;
    /// [`UpdateError::Closed`] otherwise. The update is not kept then.
    pub async fn update(&self, status: v1::TaskStatus) -> Result<(), UpdateError> {
        let (taken, answer) = oneshot::channel();
        self.tell(Command::Update { status: Box::new(status), taken }).await?;
        answer.await.map_err(|_| Closed)?
    }

    /// Reports a task's state and nothing else; short for
    /// [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn state(
        &self,
        task_id: v1::TaskId,
        state: v1::TaskState,
    ) -> Result<(), UpdateError> {
        self.update(v1::TaskStatus { task_id, state: state as i32, ..Default::default() }).await
    }

    /// Sends to the framework, at most once: dropped while the agent is away, and
    /// above 16 MiB.
    pub async fn message(&self, data: impl Into<Vec<u8>>) -> Result<(), Closed> {
        self.tell(Command::Message(data.into())).await
    }

    /// Ends the driver, once the agent has acknowledged every update or 5 s have
    /// passed. Call it before the process exits.
    pub async fn stop(&self) -> Result<(), Closed> {
        let (done, ended) = oneshot::channel();
        let request = Request { command: Command::Stop, done: Some(done) };
        self.commands.send(request).await.map_err(|_| Closed)?;
        ended.await.map_err(|_| Closed)
    }

    async fn tell(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(Request { command, done: None }).await.map_err(|_| Closed)
    }
}
