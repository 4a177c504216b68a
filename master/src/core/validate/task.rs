//! What a framework wants to launch (rules 27 and 28).

use std::sync::Arc;

use mezz_proto::{
    ids::{AgentId, ExecutorId, FrameworkId, TaskId},
    resources::{Amount, Dialect, Resource, Resources, Scalar},
    v1,
};
use prost::Message;

use super::{brief, ids};

/// Most that one task may keep of the master's memory by what it says for
/// readers, in bytes, encoded.
const MAX_KEPT: usize = 64 * 1024;

/// Longest `ExecutorInfo`, in bytes, encoded: the master keeps it for as long as
/// the executor is there, to compare it with what later tasks name.
const MAX_EXECUTOR: usize = 1024 * 1024;

/// What is shown of resources in a sentence, in bytes.
const MAX_SHOWN: usize = 1024;

/// Where and for whom tasks are launched.
#[derive(Debug)]
pub(in crate::core) struct LaunchContext<'a> {
    pub framework: &'a FrameworkId,
    pub agent: &'a AgentId,
    /// The role of the offers.
    pub role: &'a Arc<str>,
}

/// An executor that is to be started or used.
#[derive(Debug)]
pub(in crate::core) struct CheckedExecutor {
    pub id: ExecutorId,
    /// See [`plain_executor`].
    pub info: v1::ExecutorInfo,
    pub resources: Resources,
}

/// A task that may be launched, if its resources are there.
#[derive(Debug)]
pub(in crate::core) struct CheckedTask {
    pub id: TaskId,
    pub resources: Resources,
}

/// The form in which executors are compared and kept: `framework_id` set, and the
/// resources in one dialect and without `allocation_info`, which the framework
/// may leave out or give.
pub(in crate::core) fn plain_executor(
    mut info: v1::ExecutorInfo,
    framework: &FrameworkId,
) -> v1::ExecutorInfo {
    info.framework_id = Some(framework.into());
    if let Ok(resources) = Resources::from_proto(&info.resources) {
        info.resources = resources.to_proto(Dialect::Refined, None);
    }
    info
}

/// Everything about one task that does not depend on other tasks, and its executor: none
/// for command tasks.
pub(in crate::core) fn task(
    task: &v1::TaskInfo,
    at: &LaunchContext<'_>,
) -> Result<(CheckedTask, Option<CheckedExecutor>), String> {
    addressed(task, at)?;
    let executor = match (&task.command, &task.executor) {
        (Some(_), None) => None,
        (None, Some(info)) => Some(executor(info, at)?),
        _ => {
            return Err(
                "command, executor: exactly one of them must be set (a command runs without an executor)"
                    .to_owned(),
            );
        }
    };
    let checked = beside(task, executor.as_ref(), at)?;
    Ok((checked, executor))
}

fn addressed(task: &v1::TaskInfo, at: &LaunchContext<'_>) -> Result<(), String> {
    ids::id("task_id", &task.task_id.value)?;
    if task.agent_id.value != at.agent.as_str() {
        return Err(format!(
            "agent_id: is `{}`, but the offers are of agent `{}`",
            brief(&task.agent_id.value, ids::MAX_ID),
            at.agent
        ));
    }
    Ok(())
}

/// What is to be checked of a task once its executor has been.
fn beside(
    task: &v1::TaskInfo,
    executor: Option<&CheckedExecutor>,
    at: &LaunchContext<'_>,
) -> Result<CheckedTask, String> {
    let resources = resources("resources", &task.resources, at)?;
    if resources.is_empty() {
        return Err("resources: must not be empty".to_owned());
    }
    if let Some(executor) = executor {
        alike(&resources, &executor.resources)?;
    }
    limits(task, &resources)?;
    durations(task)?;
    kept(task)?;
    Ok(CheckedTask { id: (&task.task_id).into(), resources })
}

