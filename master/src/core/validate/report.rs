//! What a returning agent says that it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mezz_proto::{
    ids::{ExecutorId, FrameworkId, TaskId},
    mezz::v1 as mezz,
    resources::{ResourceError, Resources},
    v1,
};

use prost::Message as _;

use super::{MAX_RECORD_BYTES, agent::Refusal, framework::Subscription, ids};
use crate::core::state::{StatusRecord, TaskExtra, reported_state, state_from_wire};

/// Tasks of one agent.
const MAX_TASKS: usize = 100_000;

/// What a master adds to what a framework says of itself, in bytes at most: its id, and the
/// user that it had at first.
const ADDED_BYTES: usize = 8 << 10;

/// A report whose every part has been checked.
#[derive(Debug, Default)]
pub(in crate::core) struct Report {
    pub frameworks: BTreeMap<FrameworkId, Subscription>,
    pub tasks: Vec<ReportedTask>,
    pub executors: Vec<ReportedExecutor>,
}

/// A task on the agent.
#[derive(Debug)]
pub(in crate::core) struct ReportedTask {
    pub framework: FrameworkId,
    pub id: TaskId,
    pub name: Box<str>,
    /// `None` when the agent does not say.
    pub role: Option<Arc<str>>,
    /// Tasks of one size share it.
    pub resources: Arc<Resources>,
    pub executor: Option<ExecutorId>,
    pub state: v1::TaskState,
    pub pending: Option<(v1::TaskState, [u8; 16])>,
    pub statuses: Vec<StatusRecord>,
    pub extra: Option<Box<TaskExtra>>,
}

/// An executor on the agent.
#[derive(Debug)]
pub(in crate::core) struct ReportedExecutor {
    pub framework: FrameworkId,
    pub id: ExecutorId,
    pub role: Option<Arc<str>>,
    pub resources: Resources,
    pub info: v1::ExecutorInfo,
}

/// Checks a report. Of the frameworks only those are taken that a task or an
/// executor names: others have nothing to lose. `known` and `ended` say whether the master knows a framework
/// that the report does not describe.
pub(in crate::core) fn report(
    message: mezz::Reregister,
    known: impl Fn(&FrameworkId) -> bool,
    ended: impl Fn(&FrameworkId) -> bool,
) -> Result<Report, Refusal> {
    if message.tasks.len() > MAX_TASKS || message.executors.len() > MAX_TASKS {
        return Err(Refusal::permanent(format!(
            "tasks: an agent may have at most {MAX_TASKS} tasks and executors"
        )));
    }
    let of_tasks = message.tasks.iter().map(|t| &t.framework_id);
    let of_executors = message.executors.iter().filter_map(|e| e.framework_id.as_ref());
    let named: BTreeSet<&str> = of_tasks.chain(of_executors).map(|id| &*id.value).collect();
    let mut out = Report::default();
    for info in message.frameworks {
        let Some(id) = info.id.as_ref().map(FrameworkId::from) else {
            return Err(Refusal::permanent("frameworks: a framework has no id"));
        };
        ids::id("frameworks.id", id.as_str()).map_err(Refusal::permanent)?;
        if !named.contains(id.as_str()) {
            continue;
        }
        let size = info.encoded_len();
        if size > MAX_RECORD_BYTES + ADDED_BYTES {
            return Err(Refusal::permanent(format!(
                "frameworks: the description of framework `{id}` is {size} bytes long; {MAX_RECORD_BYTES} are allowed"
            )));
        }
        out.frameworks.insert(id, Subscription::recovered(info));
    }
    let is_known = |id: &FrameworkId| out.frameworks.contains_key(id) || known(id) || ended(id);
    let not_listed = |id: &FrameworkId, what: String| {
        Refusal::permanent(format!(
            "frameworks: {what} is of framework `{id}`, which is not listed"
        ))
    };
    let mut last = Last::default();
    out.tasks.reserve_exact(message.tasks.len());
    for task in message.tasks {
        let task = reported_task(task, &mut last).map_err(Refusal::permanent)?;
        if !is_known(&task.framework) {
            return Err(not_listed(&task.framework, format!("task `{}`", task.id)));
        }
        out.tasks.push(task);
    }
    if let Some(id) = twice(out.tasks.iter().map(|task| (&task.framework, &task.id))) {
        return Err(Refusal::permanent(format!("tasks: task `{id}` is listed twice")));
    }
    for executor in message.executors {
        let executor = reported_executor(executor).map_err(Refusal::permanent)?;
        if !is_known(&executor.framework) {
            return Err(not_listed(&executor.framework, format!("executor `{}`", executor.id)));
        }
        out.executors.push(executor);
    }
    if let Some(id) = twice(out.executors.iter().map(|e| (&e.framework, &e.id))) {
        return Err(Refusal::permanent(format!("executors: executor `{id}` is listed twice")));
    }
    Ok(out)
}

