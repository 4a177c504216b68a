//! What goes into the fine-grained policy and what comes out.

use std::{collections::BTreeSet, fmt, time::Duration};

use mezz_proto::{
    ids::{AgentId, OfferId},
    resources::{Resources, Scalar},
};

use crate::policy::{
    Avoidance, Constraints, ExecutorNo, Exit, FailureLimit, PolicyOffer, Served, ServiceNo,
    ServiceSize,
};

/// A Spark task's id: unique for the life of the application.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskNo(pub u64);

impl TaskNo {
    /// Not one of Spark's, whose numbers are never so high: holds what this executor's
    /// start takes, until it is up.
    pub fn start_of(executor: ExecutorNo) -> Self {
        Self(u64::MAX - u64::from(executor.0))
    }

    /// Whether it is one of Spark's.
    pub fn is_sparks(self) -> bool {
        self.started().is_none()
    }

    fn started(self) -> Option<ExecutorNo> {
        u32::try_from(u64::MAX - self.0).ok().map(ExecutorNo)
    }

    /// Reads what is displayed of one.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(START) {
            Some(executor) => executor.parse().ok().map(|no| Self::start_of(ExecutorNo(no))),
            None => text.parse().ok().map(Self).filter(|task| task.is_sparks()),
        }
    }
}

/// What the ids of tasks begin with that are executors' starts.
const START: &str = "start-";

impl fmt::Display for TaskNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.started() {
            Some(executor) => write!(f, "{START}{executor}"),
            None => self.0.fmt(f),
        }
    }
}

/// Settings of one application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FineOptions {
    /// `spark.cores.max`: cores of all running tasks; no bound when absent.
    pub cores_max: Option<u32>,
    /// What a shuffle service holds on each agent; absent when there are to be none.
    pub shuffle: Option<ServiceSize>,
    /// `spark.mezz.constraints`: which agents will do.
    pub constraints: Constraints,
    /// When failed executors end the application.
    pub failures: FailureLimit,
    /// `spark.task.cpus`: what an offer must have at least to be of use.
    pub task_cpus: Scalar,
    /// `spark.mezz.executor.cores`: what an executor holds while it lives.
    pub executor_cpus: Scalar,
    /// Bytes that a task has beside its data, and how many more while its executor has
    /// not been heard of.
    pub task_bytes: (usize, usize),
    /// What an executor's JVM needs, in MiB, with everything beside its heap.
    pub executor_mem_mib: u64,
    /// `spark.executor.instances`: executors to be started, each on an agent of its own,
    /// before the driver has tasks.
    pub ahead: usize,
}

/// A task that the driver wants to run on an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskAsk {
    /// Which.
    pub task: TaskNo,
    /// What it holds while it runs.
    pub cpus: Scalar,
    /// Size of its data in bytes.
    pub bytes: usize,
}

