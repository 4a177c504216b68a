//! What survives the agent: one redb file below `work_dir/meta`.
//!
//! Values are the records of [`core`](crate::core), as protobuf. Nothing here
//! decides anything.

mod writer;

use std::path::{Path, PathBuf};

use mezz_proto::{
    ids::{ContainerId, FrameworkId, TaskId},
    v1,
};
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use thiserror::Error;

pub use self::writer::{Progress, Writer};
use crate::core::{
    ExecutorKey, ExecutorRecord, SandboxRecord, StoreOp, TaskKey, TaskRecord, TaskStateRecord,
    escape,
};

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const AGENT: Table = Table::new("agent");
const FRAMEWORKS: Table = Table::new("frameworks");
const EXECUTORS: Table = Table::new("executors");
const TASKS: Table = Table::new("tasks");
const TASK_STATES: Table = Table::new("task_states");
const SANDBOXES: Table = Table::new("sandboxes");
const SANDBOX_TASKS: Table = Table::new("sandbox_tasks");
const ALL: [Table; 7] =
    [AGENT, FRAMEWORKS, EXECUTORS, TASKS, TASK_STATES, SANDBOXES, SANDBOX_TASKS];

const INFO: &str = "info";
const BOOT_ID: &str = "boot_id";
const STARTS: &str = "starts";

/// The agent keeps its working state in memory; the file is read only at start.
const CACHE_BYTES: usize = 16 << 20;

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened, or is none of ours.
    #[error(
        "the agent's store {path} cannot be opened; if it is damaged, remove {folder} to start \
         as a new agent (its running tasks are ended then)"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// Reading or writing failed: the disk is full or broken.
    #[error("the agent's store: {doing} failed")]
    Access {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record is not what it should be.
    #[error(
        "the agent's store holds a damaged record in table {table} (key {key}); remove \
         `meta` in its --work-dir to start as a new agent (its running tasks are ended then)"
    )]
    Damaged {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
}

fn access<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Access { doing, source: Box::new(source.into()) }
}

/// Everything that the store holds.
#[derive(Debug, Default)]
pub struct Stored {
    /// What the agent was, with its id once it had one.
    pub agent: Option<v1::AgentInfo>,
    /// The boot that the records are of.
    pub boot_id: Option<String>,
    /// How often the agent was started.
    pub starts: u64,
    /// Frameworks with something here.
    pub frameworks: Vec<v1::FrameworkInfo>,
    /// Live executors.
    pub executors: Vec<ExecutorRecord>,
    /// Tasks that are not forgotten.
    pub tasks: Vec<(TaskRecord, TaskStateRecord)>,
    /// Sandboxes that are not collected.
    pub sandboxes: Vec<SandboxRecord>,
    /// Whose files they hold.
    pub sandbox_tasks: Vec<(ContainerId, TaskKey)>,
}

/// The value of a row of `sandbox_tasks`.
#[derive(Clone, PartialEq, Message)]
struct SandboxTaskRecord {
    #[prost(string, required, tag = "1")]
    container_id: String,
    #[prost(string, required, tag = "2")]
    framework_id: String,
    #[prost(string, required, tag = "3")]
    task_id: String,
}

/// The open file. One agent at a time: redb locks it.
#[derive(Debug)]
pub struct Store {
    db: Database,
}

