//! The objects that the core keeps.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    path::PathBuf,
    time::Duration,
};

use mezz_proto::{
    ids::{ContainerId, ExecutorId, FrameworkId, TaskId},
    resources::Resources,
    time::Time,
    v1::{self, TaskState, framework_info::capability::Type as Capability, task_status::Reason},
};

use super::{
    ConnectionId, DoomRecord, ExecutorRecord, LimitationRecord, TaskRecord, TaskStateRecord,
    check::Checks, pod::is_default,
};
use crate::containerizer::Limitation;

/// Names a task on this agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Whose.
    pub framework: FrameworkId,
    /// Which.
    pub task: TaskId,
}

impl TaskKey {
    /// An executor of the same framework.
    pub(super) fn executor(&self, id: &ExecutorId) -> ExecutorKey {
        ExecutorKey { framework: self.framework.clone(), executor: id.clone() }
    }
}

/// Names a custom executor on this agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutorKey {
    /// Whose.
    pub framework: FrameworkId,
    /// Which.
    pub executor: ExecutorId,
}

impl ExecutorKey {
    /// A task of the same framework.
    pub(super) fn task(&self, id: &TaskId) -> TaskKey {
        TaskKey { framework: self.framework.clone(), task: id.clone() }
    }
}

#[derive(Debug)]
pub(super) struct Framework {
    pub(super) info: v1::FrameworkInfo,
    /// Torn down: its tasks end without updates (rule 16).
    pub(super) shutting_down: bool,
}

impl Framework {
    pub(super) fn has(&self, capability: Capability) -> bool {
        self.info.capabilities.iter().any(|have| have.r#type() == capability)
    }
}

/// Where a task runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In a container of its own.
    Command(ContainerId),
    /// In a container of its own, with others of this executor, which is the
    /// agent's own.
    Member { executor: ExecutorId, container: ContainerId },
    /// By this executor.
    Executor(ExecutorId),
    /// Nowhere: it was refused.
    None,
}

impl Home {
    /// The task's own container, started or not.
    pub(super) fn container(&self) -> Option<&ContainerId> {
        match self {
            Home::Command(container) | Home::Member { container, .. } => Some(container),
            Home::Executor(_) | Home::None => None,
        }
    }

    pub(super) fn executor(&self) -> Option<&ExecutorId> {
        match self {
            Home::Member { executor, .. } | Home::Executor(executor) => Some(executor),
            Home::Command(_) | Home::None => None,
        }
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its executor has not subscribed yet.
    Queued,
    /// Handed to the shell or to its executor.
    Launching,
    /// It runs, as far as is known.
    Running,
    /// Its last update stands in `updates`.
    Ended,
}

/// Why a task is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillCause {
    /// A framework or an operator asked for it.
    Request,
    /// Its `max_completion_time` is over.
    MaxCompletion,
    /// Its framework is torn down.
    Framework,
    /// Its health check failed too often.
    Unhealthy,
    /// Another task of its group failed or was killed.
    Group,
    /// The agent is being drained.
    Drain,
    /// And does not come back.
    Gone,
    /// Its executor, which is the agent's own, is gone.
    Executor,
    /// It took more than it may.
    Limitation,
}

impl KillCause {
    pub(super) fn to_record(self) -> u32 {
        match self {
            KillCause::Request => 1,
            KillCause::MaxCompletion => 2,
            KillCause::Framework => 3,
            KillCause::Unhealthy => 4,
            KillCause::Group => 5,
            KillCause::Drain => 6,
            KillCause::Executor => 7,
            KillCause::Gone => 8,
            KillCause::Limitation => 9,
        }
    }

    /// Whether a task that is to end for it is said to be killed.
    pub(super) fn is_told(self) -> bool {
        match self {
            KillCause::Request
            | KillCause::Unhealthy
            | KillCause::Group
            | KillCause::Drain
            | KillCause::Gone => true,
            KillCause::MaxCompletion
            | KillCause::Framework
            | KillCause::Executor
            | KillCause::Limitation => false,
        }
    }

    pub(super) fn from_record(record: u32) -> Self {
        match record {
            2 => KillCause::MaxCompletion,
            3 => KillCause::Framework,
            4 => KillCause::Unhealthy,
            5 => KillCause::Group,
            6 => KillCause::Drain,
            7 => KillCause::Executor,
            8 => KillCause::Gone,
            9 => KillCause::Limitation,
            _ => KillCause::Request,
        }
    }
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) info: v1::TaskInfo,
    pub(super) resources: Resources,
    pub(super) home: Home,
    pub(super) stage: Stage,
    pub(super) latest: TaskState,
    /// Without acknowledgement, oldest first; only the first is ever sent.
    pub(super) updates: VecDeque<v1::TaskStatus>,
    /// Uuids acknowledged last, to know what an executor sends again.
    pub(super) acknowledged: VecDeque<Vec<u8>>,
    /// Set while the first update is in flight: the wait that runs.
    pub(super) retry: Option<Duration>,
    pub(super) kill: Option<KillCause>,
    /// The policy that came with the kill.
    pub(super) kill_policy: Option<v1::KillPolicy>,
    /// When the container of a killed command task is destroyed.
    pub(super) kill_at: Option<Time>,
    /// What it took, when that is why it is to end.
    pub(super) limitation: Option<Limitation>,
    pub(super) running_since: Option<Time>,
    /// Of a pod's member: what the tasks of its group have in common.
    pub(super) group: Option<String>,
    /// Made by the agent; `None` also for an executor's task.
    pub(super) checks: Option<Box<Checks>>,
}

