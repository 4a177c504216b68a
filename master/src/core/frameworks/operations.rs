//! RECONCILE_OPERATIONS (rule 43). No operation is ever under way here: what a framework
//! names is unknown, and what is said of it depends on its agent alone.

use mezz_proto::v1::{
    OperationState, OperationStatus,
    scheduler::call::{ReconcileOperations, reconcile_operations::Operation},
};

use super::events;
use crate::{
    allocator::FrameworkKey,
    core::{Core, Effects, state::AgentLink},
};

impl Core {
    /// The states go out as events, as Mesos sends them since 1.10, and are returned for
    /// the answer that clients before that expect.
    pub(super) fn reconcile_operations(
        &self,
        framework: FrameworkKey,
        asked: ReconcileOperations,
        out: &mut Effects,
    ) -> Vec<OperationStatus> {
        let told: Vec<OperationStatus> =
            asked.operations.into_iter().map(|operation| self.no_operation(operation)).collect();
        if let Some(connection) = self.frameworks[framework].connection() {
            for status in &told {
                out.event(connection, events::operation(status.clone()));
            }
        }
        told
    }

    fn no_operation(&self, asked: Operation) -> OperationStatus {
        let Operation { operation_id, agent_id, resource_provider_id } = asked;
        let agent = agent_id.as_ref().map_or("", |id| &id.value);
        let link = self.agent_ids.get(agent).map(|key| &self.agents[*key].link);
        let (state, text) = match link {
            Some(AgentLink::Recovering { .. }) => (
                OperationState::OperationRecovering,
                "Reconciliation: Agent is recovered but has not re-registered",
            ),
            Some(AgentLink::Unreachable { .. }) => {
                (OperationState::OperationUnreachable, "Reconciliation: Agent is unreachable")
            }
            None if self.gone.contains_key(agent) => (
                OperationState::OperationGoneByOperator,
                "Reconciliation: Agent marked gone by operator",
            ),
            Some(_) => (OperationState::OperationUnknown, "Reconciliation: Operation is unknown"),
            None if agent_id.is_none() => (
                OperationState::OperationUnknown,
                "Reconciliation: Operation is unknown and no 'agent_id' was provided",
            ),
            None => (
                OperationState::OperationUnknown,
                "Reconciliation: Both operation and agent are unknown",
            ),
        };
        OperationStatus {
            operation_id: Some(operation_id),
            state: state as i32,
            message: Some(text.to_owned()),
            agent_id,
            resource_provider_id,
            ..Default::default()
        }
    }
}
