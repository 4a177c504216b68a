//! What a framework asks for: tasks, their end, and what is known of them.

use mezz_proto::{
    resources::{Dialect, Resources},
    v1::{
        self,
        offer::{Operation, operation},
        scheduler::call,
    },
};
use rand::RngExt as _;

use crate::world::World;

impl World {
    /// What it does with an offer, some time after it came.
    pub fn decide(&mut self, n: usize, offer: &v1::Offer) {
        let id = offer.id.value.clone();
        // It may not have heard yet, or not care.
        if self.frameworks[n].gone.remove(&id) && self.rng.random_bool(0.5) {
            return;
        }
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        let live = self.books.live(&own);
        let wanted = if self.books.launching { self.frameworks[n].wanted } else { 0 };
        let has = Resources::from_proto(&offer.resources).unwrap_or_default();
        let mut left = has.scalar("cpus").to_f64();
        let mut tasks = Vec::new();
        let mut asked = Vec::new();
        while live + tasks.len() < wanted && tasks.len() < 3 {
            let cpus = [0.5, 1.0, 1.5][self.rng.random_range(0..3)];
            if cpus > left || self.rng.random_ratio(1, 4) {
                break;
            }
            let executor = self.frameworks[n].executors && self.rng.random_bool(0.5);
            let executor = executor.then(|| format!("f{n}-e{}", self.rng.random_range(0..2)));
            left -= cpus + executor.as_ref().map_or(0.0, |_| EXECUTOR.0);
            if left < 0.0 {
                break;
            }
            self.frameworks[n].next_task += 1;
            let task = format!("f{n}-{}", self.frameworks[n].next_task);
            tasks.push(task_info(&task, &offer.agent_id, cpus, executor.as_deref()));
            asked.push(task);
        }
        let offer_ids = vec![offer.id.clone()];
        if tasks.is_empty() {
            let refuse = [None, Some(0.5), Some(20.0)][self.rng.random_range(0..3)];
            let filters = refuse.map(|s| v1::Filters { refuse_seconds: Some(s) });
            let decline = call::Decline { offer_ids, filters };
            self.call(n, call::Type::Decline, |call| call.decline = Some(decline));
            return;
        }
        let operation = Operation {
            r#type: Some(operation::Type::Launch as i32),
            launch: Some(operation::Launch { task_infos: tasks }),
            ..Default::default()
        };
        let filters = Some(v1::Filters { refuse_seconds: Some(1.0) });
        let accept = call::Accept { offer_ids, operations: vec![operation], filters };
        if self.call(n, call::Type::Accept, |call| call.accept = Some(accept)) {
            let now = self.now;
            let agent = &offer.agent_id.value;
            for task in asked {
                self.say(|| format!("framework{n}: launches {task} by {id} on {agent}"));
                self.books.asked(now, n, &own, &task, agent, &id);
            }
        }
    }

    pub(super) fn kill_some(&mut self, n: usize) {
        if !self.books.launching {
            return;
        }
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        if self.frameworks[n].executors && self.rng.random_ratio(1, 6) {
            self.shut_executor_down(n);
        }
        let live = self.books.not_ended(&own);
        if live.is_empty() {
            return;
        }
        let (task, agent) = live[self.rng.random_range(0..live.len())].clone();
        let agent_id = self.rng.random_bool(0.5).then_some(v1::AgentId { value: agent });
        let task_id = v1::TaskId { value: task.clone() };
        let kill = call::Kill { task_id, agent_id, kill_policy: None };
        if self.call(n, call::Type::Kill, |call| call.kill = Some(kill)) {
            self.say(|| format!("framework{n}: kills {task}"));
        }
    }

    fn shut_executor_down(&mut self, n: usize) {
        let executor = format!("f{n}-e{}", self.rng.random_range(0..2));
        let agent = self.rng.random_range(0..self.plan.agents);
        let Some(agent) = self.agents[agent].core_id() else { return };
        let shutdown = call::Shutdown {
            executor_id: v1::ExecutorId { value: executor.clone() },
            agent_id: v1::AgentId { value: agent.clone() },
        };
        if self.call(n, call::Type::Shutdown, |call| call.shutdown = Some(shutdown)) {
            self.say(|| format!("framework{n}: shuts {executor} on {agent} down"));
        }
    }

    /// Asks for what it thinks alive, or for everything: a task that was lost may be there
    /// again, and only the master at that time has said so.
    pub(super) fn reconcile(&mut self, n: usize) {
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        let all = std::mem::take(&mut self.frameworks[n].asks_all);
        if all || !self.books.launching || self.rng.random_ratio(1, 3) {
            self.reconcile_with(n, Vec::new());
        }
        let live = self.books.not_ended(&own);
        if !live.is_empty() {
            self.reconcile_with(n, live);
        }
    }

    fn reconcile_with(&mut self, n: usize, live: Vec<(String, String)>) {
        let tasks = live
            .into_iter()
            .map(|(task, agent)| call::reconcile::Task {
                task_id: v1::TaskId { value: task },
                agent_id: Some(v1::AgentId { value: agent }),
            })
            .collect();
        let reconcile = call::Reconcile { tasks };
        self.call(n, call::Type::Reconcile, |call| call.reconcile = Some(reconcile));
    }

    pub fn acknowledge(&mut self, n: usize, status: &v1::TaskStatus) {
        let (Some(agent_id), Some(uuid)) = (status.agent_id.clone(), status.uuid.clone()) else {
            return;
        };
        let acknowledge = call::Acknowledge { agent_id, task_id: status.task_id.clone(), uuid };
        let Some(own) = self.frameworks[n].id().map(str::to_owned) else { return };
        if self.call(n, call::Type::Acknowledge, |call| call.acknowledge = Some(acknowledge)) {
            let (task, state) = (&status.task_id.value, status.state().as_str_name());
            self.say(|| format!("framework{n}: acknowledges {task}, {state}"));
            self.books.acknowledged(&own, status);
        }
    }
}

/// What an executor has beside its tasks: cpus and mem.
pub const EXECUTOR: (f64, f64) = (0.25, 16.0);

fn task_info(id: &str, agent: &v1::AgentId, cpus: f64, executor: Option<&str>) -> v1::TaskInfo {
    let command = || v1::CommandInfo { value: Some("true".to_owned()), ..Default::default() };
    let executor = executor.map(|id| v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Custom as i32),
        executor_id: v1::ExecutorId { value: id.to_owned() },
        command: Some(command()),
        resources: Resources::cpus_mem(EXECUTOR.0, EXECUTOR.1).to_proto(Dialect::Plain, None),
        ..Default::default()
    });
    v1::TaskInfo {
        name: id.to_owned(),
        task_id: v1::TaskId { value: id.to_owned() },
        agent_id: agent.clone(),
        resources: Resources::cpus_mem(cpus, 32.0).to_proto(Dialect::Plain, None),
        command: executor.is_none().then(command),
        executor,
        ..Default::default()
    }
}
