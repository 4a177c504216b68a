//! Agents: their messages, their coming and going.

mod duty;
mod liveness;
mod membership;
mod register;
mod removal;
mod reregister;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message::Message},
    time::Time,
};

#[cfg(test)]
pub(in crate::core) use duty::MAX_GONE;

use super::{ConnectionId, Core, Effects};

impl Core {
    /// A message on an agent's link.
    pub(super) fn agent_message(
        &mut self,
        now: Time,
        connection: ConnectionId,
        message: mezz::AgentMessage,
        out: &mut Effects,
    ) {
        let agent = self.agent_links.get(&connection).copied();
        if let Some(agent) = agent {
            self.agents[agent].heard = true;
        }
        let valid = match (agent, message.message) {
            (None, Some(Message::Register(m))) => {
                self.register(now, connection, m, out);
                true
            }
            (None, Some(Message::Reregister(m))) => {
                self.reregister(now, connection, m, out);
                true
            }
            (Some(agent), Some(Message::Pong(m))) => {
                self.pong(agent, m.number);
                true
            }
            (Some(agent), Some(Message::StatusUpdate(m))) => {
                self.status_update(now, agent, connection, m, out)
            }
            (Some(agent), Some(Message::ExecutorMessage(m))) => {
                self.message_from_executor(agent, m, out);
                true
            }
            (Some(agent), Some(Message::ExecutorTerminated(m))) => {
                self.executor_terminated(now, agent, m, out);
                true
            }
            (Some(agent), Some(Message::Drained(m))) => {
                self.agent_emptied(agent, m.number);
                true
            }
            (Some(agent), Some(Message::Unregister(_))) => {
                out.close_agent(connection);
                self.remove_agent(now, agent, out);
                true
            }
            _ => false,
        };
        if !valid {
            self.counters.invalid_agent_messages += 1;
            out.close_agent(connection);
            self.agent_disconnected(now, connection, out);
        }
    }
}
