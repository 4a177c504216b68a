//! What readers see of the agent: kept beside the core, so that no read waits
//! for a decision.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::Duration,
};

use mezz_proto::{
    ids::{AgentId, ContainerId},
    time::Time,
    v1::DrainConfig,
};

use crate::core::{Change, SandboxRecord, TaskKey};

/// Sandboxes of ended containers that are kept at most; the oldest go first,
/// however young they are, so that a flood of short tasks fills neither memory
/// nor disk.
const MAX_ENDED: usize = 20_000;

/// Tasks of one executor that are remembered after their end, beside those that it
/// began with: one executor may run millions.
const MAX_PASSED: usize = 1000;

/// A container and its sandbox, alive or not yet collected.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: SandboxRecord,
    pub(crate) pid: Option<u32>,
    /// When it was last measured.
    pub(crate) disk: Option<DiskUse>,
}

/// Whose files a container's sandbox holds.
#[derive(Debug, Default)]
struct Inhabitants {
    /// Remembered for as long as the sandbox is.
    lasting: HashSet<TaskKey>,
    /// Of the others those that have ended, the oldest first.
    passed: VecDeque<TaskKey>,
}

/// What a sandbox holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskUse {
    pub(crate) used: u64,
    /// What it may hold, if its tasks have disk at all.
    pub(crate) limit: Option<u64>,
}

/// Where a task's files are, and whether more may come.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) sandbox: PathBuf,
    pub(crate) live: bool,
}

#[derive(Debug, Default)]
struct State {
    agent_id: Option<AgentId>,
    master: Option<String>,
    drain: Option<(DrainConfig, Time)>,
    containers: BTreeMap<ContainerId, Entry>,
    inhabitants: HashMap<ContainerId, Inhabitants>,
    /// Ended ones by their end.
    ended: BTreeSet<(u64, ContainerId)>,
    tasks: HashMap<TaskKey, ContainerId>,
    live: HashSet<TaskKey>,
    /// By the folder that they are in: those of one executor.
    runs: HashMap<PathBuf, BTreeSet<ContainerId>>,
    /// Those folders by framework and executor.
    folders: HashMap<(String, String), PathBuf>,
}

/// The read model. Its lock is held for moments only.
#[derive(Debug, Default)]
pub(crate) struct Index(RwLock<State>);

