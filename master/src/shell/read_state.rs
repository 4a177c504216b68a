//! The read model's tables and the sums over them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mezz_proto::{
    ids::{AgentId, ExecutorId, FrameworkId, OfferId, TaskId},
    mezz::v1 as mezz,
    resources::Resources,
    v1,
};
use prost::Message;

use super::{
    news,
    read_model::{Totals, wire},
    snapshot::{Include, Snapshot},
    stream::{self, News},
};
use crate::core::{Change, ShownTask};

/// Held by one agent's or one framework's tasks and offers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Of executors, and of tasks that hold their resources.
    pub allocated: Resources,
    /// Of outstanding offers.
    pub offered: Resources,
    /// Tasks that have not ended.
    pub tasks: u32,
}

/// A task as it is kept: encoded, for the decoded message takes several times as
/// much and there may be millions.
#[derive(Clone, Debug)]
pub struct TaskEntry {
    encoded: Arc<[u8]>,
    /// Where it runs.
    pub agent: AgentId,
    /// The newest.
    pub state: v1::TaskState,
    /// Its last update is not acknowledged.
    pub waits: bool,
    /// Counts up; tells which is newer.
    pub number: u64,
}

impl TaskEntry {
    /// It has ended, and its framework knows.
    pub fn is_completed(&self) -> bool {
        self.state.is_terminal() && !self.waits
    }

    /// The message again. Never `None`, for the bytes are our own.
    pub fn decode(&self) -> Option<v1::Task> {
        v1::Task::decode(&*self.encoded).ok()
    }
}

/// An agent as it is kept: what it has not as messages, which take five times as
/// much, and the record says it twice.
#[derive(Debug)]
pub struct AgentEntry {
    /// Its `total` and its description's `resources` are left empty.
    rest: mezz::AgentState,
    total: Resources,
}

impl AgentEntry {
    fn new(mut record: mezz::AgentState) -> Self {
        // The core has validated them.
        let total = Resources::from_proto(&record.total).unwrap_or_default();
        record.total = Vec::new();
        record.agent.resources = Vec::new();
        Self { rest: record, total }
    }

    /// The record with no resources in it.
    pub fn rest(&self) -> &mezz::AgentState {
        &self.rest
    }

    /// All that it has.
    pub fn total(&self) -> &Resources {
        &self.total
    }

    /// The record again, with these sums.
    pub fn record(&self, sums: &Sums) -> mezz::AgentState {
        let mut record = self.rest.clone();
        record.total = wire(&self.total);
        record.agent.resources = record.total.clone();
        record.allocated = wire(&sums.allocated);
        record.offered = wire(&sums.offered);
        record.tasks = sums.tasks;
        record
    }
}

/// A record, once it is known, and the sums, which may come before it.
#[derive(Debug)]
struct Entry<R> {
    record: Option<Arc<R>>,
    /// Shared with snapshots.
    sums: Arc<Sums>,
}

impl<R> Default for Entry<R> {
    fn default() -> Self {
        Self { record: None, sums: Arc::default() }
    }
}

impl<R> Entry<R> {
    fn is_empty(&self) -> bool {
        self.record.is_none() && *self.sums == Sums::default()
    }
}

/// Where an executor is, whose, and its name.
pub type ExecutorKey = (AgentId, FrameworkId, ExecutorId);

/// An executor as it is kept: encoded, like tasks.
#[derive(Clone, Debug)]
pub struct ExecutorEntry {
    encoded: Arc<[u8]>,
    resources: Arc<Resources>,
    role: Arc<str>,
}

impl ExecutorEntry {
    /// The message again. Never `None`, for the bytes are our own.
    pub fn decode(&self) -> Option<v1::ExecutorInfo> {
        v1::ExecutorInfo::decode(&*self.encoded).ok()
    }
}