impl Store {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`StoreError::Open`], also while another agent has it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source: redb::Error| StoreError::Open {
            path: path.to_owned(),
            folder: path.parent().unwrap_or(path).to_owned(),
            source: Box::new(source),
        };
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| failed(error.into()))?;
        let write = db.begin_write().map_err(|error| failed(error.into()))?;
        for table in ALL {
            write.open_table(table).map_err(|error| failed(error.into()))?;
        }
        write.commit().map_err(|error| failed(error.into()))?;
        Ok(Self { db })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`StoreError::Access`] and [`StoreError::Damaged`].
    pub fn load(&self) -> Result<Stored, StoreError> {
        let mut stored = Stored::default();
        self.each(AGENT, "agent", |key, value| {
            match key {
                INFO => stored.agent = Some(Message::decode(value)?),
                BOOT_ID => stored.boot_id = Some(String::from_utf8_lossy(value).into_owned()),
                STARTS => stored.starts = u64::decode(value)?,
                _ => {}
            }
            Ok(())
        })?;
        self.each(FRAMEWORKS, "frameworks", |_, value| {
            stored.frameworks.push(Message::decode(value)?);
            Ok(())
        })?;
        self.each(EXECUTORS, "executors", |_, value| {
            stored.executors.push(Message::decode(value)?);
            Ok(())
        })?;
        let mut states = std::collections::BTreeMap::new();
        self.each(TASK_STATES, "task_states", |key, value| {
            states.insert(key.to_owned(), TaskStateRecord::decode(value)?);
            Ok(())
        })?;
        self.each(TASKS, "tasks", |key, value| {
            // Both are written in one transaction.
            if let Some(state) = states.remove(key) {
                stored.tasks.push((Message::decode(value)?, state));
            }
            Ok(())
        })?;
        self.each(SANDBOXES, "sandboxes", |_, value| {
            stored.sandboxes.push(Message::decode(value)?);
            Ok(())
        })?;
        self.each(SANDBOX_TASKS, "sandbox_tasks", |_, value| {
            let record = SandboxTaskRecord::decode(value)?;
            let task = TaskKey {
                framework: FrameworkId::from(record.framework_id),
                task: TaskId::from(record.task_id),
            };
            stored.sandbox_tasks.push((ContainerId::from(record.container_id), task));
            Ok(())
        })?;
        Ok(stored)
    }

    fn each(
        &self,
        table: Table,
        name: &'static str,
        mut take: impl FnMut(&str, &[u8]) -> Result<(), prost::DecodeError>,
    ) -> Result<(), StoreError> {
        let read = self.db.begin_read().map_err(access("reading"))?;
        let rows = read.open_table(table).map_err(access("reading"))?;
        for row in rows.iter().map_err(access("reading"))? {
            let (key, value) = row.map_err(access("reading"))?;
            take(key.value(), value.value()).map_err(|source| StoreError::Damaged {
                table: name,
                key: key.value().to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// Writes all of it to the disk, or none.
    ///
    /// # Errors
    /// [`StoreError::Access`]; the store is as before then.
    pub fn apply<'a>(&self, ops: impl IntoIterator<Item = &'a StoreOp>) -> Result<(), StoreError> {
        let write = self.db.begin_write().map_err(access("writing"))?;
        for op in ops {
            apply(&write, op)?;
        }
        write.commit().map_err(access("writing"))
    }
}

fn apply(write: &WriteTransaction, op: &StoreOp) -> Result<(), StoreError> {
    match op {
        StoreOp::PutAgent(info) => put(write, AGENT, INFO, &info.encode_to_vec()),
        StoreOp::PutBootId(boot) => put(write, AGENT, BOOT_ID, boot.as_bytes()),
        StoreOp::PutStarts(starts) => put(write, AGENT, STARTS, &starts.encode_to_vec()),
        StoreOp::PutFramework(id, info) => {
            put(write, FRAMEWORKS, &escape(id.as_str()), &info.encode_to_vec())
        }
        StoreOp::RemoveFramework(id) => remove(write, FRAMEWORKS, &escape(id.as_str())),
        StoreOp::PutExecutor(key, record) => {
            put(write, EXECUTORS, &executor_row(key), &record.encode_to_vec())
        }
        StoreOp::RemoveExecutor(key) => remove(write, EXECUTORS, &executor_row(key)),
        StoreOp::PutTask(key, record) => put(write, TASKS, &task_row(key), &record.encode_to_vec()),
        StoreOp::PutTaskState(key, record) => {
            put(write, TASK_STATES, &task_row(key), &record.encode_to_vec())
        }
        StoreOp::RemoveTask(key) => {
            remove(write, TASKS, &task_row(key))?;
            remove(write, TASK_STATES, &task_row(key))
        }
        StoreOp::PutSandbox(record) => {
            put(write, SANDBOXES, &escape(&record.container_id), &record.encode_to_vec())
        }
        StoreOp::PutSandboxTask(container, task) => {
            let record = SandboxTaskRecord {
                container_id: container.to_string(),
                framework_id: task.framework.to_string(),
                task_id: task.task.to_string(),
            };
            let row = format!("{}/{}", escape(container.as_str()), task_row(task));
            put(write, SANDBOX_TASKS, &row, &record.encode_to_vec())
        }
        StoreOp::RemoveSandbox(container) => {
            let name = escape(container.as_str());
            remove(write, SANDBOXES, &name)?;
            // `0` follows `/`: everything of this container and nothing else.
            let mut rows = write.open_table(SANDBOX_TASKS).map_err(access("writing"))?;
            let (first, end) = (format!("{name}/"), format!("{name}0"));
            rows.retain_in(first.as_str()..end.as_str(), |_, _| false).map_err(access("writing"))
        }
    }
}

fn put(write: &WriteTransaction, table: Table, key: &str, value: &[u8]) -> Result<(), StoreError> {
    let mut rows = write.open_table(table).map_err(access("writing"))?;
    rows.insert(key, value).map_err(access("writing"))?;
    Ok(())
}

fn remove(write: &WriteTransaction, table: Table, key: &str) -> Result<(), StoreError> {
    let mut rows = write.open_table(table).map_err(access("writing"))?;
    rows.remove(key).map_err(access("writing"))?;
    Ok(())
}

/// `escape` leaves no `/`, so a row is of one task only.
fn task_row(key: &TaskKey) -> String {
    format!("{}/{}", escape(key.framework.as_str()), escape(key.task.as_str()))
}

fn executor_row(key: &ExecutorKey) -> String {
    format!("{}/{}", escape(key.framework.as_str()), escape(key.executor.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(task: &str) -> TaskKey {
        TaskKey { framework: FrameworkId::new("F/0"), task: TaskId::new(task) }
    }

    fn sandbox(container: &str) -> SandboxRecord {
        SandboxRecord {
            container_id: container.into(),
            framework_id: "F/0".into(),
            executor_id: "e".into(),
            path: "/s".into(),
            ended_at: None,
        }
    }

    #[test]
    fn keeps_what_was_put_and_forgets_what_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.redb");
        let task = |id: &str| TaskRecord {
            framework_id: "F/0".into(),
            info: v1::TaskInfo { task_id: v1::TaskId { value: id.into() }, ..Default::default() },
            executor_id: None,
            container_id: Some("c".into()),
            group: None,
        };
        let state = TaskStateRecord { kill: Some(1), ..Default::default() };
        {
            let store = Store::open(&path).unwrap();
            store
                .apply(&[
                    StoreOp::PutTask(key("a"), Box::new(task("a"))),
                    StoreOp::PutTaskState(key("a"), state.clone()),
                    StoreOp::PutTask(key("b"), Box::new(task("b"))),
                    StoreOp::PutTaskState(key("b"), state.clone()),
                    StoreOp::PutBootId("boot".into()),
                    StoreOp::PutStarts(7),
                    StoreOp::PutSandbox(sandbox("c")),
                    StoreOp::PutSandbox(sandbox("c0")),
                    StoreOp::PutSandboxTask("c".into(), key("a")),
                    StoreOp::PutSandboxTask("c0".into(), key("b")),
                ])
                .unwrap();
            store
                .apply(&[StoreOp::RemoveTask(key("a")), StoreOp::RemoveSandbox("c".into())])
                .unwrap();
        }
        let stored = Store::open(&path).unwrap().load().unwrap();
        assert_eq!(stored.tasks, [(task("b"), state)]);
        assert_eq!(stored.tasks[0].0.key(), key("b"));
        assert_eq!((stored.boot_id.as_deref(), stored.starts), (Some("boot"), 7));
        assert_eq!(stored.sandboxes, [sandbox("c0")]);
        assert_eq!(stored.sandbox_tasks, [("c0".into(), key("b"))]);
    }

    #[test]
    fn a_foreign_file_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.redb");
        std::fs::write(&path, vec![7; 8192]).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("remove") && error.contains("agent.redb"), "{error}");
    }

    #[test]
    fn two_agents_do_not_share_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.redb");
        let _first = Store::open(&path).unwrap();
        assert!(Store::open(&path).is_err());
    }
}