/// A task of a group, which uses the group's executor.
pub(in crate::core) fn group_task(
    task: &v1::TaskInfo,
    executor: &CheckedExecutor,
    at: &LaunchContext<'_>,
) -> Result<CheckedTask, String> {
    if let Some(own) = &task.executor
        && plain_executor(own.clone(), at.framework) != executor.info
    {
        return Err("executor: differs from the group's; leave it out".to_owned());
    }
    let docker = |c: &Option<v1::ContainerInfo>| {
        c.as_ref().is_some_and(|c| c.r#type() == v1::container_info::Type::Docker)
    };
    if docker(&task.container) {
        return Err("container.type: DOCKER is not possible in a group".to_owned());
    }
    addressed(task, at)?;
    let checked = beside(task, Some(executor), at)?;
    let default = v1::executor_info::Type::Default;
    if executor.info.r#type() == default && task.command.is_none() {
        return Err("command: must be set for a task of the DEFAULT executor".to_owned());
    }
    Ok(checked)
}

/// The executor of a group: more is asked of it (rule 28).
pub(in crate::core) fn group_executor(
    info: &v1::ExecutorInfo,
    at: &LaunchContext<'_>,
) -> Result<CheckedExecutor, String> {
    if info.r#type() == v1::executor_info::Type::Unknown {
        return Err("executor.type: must be DEFAULT or CUSTOM for a group".to_owned());
    }
    if info.container.as_ref().is_some_and(|c| c.r#type() == v1::container_info::Type::Docker) {
        return Err("executor.container.type: DOCKER is not possible for a group".to_owned());
    }
    let checked = executor(info, at)?;
    let least = [("cpus", Scalar::from_millis(10)), ("mem", Scalar::from_units(32))];
    for (name, least) in least {
        let has = checked.resources.scalar(name);
        if has < least {
            return Err(format!(
                "executor.resources: {name} is {has}; an executor of a group needs at least {least}"
            ));
        }
    }
    if checked.resources.scalar("disk").is_zero() {
        return Err("executor.resources: disk is 0; an executor of a group needs some".to_owned());
    }
    Ok(checked)
}

fn executor(info: &v1::ExecutorInfo, at: &LaunchContext<'_>) -> Result<CheckedExecutor, String> {
    ids::id("executor.executor_id", &info.executor_id.value)?;
    if let Some(framework) = info.framework_id.as_ref().filter(|f| f.value != at.framework.as_str())
    {
        return Err(format!(
            "executor.framework_id: is `{}`, but the framework is `{}`",
            brief(&framework.value, ids::MAX_ID),
            at.framework
        ));
    }
    let default = info.r#type() == v1::executor_info::Type::Default;
    match &info.command {
        None if !default => {
            return Err("executor.command: must be set, except for type DEFAULT".to_owned());
        }
        Some(_) if default => {
            return Err("executor.command: must not be set for type DEFAULT".to_owned());
        }
        _ => {}
    }
    negative("executor.shutdown_grace_period", info.shutdown_grace_period.as_ref())?;
    let bytes = info.encoded_len();
    if bytes > MAX_EXECUTOR {
        let data = info.data.as_ref().map_or(0, |data| data.len());
        return Err(format!(
            "executor: takes {bytes} bytes ({data} of them in executor.data), an executor may take at most {MAX_EXECUTOR}; give it the rest through a file or in task.data"
        ));
    }
    Ok(CheckedExecutor {
        id: (&info.executor_id).into(),
        resources: resources("executor.resources", &info.resources, at)?,
        info: plain_executor(info.clone(), at.framework),
    })
}

fn resources(
    field: &str,
    wire: &[v1::Resource],
    at: &LaunchContext<'_>,
) -> Result<Resources, String> {
    let out = Resources::from_proto(wire).map_err(|error| format!("{field}: {error}"))?;
    let role = Resources::allocation_role(wire).map_err(|error| format!("{field}: {error}"))?;
    if let Some(role) = role.filter(|r| **r != **at.role) {
        return Err(format!(
            "{field}: are allocated to role `{role}`, but the offers are for role `{}`",
            at.role
        ));
    }
    not_mixed(field, &out)?;
    let gpus = out.scalar("gpus").millis();
    if gpus % 1000 != 0 {
        return Err(format!("{field}: gpus must be a whole number"));
    }
    Ok(out)
}

/// A name is either revocable or not, within a task and its executor.
fn not_mixed(field: &str, resources: &Resources) -> Result<(), String> {
    // They are sorted by name.
    let next_to = |pair: &(&Resource, &Resource)| differ(pair.0, pair.1);
    match resources.iter().zip(resources.iter().skip(1)).find(next_to) {
        Some((one, _)) => Err(mixed(field, one)),
        None => Ok(()),
    }
}

