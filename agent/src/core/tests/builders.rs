//! What peers send, made short.

use std::time::Duration;

use mezz_proto::{
    ids::TaskId,
    resources::{Dialect, Resources},
    v1::{
        self, TaskState, TaskStatus,
        executor::{Call, call},
        task_status::Reason,
    },
};

use super::env::AGENT;
use crate::{
    containerizer::{ContainerSpec, Program},
    core::TaskKey,
};

pub(super) fn key(task: &str) -> TaskKey {
    TaskKey { framework: "F".into(), task: TaskId::new(task) }
}

pub(super) fn policy(grace: Duration) -> v1::KillPolicy {
    let nanoseconds = i64::try_from(grace.as_nanos()).unwrap();
    v1::KillPolicy { grace_period: Some(v1::DurationInfo { nanoseconds }) }
}

pub(super) fn framework(
    id: &str,
    capabilities: &[v1::framework_info::capability::Type],
) -> v1::FrameworkInfo {
    v1::FrameworkInfo {
        user: "user".into(),
        name: "framework".into(),
        id: Some(v1::FrameworkId { value: id.into() }),
        capabilities: capabilities
            .iter()
            .map(|&capability| v1::framework_info::Capability { r#type: Some(capability.into()) })
            .collect(),
        ..Default::default()
    }
}

pub(super) fn resources(cpus: f64, mem: f64) -> Vec<v1::Resource> {
    Resources::cpus_mem(cpus, mem).to_proto(Dialect::Refined, Some("role"))
}

pub(super) fn command(value: &str) -> v1::CommandInfo {
    v1::CommandInfo { value: Some(value.into()), ..Default::default() }
}

pub(super) fn task(id: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        name: id.into(),
        task_id: v1::TaskId { value: id.into() },
        agent_id: v1::AgentId { value: AGENT.into() },
        resources: resources(1.0, 64.0),
        command: Some(command("true")),
        ..Default::default()
    }
}

pub(super) fn executor(id: &str) -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        executor_id: v1::ExecutorId { value: id.into() },
        resources: resources(0.5, 32.0),
        command: Some(command("executor")),
        ..Default::default()
    }
}

pub(super) fn executor_task(id: &str) -> v1::TaskInfo {
    v1::TaskInfo { command: None, executor: Some(executor("E")), ..task(id) }
}

pub(super) fn subscribe() -> Call {
    Call {
        executor_id: v1::ExecutorId { value: "E".into() },
        framework_id: v1::FrameworkId { value: "F".into() },
        r#type: Some(call::Type::Subscribe.into()),
        subscribe: Some(call::Subscribe::default()),
        ..Default::default()
    }
}

pub(super) fn status(task: &str, state: TaskState, uuid: u8) -> TaskStatus {
    TaskStatus {
        task_id: v1::TaskId { value: task.into() },
        state: state.into(),
        source: Some(v1::task_status::Source::Executor.into()),
        uuid: Some(vec![uuid; 16]),
        ..Default::default()
    }
}

pub(super) fn update(status: TaskStatus) -> Call {
    Call {
        r#type: Some(call::Type::Update.into()),
        update: Some(call::Update { status }),
        subscribe: None,
        ..subscribe()
    }
}

pub(super) fn shell(spec: &ContainerSpec) -> &str {
    match &spec.program {
        Program::Shell(line) => line,
        _ => panic!("no shell line"),
    }
}

#[track_caller]
pub(super) fn reason(status: &TaskStatus, reason: Reason) {
    assert_eq!(status.reason, Some(reason.into()), "{:?}", status.message);
}