/// What stands twice in a list.
fn twice<'a, I: Ord>(list: impl Iterator<Item = (&'a FrameworkId, &'a I)>) -> Option<&'a I> {
    let mut sorted: Vec<_> = list.map(|(framework, id)| (id, framework)).collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].0)
}

/// What the task before was, for the next one is mostly like it.
#[derive(Default)]
struct Last {
    framework: Option<FrameworkId>,
    wire: Vec<v1::Resource>,
    resources: Arc<Resources>,
    role: Option<Arc<str>>,
}

impl Last {
    fn framework(&mut self, id: v1::FrameworkId) -> FrameworkId {
        match &self.framework {
            Some(last) if last.as_str() == id.value => last.clone(),
            _ => self.framework.insert(id.into()).clone(),
        }
    }

    /// Parsed, and the role that they are allocated to.
    fn resources(
        &mut self,
        wire: Vec<v1::Resource>,
    ) -> Result<(Arc<Resources>, Option<Arc<str>>), ResourceError> {
        if self.wire != wire {
            self.resources = Arc::new(Resources::from_proto(&wire)?);
            self.role = Resources::allocation_role(&wire)?.map(Arc::from);
            self.wire = wire;
        }
        Ok((self.resources.clone(), self.role.clone()))
    }
}

fn reported_task(task: v1::Task, last: &mut Last) -> Result<ReportedTask, String> {
    let id = TaskId::from(task.task_id);
    ids::id("tasks.task_id", id.as_str())?;
    let field = |name: &str| format!("tasks[{id}].{name}");
    let state = reported_state(task.state)
        .ok_or_else(|| format!("{}: {} is no state of a task", field("state"), task.state))?;
    let (resources, role) = last
        .resources(task.resources)
        .map_err(|error| format!("{}: {error}", field("resources")))?;
    let pending = match (task.status_update_state, &task.status_update_uuid) {
        (Some(state), Some(uuid)) => {
            let state = reported_state(state).ok_or_else(|| {
                format!("{}: {state} is no state of a task", field("status_update_state"))
            })?;
            Some((state, ids::uuid(&field("status_update_uuid"), uuid)?))
        }
        _ => None,
    };
    let statuses = task
        .statuses
        .iter()
        .filter_map(|s| Some(StatusRecord::new(state_from_wire(s.state)?, s)))
        .collect();
    let extra = TaskExtra {
        labels: task.labels,
        discovery: task.discovery,
        container: task.container,
        user: task.user,
        health_check: task.health_check,
        kill_policy: task.kill_policy,
        limits: task.limits,
    };
    Ok(ReportedTask {
        framework: last.framework(task.framework_id),
        id,
        name: task.name.into(),
        role,
        resources,
        executor: task.executor_id.map(Into::into),
        state,
        pending,
        statuses,
        extra: extra.boxed(),
    })
}

fn reported_executor(info: v1::ExecutorInfo) -> Result<ReportedExecutor, String> {
    let id = ExecutorId::from(&info.executor_id);
    ids::id("executors.executor_id", id.as_str())?;
    let framework = info
        .framework_id
        .as_ref()
        .map(FrameworkId::from)
        .ok_or_else(|| format!("executors[{id}].framework_id: must be set"))?;
    let problem = |error| format!("executors[{id}].resources: {error}");
    let role = Resources::allocation_role(&info.resources).map_err(problem)?.map(Arc::from);
    let resources = Resources::from_proto(&info.resources).map_err(problem)?;
    Ok(ReportedExecutor {
        info: super::task::plain_executor(info, &framework),
        framework,
        id,
        role,
        resources,
    })
}
