//! Messages between frameworks and executors (rule 41: at most once), and
//! SHUTDOWN (rule 42). Whatever has no taker is dropped.

use mezz_proto::{
    mezz::v1::{self as mezz, master_message::Message},
    v1::{
        self,
        scheduler::{call, event},
    },
};

use crate::{
    allocator::{AgentKey, FrameworkKey},
    core::{ConnectionId, Core, Effects, frameworks::events},
};

impl Core {
    pub(in crate::core) fn message_to_executor(
        &self,
        framework: FrameworkKey,
        message: call::Message,
        out: &mut Effects,
    ) {
        let Some(connection) = self.link_of(&message.agent_id) else { return };
        let message = mezz::ExecutorMessage {
            framework_id: (&self.frameworks[framework].id).into(),
            executor_id: message.executor_id,
            data: message.data,
        };
        out.agent(connection, Message::ExecutorMessage(message));
    }

    pub(in crate::core) fn message_from_executor(
        &self,
        agent: AgentKey,
        message: mezz::ExecutorMessage,
        out: &mut Effects,
    ) {
        let Some(&framework) = self.framework_ids.get(&*message.framework_id.value) else { return };
        let Some(connection) = self.frameworks[framework].connection() else { return };
        let message = event::Message {
            agent_id: (&self.agents[agent].id).into(),
            executor_id: message.executor_id,
            data: message.data,
        };
        out.event(connection, events::message(message));
    }

    pub(in crate::core) fn shutdown_executor(
        &self,
        framework: FrameworkKey,
        shutdown: call::Shutdown,
        out: &mut Effects,
    ) {
        let Some(connection) = self.link_of(&shutdown.agent_id) else { return };
        let message = mezz::ShutdownExecutor {
            framework_id: (&self.frameworks[framework].id).into(),
            executor_id: shutdown.executor_id,
        };
        out.agent(connection, Message::ShutdownExecutor(message));
    }

    fn link_of(&self, agent: &v1::AgentId) -> Option<ConnectionId> {
        self.agents[*self.agent_ids.get(&*agent.value)?].connection()
    }
}
