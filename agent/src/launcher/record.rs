//! What a launcher leaves in the runtime directory for the agent: `pid.json` before
//! the program runs, `exit.json` after it ended. Room for the second is taken before
//! the program can fill the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::process::Process;

const STARTED: &str = "pid.json";
const ENDED: &str = "exit.json";

/// So much is kept free for the record of the end, in bytes: a block of most file
/// systems, and more than the record of a program that ran ever needs.
const END_ROOM: usize = 4096;

/// Who runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// 1.
    pub v: u32,
    /// Of the start of the machine in which the pids mean anything.
    pub boot_id: String,
    /// The supervisor.
    pub launcher: Process,
    /// The container's first process, leader of its own session.
    pub child: Process,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// 1.
    pub v: u32,
    /// As `waitpid` tells it; absent when the program never ran.
    pub wait_status: Option<i32>,
    /// Why the program could not be run.
    pub failure: Option<String>,
}

/// The version of both records.
pub const VERSION: u32 = 1;

/// Stands in the place of a [`Started`] record to keep a launcher from starting.
#[derive(Serialize, Deserialize)]
struct Cancelled {
    v: u32,
    cancelled: bool,
}

/// Why a record cannot be written or read.
#[derive(Debug, Error)]
#[error("{path}: {source}")]
pub struct RecordError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl RecordError {
    /// Whether a record is there that nobody can understand. Otherwise the disk or the
    /// lack of something hindered, and another time it may go well.
    pub fn is_malformed(&self) -> bool {
        self.source.kind() == io::ErrorKind::InvalidData
    }
}

/// What the records say of a container's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// There is a launcher's record.
    Started(Started),
    /// It was cancelled before the launcher could start it.
    Cancelled,
}

/// Puts the record of the start in place. `false` when something is there
/// already: the launch was cancelled.
///
/// # Errors
/// [`RecordError`], also when the directory is gone.
pub fn write_started(directory: &Path, record: &Started) -> Result<bool, RecordError> {
    put_if_absent(directory, "pid.tmp", record)
}

/// Makes sure that no launcher starts this container from now on; tells what was
/// there before, if anything was. Writes only where nothing was, so that a full disk
/// costs no container that runs.
///
/// # Errors
/// [`RecordError`].
pub fn cancel(directory: &Path) -> Result<Beginning, RecordError> {
    let ours = Cancelled { v: VERSION, cancelled: true };
    if let Some(there) = beginning(directory)? {
        return Ok(there);
    }
    if put_if_absent(directory, "cancel.tmp", &ours)? {
        return Ok(Beginning::Cancelled);
    }
    // A launcher came first, a moment ago.
    beginning(directory)?.ok_or_else(|| RecordError {
        path: directory.join(STARTED),
        source: io::ErrorKind::NotFound.into(),
    })
}

fn beginning(directory: &Path) -> Result<Option<Beginning>, RecordError> {
    let path = directory.join(STARTED);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError { path, source }),
    };
    let newer = |source: &io::Error| source.kind() == io::ErrorKind::Unsupported;
    if let Some(source) = check_version(&text).err().filter(newer) {
        return Err(RecordError { path, source });
    }
    if serde_json::from_slice::<Cancelled>(&text).is_ok_and(|c| c.cancelled) {
        return Ok(Some(Beginning::Cancelled));
    }
    parse(path, &text).map(|started| Some(Beginning::Started(started)))
}

/// Room on the disk, and the open file, for the record of the end.
#[derive(Debug)]
pub struct EndRoom {
    file: File,
    from: PathBuf,
    to: PathBuf,
}

/// Takes the room for the record of the end.
///
/// # Errors
/// [`RecordError`] when the disk has none.
pub fn reserve_end(directory: &Path) -> Result<EndRoom, RecordError> {
    let (from, to) = (directory.join("exit.tmp"), directory.join(ENDED));
    let reserved = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&from)
        // Spaces, which may stand after the record too.
        .and_then(|file| file.write_all_at(&[b' '; END_ROOM], 0).map(|()| file));
    match reserved {
        Ok(file) => Ok(EndRoom { file, from, to }),
        Err(source) => Err(RecordError { path: from, source }),
    }
}

