//! The end of a framework (rule 16).

use std::collections::BTreeSet;

use mezz_proto::{
    time::Time,
    v1::{TaskState, task_status::Reason},
};

use super::events;
use crate::{
    allocator::{AgentKey, FrameworkKey},
    core::{
        Change, Core, Effect, Effects,
        effect::{master, shutdown_framework},
        state::CompletedFramework,
        tasks::MasterStatus,
    },
    registry::RegistryOp,
};

impl Core {
    /// TEARDOWN by the framework itself. The end of its connection confirms it,
    /// so that comes when it is written.
    pub(super) fn teardown(&mut self, now: Time, key: FrameworkKey, out: &mut Effects) {
        let connection = self.frameworks[key].connection();
        if let Some(connection) = connection {
            out.after_persist_on(connection);
        }
        self.remove_framework(now, key, out);
        if let Some(connection) = connection {
            out.close_scheduler(connection, None);
        }
    }

    /// Teardown by an operator: a framework that is there is told why.
    pub(in crate::core) fn operator_teardown(
        &mut self,
        now: Time,
        key: FrameworkKey,
        out: &mut Effects,
    ) {
        if let Some(connection) = self.frameworks[key].connection() {
            out.after_persist_on(connection);
            out.event(connection, events::error("Framework has been removed"));
        }
        self.teardown(now, key, out);
    }

    /// Its agents end all that it runs, its tasks are recorded as killed with no
    /// update sent, and its id is burnt. Its connection is the caller's business.
    pub(super) fn remove_framework(&mut self, now: Time, key: FrameworkKey, out: &mut Effects) {
        self.drop_framework_offers(now, key, out);
        let framework = &self.frameworks[key];
        let mut agents: BTreeSet<AgentKey> =
            framework.tasks.values().map(|task| self.tasks[*task].agent).collect();
        agents.extend(framework.executors.iter().map(|(agent, _)| *agent));
        // One that is away hears of it when it comes back. None hears of it before it is
        // written: the next leader might not know, and the framework come back to nothing.
        for connection in agents.iter().filter_map(|agent| self.agents[*agent].connection()) {
            let message = Box::new(master(shutdown_framework(&framework.id)));
            out.after_persist.push(Effect::SendAgent { connection, message });
        }
        for (agent, executor) in std::mem::take(&mut self.frameworks[key].executors) {
            self.forget_executor(now, agent, key, &executor, out);
        }
        let tasks: Vec<_> = self.frameworks[key].tasks.values().copied().collect();
        for task in tasks {
            if self.tasks[task].state.is_terminal() {
                self.retire_ended(task, out);
                continue;
            }
            let status = MasterStatus::new(
                TaskState::TaskKilled,
                Reason::FrameworkRemoved,
                "the framework was removed",
            );
            self.end_task_silently(now, task, status, out);
        }
        self.wake_allocator(now);

        let mut state = self.frameworks[key].state();
        let Some(framework) = self.take_framework(key) else { return };
        state.status = mezz_proto::mezz::v1::framework_state::Status::Completed as i32;
        state.unregistered_time = Some(now.as_secs_f64());
        out.change(Change::Framework(Box::new(state)));
        self.counters.frameworks_completed += 1;
        let ended = CompletedFramework {
            info: framework.info,
            at: now,
            recovered: false,
            tasks: framework.completed,
        };
        out.persist.push(RegistryOp::PutFramework(ended.record()));
        self.completed.insert(framework.id.clone(), ended);
        self.completed_order.push_back(framework.id);
        self.forget_completed(out);
    }

    /// Whether the write that says that the framework has ended may be under way: who is
    /// told now must not know more than the next leader.
    pub(in crate::core) fn removal_may_wait(&self, id: &str) -> bool {
        self.completed.get(id).is_some_and(|framework| !framework.recovered)
    }

    /// Keeps the number of remembered frameworks within its limit.
    fn forget_completed(&mut self, out: &mut Effects) {
        while self.completed.len() > self.options.max_completed_frameworks {
            let Some(id) = self.completed_order.pop_front() else { break };
            let Some(framework) = self.completed.remove(&id) else { continue };
            for task in framework.tasks.into_keys() {
                out.change(Change::TaskRemoved(id.clone(), task));
            }
            out.persist.push(RegistryOp::RemoveFramework(id.clone()));
            out.change(Change::FrameworkRemoved(id));
        }
    }
}
