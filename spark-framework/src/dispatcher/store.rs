//! What a dispatcher remembers over restarts.

use std::{
    error::Error as StdError,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, DatabaseError, Durability, ReadableTable, TableDefinition, TableError};
use thiserror::Error;

use super::core::Submission;

const SUBMISSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("submissions");
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");

const FRAMEWORK: &str = "framework";
const NEXT: &str = "next";
const FILE_KEY: &str = "file-key";

/// More is not needed for a few hundred records.
const CACHE_BYTES: usize = 4 << 20;

/// All that is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The dispatcher's framework, once it has one.
    pub framework: Option<String>,
    /// Above the number of every submission that ever was.
    pub next: u64,
    /// What makes the addresses of uploaded files, once there is one.
    pub file_key: Option<String>,
    /// In no order.
    pub submissions: Vec<Submission>,
}

/// A change.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOp {
    /// A new or changed submission.
    Put(Box<Submission>),
    /// A forgotten one.
    Remove(String),
    /// The framework's id; `None` when the master has forgotten it.
    Framework(Option<String>),
    /// What makes the addresses of uploaded files.
    FileKey(String),
}

/// Keeps what a dispatcher must not lose.
pub trait SubmissionStore: Send + 'static {
    /// Everything.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn load(&mut self) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Makes these changes and returns when they are durable.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not known which of them were made: each record wholly
    /// or not at all.
    fn apply(&mut self, ops: Vec<StoreOp>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether this dispatcher may still act on what is stored.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] when another one may have taken over.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether other dispatchers take over what is stored.
    fn is_shared(&self) -> bool {
        false
    }
}

/// What is behind an error.
pub type Source = Box<dyn StdError + Send + Sync>;

/// Why something could not be stored or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another dispatcher has it.
    #[error(
        "{} is in use by another dispatcher; stop that one, or choose another --work-dir",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// This dispatcher leads no more, so it may not write.
    #[error("this dispatcher leads no more; what is in {place} is another one's to write")]
    Deposed {
        /// An address.
        place: String,
    },
    /// What is shared with other dispatchers cannot be read or written.
    #[error("the submissions in {place}")]
    Shared {
        /// An address.
        place: String,
        /// Whether the same may succeed later.
        may_pass: bool,
        /// Why.
        #[source]
        source: Source,
    },
    /// A record makes no sense.
    #[error("{place}: {record} makes no sense")]
    Corrupt {
        /// A file or an address.
        place: String,
        /// Which record.
        record: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// The file cannot be read or written.
    #[error("{doing} {}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
}

impl StoreError {
    /// Whether it is for another dispatcher to go on, or for this one when it leads again.
    pub(super) fn is_anothers_turn(&self) -> bool {
        matches!(self, Self::Deposed { .. } | Self::Shared { may_pass: true, .. })
    }
}

/// A store in one file, which only its owner can read: settings may be secret.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    database: Arc<Database>,
}

impl FileStore {
    /// Opens the file, or makes it. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process (or this one) has it open;
    /// [`StoreError::Failed`] when it cannot be made or read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source: Source| StoreError::Failed {
            path: path.to_owned(),
            doing: "cannot open",
            source,
        };
        private_file(path).map_err(|e| failed(e.into()))?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = builder.create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_owned() },
            error => failed(error.into()),
        })?;
        Ok(Self { path: path.to_owned(), database: Arc::new(database) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Database, &Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (database, path) = (self.database.clone(), self.path.clone());
        match tokio::task::spawn_blocking(move || work(&database, &path)).await {
            Ok(result) => result,
            Err(error) => {
                Err(StoreError::Failed { path: self.path.clone(), doing, source: error.into() })
            }
        }
    }
}

impl SubmissionStore for FileStore {
    async fn load(&mut self) -> Result<Snapshot, StoreError> {
        self.blocking("cannot read", read).await
    }

    async fn apply(&mut self, ops: Vec<StoreOp>) -> Result<(), StoreError> {
        self.blocking("cannot write to", move |database, path| {
            write(database, &ops).map_err(|source| StoreError::Failed {
                path: path.to_owned(),
                doing: "cannot write to",
                source,
            })
        })
        .await
    }
}

/// An empty file for its owner alone, unless there is one.
fn private_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => fs::File::open(path.parent().unwrap_or(Path::new("."))).and_then(|d| d.sync_all()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn read(database: &Database, path: &Path) -> Result<Snapshot, StoreError> {
    let failed =
        |source: Source| StoreError::Failed { path: path.to_owned(), doing: "cannot read", source };
    let tx = redb::ReadableDatabase::begin_read(database).map_err(|e| failed(e.into()))?;
    let mut snapshot = Snapshot::default();
    if let Some(meta) = existing(tx.open_table(META)).map_err(|e| failed(e.into()))? {
        let get = |key| -> Result<Option<String>, StoreError> {
            let value = meta.get(key).map_err(|e| failed(e.into()))?;
            Ok(value.map(|v| v.value().to_owned()))
        };
        snapshot.framework = get(FRAMEWORK)?;
        snapshot.file_key = get(FILE_KEY)?;
        if let Some(next) = get(NEXT)? {
            snapshot.next =
                next.parse().map_err(|e: std::num::ParseIntError| StoreError::Corrupt {
                    place: path.display().to_string(),
                    record: NEXT.to_owned(),
                    source: e.into(),
                })?;
        }
    }
    let Some(table) = existing(tx.open_table(SUBMISSIONS)).map_err(|e| failed(e.into()))? else {
        return Ok(snapshot);
    };
    for entry in table.iter().map_err(|e| failed(e.into()))? {
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let submission =
            serde_json::from_slice(value.value()).map_err(|e| StoreError::Corrupt {
                place: path.display().to_string(),
                record: key.value().to_owned(),
                source: e.into(),
            })?;
        snapshot.submissions.push(submission);
    }
    Ok(snapshot)
}

/// A file that was never written to has no tables.
fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, TableError> {
    match table {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => table.map(Some),
    }
}

fn write(database: &Database, ops: &[StoreOp]) -> Result<(), Source> {
    let mut tx = database.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    {
        let mut submissions = tx.open_table(SUBMISSIONS)?;
        let mut meta = tx.open_table(META)?;
        for op in ops {
            match op {
                StoreOp::Put(submission) => {
                    let bytes = serde_json::to_vec(submission)?;
                    submissions.insert(submission.id.as_str(), bytes.as_slice())?;
                    // A number is never given twice, also when its submission is gone.
                    let next = submission.seq.saturating_add(1);
                    let known = meta.get(NEXT)?.and_then(|n| n.value().parse().ok());
                    if known.is_none_or(|known: u64| known < next) {
                        meta.insert(NEXT, next.to_string().as_str())?;
                    }
                }
                StoreOp::Remove(id) => {
                    submissions.remove(id.as_str())?;
                }
                StoreOp::Framework(Some(id)) => {
                    meta.insert(FRAMEWORK, id.as_str())?;
                }
                StoreOp::Framework(None) => {
                    meta.remove(FRAMEWORK)?;
                }
                StoreOp::FileKey(key) => {
                    meta.insert(FILE_KEY, key.as_str())?;
                }
            }
        }
    }
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
pub(super) mod tests;
