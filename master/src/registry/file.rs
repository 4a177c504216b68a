//! A registry in one redb file: ACID, and durable when `apply` returns.

use std::{
    error::Error as StdError,
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableTable, TableDefinition,
    TableError, WriteTransaction,
};

use super::{Registry, RegistryError, RegistryOp, RegistrySnapshot, agent_key, framework_key};

const AGENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("agents");
const FRAMEWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("frameworks");
const WEIGHTS: TableDefinition<'_, &str, f64> = TableDefinition::new("weights");

/// The whole registry of a large cluster fits; redb's own default is 1 GiB.
const CACHE_BYTES: usize = 32 << 20;

type Source = Box<dyn StdError + Send + Sync>;

/// The default registry. The file is locked for as long as this lives.
#[derive(Debug)]
pub struct FileRegistry {
    path: PathBuf,
    database: Arc<Database>,
}

impl FileRegistry {
    /// Opens the file, or makes it. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// [`RegistryError::Locked`] when another process (or this one) has it open;
    /// [`RegistryError::Store`] when it cannot be made, read, or is no registry.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = builder.create(path).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => {
                RegistryError::Locked { place: path.display().to_string() }
            }
            e => store(path, "opening it", e),
        })?;
        Ok(Self { path: path.to_owned(), database: Arc::new(database) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Database, &Path) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (database, path) = (self.database.clone(), self.path.clone());
        match tokio::task::spawn_blocking(move || work(&database, &path)).await {
            Ok(result) => result,
            Err(e) => Err(store(&self.path, doing, e)),
        }
    }
}

impl Registry for FileRegistry {
    async fn load(&mut self) -> Result<RegistrySnapshot, RegistryError> {
        self.blocking("reading it", read_all).await
    }

    async fn apply(&mut self, ops: Vec<RegistryOp>) -> Result<(), RegistryError> {
        self.blocking("writing to it", move |database, path| {
            write(database, &ops).map_err(|e| store(path, "writing to it", e))
        })
        .await
    }
}

fn store(path: &Path, doing: &'static str, source: impl Into<Source>) -> RegistryError {
    RegistryError::Store { place: path.display().to_string(), doing, source: source.into() }
}

fn read_all(database: &Database, path: &Path) -> Result<RegistrySnapshot, RegistryError> {
    let failed = |e: redb::Error| store(path, "reading it", e);
    let tx = redb::ReadableDatabase::begin_read(database).map_err(|e| failed(e.into()))?;
    let mut weights = Vec::new();
    if let Some(table) = existing(tx.open_table(WEIGHTS)).map_err(failed)? {
        for entry in table.iter().map_err(|e| failed(e.into()))? {
            let (role, weight) = entry.map_err(|e| failed(e.into()))?;
            weights.push((role.value().to_owned(), weight.value()));
        }
    }
    Ok(RegistrySnapshot {
        agents: read_records(&tx, AGENTS, path)?,
        frameworks: read_records(&tx, FRAMEWORKS, path)?,
        weights,
    })
}

fn read_records<M: Message + Default>(
    tx: &ReadTransaction,
    definition: TableDefinition<'_, &'static str, &'static [u8]>,
    path: &Path,
) -> Result<Vec<M>, RegistryError> {
    let failed = |e: redb::Error| store(path, "reading it", e);
    let Some(table) = existing(tx.open_table(definition)).map_err(failed)? else {
        return Ok(Vec::new());
    };
    let mut records = Vec::new();
    for entry in table.iter().map_err(|e| failed(e.into()))? {
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let record = M::decode(value.value()).map_err(|e| RegistryError::Corrupt {
            place: path.display().to_string(),
            record: format!("{}/{}", redb::TableHandle::name(&definition), key.value()),
            source: e.into(),
        })?;
        records.push(record);
    }
    Ok(records)
}

/// A file that was never written to has no tables.
fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn write(database: &Database, ops: &[RegistryOp]) -> Result<(), Source> {
    let mut tx = database.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    apply_ops(&tx, ops)?;
    tx.commit()?;
    Ok(())
}

fn apply_ops(tx: &WriteTransaction, ops: &[RegistryOp]) -> Result<(), Source> {
    let mut agents = tx.open_table(AGENTS)?;
    let mut frameworks = tx.open_table(FRAMEWORKS)?;
    let mut weights = tx.open_table(WEIGHTS)?;
    for op in ops {
        match op {
            RegistryOp::PutAgent(record) => {
                agents.insert(agent_key(record), record.encode_to_vec().as_slice())?;
            }
            RegistryOp::RemoveAgent(id) => {
                agents.remove(id.as_str())?;
            }
            RegistryOp::PutFramework(record) => {
                frameworks.insert(framework_key(record), record.encode_to_vec().as_slice())?;
            }
            RegistryOp::RemoveFramework(id) => {
                frameworks.remove(id.as_str())?;
            }
            RegistryOp::PutWeight(role, weight) => {
                weights.insert(role.as_str(), *weight)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
