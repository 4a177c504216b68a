//! What the core wants done.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use mezz_proto::{
    ids::{AgentId, ContainerId, FrameworkId},
    mezz::v1 as mezz,
    resources::Resources,
    time::Time,
    v1,
};
use thiserror::Error;

use super::{
    ConnectionId, ExecutorKey, Intake, LinkId, SandboxRecord, StoreOp, TaskKey, Token,
    check::{Probe, ProbeId},
};
use crate::containerizer::{Addressee, ContainerSpec};

/// A container to be prepared and started.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The container. Its sandbox is to be made.
    pub spec: ContainerSpec,
    /// Whose it is: frameworks take turns in what is scarce.
    pub framework: FrameworkId,
    /// To be fetched into the sandbox before.
    pub uris: Vec<v1::command_info::Uri>,
    /// A link to the sandbox, made with it; `latest` beside the sandbox when absent.
    pub link: Option<PathBuf>,
}

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message to the master. Dropped when the link is over.
    SendMaster {
        /// The connection.
        link: LinkId,
        /// What.
        message: Box<mezz::AgentMessage>,
    },
    /// End the connection to the master and look for one anew. No
    /// [`LinkDown`](super::Event::LinkDown) is expected.
    CloseLink {
        /// Which.
        link: LinkId,
    },
    /// The master does not want this agent, for good: end the agent's program.
    /// Containers go on.
    Refused {
        /// The master's sentence.
        reason: String,
    },
    /// An operator has given this agent up, and what it ran has ended: end the agent's
    /// program.
    Gone {
        /// The master's sentence.
        reason: String,
        /// Containers that did not end in time.
        left: usize,
    },
    /// Tell the operator what only a person can mend; the agent goes on trying.
    Alarm {
        /// What is wrong and what to do.
        message: String,
    },
    /// Send an event to an executor.
    SendExecutor {
        /// Its subscription.
        connection: ConnectionId,
        /// What.
        event: Box<v1::executor::Event>,
    },
    /// End an executor's connection, after what was sent on it. No
    /// [`ExecutorDisconnected`](super::Event::ExecutorDisconnected) is expected.
    CloseExecutor {
        /// Which.
        connection: ConnectionId,
        /// Why, if the peer broke the protocol.
        error: Option<CallError>,
    },
    /// Start a container; answered by
    /// [`ContainerLaunched`](super::Event::ContainerLaunched) and later
    /// [`ContainerEnded`](super::Event::ContainerEnded), or by
    /// [`LaunchFailed`](super::Event::LaunchFailed) alone. It need not wait for
    /// the store: a container that the store does not know is removed at the
    /// next start.
    Launch(Box<Launch>),
    /// Wait for a container of an earlier run of the agent.
    Watch {
        /// Which.
        container: ContainerId,
        /// Where its `stderr` is.
        sandbox: PathBuf,
        /// What it holds.
        resources: Resources,
    },
    /// Send a signal to a container.
    Signal {
        /// Which.
        container: ContainerId,
        /// Its number.
        signal: i32,
        /// Whom it goes to.
        to: Addressee,
    },
    /// End a container for sure, or keep it from starting.
    Destroy {
        /// Which.
        container: ContainerId,
    },
    /// Change what a container is held to.
    Update {
        /// Which.
        container: ContainerId,
        /// As in [`ContainerSpec`].
        resources: Resources,
        /// As in [`ContainerSpec`].
        limits: BTreeMap<String, f64>,
    },
    /// Look whether a container is well; answered by
    /// [`Probed`](super::Event::Probed), once, also when `timeout` is over. Given up
    /// when the container ends.
    Probe {
        /// Which.
        container: ContainerId,
        /// Which attempt.
        probe: ProbeId,
        /// What to do.
        what: Box<Probe>,
        /// How long it may take; `None` is for ever.
        timeout: Option<Duration>,
    },
    /// Forget an ended container.
    Remove {
        /// Which.
        container: ContainerId,
    },
    /// Tell the read model of a change of state.
    Change(Change),
}

