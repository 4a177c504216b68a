//! What readers ask.

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::{
    ids::{AgentId, FrameworkId, TaskId},
    mezz::v1 as mezz,
    v1,
};

use super::{
    State,
    entries::{AgentEntry, Sums, TaskEntry},
};
use crate::shell::{
    read_model::Totals,
    snapshot::{Include, Snapshot},
};

impl State {
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
                (agent.rest().api_address.clone(), Some(agent.rest().agent.hostname.clone()))
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
            if !matches!(agent.rest().status(), Status::Active | Status::Disconnected) {
                continue;
            }
            for (name, amount) in agent.total().scalars() {
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
            .filter(|(a, _)| a.rest().status() == mezz::agent_state::Status::Active)
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
