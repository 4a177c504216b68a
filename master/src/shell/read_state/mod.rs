//! The read model's tables and the sums over them.

mod entries;
mod queries;
mod sums;

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    sync::Arc,
};

use mezz_proto::{
    ids::{AgentId, FrameworkId, OfferId, TaskId},
    mezz::v1 as mezz,
    pages::hide_in_framework,
    resources::Resources,
    v1,
};

pub use self::entries::{AgentEntry, ExecutorEntry, ExecutorKey, Sums, TaskEntry};
use self::{entries::Entry, sums::role_of};
use super::{
    news,
    stream::{self, News},
    view,
};
use crate::core::{Change, ShownAgent, ShownTask};

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

impl State {
    /// Applies one change; what operators' streams tell of it goes to `news`, if there
    /// are any.
    pub fn apply(&mut self, change: Change, news: Option<&mut News>) {
        match change {
            Change::Agent(agent) => self.put_agent(*agent, news),
            Change::AgentRemoved(id) => self.remove_agent(&id, news),
            Change::AgentGone(id) => self.remove_agent(&id, None),
            Change::Framework(record) => self.put_framework(*record, news),
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
            Change::Executor(agent, framework, id, resources, info, role) => {
                self.put_executor((agent, framework, id), resources, &info, role);
            }
            Change::ExecutorRemoved(agent, framework, id) => {
                self.remove_executor(&(agent, framework, id));
            }
            Change::Offer(record) => self.put_offer(*record),
            Change::OfferRemoved(id) => self.remove_offer(&id),
            Change::Weight(role, weight) => {
                Arc::make_mut(&mut self.weights).insert(role, weight);
            }
        }
    }

    /// Rule 81: of one that is unreachable or marked gone streams do not tell.
    fn remove_agent(&mut self, id: &AgentId, news: Option<&mut News>) {
        news::agent_removed(id);
        let Some(entry) = self.agents.get_mut(id) else { return };
        let was = entry.record.take();
        if entry.is_empty() {
            self.agents.remove(id);
        }
        if let Some(news) = news
            && was.is_some_and(|old| view::is_registered(old.rest()))
        {
            news.push(&stream::agent_removed(id));
        }
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

    fn put_agent(&mut self, agent: ShownAgent, news: Option<&mut News>) {
        let id = AgentId::from(agent.record.agent.id.clone().unwrap_or_default());
        let entry = self.agents.entry(id).or_default();
        news::agent(entry.record.as_deref().map(|old| old.rest()), &agent.record);
        let was = entry.record.as_deref().is_some_and(|old| view::is_registered(old.rest()));
        let is = view::is_registered(&agent.record);
        let record = Arc::new(AgentEntry::new(agent));
        if let Some(news) = news
            && is
            && !was
        {
            news.push(&stream::agent_added(&record, &entry.sums));
        }
        entry.record = Some(record);
    }

    fn put_framework(&mut self, mut record: mezz::FrameworkState, news: Option<&mut News>) {
        hide_in_framework(&mut record.framework);
        let id = FrameworkId::from(record.framework.id.clone().unwrap_or_default());
        let entry = self.frameworks.entry(id).or_default();
        news::framework(entry.record.as_deref(), &record);
        if let Some(news) = news
            && let Some(event) = stream::framework(entry.record.as_deref(), &record, &entry.sums)
        {
            news.push(&event);
        }
        entry.record = Some(Arc::new(record));
    }

    fn put_task(&mut self, task: ShownTask, news: Option<&mut News>) {
        let state = task.state;
        let tasks = match self.tasks.get_mut(&task.framework) {
            Some(tasks) => tasks,
            None => self.tasks.entry(task.framework.clone()).or_default(),
        };
        // After a failover all tasks come at once: each is looked for once.
        let (before, displaced) = match tasks.entry(task.id.clone()) {
            btree_map::Entry::Occupied(known) if known.get().is_of(&task) => {
                let entry = known.into_mut();
                let record = std::mem::replace(&mut entry.encoded, task.record.clone());
                entry.waits = task.waits;
                (Some((std::mem::replace(&mut entry.state, state), record)), None)
            }
            place => {
                self.last_number += 1;
                let entry = TaskEntry {
                    id: task.id.clone(),
                    encoded: task.record.clone(),
                    agent: task.agent.clone(),
                    state,
                    waits: task.waits,
                    number: self.last_number,
                };
                match place {
                    btree_map::Entry::Occupied(mut place) => (None, Some(place.insert(entry))),
                    btree_map::Entry::Vacant(place) => {
                        place.insert(entry);
                        (None, None)
                    }
                }
            }
        };
        if let Some(displaced) = displaced {
            self.discharge(&task.framework, &displaced);
        }
        let old = before.as_ref().map(|(state, _)| *state);
        *self.by_state.entry(state as i32).or_default() += 1;
        if let Some(old) = old {
            self.count_down(old);
        }
        news::task(old, &task);
        if let Some(news) = news {
            let aware = self
                .frameworks
                .get(&task.framework)
                .and_then(|entry| entry.record.as_deref())
                .is_some_and(|framework| stream::is_partition_aware(&framework.framework));
            let before = before.as_ref().map(|(state, record)| (*state, &**record));
            if let Some(event) = stream::task(before, &task, aware) {
                news.push(&event);
            }
        }
        let was = old.unwrap_or(v1::TaskState::TaskFinished);
        let ShownTask { framework, agent, resources, role, .. } = &task;
        self.charge_task(framework.as_str(), agent.as_str(), role, resources, was, state);
    }

    fn remove_task(&mut self, framework: &FrameworkId, task: &TaskId) {
        let Some(tasks) = self.tasks.get_mut(framework) else { return };
        let Some(entry) = tasks.remove(task) else { return };
        if tasks.is_empty() {
            self.tasks.remove(framework);
        }
        self.discharge(framework, &entry);
    }

    /// A task's entry is no longer there.
    fn discharge(&mut self, framework: &FrameworkId, entry: &TaskEntry) {
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
        role: Arc<str>,
    ) {
        self.remove_executor(&key);
        self.change_sums(key.0.as_str(), key.1.as_str(), &role, |sums| {
            sums.allocated += &resources;
        });
        self.executors.insert(key, ExecutorEntry::new(info, resources, role));
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
}
