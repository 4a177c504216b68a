//! Names of events and effects, as metric labels.

use mezz_proto::{mezz::v1 as mezz, v1};

use crate::core::{Effect, Event, OperatorCommand};

/// Labels of what the core is given, by [`event_kind`]. Calls of frameworks come
/// first, at the number of their type.
pub const EVENT_KINDS: &[&str] = &[
    "call_unknown",
    "call_subscribe",
    "call_teardown",
    "call_accept",
    "call_decline",
    "call_revive",
    "call_kill",
    "call_shutdown",
    "call_acknowledge",
    "call_reconcile",
    "call_message",
    "call_request",
    "call_suppress",
    "call_accept_inverse_offers",
    "call_decline_inverse_offers",
    "call_acknowledge_operation_status",
    "call_reconcile_operations",
    "call_update_framework",
    "scheduler_disconnected",
    "agent_unknown",
    "agent_register",
    "agent_reregister",
    "agent_pong",
    "agent_status_update",
    "agent_executor_message",
    "agent_executor_terminated",
    "agent_unregister",
    "agent_drained",
    "agent_disconnected",
    "operator_explain",
    "operator_kill_task",
    "operator_teardown",
    "operator_update_weights",
    "operator_list_roles",
    "operator_drain_agent",
    "operator_deactivate_agent",
    "operator_reactivate_agent",
    "operator_mark_agent_gone",
    "deadline",
];

const SCHEDULER_DISCONNECTED: usize = 18;
const AGENT: usize = 19;
const AGENT_DISCONNECTED: usize = 28;
const OPERATOR: usize = 29;
/// The kind of a call of `on_deadline`.
pub const DEADLINE: usize = 38;

/// Index in [`EVENT_KINDS`].
pub fn event_kind(event: &Event) -> usize {
    use mezz::agent_message::Message;
    match event {
        Event::SchedulerCall { call, .. } | Event::SchedulerRequest { call, .. } => {
            match v1::scheduler::call::Type::try_from(call.r#type.unwrap_or_default()) {
                Ok(kind) => kind as usize,
                Err(_) => 0,
            }
        }
        Event::SchedulerDisconnected { .. } => SCHEDULER_DISCONNECTED,
        Event::AgentMessage { message, .. } => {
            AGENT
                + match &message.message {
                    None => 0,
                    Some(Message::Register(_)) => 1,
                    Some(Message::Reregister(_)) => 2,
                    Some(Message::Pong(_)) => 3,
                    Some(Message::StatusUpdate(_)) => 4,
                    Some(Message::ExecutorMessage(_)) => 5,
                    Some(Message::ExecutorTerminated(_)) => 6,
                    Some(Message::Unregister(_)) => 7,
                    Some(Message::Drained(_)) => 8,
                }
        }
        Event::AgentDisconnected { .. } => AGENT_DISCONNECTED,
        Event::Operator { command, .. } => {
            OPERATOR
                + match command {
                    OperatorCommand::Explain(_) => 0,
                    OperatorCommand::KillTask(_) => 1,
                    OperatorCommand::Teardown(_) => 2,
                    OperatorCommand::UpdateWeights(_) => 3,
                    OperatorCommand::ListRoles => 4,
                    OperatorCommand::DrainAgent(_) => 5,
                    OperatorCommand::DeactivateAgent(_) => 6,
                    OperatorCommand::ReactivateAgent(_) => 7,
                    OperatorCommand::MarkAgentGone(_) => 8,
                }
        }
    }
}

/// Labels of what the core wants done, by [`effect_kind`].
pub const EFFECT_KINDS: &[&str] = &[
    "send_scheduler",
    "close_scheduler",
    "send_agent",
    "close_agent",
    "reply",
    "change",
    "answer",
];

/// Index in [`EFFECT_KINDS`].
pub fn effect_kind(effect: &Effect) -> usize {
    match effect {
        Effect::SendScheduler { .. } => 0,
        Effect::CloseScheduler { .. } => 1,
        Effect::SendAgent { .. } => 2,
        Effect::CloseAgent { .. } => 3,
        Effect::Reply { .. } => 4,
        Effect::Change(_) => 5,
        Effect::Answer { .. } => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{ConnectionId, RequestId};

    const CONNECTION: ConnectionId = ConnectionId(1);

    fn name(event: Event) -> &'static str {
        EVENT_KINDS[event_kind(&event)]
    }

    #[test]
    fn every_call_has_the_name_of_its_type() {
        for number in 0..=17 {
            let kind = v1::scheduler::call::Type::try_from(number).unwrap();
            let call = v1::scheduler::Call { r#type: Some(number), ..Default::default() };
            let event = Event::SchedulerCall { connection: CONNECTION, call: Box::new(call) };
            assert_eq!(name(event), format!("call_{}", kind.as_str_name().to_lowercase()));
        }
        let call = v1::scheduler::Call { r#type: Some(9999), ..Default::default() };
        let event = Event::SchedulerCall { connection: CONNECTION, call: Box::new(call) };
        assert_eq!(name(event), "call_unknown");
    }

    #[test]
    fn the_other_events_have_theirs() {
        assert_eq!(
            name(Event::SchedulerDisconnected { connection: CONNECTION }),
            "scheduler_disconnected"
        );
        assert_eq!(name(Event::AgentDisconnected { connection: CONNECTION }), "agent_disconnected");
        let message = mezz::agent_message::Message::Unregister(mezz::Unregister::default());
        let message = Box::new(mezz::AgentMessage { message: Some(message) });
        assert_eq!(
            name(Event::AgentMessage { connection: CONNECTION, message }),
            "agent_unregister"
        );
        let request = RequestId(1);
        let command = OperatorCommand::ListRoles;
        assert_eq!(name(Event::Operator { request, command }), "operator_list_roles");
        assert_eq!(EVENT_KINDS[DEADLINE], "deadline");
        assert_eq!(EVENT_KINDS.len(), DEADLINE + 1);
    }
}