/// All that is known.
#[derive(Debug, Default)]
pub struct State {
    agents: HashMap<AgentId, Entry<AgentEntry>>,
    frameworks: HashMap<FrameworkId, Entry<mezz::FrameworkState>>,
    tasks: BTreeMap<FrameworkId, BTreeMap<TaskId, TaskEntry>>,
    executors: HashMap<ExecutorKey, ExecutorEntry>,
    /// What is held and offered of each role that holds or is offered anything.
    roles: BTreeMap<Arc<str>, Arc<Sums>>,
    weights: Arc<BTreeMap<String, f64>>,
    offers: HashMap<OfferId, (Arc<mezz::OfferRecord>, Resources)>,
    by_state: BTreeMap<i32, u64>,
    last_number: u64,
    /// How many batches of changes it has.
    batch: u64,
}

/// Whether a task in this state has its resources (rule 34 says which states are
/// terminal; an unreachable agent's resources are not counted as held).
fn holds(state: v1::TaskState) -> bool {
    !state.is_terminal() && state != v1::TaskState::TaskUnreachable
}

impl State {
    /// Applies one change; what operators' streams tell of it goes to `news`, if there
    /// are any.
    pub fn apply(&mut self, change: Change, news: Option<&mut News>) {
        match change {
            Change::Agent(record) => self.put_agent(record, news),
            Change::AgentRemoved(id) => self.remove_agent(&id, news),
            Change::AgentGone(id) => self.remove_agent(&id, None),
            Change::Framework(record) => self.put_framework(record, news),
            Change::FrameworkRemoved(id) => {
                if let Some(entry) = self.frameworks.get_mut(&id) {
                    entry.record = None;
                    if entry.is_empty() {
                        self.frameworks.remove(&id);
                    }
                }
            }
            Change::Task(task) => self.put_task(task, news),
            Change::TaskRemoved(framework, task) => self.remove_task(&framework, &task),
            Change::Executor(agent, framework, id, resources, info) => {
                self.put_executor((agent, framework, id), resources, &info);
            }
            Change::ExecutorRemoved(agent, framework, id) => {
                self.remove_executor(&(agent, framework, id));
            }
            Change::Offer(record) => self.put_offer(record),
            Change::OfferRemoved(id) => self.remove_offer(&id),
            Change::Weight(role, weight) => {
                Arc::make_mut(&mut self.weights).insert(role, weight);
            }
        }
    }

    /// Rule 81: of one that is unreachable or marked gone streams do not tell.
    fn remove_agent(&mut self, id: &AgentId, news: Option<&mut News>) {
        news::agent_removed(id);
        if let Some(entry) = self.agents.get_mut(id) {
            let was = entry.record.take();
            if let Some(news) = news
                && was.is_some_and(|old| is_there(old.rest.status()))
            {
                news.push(stream::agent_removed(id));
            }
        }
        self.forget_if_empty(id.as_str(), None);
    }

    /// Another batch was applied: its number.
    pub fn count_batch(&mut self) -> u64 {
        self.batch += 1;
        self.batch
    }

