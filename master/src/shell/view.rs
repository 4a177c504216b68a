//! Records as operators of Mesos are told of them: the messages of the v1 operator API.

use mezz_proto::{
    mezz::v1 as mezz,
    pages::{AGENT_CAPABILITIES, MESOS_VERSION, full},
    resources::{Dialect, Resources},
    time::Time,
    v1::{
        self,
        master::response::{get_agents, get_executors, get_frameworks},
    },
};

use super::read_state::{AgentEntry, ExecutorEntry, ExecutorKey, Sums, TaskEntry};

/// Whether it is told of unreachable tasks as such (rule 21).
pub fn is_partition_aware(framework: &v1::FrameworkInfo) -> bool {
    use v1::framework_info::capability::Type;
    framework.capabilities.iter().any(|c| c.r#type() == Type::PartitionAware)
}

/// Whether it has not ended.
pub fn is_live(framework: &mezz::FrameworkState) -> bool {
    framework.status() != mezz::framework_state::Status::Completed
}

/// Whether it is registered: linked, or within its time to come back.
pub fn is_registered(agent: &mezz::AgentState) -> bool {
    use mezz::agent_state::Status;
    matches!(agent.status(), Status::Active | Status::Disconnected)
}

/// The id of an agent that has one.
pub fn agent_id(agent: &v1::AgentInfo) -> &str {
    agent.id.as_ref().map_or("", |id| &id.value)
}

/// The id of a framework that has one.
pub fn framework_id(framework: &v1::FrameworkInfo) -> &str {
    framework.id.as_ref().map_or("", |id| &id.value)
}

/// Whether an agent is offered at all: rule 50.
pub fn is_deactivated(agent: &mezz::AgentState) -> bool {
    agent.deactivated() || agent.drain.is_some()
}

/// Where an agent is, in the form that tools take apart: `slave(1)@host:port`.
pub fn agent_pid(agent: &mezz::AgentState) -> String {
    match &agent.api_address {
        Some(address) => format!("slave(1)@{address}"),
        None => format!("slave(1)@{}:{}", agent.agent.hostname, agent.agent.port()),
    }
}

/// A task. Rule 86: to frameworks that do not know of unreachable tasks they are lost, and
/// so they are shown.
pub fn task(entry: &TaskEntry, partition_aware: bool) -> Option<v1::Task> {
    let mut task = entry.decode()?;
    show_task(&mut task, partition_aware);
    Some(task)
}

/// What is told of a task of this record.
pub fn show_task(task: &mut v1::Task, partition_aware: bool) {
    task.set_state(shown_state(task.state(), partition_aware));
    let last = task.statuses.last().map(|status| status.state);
    if task.status_update_state.is_none() {
        task.status_update_state = last;
    }
    for status in &mut task.statuses {
        status.agent_id.get_or_insert_with(|| task.agent_id.clone());
        if status.executor_id.is_none() {
            status.executor_id.clone_from(&task.executor_id);
        }
    }
}

/// The state that is shown (rule 86).
pub fn shown_state(state: v1::TaskState, partition_aware: bool) -> v1::TaskState {
    match state {
        v1::TaskState::TaskUnreachable if !partition_aware => v1::TaskState::TaskLost,
        state => state,
    }
}

/// An agent that is registered.
pub fn agent(entry: &AgentEntry, sums: &Sums) -> get_agents::Agent {
    let record = entry.rest();
    let wire = |resources: &Resources| full(resources.to_proto(Dialect::Refined, None));
    let capability = |of| v1::agent_info::Capability { r#type: Some(of as i32) };
    get_agents::Agent {
        agent_info: agent_info(entry),
        active: record.status() == mezz::agent_state::Status::Active && !is_deactivated(record),
        deactivated: Some(is_deactivated(record)),
        version: MESOS_VERSION.to_owned(),
        pid: Some(agent_pid(record)),
        registered_time: record.registered_time.map(moment),
        reregistered_time: record.reregistered_time.map(moment),
        total_resources: wire(entry.total()),
        allocated_resources: wire(&sums.allocated),
        offered_resources: wire(&sums.offered),
        capabilities: AGENT_CAPABILITIES.map(capability).to_vec(),
        drain_info: record.drain,
        // Mesos tells whole seconds.
        estimated_drain_start_time: record.drain_start_time.map(|secs| moment(secs.floor())),
        ..Default::default()
    }
}

/// As it described itself.
pub fn agent_info(entry: &AgentEntry) -> v1::AgentInfo {
    v1::AgentInfo {
        resources: entry.total().to_proto(Dialect::Refined, None),
        ..entry.rest().agent.clone()
    }
}

/// A framework, with these offers.
pub fn framework<'a>(
    record: &mezz::FrameworkState,
    sums: &Sums,
    offers: impl IntoIterator<Item = &'a v1::Offer>,
) -> get_frameworks::Framework {
    use mezz::framework_state::Status;
    let connected = record.status() == Status::Active;
    let wire = |resources: &Resources| full(resources.to_proto(Dialect::Refined, None));
    get_frameworks::Framework {
        framework_info: record.framework.clone(),
        active: connected,
        connected,
        recovered: record.status() == Status::Recovered,
        registered_time: record.registered_time.map(moment),
        reregistered_time: record.reregistered_time.or(record.registered_time).map(moment),
        unregistered_time: record.unregistered_time.map(moment),
        offers: offers.into_iter().cloned().collect(),
        allocated_resources: wire(&sums.allocated),
        offered_resources: wire(&sums.offered),
        offer_constraints: Some(record.offer_constraints.clone().unwrap_or_default()),
        ..Default::default()
    }
}

/// An executor.
pub fn executor(key: &ExecutorKey, entry: &ExecutorEntry) -> Option<get_executors::Executor> {
    Some(get_executors::Executor {
        executor_info: entry.decode()?,
        agent_id: v1::AgentId { value: key.0.to_string() },
    })
}

fn moment(secs: f64) -> v1::TimeInfo {
    Time::from_nanos((secs.max(0.0) * 1e9) as u64).to_proto()
}
