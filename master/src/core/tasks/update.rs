//! A status update from an agent.

use mezz_proto::{
    ids::{AgentId, FrameworkId, TaskId},
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
};

use crate::{
    allocator::AgentKey,
    core::{
        ConnectionId, Core, Effects,
        effect::shutdown_framework,
        frameworks::events,
        state::{StatusRecord, TaskKey, reported_state},
        validate::ids,
    },
};

impl Core {
    /// Records the update and forwards it. The agent sends it again until the
    /// framework has acknowledged it, so one that cannot be forwarded is not lost.
    ///
    /// False when the message breaks the protocol.
    pub(in crate::core) fn status_update(
        &mut self,
        now: Time,
        agent: AgentKey,
        connection: ConnectionId,
        message: mezz::StatusUpdate,
        out: &mut Effects,
    ) -> bool {
        let mezz::StatusUpdate { framework_id, status, latest_state } = message;
        let (Some(state), Some(latest)) =
            (reported_state(status.state), reported_state(latest_state))
        else {
            return false;
        };
        let Some(Ok(uuid)) = status.uuid.as_ref().map(|uuid| ids::uuid("uuid", uuid)) else {
            return false;
        };
        let of = status.agent_id.as_ref().map(AgentId::from);
        if of.is_some_and(|of| of != self.agents[agent].id) {
            return false;
        }
        self.counters.status_updates += 1;
        let framework_id = FrameworkId::from(framework_id);
        let Some(&framework) = self.framework_ids.get(&framework_id) else {
            if self.completed.contains_key(&framework_id) {
                out.agent(connection, shutdown_framework(&framework_id));
            }
            return true;
        };
        let id = TaskId::from(&status.task_id);
        match self.frameworks[framework].tasks.get(&id).copied() {
            Some(task) if self.tasks[task].agent != agent => {
                // The id was used again elsewhere: this one is nobody's any more.
                out.agent(
                    connection,
                    Message::Acknowledgement(mezz::StatusUpdateAcknowledgement {
                        framework_id: framework_id.into(),
                        task_id: id.into(),
                        uuid: uuid.to_vec(),
                    }),
                );
                return true;
            }
            Some(task) => {
                // Rule 36: the newest state frees, whatever the framework knows.
                if !self.tasks[task].state.is_terminal() {
                    self.set_task_state(now, task, latest);
                }
                let known = &mut self.tasks[task];
                known.pending = Some((state, uuid));
                known.remember(StatusRecord::new(state, &status));
                self.publish_task(task, out);
            }
            // Ended and acknowledged, but the agent does not know that yet: the
            // framework acknowledges it once more.
            None => {}
        }
        if let Some(framework) = self.frameworks[framework].connection() {
            out.event(framework, events::update(status));
        }
        true
    }

    /// Whether the update that waits for an acknowledgement is the task's last.
    pub(super) fn waits_for_last(&self, task: TaskKey, uuid: &[u8; 16]) -> bool {
        let task = &self.tasks[task];
        task.pending.is_some_and(|(state, pending)| state.is_terminal() && pending == *uuid)
    }
}
