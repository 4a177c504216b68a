//! What survives a restart: records as they are stored.
//!
//! They are protobuf messages, so that a later version can add fields. A tag
//! that was once used keeps its meaning for good.

use mezz_proto::{
    ids::{ContainerId, ExecutorId, FrameworkId, TaskId},
    v1,
};
use prost::Message;

use super::{ExecutorKey, TaskKey, Token};
use crate::containerizer::{Limitation, LimitationKind};

/// A task, as it was launched.
#[derive(Clone, PartialEq, Message)]
pub struct TaskRecord {
    /// Whose.
    #[prost(string, required, tag = "1")]
    pub framework_id: String,
    /// What the framework asked for.
    #[prost(message, required, tag = "2")]
    pub info: v1::TaskInfo,
    /// The executor that runs it, or whose member it is; absent for a command task.
    #[prost(string, optional, tag = "3")]
    pub executor_id: Option<String>,
    /// The container of a command task or of a pod's member; absent when it never
    /// got one.
    #[prost(string, optional, tag = "4")]
    pub container_id: Option<String>,
    /// What the members of one group have in common.
    #[prost(string, optional, tag = "5")]
    pub group: Option<String>,
}

impl TaskRecord {
    /// The task's key.
    pub fn key(&self) -> TaskKey {
        TaskKey {
            framework: FrameworkId::new(&self.framework_id),
            task: TaskId::from(&self.info.task_id),
        }
    }
}

/// What changes in a task's life.
#[derive(Clone, PartialEq, Message)]
pub struct TaskStateRecord {
    /// Updates without acknowledgement, oldest first.
    #[prost(message, repeated, tag = "1")]
    pub updates: Vec<v1::TaskStatus>,
    /// The newest state.
    #[prost(enumeration = "v1::TaskState", required, tag = "2")]
    pub latest: i32,
    /// Uuids of the newest updates that were acknowledged.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub acknowledged: Vec<Vec<u8>>,
    /// Set when it is to end: 1 asked for, 2 out of time, 3 its framework's end,
    /// 4 unhealthy, 5 its group's end, 6 the agent is drained, 7 its executor's end,
    /// 8 the agent is drained for good, 9 it took more than it may.
    #[prost(uint32, optional, tag = "4")]
    pub kill: Option<u32>,
    /// Since when it runs, in nanoseconds since the epoch.
    #[prost(uint64, optional, tag = "5")]
    pub running_since: Option<u64>,
    /// The policy that came with the kill.
    #[prost(message, optional, tag = "6")]
    pub kill_policy: Option<v1::KillPolicy>,
    /// When the container of a killed command task is destroyed, in nanoseconds
    /// since the epoch.
    #[prost(uint64, optional, tag = "7")]
    pub kill_at: Option<u64>,
    /// What its health check said last.
    #[prost(bool, optional, tag = "8")]
    pub healthy: Option<bool>,
    /// How often in a row its health check failed.
    #[prost(uint32, optional, tag = "9")]
    pub health_failures: Option<u32>,
    /// What its check said last.
    #[prost(message, optional, tag = "10")]
    pub check_status: Option<v1::CheckStatusInfo>,
    /// What it took, when `kill` is 9.
    #[prost(message, optional, tag = "11")]
    pub limitation: Option<LimitationRecord>,
}

/// What a container took that it may not.
#[derive(Clone, PartialEq, Message)]
pub struct LimitationRecord {
    /// 1 disk, 2 ports.
    #[prost(uint32, required, tag = "1")]
    pub kind: u32,
    /// In words.
    #[prost(string, required, tag = "2")]
    pub message: String,
}

impl LimitationRecord {
    pub(super) fn of(limitation: &Limitation) -> Self {
        let kind = match limitation.kind {
            LimitationKind::Disk => 1,
            LimitationKind::Ports => 2,
        };
        Self { kind, message: limitation.message.clone() }
    }

    pub(super) fn limitation(self) -> Limitation {
        let kind = match self.kind {
            1 => LimitationKind::Disk,
            _ => LimitationKind::Ports,
        };
        Limitation { kind, message: self.message }
    }
}