impl Index {
    /// With what the store knows of earlier runs.
    pub(crate) fn new(
        agent_id: Option<AgentId>,
        sandboxes: Vec<SandboxRecord>,
        tasks: Vec<(ContainerId, TaskKey)>,
    ) -> Self {
        let mut state = State { agent_id, ..State::default() };
        for record in sandboxes {
            state.add(record);
        }
        for (container, task) in tasks {
            state.place(task, container, false);
        }
        Self(RwLock::new(state))
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn apply(&self, change: Change) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Registered { agent_id, master } => {
                state.agent_id = Some(agent_id);
                state.master = Some(master);
            }
            Change::Disconnected => state.master = None,
            Change::Drain(drain) => state.drain = drain,
            Change::ContainerAdded(record) => state.add(record),
            Change::ContainerRunning { container, pid } => {
                if let Some(entry) = state.containers.get_mut(&container) {
                    entry.pid = Some(pid);
                }
            }
            Change::ContainerEnded { container, at } => {
                if let Some(entry) = state.containers.get_mut(&container) {
                    entry.pid = None;
                    entry.record.ended_at = Some(at.as_nanos());
                    state.ended.insert((at.as_nanos(), container));
                }
            }
            Change::TaskAdded { task, container, passing } => {
                state.live.insert(task.clone());
                state.place(task, container, passing);
            }
            Change::TaskUpdated { task, state: new, .. } => {
                if new.is_terminal() && state.live.remove(&task) {
                    state.pass(task);
                }
            }
            // For the others.
            Change::Framework(_)
            | Change::FrameworkForgotten(_)
            | Change::ExecutorAdded { .. }
            | Change::ExecutorSubscribed { .. }
            | Change::Intake { .. }
            | Change::ExecutorForgotten(_)
            | Change::Task { .. }
            | Change::TaskLaunched(_)
            | Change::TaskForgotten(_) => {}
        }
    }

    pub(crate) fn agent_id(&self) -> Option<AgentId> {
        self.read(|state| state.agent_id.clone())
    }

    pub(crate) fn master(&self) -> Option<String> {
        self.read(|state| state.master.clone())
    }

    /// What the operator wants of a drain, and since when, in whole seconds as Mesos tells it.
    pub(crate) fn drain(&self) -> Option<(DrainConfig, u64)> {
        let second = |time: Time| time.as_nanos() / 1_000_000_000;
        self.read(|state| state.drain.map(|(config, since)| (config, second(since))))
    }

    /// Containers that have not ended.
    pub(crate) fn running(&self) -> Vec<Entry> {
        self.read(|state| {
            let live = state.containers.values().filter(|entry| entry.record.ended_at.is_none());
            live.cloned().collect()
        })
    }

    /// Where a task's files are; `None` when it was never here, or they were
    /// collected.
    pub(crate) fn files(&self, task: &TaskKey) -> Option<Files> {
        self.read(|state| {
            let entry = state.containers.get(state.tasks.get(task)?)?;
            let sandbox = PathBuf::from(&entry.record.path);
            Some(Files { sandbox, live: state.live.contains(task) })
        })
    }

    /// The container that a task runs in, unless it has ended.
    pub(crate) fn container(&self, task: &TaskKey) -> Option<ContainerId> {
        self.read(|state| {
            let container = state.tasks.get(task).filter(|_| state.live.contains(task))?;
            let entry = state.containers.get(container)?;
            entry.record.ended_at.is_none().then(|| container.clone())
        })
    }

    /// Sandboxes whose time is over, the oldest first.
    pub(crate) fn expired(&self, now: Time, retention: Duration) -> Vec<SandboxRecord> {
        let before = (now - retention).as_nanos();
        self.read(|state| {
            let excess = state.ended.len().saturating_sub(MAX_ENDED);
            let due = state.ended.iter().enumerate();
            due.take_while(|(at, (ended, _))| *at < excess || *ended <= before)
                .filter_map(|(_, (_, container))| state.containers.get(container))
                .map(|entry| entry.record.clone())
                .collect()
        })
    }

    pub(crate) fn measured(&self, container: &ContainerId, disk: DiskUse) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = state.containers.get_mut(container) {
            entry.disk = Some(disk);
        }
    }

    /// Where a container's sandbox is, until it is collected.
    pub(crate) fn sandbox(&self, container: &ContainerId) -> Option<PathBuf> {
        self.read(|state| state.containers.get(container).map(|e| PathBuf::from(&e.record.path)))
    }

    /// Where the sandboxes of an executor are: each in a folder with its container's id.
    pub(crate) fn folder(&self, framework: &str, executor: &str) -> Option<PathBuf> {
        let key = (framework.to_owned(), executor.to_owned());
        self.read(|state| state.folders.get(&key).cloned())
    }

    /// The newest sandbox in such a folder.
    pub(crate) fn latest(&self, folder: &Path) -> Option<PathBuf> {
        self.read(|state| {
            let all = state.runs.get(folder)?.iter();
            let entries = all.filter_map(|container| state.containers.get(container));
            // One that has not ended is newer than any that has.
            let newest = entries.max_by_key(|e| e.record.ended_at.unwrap_or(u64::MAX))?;
            Some(PathBuf::from(&newest.record.path))
        })
    }

    /// Whether this folder is a sandbox that is not collected.
    pub(crate) fn is_sandbox(&self, folder: &Path) -> bool {
        // A sandbox has its container's id as its name.
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { return false };
        self.read(|state| {
            let entry = state.containers.get(&ContainerId::new(name));
            entry.is_some_and(|entry| Path::new(&entry.record.path) == folder)
        })
    }

    /// Whether a sandbox that is not collected is in this folder.
    pub(crate) fn has_below(&self, folder: &Path) -> bool {
        self.read(|state| {
            let mut all = state.containers.values();
            all.any(|entry| Path::new(&entry.record.path).starts_with(folder))
        })
    }

    /// Forgets a collected sandbox.
    pub(crate) fn forget(&self, container: &ContainerId) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = state.containers.remove(container) else { return };
        if let Some(ended) = entry.record.ended_at {
            state.ended.remove(&(ended, container.clone()));
        }
        if let Some(folder) = Path::new(&entry.record.path).parent()
            && let Some(runs) = state.runs.get_mut(folder)
        {
            runs.remove(container);
            if runs.is_empty() {
                state.runs.remove(folder);
                let key = (entry.record.framework_id, entry.record.executor_id);
                state.folders.remove(&key);
            }
        }
        let Some(inhabitants) = state.inhabitants.remove(container) else { return };
        for task in inhabitants.lasting.into_iter().chain(inhabitants.passed) {
            state.leave(&task, container);
        }
    }
}

impl State {
    fn add(&mut self, record: SandboxRecord) {
        let container = ContainerId::new(&record.container_id);
        if let Some(ended) = record.ended_at {
            self.ended.insert((ended, container.clone()));
        }
        let path = Path::new(&record.path);
        // A member's sandbox lies in its pod's, and is no run of the executor.
        if let Some(folder) = path.parent().filter(|folder| folder.ends_with("runs")) {
            self.runs.entry(folder.to_owned()).or_default().insert(container.clone());
            let key = (record.framework_id.clone(), record.executor_id.clone());
            self.folders.insert(key, folder.to_owned());
        }
        match self.containers.get_mut(&container) {
            Some(known) => known.record = record,
            None => {
                let entry = Entry { record, pid: None, disk: None };
                self.containers.insert(container, entry);
            }
        }
    }

