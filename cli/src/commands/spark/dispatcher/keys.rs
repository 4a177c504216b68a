//! The keys of the dispatcher that leads, in etcd: what the dispatcher's crate, which knows
//! no etcd, asks for, by what the masters have.

use mezz_master::{
    election::{Fenced, FencedError, Won},
    etcd::Etcd,
};
use mezz_spark::dispatcher::{
    keyed::{Folder, KeyChange, Keyspace},
    store::StoreError,
};

/// Those that this leadership may write.
pub struct LeaderKeys(Fenced);

impl LeaderKeys {
    /// Of the leadership that was won.
    pub fn new(etcd: Etcd, won: Won) -> Self {
        Self(Fenced::new(etcd, won.fence, won.tenure))
    }

    fn error(&self, error: FencedError) -> StoreError {
        match error {
            FencedError::Deposed { place } => StoreError::Deposed { place },
            FencedError::Etcd(error) => StoreError::Shared {
                place: self.place(),
                may_pass: error.may_pass(),
                source: error.into(),
            },
        }
    }
}

impl Keyspace for LeaderKeys {
    fn place(&self) -> String {
        self.0.place().to_owned()
    }

    fn holds(&self) -> bool {
        self.0.holds()
    }

    async fn read(&mut self, folders: &[&str]) -> Result<Vec<Folder>, StoreError> {
        let prefixes: Vec<String> = folders.iter().map(|f| self.0.keys().folder(f)).collect();
        let found = self.0.read(&prefixes).await.map_err(|error| self.error(error))?;
        let name = |prefix: &String, key: &[u8]| {
            String::from_utf8_lossy(key.strip_prefix(prefix.as_bytes()).unwrap_or(key)).into_owned()
        };
        Ok(prefixes
            .iter()
            .zip(found)
            .map(|(prefix, keys)| {
                keys.iter().map(|kv| (name(prefix, kv.key()), kv.value().to_vec())).collect()
            })
            .collect())
    }

    async fn write(&mut self, changes: Vec<KeyChange>) -> Result<(), StoreError> {
        let root = self.0.keys().root();
        let changes =
            changes.into_iter().map(|(key, value)| (format!("{root}/{key}"), value)).collect();
        self.0.apply(changes).await.map_err(|error| self.error(error))
    }
}
