//! Who runs here, and who did: frameworks, their executors and tasks, for the pages of
//! Mesos' tools. Kept beside the core from the changes that it tells of.
//!
//! What is shown is shared: a reader takes references while the lock is held and writes
//! its page after that.

mod slim;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};

use mezz_proto::{
    ids::{ContainerId, ExecutorId, FrameworkId, TaskId},
    pages::{hide_in_executor, hide_in_task},
    v1::{self, TaskState},
};

use crate::core::{Change, ExecutorKey, TaskKey};

/// Remembered after their end, the newest (rule 56).
const MAX_FRAMEWORKS: usize = 50;
const MAX_EXECUTORS: usize = 150;
const MAX_TASKS: usize = 200;

/// Ended tasks that are remembered of all frameworks together.
const MAX_ALL_TASKS: usize = 10_000;

/// An executor. A command task has one of its own here, since tools look for sandboxes
/// by executors; there is no such process (docs/adr/0004).
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    /// Without secrets and `data`.
    pub(crate) info: Arc<v1::ExecutorInfo>,
    pub(crate) container: ContainerId,
    /// A command task's own.
    of_task: bool,
    gone: bool,
    /// Until the last of their updates is acknowledged.
    tasks: BTreeMap<TaskId, Arc<Entry>>,
    completed: VecDeque<Arc<v1::Task>>,
}

/// A task that is not forgotten.
#[derive(Clone, Debug)]
struct Entry {
    task: v1::Task,
    queued: bool,
}

impl Executor {
    fn new(info: v1::ExecutorInfo, container: ContainerId) -> Self {
        let (tasks, completed) = (BTreeMap::new(), VecDeque::new());
        Self { info: Arc::new(info), container, of_task: false, gone: false, tasks, completed }
    }

    /// Whether something of it runs. A command task's own ends with its task.
    pub(crate) fn is_running(&self) -> bool {
        let over = self.of_task && self.tasks.values().all(|entry| entry.ended());
        !(self.gone || over)
    }

    /// Tasks that wait for it.
    pub(crate) fn queued(&self) -> impl Iterator<Item = &v1::Task> {
        self.tasks.values().filter(|entry| entry.queued).map(|entry| &entry.task)
    }

    /// Tasks that it has, and that have not ended.
    pub(crate) fn launched(&self) -> impl Iterator<Item = &v1::Task> {
        let live = self.tasks.values().filter(|entry| !entry.queued && !entry.ended());
        live.map(|entry| &entry.task)
    }

    /// Tasks that have ended, of which the framework has not acknowledged all.
    pub(crate) fn terminated(&self) -> impl Iterator<Item = &v1::Task> {
        self.tasks.values().filter(|entry| entry.ended()).map(|entry| &entry.task)
    }

    /// Tasks that have ended, the oldest first.
    pub(crate) fn completed(&self) -> impl Iterator<Item = &v1::Task> {
        self.completed.iter().map(|task| &**task)
    }

    /// What it holds, with its tasks.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &v1::Resource> {
        let live = self.tasks.values().filter(|entry| !entry.ended());
        let own = self.info.resources.iter().filter(|_| !self.gone);
        own.chain(live.flat_map(|entry| &entry.task.resources))
    }

    /// For which role.
    pub(crate) fn role(&self) -> Option<&str> {
        let tasks = self.tasks.values().map(|entry| &entry.task).chain(self.completed());
        let mut all = self.info.resources.iter().chain(tasks.flat_map(|task| &task.resources));
        all.find_map(|resource| resource.allocation_info.as_ref()?.role.as_deref())
    }
}

impl Entry {
    fn ended(&self) -> bool {
        self.task.state().is_terminal()
    }
}

/// A framework with its executors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Framework {
    pub(crate) info: Arc<v1::FrameworkInfo>,
    pub(crate) executors: Vec<Arc<Executor>>,
    /// The oldest first.
    pub(crate) completed: Vec<Arc<Executor>>,
}

/// What a reader takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frameworks {
    pub(crate) active: Vec<Framework>,
    /// The oldest first.
    pub(crate) completed: Vec<Framework>,
}

/// How often what happened since the agent's start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) ended: HashMap<TaskState, u64>,
    pub(crate) updates: u64,
    pub(crate) executors_terminated: u64,
    pub(crate) launch_errors: u64,
}