/// What the driver does with the offers that it was shown together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Which batch of offers.
    pub batch: u64,
    /// The last revival that the driver had asked for before it looked.
    pub seen: u64,
    /// Whether tasks are left that could run, had they a place.
    pub waiting: bool,
    /// Tasks for each offer, named by its place in the batch; offers not named are
    /// of no use now.
    pub launches: Vec<(usize, Vec<TaskAsk>)>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum FineEvent {
    /// Offers.
    Offers(Vec<PolicyOffer>),
    /// An agent that offers something has these executors of ours, and no others, as of
    /// after all that was heard before.
    Present {
        /// The agent.
        agent: AgentId,
        /// Its executors.
        executors: Vec<ExecutorNo>,
    },
    /// An agent has refused an executor because it cannot run such ones.
    Unable {
        /// The agent.
        agent: AgentId,
        /// What it lacks, for people: `has no …`.
        why: String,
    },
    /// The driver's answer to some.
    Answer(Answer),
    /// Hosts where the driver's waiting tasks would rather run.
    Prefer(BTreeSet<String>),
    /// The driver has tasks to run; the number counts these requests, from 1.
    Revive(u64),
    /// The driver has not heard of these executors for too long: they are to end.
    Kill(Vec<ExecutorNo>),
    /// A task's executor said that it runs, or the master remembers that it did.
    Running {
        /// Which task.
        task: TaskNo,
        /// Its executor, and the agent it is on.
        on: (ExecutorNo, AgentId),
    },
    /// This executor has, or had until now, this task, which may be of no interest.
    Alive {
        /// Which task.
        task: TaskNo,
        /// Its executor, and the agent it is on.
        on: (ExecutorNo, AgentId),
    },
    /// The master knows neither this task nor its agent. One that has forgotten all
    /// says so until the agent is back.
    Unknown(TaskNo),
    /// A task's executor said that it ended, whatever way.
    Done(TaskNo),
    /// A task never ran, or was ended by the cluster before it did.
    Undone {
        /// Which.
        task: TaskNo,
        /// Whether it is to be blamed.
        by_app: bool,
        /// For people.
        reason: String,
    },
    /// A task was lost because its executor is.
    LostWith {
        /// Which.
        task: TaskNo,
        /// How the executor ended.
        exit: Exit,
    },
    /// An executor has ended.
    ExecutorEnded {
        /// Which.
        executor: ExecutorNo,
        /// How.
        exit: Exit,
    },
    /// An agent is gone, with its executor.
    AgentLost(AgentId),
    /// A shuffle service runs, or may still run.
    ServiceRunning {
        /// Which.
        service: ServiceNo,
        /// Where.
        agent: AgentId,
    },
    /// There is no master until the next one is subscribed to.
    Disconnected,
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

/// An offer for the driver to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The executor that would run its tasks.
    pub executor: ExecutorNo,
    /// Where.
    pub agent: AgentId,
    /// The agent's host.
    pub hostname: String,
    /// What its tasks may hold together.
    pub cpus: Scalar,
}

/// Tasks to start on one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct FineLaunch {
    /// Used up together.
    pub offers: Vec<OfferId>,
    /// Whose they are.
    pub agent: AgentId,
    /// The agent's host.
    pub hostname: String,
    /// Allocated to.
    pub role: Option<String>,
    /// Runs them.
    pub executor: ExecutorNo,
    /// What the executor holds itself; the same for all its tasks.
    pub executor_resources: Resources,
    /// Whether the executor has been heard of: until then its tasks must bring
    /// along what it needs to begin.
    pub up: bool,
    /// How the executor's shuffle files are served, where it is to be started; absent
    /// when by itself.
    pub served: Option<Served>,
    /// The tasks and what each holds; never empty.
    pub tasks: Vec<(TaskNo, Resources)>,
    /// How long the rest stays refused.
    pub refuse: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum FineAction {
    /// Show the driver these offers; it answers by their batch's number.
    Show {
        /// The batch.
        batch: u64,
        /// In the order that the answer refers to.
        offers: Vec<Shown>,
    },
    /// Accept.
    Launch(FineLaunch),
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
    /// End this executor, should it live.
    ShutDown {
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
    /// Tell the driver that this executor has begun. Once.
    Up(ExecutorNo),
    /// Tell the driver that these tasks did not run.
    Undone {
        /// Which.
        tasks: Vec<TaskNo>,
        /// Where they were to run.
        executor: ExecutorNo,
        /// Whether they are to be blamed.
        by_app: bool,
        /// Why.
        reason: String,
    },
    /// Tell the driver that this executor is gone. Once for each launched one.
    Ended {
        /// Which.
        executor: ExecutorNo,
        /// How.
        exit: Exit,
        /// Tasks that may have been the cause: Spark blames none of which it has not
        /// heard that it ran.
        ran: Vec<TaskNo>,
    },
    /// Say that executors fail on an agent, and that it is avoided.
    Avoid(Avoidance),
    /// Tasks wait, none runs, and none of the agents that are offered has room for an
    /// executor. At most once in [`NOTICE_INTERVAL`](crate::policy::NOTICE_INTERVAL).
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
