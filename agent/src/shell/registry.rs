//! The containers that are being started or run, for the core's orders and the monitors.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use mezz_proto::{ids::ContainerId, resources::Resources};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::containerizer::{Limitation, Statistics};

/// What a container is to be held to, when that changes.
pub(super) type Bounds = Option<(Resources, BTreeMap<String, f64>)>;

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) sandbox: PathBuf,
    /// Ends it when cancelled.
    pub(super) destroy: CancellationToken,
    /// Only the newest bounds matter.
    pub(super) bounds: watch::Sender<Bounds>,
    held: Mutex<Resources>,
    running: AtomicBool,
    limitation: OnceLock<Limitation>,
    /// Cancelled when there is a `limitation`.
    pub(super) limited: CancellationToken,
    /// What it had used when last asked; none before the first time if it ran under an
    /// earlier agent, for whose time this one does not count.
    used: Mutex<Option<Statistics>>,
    /// Ports that it was reported for.
    pub(super) reported: Mutex<BTreeSet<u16>>,
    /// Whether too full a sandbox was reported, and not since emptied.
    pub(super) too_full: AtomicBool,
    /// Whether it was reported that its sandbox holds too much to be measured.
    pub(super) too_much_kept: AtomicBool,
    /// Whether it was reported that it has too many files open to be looked at.
    pub(super) too_many_open: AtomicBool,
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Container {
    fn new(id: ContainerId, sandbox: PathBuf, held: Resources, fresh: bool) -> Self {
        Self {
            id,
            sandbox,
            destroy: CancellationToken::new(),
            bounds: watch::channel(None).0,
            held: Mutex::new(held),
            running: AtomicBool::new(!fresh),
            limitation: OnceLock::new(),
            limited: CancellationToken::new(),
            used: Mutex::new(fresh.then(Statistics::default)),
            reported: Mutex::default(),
            too_full: AtomicBool::new(false),
            too_much_kept: AtomicBool::new(false),
            too_many_open: AtomicBool::new(false),
        }
    }

    /// What it holds now.
    pub(super) fn held(&self) -> Resources {
        lock(&self.held).clone()
    }

    pub(super) fn runs(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Ends it for what it took. The first reason counts.
    pub(super) fn limit(&self, limitation: Limitation) {
        let _ = self.limitation.set(limitation);
        self.limited.cancel();
    }

    /// Why it is to end, if by [`limit`](Self::limit).
    pub(super) fn limitation(&self) -> Option<Limitation> {
        self.limitation.get().cloned()
    }

    /// Keeps what it has used, and returns what it had used before.
    pub(super) fn replace_used(&self, now: Statistics) -> Option<Statistics> {
        lock(&self.used).replace(now)
    }
}

/// All of them. Its lock is held for moments only.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<BTreeMap<ContainerId, Arc<Container>>>);

impl Registry {
    /// `fresh` unless it ran before.
    pub(super) fn add(
        &self,
        id: ContainerId,
        sandbox: PathBuf,
        held: Resources,
        fresh: bool,
    ) -> Arc<Container> {
        let container = Arc::new(Container::new(id.clone(), sandbox, held, fresh));
        lock(&self.0).insert(id, Arc::clone(&container));
        container
    }

    pub(super) fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        lock(&self.0).get(id).cloned()
    }

    pub(super) fn remove(&self, id: &ContainerId) {
        lock(&self.0).remove(id);
    }

    pub(super) fn update(
        &self,
        id: &ContainerId,
        resources: Resources,
        limits: BTreeMap<String, f64>,
    ) {
        if let Some(container) = self.get(id) {
            *lock(&container.held) = resources.clone();
            container.bounds.send_replace(Some((resources, limits)));
        }
    }

    pub(super) fn running(&self) -> Vec<Arc<Container>> {
        let all = lock(&self.0);
        all.values().filter(|c| c.running.load(Ordering::Relaxed)).cloned().collect()
    }

    /// Whether a container that is not over lives in this folder or below it.
    pub(super) fn lives_in(&self, folder: &Path) -> bool {
        lock(&self.0).values().any(|container| container.sandbox.starts_with(folder))
    }
}
