//! What an executor is told: by the sidecar, in the data of its tasks and in
//! messages, and what it says to its JVM.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the lines between this process and its JVM.
pub(super) const VERSION: u32 = 1;

/// The variable of an executor's environment that brings settings which are secret, as
/// a JSON object of strings. Its name marks it as one that is not shown.
pub const SECRET_SETTINGS: &str = "MEZZ_SPARK_SECRET_SETTINGS";

/// Longest text of them, in bytes: of one variable Linux takes 128 KiB.
pub const MAX_SECRET_SETTINGS: usize = 112 << 10;

/// What [`SECRET_SETTINGS`] has for these settings.
pub fn write_secret_settings(settings: &BTreeMap<String, String>) -> String {
    // Strings only: this cannot fail.
    serde_json::to_string(settings).unwrap_or_default()
}

/// Marks a task's data that begins with what the executor needs to begin.
const WITH_BEGIN: u8 = 1;
/// Marks a task's data that is Spark's alone.
const PLAIN: u8 = 0;

/// What an executor needs to begin. All its tasks bring it along until the sidecar
/// has heard of the executor, because any of them may be the first to arrive.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// The JVM's argv.
    pub command: Vec<String>,
    /// The executor's id.
    pub executor: String,
    /// The host that it is known by.
    pub host: String,
    /// The application's id.
    pub app: String,
    /// The application's settings but for those that are secret, which come in a
    /// [variable](SECRET_SETTINGS).
    pub props: BTreeMap<String, String>,
}

impl Begin {
    /// For [`task_data`].
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Data that is no task's.
#[derive(Debug, Error)]
pub enum DataError {
    /// Cut off, or of another version.
    #[error(
        "the task's data is not as this version of mezz writes it; use the same on all machines"
    )]
    Foreign,
    /// What the executor needs to begin is not understood.
    #[error("what the executor needs to begin is not understood")]
    Begin(#[from] serde_json::Error),
}

/// A `TaskInfo`'s data.
pub fn task_data(begin: Option<&[u8]>, task: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(5 + begin.map_or(0, <[u8]>::len) + task.len());
    match begin {
        Some(begin) => {
            data.push(WITH_BEGIN);
            data.extend(u32::try_from(begin.len()).unwrap_or(u32::MAX).to_be_bytes());
            data.extend(begin);
        }
        None => data.push(PLAIN),
    }
    data.extend(task);
    data
}

/// The parts of a `TaskInfo`'s data.
///
/// # Errors
/// [`DataError`] when it is not from [`task_data`].
pub fn read_task_data(data: &[u8]) -> Result<(Option<Begin>, &[u8]), DataError> {
    match data.split_first() {
        Some((&PLAIN, task)) => Ok((None, task)),
        Some((&WITH_BEGIN, rest)) => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or(DataError::Foreign)?;
            let length = u32::from_be_bytes(*length) as usize;
            let (begin, task) = rest.split_at_checked(length).ok_or(DataError::Foreign)?;
            Ok((Some(serde_json::from_slice(begin)?), task))
        }
        _ => Err(DataError::Foreign),
    }
}

/// How a task is to be killed: goes before the kill itself, which cannot say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillOrder {
    /// Which task.
    pub tid: u64,
    /// Whether to interrupt its thread.
    pub interrupt: bool,
    /// For people.
    pub reason: String,
}

impl KillOrder {
    /// For a message to the executor.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain values only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// To the JVM.
#[derive(Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(super) enum ToJvm<'a> {
    /// First and once.
    Init {
        v: u32,
        exec: &'a str,
        host: &'a str,
        app: &'a str,
        cores: u32,
        props: &'a BTreeMap<String, String>,
    },
    /// Run this.
    Task { data: String },
    /// End this.
    Kill { tid: u64, interrupt: bool, reason: &'a str },
    /// End.
    Shutdown,
}

impl ToJvm<'_> {
    /// Spark's encoded `TaskDescription`.
    pub(super) fn task(data: &[u8]) -> Self {
        Self::Task { data: STANDARD.encode(data) }
    }

    /// With its newline.
    pub(super) fn to_line(&self) -> Vec<u8> {
        // Plain values only: this cannot fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// From the JVM.
#[derive(Debug, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(super) enum FromJvm {
    /// It has begun.
    Hello { v: u32 },
    /// A task's state, by Spark's name.
    Status { tid: u64, state: String, data: String },
}

impl FromJvm {
    /// A task's encoded result.
    pub(super) fn decode(data: &str) -> Option<Vec<u8>> {
        STANDARD.decode(data).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_with_and_without_a_beginning() {
        let begin = Begin {
            command: vec!["java".into()],
            executor: "1".into(),
            host: "h".into(),
            app: "fw".into(),
            props: BTreeMap::from([("k".into(), "v".into())]),
        };
        let data = task_data(Some(&begin.to_bytes()), b"task");
        let (read, task) = read_task_data(&data).unwrap();
        assert!(read == Some(begin) && task == b"task");
        let data = task_data(None, b"task");
        assert!(matches!(read_task_data(&data), Ok((None, b"task"))));
        let cut: &[&[u8]] = &[b"", b"\x01\x00", b"\x01\x00\x00\x00\x09{}", b"\x07x"];
        for data in cut {
            assert!(matches!(read_task_data(data), Err(DataError::Foreign)), "{data:?}");
        }
    }
}
