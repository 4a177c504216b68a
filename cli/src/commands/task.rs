//! `mezz task`, and how the commands that name a task find it.

use clap::{Args, Subcommand};
use mezz_proto::mezz::v1::{ListTasksRequest, OperatorKillTaskRequest, TaskRecord};

use crate::{
    client::{ClientArgs, Operator, plain},
    commands::tasks::framework_id,
    ids,
};

/// Act on a task.
#[derive(Debug, Args)]
pub struct TaskArgs {
    /// What to do.
    #[command(subcommand)]
    command: TaskCommand,
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// End a task
    Kill(KillArgs),
}

/// Which task.
#[derive(Debug, Args)]
pub struct TaskSelector {
    /// The task's id; an end or a beginning of it is enough
    #[arg(value_name = "TASK")]
    pub task: String,
    /// Its framework, where tasks of several have the same id
    #[arg(long, value_name = "ID")]
    pub framework: Option<String>,
}

#[derive(Debug, Args)]
struct KillArgs {
    #[command(flatten)]
    task: TaskSelector,
    #[command(flatten)]
    client: ClientArgs,
}

#[cfg(test)]
impl TaskArgs {
    /// Whom the command asks.
    pub fn client(&self) -> &ClientArgs {
        let TaskCommand::Kill(args) = &self.command;
        &args.client
    }
}

impl TaskSelector {
    /// Finds the task; with `ended`, also one that has ended. Of several runs
    /// under one id the newest counts.
    ///
    /// # Errors
    /// When there is none, or several.
    pub async fn find(&self, operator: &mut Operator, ended: bool) -> anyhow::Result<TaskRecord> {
        let framework = match &self.framework {
            Some(text) => Some(framework_id(operator, text).await?),
            None => None,
        };
        // The exact id first: of a large cluster the whole list is long.
        for task_id in [Some(self.task.clone()), None] {
            let request = ListTasksRequest {
                framework_id: framework.clone(),
                agent_id: None,
                task_id,
                completed: Some(ended),
                limit: None,
            };
            let answer = operator.list_tasks(request).await.map_err(|s| plain(&s))?;
            let answer = answer.into_inner();
            // A task that begins like this may be among those that are not told.
            if answer.truncated() {
                anyhow::bail!(
                    "there is no task `{}`, and too many to look for one that begins so; give \
                     its whole id, or add --framework",
                    self.task
                );
            }
            if !answer.tasks.is_empty() {
                return choose(&self.task, answer.tasks, ended).map_err(anyhow::Error::msg);
            }
        }
        choose(&self.task, Vec::new(), ended).map_err(anyhow::Error::msg)
    }
}

fn choose(text: &str, tasks: Vec<TaskRecord>, ended: bool) -> Result<TaskRecord, String> {
    let list = if ended { "mezz tasks --completed" } else { "mezz tasks" };
    let ids = tasks.iter().map(|t| t.task.task_id.value.as_str());
    let id = ids::resolve(text, ids, "task", list)?.to_owned();
    let same: Vec<TaskRecord> = tasks.into_iter().filter(|t| t.task.task_id.value == id).collect();
    let first = same.first().map(|t| t.task.framework_id.value.clone());
    if same.iter().any(|t| Some(&t.task.framework_id.value) != first.as_ref()) {
        let mut frameworks: Vec<&str> =
            same.iter().map(|t| t.task.framework_id.value.as_str()).collect();
        frameworks.sort_unstable();
        frameworks.dedup();
        return Err(format!(
            "several frameworks have a task `{id}`; add --framework with one of {}",
            frameworks.join(", ")
        ));
    }
    same.into_iter()
        .max_by(|a, b| last_time(a).total_cmp(&last_time(b)))
        .ok_or_else(|| format!("no task `{text}`; `{list}` lists them"))
}

fn last_time(record: &TaskRecord) -> f64 {
    record.task.statuses.last().and_then(|s| s.timestamp).unwrap_or(0.0)
}

/// Acts on a task.
///
/// # Errors
/// When it cannot be found or the master refuses.
pub async fn run(args: &TaskArgs) -> anyhow::Result<()> {
    let TaskCommand::Kill(args) = &args.command;
    let mut operator = args.client.operator().await?;
    let record = args.task.find(&mut operator, false).await?;
    let task = &record.task;
    let request = OperatorKillTaskRequest {
        task_id: task.task_id.value.clone(),
        framework_id: Some(task.framework_id.value.clone()),
    };
    operator.kill_task(request).await.map_err(|s| plain(&s))?;
    eprintln!(
        "asked the agent on {} to end {} (it was {}); `mezz tasks --completed` tells when it has",
        record.agent_hostname.as_deref().unwrap_or("its host"),
        task.task_id.value,
        task.state().as_str_name()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use mezz_proto::v1;

    use super::*;

    fn task(id: &str, framework: &str, time: f64) -> TaskRecord {
        TaskRecord {
            task: v1::Task {
                task_id: v1::TaskId { value: id.to_owned() },
                framework_id: v1::FrameworkId { value: framework.to_owned() },
                statuses: vec![v1::TaskStatus { timestamp: Some(time), ..Default::default() }],
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn the_newest_run_of_an_id_counts() {
        let tasks = vec![task("a", "f", 1.0), task("a", "f", 3.0), task("a", "f", 2.0)];
        assert_eq!(last_time(&choose("a", tasks, true).unwrap()), 3.0);
    }

    #[test]
    fn one_id_in_two_frameworks_needs_the_framework() {
        let error = choose("a", vec![task("a", "g", 1.0), task("a", "f", 1.0)], true).unwrap_err();
        assert!(error.contains("add --framework with one of f, g"), "{error}");
    }

    #[test]
    fn no_such_task() {
        let error = choose("x", vec![task("a", "f", 1.0)], false).unwrap_err();
        assert_eq!(error, "no task `x`; `mezz tasks` lists them");
        assert!(choose("x", Vec::new(), true).unwrap_err().contains("mezz tasks --completed"));
    }
}
