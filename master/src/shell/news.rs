//! One log line for each agent or framework that comes or goes, from the same
//! changes that readers see.

use mezz_proto::{ids::AgentId, mezz::v1 as mezz, v1, v1::DrainState};
use tracing::{debug, info, warn};

use super::view;
use crate::core::ShownTask;

/// An agent's record changed.
pub fn agent(old: Option<&mezz::AgentState>, new: &mezz::AgentState) {
    use mezz::agent_state::Status;
    let agent_id = view::agent_id(&new.agent);
    let hostname = new.agent.hostname.as_str();
    let duty = |state: &mezz::AgentState| (state.drain.map(|d| d.state()), state.deactivated());
    if old.map_or((None, false), duty) != duty(new) {
        match duty(new) {
            (Some(DrainState::Drained), _) => info!(agent_id, hostname, "agent is drained"),
            (Some(_), _) => info!(agent_id, hostname, "agent drains"),
            (None, true) => info!(agent_id, hostname, "agent is deactivated"),
            (None, false) => info!(agent_id, hostname, "agent is reactivated"),
        }
    }
    if old.map(mezz::AgentState::status) == Some(new.status()) {
        return;
    }
    match new.status() {
        Status::Active if new.reregistered_time.is_some() => {
            info!(agent_id, hostname, "agent is back");
        }
        Status::Active => info!(agent_id, hostname, "agent registered"),
        Status::Disconnected => warn!(agent_id, hostname, "agent disconnected"),
        Status::Unreachable => warn!(agent_id, hostname, "agent is unreachable"),
        // The leader has said how many; tens of thousands of lines would hold it up.
        Status::Recovering => debug!(agent_id, hostname, "agent known from the registry"),
    }
}

/// An agent was forgotten.
pub fn agent_removed(agent_id: &AgentId) {
    info!(%agent_id, "agent removed");
}

/// A framework's record changed.
pub fn framework(old: Option<&mezz::FrameworkState>, new: &mezz::FrameworkState) {
    use mezz::framework_state::Status;
    if old.map(mezz::FrameworkState::status) == Some(new.status()) {
        return;
    }
    let framework_id = view::framework_id(&new.framework);
    let name = new.framework.name.as_str();
    match new.status() {
        Status::Active if old.is_some() => info!(framework_id, name, "framework is back"),
        Status::Active => info!(framework_id, name, "framework subscribed"),
        Status::Disconnected => info!(framework_id, name, "framework disconnected"),
        Status::Recovered => info!(framework_id, name, "framework known, not yet back"),
        Status::Completed => info!(framework_id, name, "framework ended"),
    }
}

/// A task's record changed.
pub fn task(old: Option<v1::TaskState>, new: &ShownTask) {
    if old != Some(new.state) {
        debug!(
            framework_id = new.framework.as_str(),
            agent_id = new.agent.as_str(),
            task_id = new.id.as_str(),
            state = new.state.as_str_name(),
            "task"
        );
    }
}