/// The same of a task and its executor, each of which is not mixed.
fn alike(task: &Resources, executor: &Resources) -> Result<(), String> {
    let other = |one: &Resource| executor.named(one.identity.name()).next();
    match task.iter().find(|one| other(one).is_some_and(|other| differ(one, other))) {
        Some(one) => Err(mixed("resources, executor.resources", one)),
        None => Ok(()),
    }
}

/// One name, once revocable and once not.
fn differ(one: &Resource, other: &Resource) -> bool {
    let (one, other) = (&one.identity, &other.identity);
    one.name() == other.name() && one.is_revocable() != other.is_revocable()
}

fn mixed(field: &str, resource: &Resource) -> String {
    let name = resource.identity.name();
    format!("{field}: {name} is both revocable and not; choose one of them")
}

/// Only cpus and mem have limits, and not below what is asked for.
fn limits(task: &v1::TaskInfo, resources: &Resources) -> Result<(), String> {
    for (name, limit) in &task.limits {
        if name != "cpus" && name != "mem" {
            return Err(format!("limits: `{name}` cannot be limited; only cpus and mem can"));
        }
        // Infinity lifts the bound (rule 63).
        let asked = resources.scalar(name).to_f64();
        if limit.value.is_nan() || limit.value < asked {
            return Err(format!(
                "limits: {name} is {}, less than the {asked} in resources",
                limit.value
            ));
        }
    }
    Ok(())
}

/// What the master keeps of a task is bounded.
fn kept(task: &v1::TaskInfo) -> Result<(), String> {
    fn len<M: Message>(part: &Option<M>) -> usize {
        part.as_ref().map_or(0, Message::encoded_len)
    }
    let user = task.command.as_ref().and_then(|c| c.user.as_ref());
    let parts = [
        ("name", task.name.len()),
        ("labels", len(&task.labels)),
        ("discovery", len(&task.discovery)),
        ("container", len(&task.container)),
        ("health_check", len(&task.health_check)),
        ("command.user", user.map_or(0, String::len)),
    ];
    let total: usize = parts.iter().map(|(_, len)| len).sum();
    match parts.iter().max_by_key(|(_, len)| len) {
        Some((name, len)) if total > MAX_KEPT => Err(format!(
            "{name}: takes {len} bytes; {} of a task may take at most {MAX_KEPT} bytes together",
            parts.map(|(name, _)| name).join(", ")
        )),
        _ => Ok(()),
    }
}

fn durations(task: &v1::TaskInfo) -> Result<(), String> {
    negative("max_completion_time", task.max_completion_time.as_ref())?;
    let grace = task.kill_policy.as_ref().and_then(|p| p.grace_period.as_ref());
    negative("kill_policy.grace_period", grace)?;
    let Some(check) = &task.health_check else { return Ok(()) };
    let seconds = [
        ("delay_seconds", check.delay_seconds()),
        ("interval_seconds", check.interval_seconds()),
        ("timeout_seconds", check.timeout_seconds()),
        ("grace_period_seconds", check.grace_period_seconds()),
    ];
    for (name, value) in seconds {
        if value.is_nan() || value < 0.0 {
            return Err(format!("health_check.{name}: {value} is negative or no number"));
        }
    }
    Ok(())
}

fn negative(field: &str, duration: Option<&v1::DurationInfo>) -> Result<(), String> {
    match duration {
        Some(d) if d.nanoseconds < 0 => Err(format!("{field}: must not be negative")),
        _ => Ok(()),
    }
}

/// What the pool lacks, in words, and what it has of it.
pub(in crate::core) fn beyond(field: &str, wanted: &Resources, pool: &Resources) -> String {
    let missing = wanted
        .iter()
        .find(|r| !pool.get(&r.identity).is_some_and(|a: &Amount| a.contains(&r.amount)));
    match missing {
        Some(r) => {
            let left = pool.filter(|p| p.identity.name() == r.identity.name());
            let left = if left.is_empty() {
                format!("no {}", r.identity.name())
            } else {
                brief(left, MAX_SHOWN)
            };
            let asked = brief(r, MAX_SHOWN);
            format!("{field}: asks for {asked}, but {left} is left in the offers")
        }
        None => format!("{field}: more than is left in the offers"),
    }
}
