//! Agents that are lost: for now, or for good.

use mezz_proto::{
    mezz::v1 as mezz,
    time::Time,
    v1::{self, TaskState, task_status::Reason},
};

use super::reregister::gone;
use crate::{
    allocator::AgentKey,
    core::{
        Core, Effects,
        frameworks::events,
        state::{AgentLink, Charge, Duty},
        tasks::MasterStatus,
    },
    registry::RegistryOp,
};

impl Core {
    /// Rule 47. Its tasks are kept and reported unreachable, or lost to
    /// frameworks that do not know the difference; ended ones whose last update
    /// is not acknowledged stay as they are.
    ///
    /// Who has tasks there hears of it when it is written: a leader that did not know
    /// would not say, when the agent comes back, that they run after all.
    pub(super) fn mark_unreachable(&mut self, now: Time, key: AgentKey, out: &mut Effects) {
        self.detach_agent(now, key, out);
        self.set_agent_link(key, AgentLink::Unreachable { since: now });
        self.counters.agents_marked_unreachable += 1;
        out.persist.push(RegistryOp::PutAgent(self.agents[key].record()));
        self.publish_agent(key, out);
        let tasks: Vec<_> = self.agents[key].tasks.iter().copied().collect();
        for task in tasks {
            if self.tasks[task].state.is_terminal() {
                continue;
            }
            self.set_task_state(now, task, TaskState::TaskUnreachable);
            self.tasks[task].pending = None;
            let framework = self.tasks[task].framework;
            let shown = self.unreachable_state(framework);
            if let Some(connection) = self.frameworks[framework].connection() {
                out.after_persist_on(connection);
            }
            self.tell_status(
                now,
                task,
                MasterStatus {
                    unreachable_since: Some(now),
                    ..MasterStatus::new(shown, Reason::AgentRemoved, "the agent is unreachable")
                },
                out,
            );
            self.publish_task(task, out);
        }
        self.tell_agent_lost(key, out);
    }

    /// The agent said goodbye: its tasks are lost for good (rule 47: also to
    /// frameworks with PARTITION_AWARE).
    pub(super) fn remove_agent(&mut self, now: Time, key: AgentKey, out: &mut Effects) {
        self.detach_agent(now, key, out);
        // Not to be linked any more while its tasks end.
        self.set_agent_link(key, AgentLink::Unreachable { since: now });
        self.counters.agents_removed += 1;
        let tasks: Vec<_> = self.agents[key].tasks.iter().copied().collect();
        for task in tasks {
            let status = MasterStatus::new(
                TaskState::TaskLost,
                Reason::AgentRemoved,
                "the agent has left the cluster",
            );
            self.end_task_of_lost_agent(now, task, status, out);
        }
        self.tell_agent_lost(key, out);
        out.persist.push(RegistryOp::RemoveAgent(self.agents[key].id.clone()));
        self.forget_agent(key, false, out);
    }

    /// An agent is given up: it is told to stop, and its id is burnt. A drained one has no
    /// tasks; those of another one are gone by an operator's word (rule 47), and whoever has
    /// any hears of it when it is written, for another leader would let the agent come back.
    pub(super) fn mark_gone(&mut self, now: Time, key: AgentKey, out: &mut Effects) {
        let id = self.agents[key].id.clone();
        if let Some(connection) = self.agents[key].connection() {
            out.after_persist_on(connection);
            self.refuse_agent(connection, gone(&id), out);
        }
        let record =
            mezz::AgentRecord { gone_time: Some(now.to_proto()), ..self.agents[key].record() };
        self.detach_agent(now, key, out);
        self.set_agent_link(key, AgentLink::Unreachable { since: now });
        self.counters.agents_removed += 1;
        let tasks: Vec<_> = self.agents[key].tasks.iter().copied().collect();
        // All frameworks hear of the agent's end.
        for connection in self.framework_links.keys() {
            out.after_persist_on(*connection);
        }
        for task in tasks {
            let framework = self.tasks[task].framework;
            let status = MasterStatus::new(
                self.lost_state(framework, TaskState::TaskGoneByOperator),
                Reason::AgentRemovedByOperator,
                "an operator has marked the agent as gone",
            );
            self.end_task_of_lost_agent(now, task, status, out);
        }
        self.tell_agent_lost(key, out);
        self.forget_agent(key, true, out);
        out.persist.push(RegistryOp::PutAgent(record));
        out.persist.extend(self.remember_gone(id, now).map(RegistryOp::RemoveAgent));
    }

    /// An unreachable agent is forgotten, to make room or for its age. Its tasks were reported
    /// lost or unreachable before; now they are gone. What an operator wants of it is
    /// kept, for it may come back after all.
    pub(super) fn give_up_agent(&mut self, now: Time, key: AgentKey, out: &mut Effects) {
        let tasks: Vec<_> = self.agents[key].tasks.iter().copied().collect();
        for task in tasks {
            let status = MasterStatus::new(
                self.lost_state(self.tasks[task].framework, TaskState::TaskGone),
                Reason::AgentRemoved,
                "the agent was unreachable and is given up",
            );
            self.end_task_of_lost_agent(now, task, status, out);
        }
        let agent = &self.agents[key];
        let (id, duty, record) = (agent.id.clone(), agent.duty.clone(), agent.record());
        self.forget_agent(key, false, out);
        if duty == Duty::Active {
            out.persist.push(RegistryOp::RemoveAgent(id));
            return;
        }
        out.persist.push(RegistryOp::PutAgent(mezz::AgentRecord {
            given_up_time: Some(now.to_proto()),
            unreachable_time: None,
            ..record
        }));
        out.persist.extend(self.keep_duty(id, now, duty).map(RegistryOp::RemoveAgent));
    }

    /// Takes its offers, its executors and its place in the allocator away. The
    /// link is the caller's business.
    fn detach_agent(&mut self, now: Time, key: AgentKey, out: &mut Effects) {
        self.rescind_agent_offers(now, key, out);
        for (framework, executor) in std::mem::take(&mut self.agents[key].executors).into_keys() {
            self.publish_executor_removed(key, framework, &executor, out);
            self.frameworks[framework].executors.remove(&(key, executor));
        }
        if self.agents[key].is_allocated() {
            // What its tasks hold goes with it.
            self.allocator.remove_agent(key);
            for task in &self.agents[key].tasks {
                self.tasks[*task].charge = Charge::Free;
            }
        }
    }

    /// Rule 40: FAILURE with only the agent's id goes to every framework.
    fn tell_agent_lost(&mut self, key: AgentKey, out: &mut Effects) {
        let failure = v1::scheduler::event::Failure {
            agent_id: Some((&self.agents[key].id).into()),
            ..Default::default()
        };
        for connection in self.framework_links.keys() {
            out.event(*connection, events::failure(failure.clone()));
        }
    }
}