/// Why and when an executor is ended.
#[derive(Clone, PartialEq, Message)]
pub struct DoomRecord {
    /// What its tasks are told.
    #[prost(enumeration = "v1::TaskState", required, tag = "1")]
    pub state: i32,
    /// And for what reason.
    #[prost(enumeration = "v1::task_status::Reason", required, tag = "2")]
    pub reason: i32,
    /// In words.
    #[prost(string, required, tag = "3")]
    pub message: String,
    /// When its container is destroyed, in nanoseconds since the epoch.
    #[prost(uint64, required, tag = "4")]
    pub at: u64,
}

/// A custom executor, as it was launched.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct ExecutorRecord {
    /// Whose.
    #[prost(string, required, tag = "1")]
    pub framework_id: String,
    /// What the framework asked for.
    #[prost(message, required, tag = "2")]
    pub info: v1::ExecutorInfo,
    /// Where it runs.
    #[prost(string, required, tag = "3")]
    pub container_id: String,
    /// Its proof of who it is. A secret.
    #[prost(string, required, tag = "4")]
    pub token: String,
    /// Set when it is to end.
    #[prost(message, optional, tag = "5")]
    pub doom: Option<DoomRecord>,
    /// Whether it has ever subscribed; absent in records of versions that did not say,
    /// and then it may have.
    #[prost(bool, optional, tag = "6")]
    pub subscribed: Option<bool>,
    /// Whether it has ever shown its token; absent in records of versions that did not say.
    #[prost(bool, optional, tag = "7")]
    pub proven: Option<bool>,
}

impl ExecutorRecord {
    /// What it proves itself with.
    pub(crate) fn proof(&self) -> (ExecutorKey, Token) {
        (self.key(), Token(self.token.clone()))
    }
}

impl std::fmt::Debug for ExecutorRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecutorRecord")
            .field("framework_id", &self.framework_id)
            .field("executor_id", &self.info.executor_id.value)
            .field("container_id", &self.container_id)
            .field("doom", &self.doom)
            .finish_non_exhaustive()
    }
}

impl ExecutorRecord {
    /// The executor's key.
    pub fn key(&self) -> ExecutorKey {
        ExecutorKey {
            framework: FrameworkId::new(&self.framework_id),
            executor: ExecutorId::from(&self.info.executor_id),
        }
    }
}

/// A container's sandbox, kept until it is collected.
#[derive(Clone, PartialEq, Message)]
pub struct SandboxRecord {
    /// The container.
    #[prost(string, required, tag = "1")]
    pub container_id: String,
    /// Whose.
    #[prost(string, required, tag = "2")]
    pub framework_id: String,
    /// The executor; for a command task the task's id.
    #[prost(string, required, tag = "3")]
    pub executor_id: String,
    /// Where it is.
    #[prost(string, required, tag = "4")]
    pub path: String,
    /// When the container ended, in nanoseconds since the epoch.
    #[prost(uint64, optional, tag = "5")]
    pub ended_at: Option<u64>,
}

/// One change of the store.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOp {
    /// What the agent is, with its id.
    PutAgent(Box<v1::AgentInfo>),
    /// The kernel's boot id that all other records are of.
    PutBootId(String),
    /// How often the agent was started.
    PutStarts(u64),
    /// Adds or replaces a framework.
    PutFramework(FrameworkId, Box<v1::FrameworkInfo>),
    /// Forgets it.
    RemoveFramework(FrameworkId),
    /// Adds or replaces an executor.
    PutExecutor(ExecutorKey, Box<ExecutorRecord>),
    /// Forgets it.
    RemoveExecutor(ExecutorKey),
    /// Adds a task.
    PutTask(TaskKey, Box<TaskRecord>),
    /// Replaces what changes of a task.
    PutTaskState(TaskKey, TaskStateRecord),
    /// Forgets a task with its state.
    RemoveTask(TaskKey),
    /// Adds or replaces a sandbox.
    PutSandbox(SandboxRecord),
    /// Says that a task's files are in this container's sandbox.
    PutSandboxTask(ContainerId, TaskKey),
    /// Forgets a sandbox with its tasks.
    RemoveSandbox(ContainerId),
}
