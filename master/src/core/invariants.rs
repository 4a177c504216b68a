//! What always holds between two calls.

use std::collections::{BTreeMap, BTreeSet};

use mezz_proto::{resources::Resources, v1::TaskState};
use thiserror::Error;

use super::{
    Core,
    state::{Agent, AgentLink, Charge, Duty, FrameworkLink, Reconciling, Timer},
};
use crate::allocator::AgentKey;

/// A rule of the core that does not hold: a bug.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invariant violated: {0}")]
pub struct Violation(String);

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(Violation(format!($($text)+)));
        }
    };
}

impl Core {
    /// Checks the whole state: indexes and timers agree with what they index, no
    /// resource is in two places, nothing exceeds its agent, the allocator agrees
    /// with the core, and the counts add up. Linear in the size of the state; for
    /// tests and simulation.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        self.check_agents()?;
        self.check_frameworks()?;
        self.check_tasks()?;
        self.check_offers()?;
        self.check_timers()?;
        self.check_counters()?;
        self.allocator.check_invariants().map_err(|text| Violation(format!("allocator: {text}")))
    }

    fn check_agents(&self) -> Result<(), Violation> {
        ensure!(self.agents.len() == self.agent_ids.len(), "agent_ids has strangers");
        let (mut linked, mut placed) = (0, 0);
        for (key, agent) in self.agents.iter() {
            let id = &agent.id;
            ensure!(self.agent_ids.get(id) == Some(&key), "agent {id} is not found by its id");
            let info = agent.info.id.as_ref().map(|i| i.value.as_str());
            ensure!(info == Some(id.as_str()), "agent {id} has the info of {info:?}");
            if let Some(place) = agent.place(key) {
                placed += 1;
                ensure!(self.agent_places.contains(&place), "agent {id} is not found by its place");
            }
            if let Some(connection) = agent.connection() {
                linked += 1;
                let found = self.agent_links.get(&connection);
                ensure!(found == Some(&key), "agent {id} is not found by its link");
            } else {
                ensure!(agent.offers.is_empty(), "agent {id} is away but offered");
            }
            if agent.duty != Duty::Active {
                ensure!(agent.offers.is_empty(), "agent {id} is {:?} but offered", agent.duty);
            }
            if let Duty::Draining(_) = &agent.duty {
                let drained = agent.duty.is_drained();
                ensure!(!drained || agent.tasks.is_empty(), "agent {id} is drained with tasks");
                let empty = agent.emptied && agent.tasks.is_empty();
                let waits = agent.connection().is_none() || !empty;
                ensure!(drained || waits, "agent {id} is empty but not drained");
            }
            ensure!(!self.gone.contains_key(id), "agent {id} is gone and there");
            ensure!(!self.kept_duties.contains_key(id), "agent {id} is forgotten and there");
            if !agent.is_allocated() {
                ensure!(agent.executors.is_empty(), "agent {id} is away but has executors");
            }
            self.check_agent_resources(key, agent)?;
        }
        ensure!(linked == self.agent_links.len(), "agent_links has strangers");
        ensure!(placed == self.agent_places.len(), "agent_places has strangers");
        let since = |(key, agent): (AgentKey, &Agent)| match agent.link {
            AgentLink::Unreachable { since } => Some((since, key)),
            _ => None,
        };
        let found: BTreeSet<_> = self.agents.iter().filter_map(since).collect();
        ensure!(found == self.unreachable_since, "unreachable_since is not as the agents say");
        ensure!(self.perhaps_drained.is_empty(), "a drain was not looked at");
        Ok(())
    }

    /// No resource on two tasks, executors or offers: together they are exactly
    /// what the allocator does not have left. Only what an agent brought with it
    /// may be more than there is; then nothing of that is left or offered.
    fn check_agent_resources(&self, key: AgentKey, agent: &Agent) -> Result<(), Violation> {
        let id = &agent.id;
        let mut left = agent.total.clone();
        let mut take = |what: &dyn std::fmt::Display, resources: &Resources, offered: bool| {
            if agent.overcommitted && !offered {
                left.saturating_sub(resources);
                return Ok(());
            }
            left.try_sub(resources)
                .map_err(|error| Violation(format!("agent {id}: {what}: {error}")))
        };
        for task in &agent.tasks {
            let task =
                self.tasks.get(*task).ok_or_else(|| Violation(format!("agent {id}: no task")))?;
            ensure!(task.agent == key, "task {} is on another agent than {id}", task.id);
            let held = task.charge == Charge::Held;
            ensure!(!held || agent.is_allocated(), "{} is held on {id}, which is away", task.id);
            if held {
                take(&task.id, &task.resources, false)?;
            }
        }
        for ((framework, executor), held) in &agent.executors {
            let known = self
                .frameworks
                .get(*framework)
                .is_some_and(|f| f.executors.contains(&(key, executor.clone())));
            ensure!(known, "executor {executor} on {id} is not its framework's");
            take(executor, &held.resources, false)?;
        }
        for offer in &agent.offers {
            let Some(offer) = self.offers.get(offer) else {
                return Err(Violation(format!("agent {id} has no offer {offer}")));
            };
            ensure!(offer.agent == key, "an offer of {id} is of another agent");
            take(&"offer", &offer.resources, true)?;
        }
        match self.allocator.available(key) {
            Some(available) => {
                ensure!(agent.is_allocated(), "the allocator has agent {id}, which is away");
                ensure!(
                    *available == left,
                    "agent {id} has {left} left, the allocator says {available}"
                );
            }
            None => ensure!(!agent.is_allocated(), "the allocator does not have agent {id}"),
        }
        Ok(())
    }

    fn check_frameworks(&self) -> Result<(), Violation> {
        ensure!(self.frameworks.len() == self.framework_ids.len(), "framework_ids has strangers");
        let mut linked = 0;
        for (key, framework) in self.frameworks.iter() {
            let id = &framework.id;
            ensure!(self.framework_ids.get(id) == Some(&key), "framework {id} is not found");
            ensure!(!self.completed.contains_key(id), "framework {id} lives with a burnt id");
            if let Some(connection) = framework.connection() {
                linked += 1;
                let found = self.framework_links.get(&connection);
                ensure!(found == Some(&key), "framework {id} is not found by its connection");
            } else {
                ensure!(framework.offers.is_empty(), "framework {id} is away but has offers");
            }
            let suppressed_known = framework.suppressed.iter().all(|r| framework.role(r).is_some());
            ensure!(suppressed_known, "framework {id} suppresses a role that it has not");
            for (task_id, task) in &framework.tasks {
                let task = self.tasks.get(*task);
                let same = task.is_some_and(|t| t.framework == key && t.id == *task_id);
                ensure!(same, "task {task_id} of {id} is not the framework's");
                let ended = framework.completed.contains_key(task_id);
                ensure!(!ended, "task {task_id} of {id} is both live and completed");
            }
            for (agent, executor) in &framework.executors {
                let known = self
                    .agents
                    .get(*agent)
                    .is_some_and(|a| a.executors.contains_key(&(key, executor.clone())));
                ensure!(known, "executor {executor} of {id} is on no agent");
            }
            ensure!(
                framework.completed.len() <= self.options.max_completed_tasks,
                "framework {id} remembers too many tasks"
            );
        }
        ensure!(linked == self.framework_links.len(), "framework_links has strangers");
        ensure!(
            self.completed.len()
                <= self.options.max_completed_frameworks.max(self.recovered_completed()),
            "too many completed frameworks are remembered"
        );
        Ok(())
    }

    /// A registry may bring more than the limit, until the next one ends.
    fn recovered_completed(&self) -> usize {
        if self.counters.frameworks_completed == 0 { self.completed.len() } else { 0 }
    }

    fn check_tasks(&self) -> Result<(), Violation> {
        let of_frameworks: usize = self.frameworks.iter().map(|(_, f)| f.tasks.len()).sum();
        let of_agents: usize = self.agents.iter().map(|(_, a)| a.tasks.len()).sum();
        ensure!(of_frameworks == self.tasks.len(), "tasks without a framework");
        ensure!(of_agents == self.tasks.len(), "tasks without an agent");
        for (key, task) in self.tasks.iter() {
            let id = &task.id;
            ensure!(self.agents[task.agent].tasks.contains(&key), "task {id} is not its agent's");
            let uses = !task.state.is_terminal() && task.state != TaskState::TaskUnreachable;
            let charge = task.charge;
            ensure!(
                (charge != Charge::Free) == uses,
                "task {id} is {:?}, but {charge:?}",
                task.state
            );
            let unreachable = matches!(self.agents[task.agent].link, AgentLink::Unreachable { .. });
            ensure!(
                (task.state == TaskState::TaskUnreachable)
                    == (unreachable && !task.state.is_terminal()),
                "task {id} is {:?}, but its agent unreachable: {unreachable}",
                task.state
            );
        }
        Ok(())
    }

    fn check_offers(&self) -> Result<(), Violation> {
        let mut of_agents = BTreeSet::new();
        for (_, agent) in self.agents.iter() {
            of_agents.extend(agent.offers.iter().copied());
        }
        let mut of_frameworks = BTreeSet::new();
        for (key, framework) in self.frameworks.iter() {
            for offer in &framework.offers {
                let own = self.offers.get(offer).is_some_and(|o| o.framework == key);
                ensure!(own, "offer {offer} of {} is not its own", framework.id);
            }
            of_frameworks.extend(framework.offers.iter().copied());
        }
        let all: BTreeSet<_> = self.offers.keys().copied().collect();
        ensure!(all == of_agents, "offers and agents' offers differ");
        ensure!(all == of_frameworks, "offers and frameworks' offers differ");
        Ok(())
    }

    fn check_timers(&self) -> Result<(), Violation> {
        let (mut expected, mut waiting) = (0, 0);
        let mut check = |at, timer| {
            expected += 1;
            ensure!(self.timers.contains(at, timer), "{timer:?} is not in the queue");
            Ok(())
        };
        for (key, agent) in self.agents.iter() {
            match &agent.link {
                AgentLink::Connected { ping, .. } => check(ping.next, Timer::Ping(key))?,
                AgentLink::Disconnected { until } | AgentLink::Recovering { until } => {
                    if self.removals.contains(*until, key) {
                        waiting += 1;
                    } else {
                        check(*until, Timer::AgentAway(key))?;
                    }
                }
                AgentLink::Unreachable { since } => {
                    check(*since + self.options.unreachable_retention, Timer::AgentAway(key))?;
                }
            }
        }
        for (key, framework) in self.frameworks.iter() {
            if let Some(Reconciling { at, .. }) = &framework.reconciling {
                check(*at, Timer::Reconcile(key))?;
                ensure!(framework.connection().is_some(), "nobody is there to be reconciled");
            }
            match &framework.link {
                FrameworkLink::Connected { heartbeat, .. } => {
                    check(*heartbeat, Timer::Heartbeat(key))?;
                }
                FrameworkLink::Disconnected { until } | FrameworkLink::Recovered { until, .. } => {
                    check(*until, Timer::Failover(key))?;
                }
            }
        }
        for (key, offer) in &self.offers {
            if let Some(at) = offer.expires {
                check(at, Timer::OfferExpiry(*key))?;
            }
        }
        if let Some(turn) = self.removals.due() {
            check(turn, Timer::Removal)?;
        }
        ensure!(expected == self.timers.len(), "the timers have strangers");
        ensure!(waiting == self.removals.len(), "the removals have strangers");
        Ok(())
    }

    /// Totals equal the sums of their parts; and every task that was launched or
    /// recovered has ended or is still in the list, on a known agent.
    fn check_counters(&self) -> Result<(), Violation> {
        let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
        let mut count = |name| *counted.entry(name).or_default() += 1;
        for (_, agent) in self.agents.iter() {
            count(match agent.link {
                AgentLink::Connected { .. } => "agents_active",
                AgentLink::Disconnected { .. } => "agents_disconnected",
                AgentLink::Recovering { .. } => "agents_recovering",
                AgentLink::Unreachable { .. } => "agents_unreachable",
            });
        }
        counted.insert("agent_losses_waiting", self.removals.len() as u64);
        let mut count = |name| *counted.entry(name).or_default() += 1;
        for (_, framework) in self.frameworks.iter() {
            count(match framework.link {
                FrameworkLink::Connected { .. } => "frameworks_active",
                FrameworkLink::Disconnected { .. } => "frameworks_disconnected",
                FrameworkLink::Recovered { .. } => "frameworks_recovered",
            });
        }
        for (_, task) in self.tasks.iter() {
            count("tasks_live");
            if task.state == TaskState::TaskUnreachable {
                count("tasks_unreachable");
            }
        }
        let c = &self.counters;
        let gauges = [
            ("agents_active", c.agents_active),
            ("agents_disconnected", c.agents_disconnected),
            ("agents_recovering", c.agents_recovering),
            ("agents_unreachable", c.agents_unreachable),
            ("agent_losses_waiting", c.agent_losses_waiting),
            ("frameworks_active", c.frameworks_active),
            ("frameworks_disconnected", c.frameworks_disconnected),
            ("frameworks_recovered", c.frameworks_recovered),
            ("tasks_live", c.tasks_live),
            ("tasks_unreachable", c.tasks_unreachable),
        ];
        for (name, gauge) in gauges {
            let found = counted.get(name).copied().unwrap_or(0);
            ensure!(gauge == found, "{name} is {gauge}, but there are {found}");
        }
        ensure!(c.offers_outstanding == self.offers.len() as u64, "offers_outstanding is wrong");
        let lived = c.tasks_launched + c.tasks_recovered;
        let accounted = c.tasks_ended.total() + self.tasks.len() as u64;
        ensure!(lived == accounted, "{lived} tasks have lived, {accounted} are accounted for");
        Ok(())
    }
}
