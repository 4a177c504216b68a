//! What agents say that cannot run an application's containers.

use mezz_proto::{
    ids::AgentId,
    v1::{self, task_status::Reason},
};
use tracing::info;

use crate::{docker, policy::LONG_REFUSAL};

/// The agent that refused a task for want of an engine, and what it lacks.
pub(super) fn refusal(status: &v1::TaskStatus) -> Option<(AgentId, &'static str)> {
    let reason = status.reason.and_then(|r| Reason::try_from(r).ok());
    let text = status.message.as_deref().unwrap_or_default();
    let why = docker::lacks_engine(reason, text)?;
    let agent = status.agent_id.as_ref()?;
    info!(
        agent = agent.value,
        reason = text,
        "not used for this application for {} s, which needs Docker",
        LONG_REFUSAL.as_secs()
    );
    Some((agent.into(), why))
}
