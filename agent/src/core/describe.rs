//! What masters and readers are told of tasks and executors.

use mezz_proto::v1;

use super::{
    Change, Core, Effect, Effects, ExecutorKey, Intake, TaskKey,
    state::{Executor, Home, Stage, Task},
};

/// The longest command that is shown whole, in characters, and what is shown of others.
const COMMAND: (usize, usize) = (15, 12);

impl Core {
    /// A task with the updates that wait.
    pub(super) fn describe_task(&self, key: &TaskKey, task: &Task) -> v1::Task {
        let head = task.updates.front();
        v1::Task {
            name: task.info.name.clone(),
            task_id: task.info.task_id.clone(),
            framework_id: (&key.framework).into(),
            executor_id: task.home.executor().map(Into::into),
            agent_id: self.agent_id.as_ref().map(Into::into).unwrap_or_default(),
            state: task.latest.into(),
            resources: task.info.resources.clone(),
            statuses: task.updates.iter().cloned().collect(),
            status_update_state: head.map(|status| status.state),
            status_update_uuid: head.and_then(|status| status.uuid.clone()),
            labels: task.info.labels.clone(),
            discovery: task.info.discovery.clone().map(Box::new),
            container: task.info.container.clone().map(Box::new),
            user: task.info.command.as_ref().and_then(|command| command.user.clone()),
            health_check: task.info.health_check.clone().map(Box::new),
            kill_policy: task.info.kill_policy,
            limits: task.info.limits.clone(),
        }
    }

    /// Tells readers of a task that has a place here.
    pub(super) fn announce_task(&self, key: &TaskKey, task: &Task, out: &mut Effects) {
        let own = match &task.home {
            Home::None => return,
            Home::Command(container) => Some((container.clone(), command_executor(&task.info))),
            Home::Member { .. } | Home::Executor(_) => None,
        };
        out.now.push(Effect::Change(Change::Task {
            task: Box::new(self.describe_task(key, task)),
            own,
            queued: task.stage == Stage::Queued,
        }));
    }

    /// Tells readers of an executor.
    pub(super) fn announce_executor(&self, key: &ExecutorKey, out: &mut Effects) {
        let Some(executor) = self.executors.get(key) else { return };
        out.now.push(Effect::Change(Change::ExecutorAdded {
            executor: key.clone(),
            container: executor.container.clone(),
            token: executor.token.clone(),
            info: Box::new(executor.info.clone()),
        }));
        if executor.subscribed_once {
            Self::announce_subscribed(key, executor, out);
        }
        // Updates of one that had the same id may wait.
        if self.intake(key) != Intake::default() {
            self.tell_intake(key, out);
        }
    }

    pub(super) fn announce_subscribed(key: &ExecutorKey, executor: &Executor, out: &mut Effects) {
        let (executor, proven) = (key.clone(), executor.proven);
        out.now.push(Effect::Change(Change::ExecutorSubscribed { executor, proven }));
    }
}

/// As Mesos names the executor of a command task, which here is none (docs/adr/0004).
fn command_executor(task: &v1::TaskInfo) -> String {
    let none = v1::CommandInfo::default();
    let command = task.command.as_ref().unwrap_or(&none);
    let short = |text: &str| match text.char_indices().nth(COMMAND.0) {
        None => text.to_owned(),
        Some(_) => text.chars().take(COMMAND.1).chain("...".chars()).collect::<String>(),
    };
    let shown = match (&command.value, command.shell()) {
        (None, true) => "NO COMMAND".to_owned(),
        (None, false) => "NO EXECUTABLE".to_owned(),
        (Some(value), true) => format!("sh -c '{}'", short(value)),
        (Some(value), false) => {
            let arguments = command.arguments.join(", ");
            format!("[{}]", short(&format!("{value}, {arguments}")))
        }
    };
    format!("Command Executor (Task: {}) (Command: {shown})", task.task_id.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_executors_are_named_as_mesos_names_them() {
        let name = |value: Option<&str>, arguments: Option<&[&str]>| {
            let command = v1::CommandInfo {
                value: value.map(str::to_owned),
                shell: arguments.map(|_| false),
                arguments: arguments.unwrap_or(&[]).iter().map(|&a| a.to_owned()).collect(),
                ..Default::default()
            };
            let task_id = v1::TaskId { value: "t".into() };
            command_executor(&v1::TaskInfo {
                task_id,
                command: Some(command),
                ..Default::default()
            })
        };
        for (value, arguments, wanted) in [
            (Some("sleep 100"), None, "sh -c 'sleep 100'"),
            (Some("echo hello; sleep 2"), None, "sh -c 'echo hello; ...'"),
            (Some("ééééééééééééééééé"), None, "sh -c 'éééééééééééé...'"),
            (Some("/bin/a"), Some(&["a", "b"][..]), "[/bin/a, a, b]"),
            (None, None, "NO COMMAND"),
        ] {
            let wanted = format!("Command Executor (Task: t) (Command: {wanted})");
            assert_eq!(name(value, arguments), wanted);
        }
    }
}
