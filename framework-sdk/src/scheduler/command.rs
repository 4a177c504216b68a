//! What the application asks of the driver.

use mezz_proto::{
    ids::{AgentId, ExecutorId, TaskId},
    v1,
};

/// One call of the application.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Accept {
        offers: Vec<v1::OfferId>,
        operations: Vec<v1::offer::Operation>,
        filters: Option<v1::Filters>,
    },
    Decline {
        offers: Vec<v1::OfferId>,
        filters: Option<v1::Filters>,
    },
    /// Empty: all roles.
    Suppress(Vec<String>),
    /// No offers any more.
    Withdraw,
    /// Empty: all roles.
    Revive(Vec<String>),
    Kill(v1::scheduler::call::Kill),
    ShutdownExecutor {
        executor: ExecutorId,
        agent: AgentId,
    },
    Message(v1::scheduler::call::Message),
    /// Empty: whatever the master knows.
    Reconcile(Vec<(TaskId, Option<AgentId>)>),
    Acknowledge(v1::scheduler::call::Acknowledge),
    UpdateFramework {
        info: Box<v1::FrameworkInfo>,
        suppressed: Vec<String>,
        constraints: Option<v1::scheduler::OfferConstraints>,
    },
    Teardown,
    Stop,
}