/// A change of state, for what answers readers.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A master has taken the agent in.
    Registered {
        /// The agent's id.
        agent_id: AgentId,
        /// The master's host:port.
        master: String,
    },
    /// The agent has no master any more.
    Disconnected,
    /// It drains as its operator wants, since then; or does not any more.
    Drain(Option<(v1::DrainConfig, Time)>),
    /// There is a new container, or one of an earlier run.
    ContainerAdded(SandboxRecord),
    /// There is a new framework, or its description has changed.
    Framework(Box<v1::FrameworkInfo>),
    /// It has nothing here any more.
    FrameworkForgotten(FrameworkId),
    /// There is a new executor, or one of an earlier run.
    ExecutorAdded {
        /// Whose it is and which.
        executor: ExecutorKey,
        /// What it runs in, with which it ends.
        container: ContainerId,
        /// What it proves itself with.
        token: Token,
        /// What its framework said of it.
        info: Box<v1::ExecutorInfo>,
    },
    /// It has subscribed, for the first time or for the first time with its token.
    ExecutorSubscribed {
        /// Which.
        executor: ExecutorKey,
        /// It has shown its token: nobody is it without, from now on.
        proven: bool,
    },
    /// Pass on only these of an executor's updates, until the next word; [`Intake::Open`] at
    /// its start. The others wait, and so does the executor.
    Intake {
        /// Which.
        executor: ExecutorKey,
        /// What may come.
        intake: Intake,
    },
    /// It has ended.
    ExecutorForgotten(ExecutorKey),
    /// There is a new task that has a place here, or one of an earlier run.
    Task {
        /// Which, with the updates that wait.
        task: Box<v1::Task>,
        /// Of a command task, which is its own executor: its container, and what that is
        /// called.
        own: Option<(ContainerId, String)>,
        /// It waits for its executor.
        queued: bool,
    },
    /// It was handed to its executor.
    TaskLaunched(TaskKey),
    /// The last of its updates was acknowledged.
    TaskForgotten(TaskKey),
    /// It runs.
    ContainerRunning {
        /// Which.
        container: ContainerId,
        /// Its first process.
        pid: u32,
    },
    /// It ended.
    ContainerEnded {
        /// Which.
        container: ContainerId,
        /// When.
        at: Time,
    },
    /// A task belongs to a container.
    TaskAdded {
        /// Which.
        task: TaskKey,
        /// Where it runs.
        container: ContainerId,
        /// One of many of its executor: where it was is known for a while after its end,
        /// and not for as long as the sandbox is there.
        passing: bool,
    },
    /// A task's newest state.
    TaskUpdated {
        /// Which.
        task: TaskKey,
        /// The state.
        state: v1::TaskState,
        /// The update, without its `data`.
        status: Box<v1::TaskStatus>,
    },
}

/// Everything that one call of [`Core::handle`](super::Core::handle) wants done.
///
/// `persist` goes to the store; `after_persist` may go out only when the store
/// has written it and everything before it, `now` at once. Effects of one
/// connection keep their order over both groups and over calls: the shell holds
/// back what is for a connection that still waits for the store.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// May go out at once.
    pub now: Vec<Effect>,
    /// To be written, as one transaction.
    pub persist: Vec<StoreOp>,
    /// May go out once `persist` is written.
    pub after_persist: Vec<Effect>,
}

/// A call that breaks the protocol, or asks for what cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// A field is missing or wrong. The text names the field.
    #[error("{0}")]
    Invalid(String),
    /// The token is not the executor's, or there is no such executor. One error
    /// for both, so that nobody learns which executors there are.
    #[error("no executor with this id and token runs on this agent")]
    Unauthenticated,
    /// There is no token, and here there has to be one.
    #[error(
        "Authorization: must be `Bearer TOKEN`, for {0}; an executor finds its token in \
         MESOS_EXECUTOR_AUTHENTICATION_TOKEN"
    )]
    NoToken(&'static str),
    /// Nobody with this id is here; in Mesos' words.
    #[error("{0} cannot be found")]
    Unknown(&'static str),
    /// Legal, but not now.
    #[error("{0}")]
    NotAllowed(String),
}
