//! The calls of the v1 scheduler API, as whole messages.

use mezz_proto::{
    ids::{AgentId, ExecutorId, TaskId},
    v1::{
        self,
        scheduler::{
            Call,
            call::{self, Type},
        },
    },
};

fn call(kind: Type) -> Call {
    Call { r#type: Some(kind as i32), ..Default::default() }
}

pub(super) fn subscribe(
    id: Option<v1::FrameworkId>,
    framework_info: v1::FrameworkInfo,
    suppressed_roles: Vec<String>,
    offer_constraints: Option<v1::scheduler::OfferConstraints>,
) -> Call {
    let subscribe = call::Subscribe { framework_info, suppressed_roles, offer_constraints };
    Call { framework_id: id, subscribe: Some(subscribe), ..call(Type::Subscribe) }
}

pub(super) fn accept(
    offer_ids: Vec<v1::OfferId>,
    operations: Vec<v1::offer::Operation>,
    filters: Option<v1::Filters>,
) -> Call {
    let accept = call::Accept { offer_ids, operations, filters };
    Call { accept: Some(accept), ..call(Type::Accept) }
}

pub(super) fn decline(offer_ids: Vec<v1::OfferId>, filters: Option<v1::Filters>) -> Call {
    Call { decline: Some(call::Decline { offer_ids, filters }), ..call(Type::Decline) }
}

pub(super) fn suppress(roles: Vec<String>) -> Call {
    Call { suppress: Some(call::Suppress { roles }), ..call(Type::Suppress) }
}

pub(super) fn revive(roles: Vec<String>) -> Call {
    Call { revive: Some(call::Revive { roles }), ..call(Type::Revive) }
}

pub(super) fn kill(kill: call::Kill) -> Call {
    Call { kill: Some(kill), ..call(Type::Kill) }
}

pub(super) fn shutdown(executor: &ExecutorId, agent: &AgentId) -> Call {
    let shutdown = call::Shutdown { executor_id: executor.into(), agent_id: agent.into() };
    Call { shutdown: Some(shutdown), ..call(Type::Shutdown) }
}

pub(super) fn message(message: call::Message) -> Call {
    Call { message: Some(message), ..call(Type::Message) }
}

pub(super) fn acknowledge(acknowledge: call::Acknowledge) -> Call {
    Call { acknowledge: Some(acknowledge), ..call(Type::Acknowledge) }
}

/// Implicit when there are no tasks.
pub(super) fn reconcile<'a>(
    tasks: impl IntoIterator<Item = (&'a TaskId, Option<&'a AgentId>)>,
) -> Call {
    let tasks = tasks
        .into_iter()
        .map(|(task, agent)| call::reconcile::Task {
            task_id: task.into(),
            agent_id: agent.map(Into::into),
        })
        .collect();
    Call { reconcile: Some(call::Reconcile { tasks }), ..call(Type::Reconcile) }
}

pub(super) fn update_framework(
    framework_info: v1::FrameworkInfo,
    suppressed_roles: Vec<String>,
    offer_constraints: Option<v1::scheduler::OfferConstraints>,
) -> Call {
    let update = call::UpdateFramework { framework_info, suppressed_roles, offer_constraints };
    Call { update_framework: Some(update), ..call(Type::UpdateFramework) }
}

pub(super) fn teardown() -> Call {
    call(Type::Teardown)
}
