//! What must hold at the end: everything is mended, and everything has come to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_proto::{ids::TaskId, mezz::v1 as mezz, v1::TaskState};

use crate::{
    agent::Agent,
    world::{Node, World},
};

/// Everybody has found the leader, and all that was lost is known to be.
pub const SETTLE: Duration = Duration::from_secs(240);

/// All tasks have ended, and everything about them is told and acknowledged.
pub const WIND_UP: Duration = Duration::from_secs(150);

impl World {
    /// One leader, to whom all are linked, and three who agree on what runs: the
    /// framework, the leader and the machine.
    pub fn check_settled(&mut self) {
        let leaders: Vec<usize> =
            (0..self.plan.masters).filter(|n| self.masters[*n].leads()).collect();
        let [leader] = leaders[..] else {
            return self.broken_rule(format!("at the end {leaders:?} lead"));
        };
        for n in 0..self.plan.agents {
            let Some(id) = self.agents[n].core_id() else {
                return self.broken_rule(format!("at the end agent{n} has no id"));
            };
            if !self.agents[n].is_registered() {
                return self.broken_rule(format!("at the end agent{n} is not linked"));
            }
            let known = self.masters[leader].term.as_ref().and_then(|term| term.agents.get(&id));
            let status = known.map(mezz::AgentState::status);
            if status != Some(mezz::agent_state::Status::Active) {
                return self.broken_rule(format!("at the end agent{n} ({id}) is {status:?}"));
            }
        }
        let there = self.agent_ids();
        let known = self.masters[leader].term.as_ref();
        let known = known.into_iter().flat_map(|term| term.agents.keys());
        let strangers: Vec<String> = known.filter(|id| !there.contains(*id)).cloned().collect();
        if !strangers.is_empty() {
            return self.broken_rule(format!("at the end {strangers:?} are no agents"));
        }
        for n in 0..self.plan.frameworks {
            let id = self.frameworks[n].id().unwrap_or_default().to_owned();
            if !self.frameworks[n].is_subscribed() {
                return self.broken_rule(format!("at the end framework{n} ({id}) is away"));
            }
            let term = self.masters[leader].term.as_ref();
            let status = term.and_then(|term| term.frameworks.get(&id)).map(|f| f.status());
            if status != Some(mezz::framework_state::Status::Active) {
                return self.broken_rule(format!("at the end framework{n} ({id}) is {status:?}"));
            }
        }
        self.check_agreement(leader);
    }

    fn check_agreement(&mut self, leader: usize) {
        let mut running: BTreeMap<(String, String), u32> = BTreeMap::new();
        for agent in &self.agents {
            for container in agent.machine.containers.values().filter(|c| c.is_live()) {
                let own = std::slice::from_ref(&container.task);
                let tasks: Vec<&TaskId> = match &container.executor {
                    Some(executor) => executor.live.keys().collect(),
                    None => own.iter().collect(),
                };
                for task in tasks {
                    let key = (container.framework.to_string(), task.to_string());
                    *running.entry(key).or_default() += 1;
                }
            }
        }
        let none = BTreeMap::new();
        let known = self.masters[leader].term.as_ref().map_or(&none, |term| &term.tasks);
        let mut wrong = None;
        for (key, job) in &self.books.jobs {
            let (framework, task) = key;
            let runs = running.remove(key).unwrap_or_default();
            if self.books.is_removed(framework) {
                if runs > 0 {
                    wrong = Some(format!("{task} of a removed framework runs on"));
                }
                continue;
            }
            let leaders = known.get(key).map(|task| task.state()).filter(|s| !s.is_terminal());
            let view = job.view.filter(|state| !state.is_terminal());
            // Of a task that may be on an agent that nobody knows any more.
            let view = view.filter(|state| *state != TaskState::TaskUnknown);
            let agree = match runs {
                0 => leaders.is_none() && view.is_none() && job.view.is_some(),
                1 => leaders.is_some() && leaders == view,
                _ => false,
            };
            if !agree {
                wrong = Some(format!(
                    "at the end {task} runs {runs} times, is {leaders:?} to the leader and \
                     {:?} to its framework",
                    job.view
                ));
            }
        }
        if let Some((key, _)) = running.first_key_value() {
            wrong = Some(format!("at the end {key:?} runs, and nobody asked for it"));
        }
        if let Some(rule) = wrong {
            self.broken_rule(rule);
        }
    }

    /// Those that the agents have now.
    fn agent_ids(&self) -> BTreeSet<String> {
        self.agents.iter().filter_map(Agent::core_id).collect()
    }

    /// What runs ends.
    pub fn wind_up(&mut self) {
        self.say(|| "all that runs ends".to_owned());
        for n in 0..self.plan.agents {
            self.end_containers(n);
        }
    }

    /// Nothing is left anywhere, and each end that an agent told has been heard.
    pub fn check_ended(&mut self) {
        let mut wrong = None;
        for (n, agent) in self.agents.iter().enumerate() {
            let store = &agent.store;
            let records = store.tasks.len() + store.executors.len();
            let left = (agent.live_tasks(), records, store.frameworks.len());
            if left != (0, 0, 0) || !agent.machine.containers.is_empty() {
                let containers = agent.machine.containers.len();
                wrong = Some(format!(
                    "in the end agent{n} has {left:?} tasks, records and frameworks, and \
                     {containers} containers"
                ));
            }
        }
        let leader = self.masters.iter().position(|master| master.leads());
        let term = leader.and_then(|n| self.masters[n].term.as_ref());
        let live = term.map_or(0, |term| {
            term.tasks.values().filter(|task| !task.state().is_terminal()).count()
        });
        if live > 0 {
            wrong = Some(format!("in the end the leader has {live} live tasks"));
        }
        for ((framework, task), job) in &self.books.jobs {
            if self.books.is_removed(framework) {
                continue;
            }
            let view = job.view;
            let over = view.is_some_and(|s| s.is_terminal() || s == TaskState::TaskUnknown);
            if !over || job.ended != job.reported {
                wrong = Some(format!(
                    "in the end {task} of framework{}, asked for at {:?}, is {view:?} to it, told \
                     as {:?} and ended as {:?}",
                    job.framework, job.asked, job.reported, job.ended
                ));
            }
        }
        if let Some(rule) = wrong {
            self.broken_rule(rule);
        }
    }

    /// For people: what happened in this run.
    pub fn summary(&self) -> String {
        let ran = self.books.jobs.values().filter(|job| job.started > 0).count();
        format!(
            "{} events, {} faults, {} terms, {} tasks, {ran} of them ran, {} starts of processes",
            self.events,
            self.books.faults,
            self.books.terms,
            self.books.jobs.len(),
            self.starts()
        )
    }

    fn starts(&self) -> u64 {
        let masters = (0..self.plan.masters).map(Node::Master);
        let agents = (0..self.plan.agents).map(Node::Agent);
        let all = masters.chain(agents).chain((0..self.plan.frameworks).map(Node::Framework));
        all.map(|node| self.status(node).epoch).sum()
    }
}