/// A command task's own executor and one with the same name are two.
type Key = (ExecutorId, bool);

#[derive(Debug, Default)]
struct Record {
    info: Arc<v1::FrameworkInfo>,
    executors: BTreeMap<Key, Arc<Executor>>,
    completed: VecDeque<Arc<Executor>>,
}

#[derive(Debug, Default)]
struct State {
    frameworks: BTreeMap<FrameworkId, Record>,
    completed: VecDeque<(FrameworkId, Record)>,
    homes: HashMap<TaskKey, Key>,
    totals: Totals,
    /// How often a task was.
    forgotten: u64,
}

/// The read model. Its lock is held for moments only.
#[derive(Debug, Default)]
pub(crate) struct Roster(RwLock<State>);

impl Roster {
    pub(crate) fn apply(&self, change: &Change) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).apply(change);
    }

    pub(crate) fn totals(&self) -> Totals {
        self.0.read().unwrap_or_else(PoisonError::into_inner).totals.clone()
    }

    pub(crate) fn frameworks(&self) -> Frameworks {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let show = |record: &Record| Framework {
            info: Arc::clone(&record.info),
            executors: record.executors.values().cloned().collect(),
            completed: record.completed.iter().cloned().collect(),
        };
        Frameworks {
            active: state.frameworks.values().map(show).collect(),
            completed: state.completed.iter().map(|(_, record)| show(record)).collect(),
        }
    }
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Framework(info) => {
                let id = FrameworkId::from(info.id.clone().unwrap_or_default());
                self.framework(&id).info = Arc::new((**info).clone());
            }
            Change::FrameworkForgotten(id) => self.forget_framework(id),
            Change::ExecutorAdded { executor, container, info, .. } => {
                self.add_executor(executor, container, info);
            }
            Change::ExecutorForgotten(key) => {
                self.totals.executors_terminated += 1;
                let record = self.framework(&key.framework);
                let id = (key.executor.clone(), false);
                if let Some(executor) = record.executors.get_mut(&id) {
                    Arc::make_mut(executor).gone = true;
                }
                self.retire(&key.framework, &id);
            }
            Change::Task { task, own, queued } => self.add_task(task, own.as_ref(), *queued),
            Change::TaskLaunched(key) => {
                if let Some(entry) = self.entry(key) {
                    entry.queued = false;
                }
            }
            Change::TaskUpdated { task, state, status } => {
                self.totals.updates += 1;
                if state.is_terminal() {
                    *self.totals.ended.entry(*state).or_default() += 1;
                    let launch = v1::task_status::Reason::ContainerLaunchFailed;
                    self.totals.launch_errors += u64::from(status.reason() == launch);
                }
                if let Some(entry) = self.entry(task) {
                    entry.queued = false;
                    slim::add_status(&mut entry.task, status);
                }
            }
            Change::TaskForgotten(key) => self.forget_task(key),
            _ => {}
        }
    }

    /// One that was gone may be back.
    fn framework(&mut self, id: &FrameworkId) -> &mut Record {
        if !self.frameworks.contains_key(id) {
            let back = self.completed.iter().position(|(known, _)| known == id);
            let record = back.and_then(|at| self.completed.remove(at)).map(|(_, record)| record);
            self.frameworks.insert(id.clone(), record.unwrap_or_default());
        }
        self.frameworks.entry(id.clone()).or_default()
    }

    fn forget_framework(&mut self, id: &FrameworkId) {
        let Some(mut record) = self.frameworks.remove(id) else { return };
        record.completed.extend(std::mem::take(&mut record.executors).into_values());
        self.completed.push_back((id.clone(), record));
        if self.completed.len() > MAX_FRAMEWORKS {
            self.completed.pop_front();
        }
    }

    fn add_executor(
        &mut self,
        key: &ExecutorKey,
        container: &ContainerId,
        info: &v1::ExecutorInfo,
    ) {
        let mut info = slim::executor(info);
        hide_in_executor(&mut info);
        info.framework_id = Some((&key.framework).into());
        let record = self.framework(&key.framework);
        let id = (key.executor.clone(), false);
        // Its first tasks may have been told of before.
        let executor = record
            .executors
            .entry(id)
            .or_insert_with(|| Arc::new(Executor::new(Default::default(), container.clone())));
        let executor = Arc::make_mut(executor);
        executor.info = Arc::new(info);
        executor.container = container.clone();
        executor.gone = false;
    }

    // `source` is deprecated in what frameworks send; tools read it here.
    #[allow(deprecated)]
    fn add_task(&mut self, task: &v1::Task, own: Option<&(ContainerId, String)>, queued: bool) {
        let mut task = task.clone();
        hide_in_task(&mut task);
        let state = task.state;
        for status in std::mem::take(&mut task.statuses) {
            slim::add_status(&mut task, &status);
        }
        task.state = state;
        let key = TaskKey {
            framework: FrameworkId::from(&task.framework_id),
            task: TaskId::from(&task.task_id),
        };
        let id = match (&task.executor_id, own) {
            (_, Some(_)) => (ExecutorId::new(key.task.as_str()), true),
            (Some(executor), None) => (ExecutorId::from(executor), false),
            (None, None) => return,
        };
        let record = self.framework(&key.framework);
        let executor = record.executors.entry(id.clone()).or_insert_with(|| {
            let mut info = v1::ExecutorInfo {
                executor_id: (&id.0).into(),
                framework_id: Some((&key.framework).into()),
                ..Default::default()
            };
            let mut container = ContainerId::new("");
            if let Some((own, name)) = own {
                info.name = Some(name.clone());
                info.source = Some(key.task.to_string());
                info.labels.clone_from(&task.labels);
                container = own.clone();
            }
            Arc::new(Executor { of_task: own.is_some(), ..Executor::new(info, container) })
        });
        let entry = Arc::new(Entry { task, queued });
        Arc::make_mut(executor).tasks.insert(key.task.clone(), entry);
        self.homes.insert(key, id);
    }

    fn entry(&mut self, key: &TaskKey) -> Option<&mut Entry> {
        let id = self.homes.get(key)?;
        let executor = self.frameworks.get_mut(&key.framework)?.executors.get_mut(id)?;
        Arc::make_mut(executor).tasks.get_mut(&key.task).map(Arc::make_mut)
    }

    fn forget_task(&mut self, key: &TaskKey) {
        let Some(id) = self.homes.remove(key) else { return };
        let record = self.framework(&key.framework);
        let Some(executor) = record.executors.get_mut(&id).map(Arc::make_mut) else { return };
        if let Some(entry) = executor.tasks.remove(&key.task) {
            let task = Arc::try_unwrap(entry).unwrap_or_else(|shared| (*shared).clone()).task;
            executor.completed.push_back(Arc::new(slim::task(task)));
            if executor.completed.len() > MAX_TASKS {
                executor.completed.pop_front();
            }
        }
        self.retire(&key.framework, &id);
        self.shrink(&key.framework, &id);
    }

    /// Moves an executor to those that have ended, if it has.
    fn retire(&mut self, framework: &FrameworkId, id: &Key) {
        let record = self.framework(framework);
        let done = |executor: &Executor| executor.tasks.is_empty() && (executor.gone || id.1);
        if !record.executors.get(id).is_some_and(|executor| done(executor)) {
            return;
        }
        record.completed.extend(record.executors.remove(id));
        if record.completed.len() > MAX_EXECUTORS {
            record.completed.pop_front();
        }
        // Others were counted when they ended.
        self.totals.executors_terminated += u64::from(id.1);
    }

    /// Forgets what ended first, of the whole agent and then of this framework and executor,
    /// until no more is remembered than may be.
    fn shrink(&mut self, framework: &FrameworkId, id: &Key) {
        // Counted only now and then: that is dearer than a few tasks more.
        self.forgotten += 1;
        if !self.forgotten.is_multiple_of(64) {
            return;
        }
        let ended = |record: &Record| {
            let all = record.completed.iter().chain(record.executors.values());
            all.map(|executor| executor.completed.len()).sum::<usize>()
        };
        let gone = self.completed.iter().map(|(_, record)| ended(record));
        let mut all: usize = self.frameworks.values().map(ended).chain(gone).sum();
        while all > MAX_ALL_TASKS {
            if let Some((_, record)) = self.completed.pop_front() {
                all -= ended(&record);
                continue;
            }
            let record = self.framework(framework);
            if let Some(executor) = record.completed.pop_front() {
                all -= executor.completed.len();
                continue;
            }
            let Some(executor) = record.executors.get_mut(id).map(Arc::make_mut) else { return };
            if executor.completed.pop_front().is_none() {
                return;
            }
            all -= 1;
        }
    }
}