    fn place(&mut self, task: TaskKey, container: ContainerId, passing: bool) {
        if self.containers.contains_key(&container) {
            let inhabitants = self.inhabitants.entry(container.clone()).or_default();
            if !passing {
                inhabitants.lasting.insert(task.clone());
            }
        }
        let newer = self.tasks.get(&task).is_none_or(|known| {
            let ended = |id| self.containers.get(id).and_then(|entry| entry.record.ended_at);
            match (ended(&container), ended(known)) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(new), Some(old)) => new >= old,
            }
        });
        if newer {
            self.tasks.insert(task, container);
        }
    }

    /// A task has ended.
    fn pass(&mut self, task: TaskKey) {
        let Some(container) = self.tasks.get(&task).cloned() else { return };
        let Some(inhabitants) = self.inhabitants.get_mut(&container) else {
            self.tasks.remove(&task);
            return;
        };
        if inhabitants.lasting.contains(&task) {
            return;
        }
        inhabitants.passed.push_back(task);
        if inhabitants.passed.len() > MAX_PASSED
            && let Some(oldest) = inhabitants.passed.pop_front()
            // Its id may be in use again.
            && !self.live.contains(&oldest)
        {
            self.leave(&oldest, &container);
        }
    }

    /// Forgets that a task was in this container.
    fn leave(&mut self, task: &TaskKey, container: &ContainerId) {
        // The same id may have been used again, in another container.
        if self.tasks.get(task) == Some(container) {
            self.tasks.remove(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(container: &str, ended_at: Option<u64>) -> SandboxRecord {
        SandboxRecord {
            container_id: container.into(),
            framework_id: "f".into(),
            executor_id: "t".into(),
            path: format!("/{container}"),
            ended_at,
        }
    }

    fn task() -> TaskKey {
        TaskKey { framework: "f".into(), task: "t".into() }
    }

    #[test]
    fn only_a_task_that_runs_has_a_container() {
        let tasks = vec![("a".into(), task())];
        let index = Index::new(None, vec![record("a", None)], tasks);
        assert_eq!(index.container(&task()), None, "it is not known to be alive");
        let added = Change::TaskAdded { task: task(), container: "a".into(), passing: false };
        index.apply(added);
        assert_eq!(index.container(&task()), Some("a".into()));
        let state = mezz_proto::v1::TaskState::TaskKilled;
        index.apply(Change::TaskUpdated { task: task(), state, status: Default::default() });
        assert_eq!(index.container(&task()), None);
    }

    #[test]
    fn a_task_id_used_again_shows_the_newest_sandbox() {
        let tasks = vec![("b".into(), task()), ("a".into(), task())];
        let index = Index::new(None, vec![record("a", Some(1)), record("b", Some(2))], tasks);
        assert_eq!(index.files(&task()).unwrap().sandbox, PathBuf::from("/b"));
        index.forget(&"a".into());
        assert_eq!(index.files(&task()).unwrap().sandbox, PathBuf::from("/b"));
        index.forget(&"b".into());
        assert!(index.files(&task()).is_none());
    }

    /// Each costs the same, however many there were.
    #[test]
    fn an_executor_of_many_tasks_is_found_by_the_first_and_the_latest() {
        const MANY: usize = 100_000;
        let named = |n: usize| TaskKey { framework: "f".into(), task: format!("{n}").into() };
        let index = Index::new(None, vec![record("a", None)], Vec::new());
        for n in 0..MANY {
            let (task, container) = (named(n), "a".into());
            index.apply(Change::TaskAdded { task, container, passing: n > 0 });
            assert!(index.files(&named(n)).is_some_and(|files| files.live));
            let state = mezz_proto::v1::TaskState::TaskFinished;
            let status = Default::default();
            index.apply(Change::TaskUpdated { task: named(n), state, status });
        }
        for known in [0, MANY - MAX_PASSED, MANY - 1] {
            assert!(index.files(&named(known)).is_some_and(|files| !files.live), "{known}");
        }
        assert!(index.files(&named(MANY - MAX_PASSED - 1)).is_none());
        assert_eq!(index.read(|state| state.tasks.len()), MAX_PASSED + 1);
        index.forget(&"a".into());
        assert_eq!(index.read(|state| (state.tasks.len(), state.inhabitants.len())), (0, 0));
    }

    #[test]
    fn sandboxes_expire_by_age_and_only_when_ended() {
        let all = vec![record("a", Some(1)), record("b", Some(5_000_000_000)), record("c", None)];
        let index = Index::new(None, all, Vec::new());
        let expired = index.expired(Time::from_secs(4), Duration::from_secs(2));
        assert_eq!(expired, [record("a", Some(1))]);
    }

    #[test]
    fn more_than_the_most_expire_however_young() {
        let at = |n: usize| u64::try_from(n).unwrap() + 1_000_000_000;
        let all = (0..MAX_ENDED + 2).map(|n| record(&format!("{n}"), Some(at(n)))).collect();
        let index = Index::new(None, all, Vec::new());
        let expired = index.expired(Time::from_secs(2), Duration::from_secs(1000));
        assert_eq!(expired.len(), 2);
        assert_eq!(expired[0].container_id, "0");
    }
}
