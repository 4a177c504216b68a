//! What goes into the policy and what comes out.

use std::{collections::BTreeMap, fmt, time::Duration};

use mezz_proto::{
    ids::{AgentId, OfferId},
    resources::Resources,
};

use super::{Addresses, AttributeValue, Avoidance, CustomNeeds, Served, ServiceNo};

/// An executor's number: unique for the life of the application, counted from 1.
/// Spark wants executor ids to be numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ExecutorNo(pub u32);

impl fmt::Display for ExecutorNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Spark resource profile's id; 0 is the default profile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProfileId(pub u32);

/// How many executors of a profile the driver wants, and their size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileTarget {
    /// Which profile.
    pub id: ProfileId,
    /// Executors wanted.
    pub count: u32,
    /// Cores of each; at least 1.
    pub cores: u32,
    /// Memory of each in MiB: heap and everything beside it.
    pub mem_mib: u64,
    /// How many pending tasks would rather run on each host.
    pub locality: BTreeMap<String, u32>,
    /// What each needs besides, by the cluster's names.
    pub custom: CustomNeeds,
}

impl fmt::Display for ProfileTarget {
    /// The size of an executor.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpus:{}; mem:{}", self.cores, self.mem_mib)?;
        self.custom.iter().try_for_each(|(name, n)| write!(f, "; {name}:{n}"))
    }
}

/// An offer, as far as the policy looks at it.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyOffer {
    /// Its id.
    pub id: OfferId,
    /// Whose resources.
    pub agent: AgentId,
    /// The agent's host.
    pub hostname: String,
    /// The role that the resources are allocated to.
    pub role: Option<String>,
    /// What is offered.
    pub resources: Resources,
    /// The agent's attributes; a name may appear more than once.
    pub attributes: Vec<(String, AttributeValue)>,
}

/// Why an executor is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// By itself, with status 0.
    Finished,
    /// By itself, with another status or a signal; or it could not be started.
    Failed,
    /// Killed for exceeding its memory.
    OutOfMemory,
    /// Because we said so.
    Killed,
    /// Because the driver had it ended: its heartbeats had stopped.
    Silent,
    /// Its agent or the offer went away, or an operator ended it.
    Lost,
    /// It never began: its agent cannot run such executors, and others may.
    Unsuited,
}

/// How an executor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub kind: ExitKind,
    /// Exit status; 128 + n for signal n; -1 when not known.
    pub code: i32,
    /// Whether Spark should count it against the tasks that ran there.
    pub by_app: bool,
    /// For people.
    pub reason: String,
}

impl Exit {
    /// Lost through no fault of the application.
    pub fn lost(reason: impl Into<String>) -> Self {
        Self { kind: ExitKind::Lost, code: -1, by_app: false, reason: reason.into() }
    }

    /// The same end, of an executor that was told to end.
    #[must_use]
    pub fn asked_for(self) -> Self {
        Self { kind: ExitKind::Killed, by_app: false, ..self }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The driver wants this; profiles not named are wanted no more.
    Targets(Vec<ProfileTarget>),
    /// The driver wants these ended.
    Kill(Vec<ExecutorNo>),
    /// The executor has made itself known to the driver.
    Registered(ExecutorNo),
    /// Subscribed, or subscribed again.
    Connected,
    /// The master is gone for now.
    Disconnected,
    /// Offers; each is answered at once.
    Offers(Vec<PolicyOffer>),
    /// An agent has refused an executor because it cannot run such ones.
    Unable {
        /// The agent.
        agent: AgentId,
        /// What it lacks, for people: `has no …`.
        why: String,
    },
    /// The executor's process runs, or may still run.
    Running {
        /// Which executor.
        executor: ExecutorNo,
        /// Where.
        agent: AgentId,
    },
    /// Its agent has the executor, and that is all that is told.
    Known(ExecutorNo),
    /// The master knows neither this executor nor its agent. One that has forgotten all
    /// says so until the agent is back.
    Unknown(ExecutorNo),
    /// The executor's agent is being drained: it moves its blocks away and ends.
    Leaving(ExecutorNo),
    /// The executor is gone.
    Exited {
        /// Which executor.
        executor: ExecutorNo,
        /// How.
        exit: Exit,
    },
    /// A shuffle service runs, or may still run.
    ServiceRunning {
        /// Which.
        service: ServiceNo,
        /// Where.
        agent: AgentId,
    },
    /// The master knows neither this shuffle service nor its agent.
    ServiceUnknown(ServiceNo),
    /// A shuffle service is gone.
    ServiceEnded {
        /// Which.
        service: ServiceNo,
        /// How.
        exit: Exit,
    },
    /// Time has passed.
    Tick,
}

/// One executor to start.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchSpec {
    /// Its number.
    pub executor: ExecutorNo,
    /// Of which profile.
    pub profile: ProfileId,
    /// The agent's host.
    pub hostname: String,
    /// How its shuffle files are served; absent when by itself.
    pub served: Option<Served>,
    /// Cores for Spark.
    pub cores: u32,
    /// Its part of the offer.
    pub resources: Resources,
    /// Which of the custom resources it has.
    pub addresses: Addresses,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Accept these offers, all of one agent and role, for these executors.
    Launch {
        /// Used up together.
        offers: Vec<OfferId>,
        /// Whose they are.
        agent: AgentId,
        /// Allocated to.
        role: Option<String>,
        /// What to start; never empty.
        executors: Vec<LaunchSpec>,
        /// How long the rest stays refused.
        refuse: Duration,
    },
    /// Decline these.
    Decline {
        /// Which.
        offers: Vec<OfferId>,
        /// For how long.
        refuse: Duration,
    },
    /// No more offers, please.
    Suppress,
    /// Offers again, with no filters.
    Revive,
    /// End this executor.
    Kill {
        /// Which.
        executor: ExecutorNo,
        /// Where.
        agent: AgentId,
    },
    /// End this shuffle service.
    EndService {
        /// Which.
        service: ServiceNo,
        /// Where.
        agent: AgentId,
    },
    /// Tell the driver that a shuffle service is gone that ran, and with it all that it
    /// served.
    ServiceLost {
        /// Where it was.
        agent: AgentId,
        /// The agent's host.
        hostname: String,
        /// For people.
        reason: String,
    },
    /// Tell the driver that this executor is gone. Once for each launched one.
    Ended {
        /// Which.
        executor: ExecutorNo,
        /// How.
        exit: Exit,
    },
    /// Say that executors fail on an agent, and that it is avoided.
    Avoid(Avoidance),
    /// Executors are missing, and none of the agents that are offered has room for one.
    /// At most once in [`NOTICE_INTERVAL`](super::NOTICE_INTERVAL).
    Waiting {
        /// For people.
        message: String,
    },
    /// Tell the driver that its executors cannot be started. Once.
    GiveUp {
        /// Why.
        message: String,
    },
}