impl Task {
    pub(super) fn new(info: v1::TaskInfo, resources: Resources, home: Home, stage: Stage) -> Self {
        Self {
            info,
            resources,
            home,
            stage,
            latest: TaskState::TaskStaging,
            updates: VecDeque::new(),
            acknowledged: VecDeque::new(),
            retry: None,
            kill: None,
            kill_policy: None,
            kill_at: None,
            limitation: None,
            running_since: None,
            group: None,
            checks: None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.stage != Stage::Ended
    }

    pub(super) fn record(&self, framework: &FrameworkId) -> TaskRecord {
        TaskRecord {
            framework_id: framework.to_string(),
            info: self.info.clone(),
            executor_id: self.home.executor().map(ToString::to_string),
            container_id: self.home.container().map(ToString::to_string),
            group: self.group.clone(),
        }
    }

    pub(super) fn state_record(&self) -> TaskStateRecord {
        TaskStateRecord {
            updates: self.updates.iter().cloned().collect(),
            latest: self.latest.into(),
            acknowledged: self.acknowledged.iter().cloned().collect(),
            kill: self.kill.map(KillCause::to_record),
            running_since: self.running_since.map(Time::as_nanos),
            kill_policy: self.kill_policy,
            kill_at: self.kill_at.map(Time::as_nanos),
            limitation: self.limitation.as_ref().map(LimitationRecord::of),
            healthy: self.checks.as_ref().and_then(|checks| checks.healthy()),
            health_failures: self.checks.as_ref().and_then(|checks| checks.failures()),
            check_status: self.checks.as_ref().and_then(|checks| checks.status().cloned()),
        }
    }
}

/// Tasks that wait for their executor: one, or a group that starts as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) group: bool,
    pub(super) tasks: Vec<TaskId>,
}

/// What an executor proves itself with. Not shown in logs.
#[derive(Clone, PartialEq)]
pub struct Token(pub(crate) String);

impl Token {
    pub(crate) fn is(&self, other: &str) -> bool {
        super::ids::same_secret(&self.0, other)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What a container is held to, as in [`ContainerSpec`](crate::containerizer::ContainerSpec).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Limits {
    pub(super) resources: Resources,
    pub(super) limits: BTreeMap<String, f64>,
}

/// Why an executor is to end, for the tasks that it leaves behind.
#[derive(Clone, Debug)]
pub(super) struct Doom {
    pub(super) state: TaskState,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// When its container is destroyed.
    pub(super) at: Time,
}

impl Doom {
    fn record(&self) -> DoomRecord {
        DoomRecord {
            state: self.state.into(),
            reason: self.reason.into(),
            message: self.message.clone(),
            at: self.at.as_nanos(),
        }
    }

    pub(super) fn from_record(record: DoomRecord) -> Self {
        let state = TaskState::try_from(record.state).ok().filter(|state| state.is_terminal());
        Self {
            // Of another version, if it is not known.
            state: state.unwrap_or(TaskState::TaskFailed),
            reason: Reason::try_from(record.reason).unwrap_or(Reason::ExecutorTerminated),
            message: record.message,
            at: Time::from_nanos(record.at),
        }
    }
}

#[derive(Debug)]
pub(super) struct Executor {
    pub(super) info: v1::ExecutorInfo,
    /// Its own, without its tasks'.
    pub(super) resources: Resources,
    /// What its container is held to, as last told.
    pub(super) held: Limits,
    pub(super) container: ContainerId,
    pub(super) token: Token,
    pub(super) connection: Option<ConnectionId>,
    /// It was there at least once; only then its tasks can be with it.
    pub(super) subscribed_once: bool,
    /// It has shown its token: nobody is it without, from then on.
    pub(super) proven: bool,
    /// Updates of it were not taken, for too many wait for its framework.
    pub(super) behind: bool,
    pub(super) pending: VecDeque<Pending>,
    /// Live tasks, those in `pending` included.
    pub(super) tasks: BTreeSet<TaskId>,
    pub(super) doom: Option<Doom>,
    /// Its container has ended, with this status, before its members did.
    pub(super) gone: Option<i32>,
}

impl Executor {
    /// Whether it is the agent's own, which has members in place of a process.
    pub(super) fn is_pod(&self) -> bool {
        is_default(&self.info)
    }

    pub(super) fn record(&self, key: &ExecutorKey) -> ExecutorRecord {
        ExecutorRecord {
            framework_id: key.framework.to_string(),
            info: self.info.clone(),
            container_id: self.container.to_string(),
            token: self.token.0.clone(),
            doom: self.doom.as_ref().map(Doom::record),
            subscribed: Some(self.subscribed_once),
            proven: Some(self.proven),
        }
    }
}

/// Whose a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Task(TaskKey),
    Executor(ExecutorKey),
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) owner: Owner,
    /// The executor, or the command task, that the sandbox is filed under.
    pub(super) executor: ExecutorKey,
    pub(super) sandbox: PathBuf,
    /// Its first process was started.
    pub(super) running: bool,
    /// Of an earlier boot: when nobody knows how it ended, that is why.
    pub(super) rebooted: bool,
}
