//! What the dispatcher knows of a driver, and what it does.

use std::time::Duration;

use mezz_proto::{time::Time, v1};
use serde::{Deserialize, Serialize};

use crate::dispatcher::job::Job;

/// A driver's state, by Spark's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DriverState {
    /// It waits for an agent, or starts there.
    Submitted,
    /// It runs.
    Running,
    /// It failed and is supervised: it waits to be started again, or starts.
    Relaunching,
    /// Its agent cannot be reached; it may run on there.
    Unknown,
    /// It ended well.
    Finished,
    /// It ended badly, or was lost.
    Failed,
    /// It was ended on request.
    Killed,
    /// The master refused it.
    Error,
}

impl DriverState {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Submitted,
        Self::Running,
        Self::Relaunching,
        Self::Unknown,
        Self::Finished,
        Self::Failed,
        Self::Killed,
        Self::Error,
    ];

    /// Whether nothing more comes.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Killed | Self::Error)
    }

    /// As Spark's clients know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Running => "RUNNING",
            Self::Relaunching => "RELAUNCHING",
            Self::Unknown => "UNKNOWN",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
            Self::Error => "ERROR",
        }
    }
}

/// One run of a driver. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its task.
    pub task: String,
    /// Where.
    pub agent: String,
    /// The agent's host.
    pub host: String,
    /// host:port of the agent's own API, where it is known.
    pub agent_address: Option<String>,
    /// When it was launched.
    pub launched: u64,
    /// When it was first heard to run.
    pub running: Option<u64>,
    /// host:port of the dispatcher that launched it, which serves its uploaded files.
    #[serde(default)]
    pub by: String,
    /// Whether it has not ended.
    pub live: bool,
}

/// A driver that was submitted: what is stored of it. Times are nanoseconds since
/// the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// `driver-20260131120000-0001`.
    pub id: String,
    /// Its place in the order of all submissions.
    pub seq: u64,
    /// What is run.
    pub job: Job,
    /// Its state.
    pub state: DriverState,
    /// When it was submitted.
    pub submitted: u64,
    /// How often it was launched.
    pub launches: u32,
    /// The last run.
    pub attempt: Option<Attempt>,
    /// Failures in a row, for the pauses between them.
    pub failures: u32,
    /// It is not launched before this.
    pub not_before: Option<u64>,
    /// Whether it is to end.
    pub kill: bool,
    /// When it ended.
    pub ended: Option<u64>,
    /// What there is to say about its state.
    pub message: Option<String>,
    /// What the agents lack that were offered to it, while it waits; not stored.
    #[serde(skip)]
    pub lacking: Option<String>,
}

impl Submission {
    /// The run that goes on.
    pub fn live(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|a| a.live)
    }

    /// Whether it wants an agent, now or later.
    pub(in crate::dispatcher) fn waits(&self) -> bool {
        !self.state.is_final() && self.live().is_none()
    }

    pub(super) fn ready(&self, now: Time) -> bool {
        self.waits() && self.not_before.is_none_or(|at| at <= now.as_nanos())
    }
}

/// What a dispatcher is told of agents and limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreOptions {
    /// host:port of each master, as drivers are to reach them.
    pub masters: Vec<String>,
    /// The role of drivers, and of applications that name none.
    pub role: String,
    /// Where Spark is installed on agents.
    pub spark_home: String,
    /// The `mezz` program on agents.
    pub mezz: String,
    /// The plugin on agents.
    pub bridge_jar: String,
    /// More drivers than this do not wait.
    pub max_queued: usize,
    /// Ended drivers that are remembered.
    pub max_ended: usize,
    /// host:port by which agents reach this dispatcher.
    pub address: String,
}

/// From the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The framework is subscribed, for the first time or again.
    Subscribed,
    /// Offers.
    Offers(Vec<v1::Offer>),
    /// A task's state.
    Update(Box<v1::TaskStatus>),
    /// The master has forgotten the framework, and ended its tasks.
    Forgotten,
}

/// What is to be done, in order; everything else only when what is to be stored
/// is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Store a submission.
    Put(Box<Submission>),
    /// Remove a submission from the store.
    Remove(Box<Submission>),
    /// Launch a driver; what is left of the offers goes back.
    Launch {
        /// Of one agent and role.
        offers: Vec<v1::OfferId>,
        /// The driver.
        task: Box<v1::TaskInfo>,
    },
    /// Decline offers.
    Decline {
        /// Which.
        offers: Vec<v1::OfferId>,
        /// For how long.
        refuse: Duration,
    },
    /// No more offers, please.
    Suppress,
    /// Offers again.
    Revive,
    /// End a task.
    Kill {
        /// Which.
        task: String,
        /// Where, if that is known.
        agent: Option<String>,
    },
    /// Ask for the states of tasks: id and agent of each.
    Reconcile(Vec<(String, String)>),
}

/// Why a driver was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} drivers wait already, and no more are taken: try again when some of them run, or start \
     the dispatcher with a larger --max-queued"
)]
pub struct QueueFull(pub usize);

/// What became of the wish to end a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillAnswer {
    /// It did not run, and will not.
    Removed,
    /// Its agent is asked to end it.
    Asked,
    /// It has ended before.
    Ended,
    /// There is none of this id.
    Unknown,
}