impl EndRoom {
    /// Puts the record of the end in place. Needs no more of the disk unless the
    /// record is longer than any of a program that ran.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn write(self, record: &Ended) -> Result<(), RecordError> {
        let Self { file, from, to } = self;
        // Not synced: after a power cut a lost or unreadable record means that the
        // restart of the machine ended the container, and that is what is reported.
        serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|text| file.write_all_at(&text, 0))
            .and_then(|()| fs::rename(&from, &to))
            .map_err(|source| RecordError { path: to, source })
    }
}

/// The record of the start, if there is one.
///
/// # Errors
/// [`RecordError`] for one that cannot be understood.
pub fn started(directory: &Path) -> Result<Option<Started>, RecordError> {
    read(directory.join(STARTED))
}

/// The record of the end, if there is one.
///
/// # Errors
/// [`RecordError`] for one that cannot be understood.
pub fn ended(directory: &Path) -> Result<Option<Ended>, RecordError> {
    read(directory.join(ENDED))
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Result<Option<T>, RecordError> {
    match fs::read(&path) {
        Ok(text) => parse(path, &text).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RecordError { path, source }),
    }
}

fn parse<T: DeserializeOwned>(path: PathBuf, text: &[u8]) -> Result<T, RecordError> {
    match check_version(text) {
        Ok(()) => {}
        Err(source) => return Err(RecordError { path, source }),
    }
    serde_json::from_slice(text).map_err(|e| RecordError { path, source: malformed(e) })
}

fn malformed(error: serde_json::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A record of a newer version is not malformed: a newer agent understands it, and
/// until one does nothing is done to its container.
fn check_version(text: &[u8]) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } = serde_json::from_slice(text).map_err(malformed)?;
    if v <= VERSION {
        return Ok(());
    }
    let text = format!(
        "it has version {v}, but this agent knows only versions up to {VERSION}; start the newer \
         agent again"
    );
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// A hard link, unlike a rename, fails where a file is: exactly one of launcher and
/// recovering agent wins.
fn put_if_absent(
    directory: &Path,
    temporary: &str,
    record: &impl Serialize,
) -> Result<bool, RecordError> {
    let (from, to) = (directory.join(temporary), directory.join(STARTED));
    let failed = |source| RecordError { path: to.clone(), source };
    write_file(&from, record).map_err(failed)?;
    let linked = fs::hard_link(&from, &to);
    let _ = fs::remove_file(&from);
    match linked {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(failed(source)),
    }
}

fn write_file(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(&serde_json::to_vec(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Started {
        let process = Process { pid: 1, start: 2 };
        Started { v: VERSION, boot_id: "b".into(), launcher: process, child: process }
    }

    #[test]
    fn a_launcher_that_comes_after_the_cancellation_must_not_start() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cancel(dir.path()).unwrap(), Beginning::Cancelled);
        assert!(!write_started(dir.path(), &record()).unwrap());
        assert_eq!(cancel(dir.path()).unwrap(), Beginning::Cancelled);
    }

    #[test]
    fn a_cancellation_that_comes_after_the_start_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_started(dir.path(), &record()).unwrap());
        assert_eq!(cancel(dir.path()).unwrap(), Beginning::Started(record()));
        assert_eq!(started(dir.path()).unwrap(), Some(record()));
    }

    #[test]
    fn an_end_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ended(dir.path()).unwrap(), None);
        let end = Ended { v: VERSION, wait_status: Some(256), failure: None };
        let room = reserve_end(dir.path()).unwrap();
        assert_eq!(ended(dir.path()).unwrap(), None, "room is no record");
        room.write(&end).unwrap();
        assert_eq!(ended(dir.path()).unwrap(), Some(end));
    }

    #[test]
    fn a_failure_longer_than_the_room_is_read_back_too() {
        let dir = tempfile::tempdir().unwrap();
        let failure = Some("x".repeat(2 * END_ROOM));
        let end = Ended { v: VERSION, wait_status: None, failure };
        reserve_end(dir.path()).unwrap().write(&end).unwrap();
        assert_eq!(ended(dir.path()).unwrap(), Some(end));
    }

    #[test]
    fn what_cannot_be_read_is_told_apart_from_what_cannot_be_understood() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", "{\"v\":1}", "\u{0}"] {
            fs::write(dir.path().join(STARTED), text).unwrap();
            assert!(cancel(dir.path()).unwrap_err().is_malformed(), "{text:?}");
        }
        fs::remove_file(dir.path().join(STARTED)).unwrap();
        fs::create_dir(dir.path().join(STARTED)).unwrap();
        assert!(!cancel(dir.path()).unwrap_err().is_malformed());
    }
}
