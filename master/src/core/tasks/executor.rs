//! The end of an executor.

use mezz_proto::{ids::ExecutorId, mezz::v1 as mezz, time::Time, v1::scheduler::event::Failure};

use crate::{
    allocator::{AgentKey, FrameworkKey},
    core::{Change, Core, Effects, frameworks::events},
};

impl Core {
    /// Rule 40: what the executor held itself is free, and its framework gets a
    /// FAILURE. The agent reports the end of its tasks by updates.
    pub(in crate::core) fn executor_terminated(
        &mut self,
        now: Time,
        agent: AgentKey,
        message: mezz::ExecutorTerminated,
        out: &mut Effects,
    ) {
        let Some(&framework) = self.framework_ids.get(&*message.framework_id.value) else { return };
        let executor = ExecutorId::from(message.executor_id);
        self.frameworks[framework].executors.remove(&(agent, executor.clone()));
        self.forget_executor(now, agent, framework, &executor, out);
        self.tell_executor_lost(agent, framework, &executor, message.status, out);
    }

    /// Takes the executor from its agent and gives back what it held.
    pub(in crate::core) fn forget_executor(
        &mut self,
        now: Time,
        agent: AgentKey,
        framework: FrameworkKey,
        executor: &ExecutorId,
        out: &mut Effects,
    ) {
        let place = (framework, executor.clone());
        if let Some(held) = self.agents[agent].executors.remove(&place) {
            self.allocator.recover(agent, framework, &held.role, &held.resources);
            self.publish_executor_removed(agent, framework, executor, out);
            self.wake_allocator(now);
        }
    }

    pub(in crate::core) fn publish_executor_removed(
        &self,
        agent: AgentKey,
        framework: FrameworkKey,
        executor: &ExecutorId,
        out: &mut Effects,
    ) {
        out.change(Change::ExecutorRemoved(
            self.agents[agent].id.clone(),
            self.frameworks[framework].id.clone(),
            executor.clone(),
        ));
    }

    pub(in crate::core) fn tell_executor_lost(
        &self,
        agent: AgentKey,
        framework: FrameworkKey,
        executor: &ExecutorId,
        status: i32,
        out: &mut Effects,
    ) {
        if let Some(connection) = self.frameworks[framework].connection() {
            let failure = Failure {
                agent_id: Some((&self.agents[agent].id).into()),
                executor_id: Some(executor.into()),
                status: Some(status),
            };
            out.event(connection, events::failure(failure));
        }
    }
}
