//! Files kept for URIs with `cache` (rule 57): one for each user and URI.
//!
//! A file that is there is used as it is, however old: whoever changes what a URI names
//! gives it a new name or a checksum. The folder is emptied when the agent starts.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{FetchReason, file_error, turns::Turn};

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

/// How far a file is.
#[derive(Debug)]
enum Content {
    /// Whoever has a turn first fetches.
    Wanted,
    Coming,
    Here(Kept),
    Failed(Arc<FetchReason>),
}

type Slot = Arc<watch::Sender<Content>>;

#[derive(Debug)]
struct Entry {
    slot: Slot,
    users: usize,
    last_use: u64,
}

impl Entry {
    fn kept(&self) -> Option<Kept> {
        kept(&self.slot)
    }
}

fn kept(slot: &Slot) -> Option<Kept> {
    match &*slot.borrow() {
        Content::Here(kept) => Some(kept.clone()),
        _ => None,
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

    /// The file of `key`; `fetch` makes it when it is not there, in a turn. Those that
    /// ask for the same one meanwhile wait, and get the same failure; should the first be
    /// cut short, the next one fetches. Nobody waits for the turn of another.
    pub(super) async fn get<T, F>(
        self: &Arc<Self>,
        key: Key,
        turn: impl Fn() -> T,
        fetch: impl FnOnce(PathBuf, Turn) -> F,
    ) -> Result<InUse, FetchReason>
    where
        T: Future<Output = Turn>,
        F: Future<Output = Result<(), FetchReason>>,
    {
        let in_use = self.enter(key);
        let slot = &Arc::clone(&in_use.slot);
        let mut content = slot.subscribe();
        let turn = loop {
            let coming = match &*content.borrow_and_update() {
                Content::Here(_) => return Ok(in_use),
                Content::Failed(reason) => return Err(FetchReason::Shared(Arc::clone(reason))),
                Content::Coming => true,
                Content::Wanted => false,
            };
            let turn = tokio::select! {
                biased;
                // The sender lives as long as `in_use`.
                _ = content.changed() => continue,
                turn = turn(), if !coming => turn,
            };
            let mine = slot.send_if_modified(|content| {
                let mine = matches!(content, Content::Wanted);
                if mine {
                    *content = Content::Coming;
                }
                mine
            });
            if mine {
                break turn;
            }
        };
        let _fetching = Fetching(Arc::clone(slot));
        match self.fetch(|to| fetch(to, turn)).await {
            Ok(kept) => {
                slot.send_replace(Content::Here(kept));
            }
            Err(reason) => {
                let reason = Arc::new(reason);
                slot.send_replace(Content::Failed(Arc::clone(&reason)));
                return Err(FetchReason::Shared(reason));
            }
        }
        Ok(in_use)
    }

    /// Enters a use.
    fn enter(self: &Arc<Self>, key: Key) -> InUse {
        let mut state = self.state();
        state.uses += 1;
        let last_use = state.uses;
        let new =
            || Entry { slot: Arc::new(watch::channel(Content::Wanted).0), users: 0, last_use };
        let entry = state.entries.entry(key.clone()).or_insert_with(new);
        entry.users += 1;
        entry.last_use = last_use;
        let slot = Arc::clone(&entry.slot);
        InUse { cache: Arc::clone(self), key, slot }
    }

    async fn fetch<F>(&self, fetch: impl FnOnce(PathBuf) -> F) -> Result<Kept, FetchReason>
    where
        F: Future<Output = Result<(), FetchReason>>,
    {
        // Never the same name twice: what was cut short may still be written to.
        let path = {
            let mut state = self.state();
            state.files += 1;
            self.folder.join(state.files.to_string())
        };
        let partial = super::place::Partial { path: path.clone() };
        fetch(path.clone()).await?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(file_error("making it private"))?;
        let size = fs::metadata(&path).map_err(file_error("looking at it"))?.len();
        partial.keep();
        Ok((path, size))
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
            if let Some((path, size)) = state.entries.remove(&key).and_then(|entry| entry.kept()) {
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

/// A fetch that goes on. Cut short, it leaves the file to others.
struct Fetching(Slot);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.send_if_modified(|content| {
            let cut_short = matches!(content, Content::Coming);
            if cut_short {
                *content = Content::Wanted;
            }
            cut_short
        });
    }
}

impl InUse {
    pub(super) fn path(&self) -> PathBuf {
        kept(&self.slot).map(|(path, _)| path).unwrap_or_default()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let removed = {
            let mut state = self.cache.state();
            let failed = matches!(&*self.slot.borrow(), Content::Failed(_));
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