    /// The number of the last batch.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    fn put_agent(&mut self, record: mezz::AgentState, news: Option<&mut News>) {
        let id = AgentId::from(record.agent.id.clone().unwrap_or_default());
        let entry = self.agents.entry(id).or_default();
        news::agent(entry.record.as_deref().map(|old| &old.rest), &record);
        let was = entry.record.as_deref().is_some_and(|old| is_there(old.rest.status()));
        let is = is_there(record.status());
        let record = Arc::new(AgentEntry::new(record));
        if let Some(news) = news
            && is
            && !was
        {
            news.push(stream::agent_added(&record, &entry.sums));
        }
        entry.record = Some(record);
    }

    fn put_framework(&mut self, record: mezz::FrameworkState, news: Option<&mut News>) {
        let id = FrameworkId::from(record.framework.id.clone().unwrap_or_default());
        let entry = self.frameworks.entry(id).or_default();
        news::framework(entry.record.as_deref(), &record);
        if let Some(news) = news {
            news.extend(stream::framework(entry.record.as_deref(), &record, &entry.sums));
        }
        entry.record = Some(Arc::new(record));
    }

    fn put_task(&mut self, task: ShownTask, news: Option<&mut News>) {
        let state = task.state;
        let tasks = match self.tasks.get_mut(&task.framework) {
            Some(tasks) => tasks,
            None => self.tasks.entry(task.framework.clone()).or_default(),
        };
        // After a failover all tasks come at once: a new one is looked for once.
        let (old, elsewhere) = match tasks.get_mut(&task.id) {
            Some(entry) if entry.agent == task.agent => {
                entry.encoded = task.record.clone();
                entry.waits = task.waits;
                (Some(std::mem::replace(&mut entry.state, state)), false)
            }
            found => (None, found.is_some()),
        };
        if elsewhere {
            self.remove_task(&task.framework, &task.id);
        }
        if old.is_none() {
            self.insert_task(&task);
        }
        *self.by_state.entry(state as i32).or_default() += 1;
        if let Some(old) = old {
            self.count_down(old);
        }
        news::task(old, &task);
        if let Some(news) = news
            && old != Some(state)
        {
            let aware = self
                .frameworks
                .get(&task.framework)
                .and_then(|entry| entry.record.as_deref())
                .is_some_and(|framework| stream::is_partition_aware(&framework.framework));
            news.push(stream::task(old.is_none(), task.decode(), aware));
        }
        let was = old.unwrap_or(v1::TaskState::TaskFinished);
        let ShownTask { framework, agent, resources, role, .. } = &task;
        self.charge_task(framework.as_str(), agent.as_str(), role, resources, was, state);
    }

    fn insert_task(&mut self, task: &ShownTask) {
        self.last_number += 1;
        let entry = TaskEntry {
            encoded: task.record.clone(),
            agent: task.agent.clone(),
            state: task.state,
            waits: task.waits,
            number: self.last_number,
        };
        let tasks = match self.tasks.get_mut(&task.framework) {
            Some(tasks) => tasks,
            None => self.tasks.entry(task.framework.clone()).or_default(),
        };
        tasks.insert(task.id.clone(), entry);
    }

    /// Moves the sums from what a task held in state `was` to what it holds now.
    /// A task's resources never change, so only the states matter.
    fn charge_task(
        &mut self,
        framework: &str,
        agent: &str,
        role: &str,
        resources: &Resources,
        was: v1::TaskState,
        now: v1::TaskState,
    ) {
        let live = i64::from(!now.is_terminal()) - i64::from(!was.is_terminal());
        let held = i64::from(holds(now)) - i64::from(holds(was));
        if live == 0 && held == 0 {
            return;
        }
        self.change_sums(agent, framework, role, |sums| {
            sums.tasks = sums.tasks.saturating_add_signed(i32::try_from(live).unwrap_or(0));
            match held {
                0 => {}
                1 => sums.allocated += resources,
                _ => sums.allocated.saturating_sub(resources),
            }
        });
    }

    fn change_sums(
        &mut self,
        agent: &str,
        framework: &str,
        role: &str,
        change: impl Fn(&mut Sums),
    ) {
        match self.roles.get_mut(role) {
            Some(sums) => {
                change(Arc::make_mut(sums));
                if **sums == Sums::default() {
                    self.roles.remove(role);
                }
            }
            None => {
                let mut sums = Sums::default();
                change(&mut sums);
                if sums != Sums::default() {
                    self.roles.insert(role.into(), Arc::new(sums));
                }
            }
        }
        match self.agents.get_mut(agent) {
            Some(entry) => change(Arc::make_mut(&mut entry.sums)),
            None => {
                let entry = self.agents.entry(AgentId::new(agent)).or_default();
                change(Arc::make_mut(&mut entry.sums));
            }
        }
        match self.frameworks.get_mut(framework) {
            Some(entry) => change(Arc::make_mut(&mut entry.sums)),
            None => {
                let entry = self.frameworks.entry(FrameworkId::new(framework)).or_default();
                change(Arc::make_mut(&mut entry.sums));
            }
        }
        self.forget_if_empty(agent, Some(framework));
    }

    /// Drops what is kept only for its sums once these are nothing.
    fn forget_if_empty(&mut self, agent: &str, framework: Option<&str>) {
        if self.agents.get(agent).is_some_and(Entry::is_empty) {
            self.agents.remove(agent);
        }
        if let Some(framework) = framework
            && self.frameworks.get(framework).is_some_and(Entry::is_empty)
        {
            self.frameworks.remove(framework);
        }
    }

    fn remove_task(&mut self, framework: &FrameworkId, task: &TaskId) {
        let Some(tasks) = self.tasks.get_mut(framework) else { return };
        let Some(entry) = tasks.remove(task) else { return };
        if tasks.is_empty() {
            self.tasks.remove(framework);
        }
        self.count_down(entry.state);
        if let Some(task) = entry.decode() {
            // The core has validated them.
            let resources = Resources::from_proto(&task.resources).unwrap_or_default();
            let (framework, agent) = (framework.as_str(), entry.agent.as_str());
            let (role, ended) = (role_of(&task.resources), v1::TaskState::TaskFinished);
            self.charge_task(framework, agent, role, &resources, entry.state, ended);
        }
    }

    fn count_down(&mut self, state: v1::TaskState) {
        if let Some(count) = self.by_state.get_mut(&(state as i32)) {
            *count = count.saturating_sub(1);
        }
    }

    fn put_executor(
        &mut self,
        key: ExecutorKey,
        resources: Arc<Resources>,
        info: &v1::ExecutorInfo,
    ) {
        self.remove_executor(&key);
        let role = role_of(&info.resources);
        self.change_sums(key.0.as_str(), key.1.as_str(), role, |sums| {
            sums.allocated += &resources;
        });
        let role = match self.roles.get_key_value(role) {
            Some((role, _)) => role.clone(),
            None => role.into(),
        };
        let encoded = info.encode_to_vec().into();
        self.executors.insert(key, ExecutorEntry { encoded, resources, role });
    }

    fn remove_executor(&mut self, key: &ExecutorKey) {
        let Some(entry) = self.executors.remove(key) else { return };
        self.change_sums(key.0.as_str(), key.1.as_str(), &entry.role, |sums| {
            sums.allocated.saturating_sub(&entry.resources);
        });
    }

    fn put_offer(&mut self, record: mezz::OfferRecord) {
        let id = OfferId::from(&record.offer.id);
        self.remove_offer(&id);
        let resources = Resources::from_proto(&record.offer.resources).unwrap_or_default();
        let (agent, framework) = (&record.offer.agent_id.value, &record.offer.framework_id.value);
        let role = &record.role;
        self.change_sums(agent, framework, role, |sums| sums.offered += &resources);
        self.offers.insert(id, (Arc::new(record), resources));
    }

    fn remove_offer(&mut self, id: &OfferId) {
        let Some((record, resources)) = self.offers.remove(id) else { return };
        let (agent, framework) = (&record.offer.agent_id.value, &record.offer.framework_id.value);
        let role = &record.role;
        self.change_sums(agent, framework, role, |sums| sums.offered.saturating_sub(&resources));
    }

    /// What there is at this moment, in no order, to be looked at without the lock.
    pub fn snapshot(&self, include: Include) -> Snapshot {
        let mut out = Snapshot {
            agents: self.agents().map(|(a, sums)| (a.clone(), sums.clone())).collect(),
            frameworks: self.frameworks().map(|(f, sums)| (f.clone(), sums.clone())).collect(),
            roles: self.roles.clone(),
            weights: self.weights.clone(),
            ..Snapshot::default()
        };
        if include.tasks {
            out.tasks = self
                .tasks
                .iter()
                .map(|(id, tasks)| (id.clone(), tasks.values().cloned().collect()))
                .collect();
        }
        if include.offers {
            for (record, _) in self.offers.values() {
                let id = FrameworkId::from(&record.offer.framework_id);
                out.offers.entry(id).or_default().push(record.clone());
            }
        }
        if include.executors {
            for (key, entry) in &self.executors {
                let executor = (key.clone(), entry.clone());
                out.executors.entry(key.1.clone()).or_default().push(executor);
            }
        }
        out
    }

    /// Weights of roles that were set.
    pub fn weights(&self) -> &Arc<BTreeMap<String, f64>> {
        &self.weights
    }

    /// Known agents, in no order.
    pub fn agents(&self) -> impl Iterator<Item = (&Arc<AgentEntry>, &Arc<Sums>)> {
        self.agents.values().filter_map(|e| Some((e.record.as_ref()?, &e.sums)))
    }

    /// Known frameworks, in no order.
    pub fn frameworks(&self) -> impl Iterator<Item = (&Arc<mezz::FrameworkState>, &Arc<Sums>)> {
        self.frameworks.values().filter_map(|e| Some((e.record.as_ref()?, &e.sums)))
    }

    /// Outstanding offers, in no order.
    pub fn offers(&self) -> impl Iterator<Item = &Arc<mezz::OfferRecord>> {
        self.offers.values().map(|(record, _)| record)
    }

    /// Its API's address and its host name.
    pub fn agent_address(&self, id: &AgentId) -> (Option<String>, Option<String>) {
        match self.agents.get(id).and_then(|e| e.record.as_ref()) {
            Some(agent) => {
                (agent.rest.api_address.clone(), Some(agent.rest.agent.hostname.clone()))
            }
            None => (None, None),
        }
    }

    /// Those that the request asks for, sorted by framework and task id; its
    /// limit is not applied.
    pub fn find_tasks(&self, request: &mezz::ListTasksRequest) -> Vec<TaskEntry> {
        let completed = request.completed.unwrap_or(false);
        let wanted = |entry: &&TaskEntry| {
            (completed || !entry.state.is_terminal())
                && request.agent_id.as_deref().is_none_or(|a| a == entry.agent.as_str())
        };
        let of_framework = |tasks: &BTreeMap<TaskId, TaskEntry>, out: &mut Vec<TaskEntry>| {
            match &request.task_id {
                Some(id) => out.extend(tasks.get(id.as_str()).filter(wanted).cloned()),
                None => out.extend(tasks.values().filter(wanted).cloned()),
            }
        };
        let mut found = Vec::new();
        match &request.framework_id {
            Some(id) => {
                if let Some(tasks) = self.tasks.get(id.as_str()) {
                    of_framework(tasks, &mut found);
                }
            }
            None => self.tasks.values().for_each(|tasks| of_framework(tasks, &mut found)),
        }
        found
    }

    /// Scalars of all agents that have a link or may soon have one again.
    pub fn cluster_total(&self) -> BTreeMap<String, f64> {
        use mezz::agent_state::Status;
        let mut total = BTreeMap::new();
        for (agent, _) in self.agents() {
            if !matches!(agent.rest.status(), Status::Active | Status::Disconnected) {
                continue;
            }
            for (name, amount) in agent.total.scalars() {
                *total.entry(name.to_owned()).or_insert(0.0) += amount.to_f64();
            }
        }
        total
    }

    /// Counts.
    pub fn totals(&self) -> Totals {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let agents = self
            .agents()
            .filter(|(a, _)| a.rest.status() == mezz::agent_state::Status::Active)
            .count();
        let frameworks = self
            .frameworks()
            .filter(|(f, _)| f.status() == mezz::framework_state::Status::Active)
            .count();
        Totals {
            agents_active: count(agents),
            frameworks_active: count(frameworks),
            tasks_live: self.frameworks.values().map(|e| u64::from(e.sums.tasks)).sum(),
            offers_outstanding: count(self.offers.len()),
        }
    }

    /// Names of states with how many tasks are in them.
    pub fn tasks_by_state(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.by_state.iter().filter_map(|(state, count)| {
            Some((v1::TaskState::try_from(*state).ok()?.as_str_name(), *count))
        })
    }
}

/// Whether an agent is registered, as operators' streams see it.
fn is_there(status: mezz::agent_state::Status) -> bool {
    use mezz::agent_state::Status;
    matches!(status, Status::Active | Status::Disconnected)
}

/// The role that resources are allocated to.
fn role_of(resources: &[v1::Resource]) -> &str {
    resources.iter().find_map(|r| r.allocation_info.as_ref()?.role.as_deref()).unwrap_or("*")
}
