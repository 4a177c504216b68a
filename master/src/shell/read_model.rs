//! What readers see: the core's changes, applied outside of it, with the sums
//! that the changes leave out. Readers share a lock with one writer that is not
//! the core. It is held for copies of pointers only; the core would wait if the writer
//! fell behind by [`CHANGE_BATCHES`](super::limits::CHANGE_BATCHES).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use mezz_proto::{
    ids::AgentId,
    mezz::v1 as mezz,
    resources::{Dialect, Resources},
    v1,
};
use tokio::sync::mpsc;

use super::{
    dispatch::Changes,
    limits::MAX_LISTED_TASKS,
    read_state::{State, Sums},
    snapshot::{Include, Snapshot},
    stream::{News, Subscribers, Subscription},
    view::{agent_id, framework_id},
};
use crate::core::Change;

/// A copy of the master's state for readers.
#[derive(Debug, Default)]
pub struct ReadModel {
    state: RwLock<State>,
    /// Who joins does so while `state` is held, and gets what is applied after that.
    subscribers: Subscribers,
}

/// Counts for `GetMaster`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Agents that are linked.
    pub agents_active: u32,
    /// Frameworks that are subscribed.
    pub frameworks_active: u32,
    /// Tasks that have not ended.
    pub tasks_live: u64,
    /// Offers neither used nor declined.
    pub offers_outstanding: u32,
}

impl ReadModel {
    /// Applies batches until the core's loop ends.
    /// Blocks: for a thread of its own, since readers copy under the same lock.
    pub fn follow(&self, mut changes: mpsc::Receiver<Changes>) {
        while let Some(batch) = changes.blocking_recv() {
            self.apply(batch.into_iter().map(|change| *change));
        }
        self.subscribers.end();
    }

    /// Applies changes in order.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        // Nothing panics while it is held, and a reader could not break it.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut news = self.subscribers.is_wanted().then(News::default);
        for change in changes {
            state.apply(change, news.as_mut());
        }
        let batch = state.count_batch();
        drop(state);
        // Without the lock: there may be many who listen.
        if let Some(news) = news {
            self.subscribers.tell(batch, news);
        }
    }

    /// What there is at this moment. May take a while in a large cluster: for threads that
    /// may block.
    pub fn snapshot(&self, include: Include) -> Snapshot {
        // The lock is held no longer than it takes to copy.
        let snapshot = self.read().snapshot(include);
        snapshot.in_order()
    }

    /// What there is at this moment, and everything that changes after it.
    pub fn subscribe(&self) -> (Snapshot, Subscription) {
        // Nothing is applied between the two; what was applied before may still be told of,
        // to the others.
        let state = self.read();
        let subscription = self.subscribers.join(state.batch());
        let snapshot = state.snapshot(Include::ALL);
        drop(state);
        (snapshot.in_order(), subscription)
    }

    /// Weights of roles that were set. May block, as all that reads.
    pub fn weights(&self) -> Arc<BTreeMap<String, f64>> {
        self.read().weights().clone()
    }

    /// How many operators listen.
    pub fn subscribers(&self) -> usize {
        self.subscribers.count()
    }

    /// Sorted by id.
    pub fn agents(&self) -> Vec<mezz::AgentState> {
        let records: Vec<_> = {
            let state = self.read();
            state.agents().map(|(record, sums)| (record.clone(), sums.clone())).collect()
        };
        let mut agents: Vec<_> =
            records.into_iter().map(|(agent, sums)| agent.record(&sums)).collect();
        agents.sort_by(|a, b| agent_id(&a.agent).cmp(agent_id(&b.agent)));
        agents
    }

    /// Sorted by id; with those that have ended if `completed`.
    pub fn frameworks(&self, completed: bool) -> Vec<mezz::FrameworkState> {
        let (records, total) = {
            let state = self.read();
            let records: Vec<_> = state
                .frameworks()
                .filter(|(record, _)| {
                    completed || record.status() != mezz::framework_state::Status::Completed
                })
                .map(|(record, sums)| (record.clone(), sums.clone()))
                .collect();
            (records, state.cluster_total())
        };
        let mut frameworks: Vec<_> = records
            .into_iter()
            .map(|(record, sums)| mezz::FrameworkState {
                dominant_share: dominant_share(&sums, &total),
                allocated: wire(&sums.allocated),
                offered: wire(&sums.offered),
                tasks: sums.tasks,
                ..(*record).clone()
            })
            .collect();
        frameworks.sort_by(|a, b| framework_id(&a.framework).cmp(framework_id(&b.framework)));
        frameworks
    }

    /// Those that the request asks for: sorted by framework and task id, or
    /// newest first when its limit, or [`MAX_LISTED_TASKS`], cuts some off.
    pub fn tasks(&self, request: &mezz::ListTasksRequest) -> mezz::ListTasksResponse {
        let state = self.read();
        let mut found = state.find_tasks(request);
        let limit = request.limit.unwrap_or(u32::MAX).min(MAX_LISTED_TASKS) as usize;
        let all = found.len();
        if all > limit {
            found.sort_unstable_by_key(|t| std::cmp::Reverse(t.number));
            found.truncate(limit);
        }
        let asked = request.limit.is_some_and(|limit| limit <= MAX_LISTED_TASKS);
        let truncated = (all > limit && !asked).then_some(true);
        let mut hosts: HashMap<AgentId, (Option<String>, Option<String>)> = HashMap::new();
        for agent in found.iter().map(|t| &t.agent) {
            if !hosts.contains_key(agent) {
                hosts.insert(agent.clone(), state.agent_address(agent));
            }
        }
        drop(state);
        let tasks = found
            .into_iter()
            .filter_map(|task| {
                let (api_address, hostname) = hosts.get(&task.agent).cloned().unwrap_or_default();
                Some(mezz::TaskRecord {
                    task: task.decode()?,
                    agent_api_address: api_address,
                    agent_hostname: hostname,
                })
            })
            .collect();
        mezz::ListTasksResponse { tasks, truncated }
    }

    /// Sorted by id.
    pub fn offers(&self) -> Vec<mezz::OfferRecord> {
        let records: Vec<_> = self.read().offers().cloned().collect();
        let mut offers: Vec<_> = records.into_iter().map(|record| (*record).clone()).collect();
        offers.sort_by(|a, b| a.offer.id.value.cmp(&b.offer.id.value));
        offers
    }

    /// Counts.
    pub fn totals(&self) -> Totals {
        self.read().totals()
    }

    /// Names of task states with how many tasks are in them, ended ones that are
    /// still remembered included.
    pub fn tasks_by_state(&self) -> Vec<(&'static str, u64)> {
        self.read().tasks_by_state().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As messages.
pub fn wire(resources: &Resources) -> Vec<v1::Resource> {
    resources.to_proto(Dialect::Refined, None)
}

/// Largest share of any scalar that the framework holds or is offered.
fn dominant_share(sums: &Sums, total: &BTreeMap<String, f64>) -> f64 {
    let held = sums.allocated.clone() + &sums.offered;
    held.scalars()
        .filter_map(|(name, amount)| {
            let total = total.get(name).filter(|t| **t > 0.0)?;
            Some(amount.to_f64() / total)
        })
        .fold(0.0, f64::max)
}

#[cfg(test)]
#[path = "read_model_tests.rs"]
mod tests;
