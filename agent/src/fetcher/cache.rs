//! Files kept for URIs with `cache` (rule 57): one for each user and URI.
//!
//! A file that is there is used as it is, however old: whoever changes what a URI names
//! gives it a new name or a checksum. The folder is emptied when the agent starts.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use super::{FetchReason, file_error};

/// What makes two requests the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Whose rights it is read with; none for the agent's own.
    pub(super) user: Option<String>,
    /// As the framework wrote it, checksum included.
    pub(super) uri: String,
}

/// A file and its size.
type Kept = (PathBuf, u64);

/// Its first user fetches; the others wait for that.
type Slot = Arc<OnceCell<Result<Kept, Arc<FetchReason>>>>;

#[derive(Debug)]
struct Entry {
    slot: Slot,
    users: usize,
    last_use: u64,
}

impl Entry {
    fn kept(&self) -> Option<&Kept> {
        self.slot.get()?.as_ref().ok()
    }
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// Grows by one with each use.
    uses: u64,
    files: u64,
}

/// The cache. Its lock is held for moments only.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    limit: u64,
    state: Mutex<State>,
}

/// A file that stays as long as this.
#[derive(Debug)]
pub(super) struct InUse {
    cache: Arc<Cache>,
    key: Key,
    slot: Slot,
}

impl Cache {
    pub(super) fn new(folder: PathBuf, limit: u64) -> io::Result<Self> {
        // What is read with one user's rights is no other user's to read.
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self { folder, limit, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of `key`; `fetch` makes it when it is not there. Those that ask for the
    /// same one meanwhile wait, and get the same failure; should the first be cut short,
    /// the next one fetches.
    pub(super) async fn get(
        self: &Arc<Self>,
        key: Key,
        fetch: impl AsyncFnOnce(&Path) -> Result<(), FetchReason>,
    ) -> Result<InUse, FetchReason> {
        let slot = {
            let mut state = self.state();
            state.uses += 1;
            let last_use = state.uses;
            let new = || Entry { slot: Slot::default(), users: 0, last_use };
            let entry = state.entries.entry(key.clone()).or_insert_with(new);
            entry.users += 1;
            entry.last_use = last_use;
            Arc::clone(&entry.slot)
        };
        let in_use = InUse { cache: Arc::clone(self), key, slot };
        let got = in_use.slot.get_or_init(async || {
            // Never the same name twice: what was cut short may still be written to.
            let path = {
                let mut state = self.state();
                state.files += 1;
                self.folder.join(state.files.to_string())
            };
            let partial = super::place::Partial { path: path.clone() };
            fetch(&path).await?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .map_err(file_error("making it private"))?;
            let size = fs::metadata(&path).map_err(file_error("looking at it"))?.len();
            partial.keep();
            Ok((path, size))
        });
        match got.await {
            Ok(_) => Ok(in_use),
            Err(reason) => Err(FetchReason::Shared(Arc::clone(reason))),
        }
    }

    /// Removes what failed, and the files longest unused while there are too many.
    fn tidy(&self, state: &mut State) -> Vec<PathBuf> {
        let mut removed = Vec::new();
        state.entries.retain(|_, entry| entry.users > 0 || entry.kept().is_some());
        let mut total: u64 = state.entries.values().filter_map(|entry| Some(entry.kept()?.1)).sum();
        while total > self.limit {
            let unused = state.entries.iter().filter(|(_, entry)| entry.users == 0);
            let Some(key) = unused.min_by_key(|(_, entry)| entry.last_use).map(|(key, _)| key)
            else {
                break;
            };
            let key = key.clone();
            if let Some((path, size)) =
                state.entries.remove(&key).and_then(|entry| entry.kept().cloned())
            {
                total -= size;
                removed.push(path);
            }
        }
        removed
    }

    #[cfg(test)]
    pub(super) fn files(&self) -> usize {
        fs::read_dir(&self.folder).map_or(0, Iterator::count)
    }
}

impl InUse {
    pub(super) fn path(&self) -> PathBuf {
        let kept = self.slot.get().and_then(|kept| kept.as_ref().ok());
        kept.map(|(path, _)| path.clone()).unwrap_or_default()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let removed = {
            let mut state = self.cache.state();
            let failed = matches!(self.slot.get(), Some(Err(_)));
            if let Some(entry) = state.entries.get_mut(&self.key)
                && Arc::ptr_eq(&entry.slot, &self.slot)
            {
                entry.users -= 1;
                // Whoever comes from now on tries anew.
                if failed {
                    state.entries.remove(&self.key);
                }
            }
            self.cache.tidy(&mut state)
        };
        if removed.is_empty() {
            return;
        }
        let remove = move || {
            for path in removed {
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "a cached file was not removed");
                }
            }
        };
        // Large files take a while to be removed.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
