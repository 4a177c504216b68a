//! `mezz tasks`.

use clap::Args;
use mezz_proto::{
    mezz::v1::{ListFrameworksRequest, ListTasksRequest, TaskRecord},
    v1,
};
use serde::Serialize;

use crate::{
    client::{ClientArgs, Operator, plain},
    clock, ids,
    output::{self, Amounts, Cells, Column, OutputArgs, Row},
    units,
};

/// List tasks.
#[derive(Debug, Args)]
pub struct TasksArgs {
    /// Also those that have ended, as far as the master remembers them
    #[arg(long)]
    pub completed: bool,
    /// Only of this framework; an end or a beginning of its id is enough
    #[arg(long, value_name = "ID")]
    pub framework: Option<String>,
    /// Only on this agent; an end or a beginning of its id is enough
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// At most this many, the newest [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Whom to ask.
    #[command(flatten)]
    pub client: ClientArgs,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A task, as its list shows it.
#[derive(Debug, Serialize)]
pub struct TaskRow {
    id: String,
    name: String,
    state: &'static str,
    framework_id: String,
    #[serde(skip)]
    short_framework: String,
    agent_id: String,
    agent_hostname: Option<String>,
    agent_api_address: Option<String>,
    executor_id: Option<String>,
    resources: Amounts,
    labels: Vec<LabelRow>,
    healthy: Option<bool>,
    reason: Option<&'static str>,
    message: Option<String>,
    /// When the state was reported.
    state_time: Option<f64>,
    #[serde(skip)]
    age: String,
}

/// A label: text of its framework's.
#[derive(Debug, Serialize)]
struct LabelRow {
    key: String,
    value: Option<String>,
}

impl Row for TaskRow {
    const NOUN: &'static str = "task";
    const COLUMNS: &'static [Column] = &[
        Column::left("ID"),
        Column::left("NAME"),
        Column::left("STATE"),
        Column::left("FRAMEWORK"),
        Column::left("HOST"),
        Column::right("CPUS"),
        Column::right("MEM"),
        Column::right("DISK").wide(),
        Column::left("OTHERS").wide(),
        Column::left("EXECUTOR").wide(),
        Column::left("FRAMEWORK ID").wide(),
        Column::left("AGENT ID").wide(),
        Column::left("LABELS").wide(),
        Column::left("HEALTHY").wide(),
        Column::right("SINCE"),
        Column::left("REASON").wide(),
        Column::left("MESSAGE").wide(),
    ];

    fn cells(&self) -> Cells {
        vec![
            self.id.clone(),
            self.name.clone(),
            self.state.to_owned(),
            self.short_framework.clone(),
            self.agent_hostname.clone().unwrap_or_default(),
            self.resources.cpus(),
            self.resources.mem(),
            self.resources.disk(),
            self.resources.others(),
            self.executor_id.clone().unwrap_or_default(),
            self.framework_id.clone(),
            self.agent_id.clone(),
            self.labels.iter().map(LabelRow::text).collect::<Vec<_>>().join(","),
            self.healthy.map_or("", |h| if h { "yes" } else { "no" }).to_owned(),
            self.age.clone(),
            self.reason.unwrap_or_default().to_owned(),
            self.message.clone().unwrap_or_default(),
        ]
    }
}

impl LabelRow {
    fn of(label: &v1::Label) -> Self {
        Self { key: label.key.clone(), value: label.value.clone() }
    }

    fn text(&self) -> String {
        let value = self.value.as_deref().map(|v| format!(":{v}")).unwrap_or_default();
        self.key.clone() + &value
    }
}

/// The rows of a list, sorted by framework and id.
pub fn rows(tasks: &[TaskRecord], now: f64) -> Vec<TaskRow> {
    let short = ids::short(tasks.iter().map(|t| t.task.framework_id.value.as_str()));
    let mut rows: Vec<TaskRow> = tasks
        .iter()
        .map(|record| {
            let task = &record.task;
            let framework = task.framework_id.value.as_str();
            let status = task.statuses.last();
            let time = status.and_then(|s| s.timestamp);
            TaskRow {
                id: task.task_id.value.clone(),
                name: task.name.clone(),
                state: task.state().as_str_name(),
                framework_id: framework.to_owned(),
                short_framework: short.get(framework).copied().unwrap_or_default().to_owned(),
                agent_id: task.agent_id.value.clone(),
                agent_hostname: record.agent_hostname.clone(),
                agent_api_address: record.agent_api_address.clone(),
                executor_id: task.executor_id.as_ref().map(|id| id.value.clone()),
                resources: Amounts::of(&task.resources),
                labels: task.labels.iter().flat_map(|all| &all.labels).map(LabelRow::of).collect(),
                healthy: status.and_then(|s| s.healthy),
                reason: status.and_then(|s| s.reason.map(|_| s.reason().as_str_name())),
                message: status.and_then(|s| s.message.clone()),
                state_time: time,
                age: time.map_or_else(String::new, |then| units::age(now, then)),
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.framework_id, &a.id).cmp(&(&b.framework_id, &b.id)));
    rows
}

/// Lists tasks.
///
/// # Errors
/// When the master cannot be asked, or a filter names nothing.
pub async fn run(args: &TasksArgs) -> anyhow::Result<()> {
    let mut operator = args.client.operator().await?;
    let framework_id = match &args.framework {
        Some(text) => Some(framework_id(&mut operator, text).await?),
        None => None,
    };
    let agent_id = match &args.agent {
        Some(text) => Some(agent_id(&mut operator, text).await?),
        None => None,
    };
    let request = ListTasksRequest {
        framework_id,
        agent_id,
        task_id: None,
        completed: Some(args.completed),
        limit: args.limit,
    };
    let answer = operator.list_tasks(request).await.map_err(|s| plain(&s))?;
    let answer = answer.into_inner();
    output::print(&rows(&answer.tasks, clock::now()), args.output.output)?;
    if answer.truncated() {
        eprintln!(
            "these are the newest {}; for others name a framework or an agent",
            answer.tasks.len()
        );
    }
    Ok(())
}

/// The whole id of the framework that `text` means, ended ones included.
///
/// # Errors
/// When it means none or several.
pub async fn framework_id(operator: &mut Operator, text: &str) -> anyhow::Result<String> {
    let request = ListFrameworksRequest { completed: Some(true) };
    let answer = operator.list_frameworks(request).await.map_err(|s| plain(&s))?.into_inner();
    let ids = answer.frameworks.iter().map(super::frameworks::id);
    let id = ids::resolve(text, ids, "framework", "mezz frameworks --completed");
    id.map(str::to_owned).map_err(anyhow::Error::msg)
}

async fn agent_id(operator: &mut Operator, text: &str) -> anyhow::Result<String> {
    let request = mezz_proto::mezz::v1::ListAgentsRequest {};
    let answer = operator.list_agents(request).await.map_err(|s| plain(&s))?.into_inner();
    let ids = answer.agents.iter().filter_map(|a| a.agent.id.as_ref()).map(|id| id.value.as_str());
    ids::resolve(text, ids, "agent", "mezz agents").map(str::to_owned).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use mezz_proto::{
        resources::{Dialect, Resources},
        v1,
    };

    use super::*;
    use crate::output::{Format, testing::text};

    fn tasks() -> Vec<TaskRecord> {
        let task = |id: &str, framework: &str, state: v1::TaskState| TaskRecord {
            task: v1::Task {
                name: "hello".to_owned(),
                task_id: v1::TaskId { value: id.to_owned() },
                framework_id: v1::FrameworkId { value: framework.to_owned() },
                agent_id: v1::AgentId { value: "m-S0".to_owned() },
                state: state as i32,
                resources: Resources::cpus_mem(0.5, 64.0).to_proto(Dialect::Refined, None),
                labels: Some(v1::Labels {
                    labels: vec![v1::Label { key: "team".to_owned(), value: Some("x".to_owned()) }],
                }),
                statuses: vec![v1::TaskStatus {
                    timestamp: Some(100.0),
                    message: Some("line\nbreak \u{1b}[31m".to_owned()),
                    reason: Some(v1::task_status::Reason::ExecutorTerminated as i32),
                    ..Default::default()
                }],
                ..Default::default()
            },
            agent_api_address: Some("h:5051".to_owned()),
            agent_hostname: Some("h".to_owned()),
        };
        vec![
            task("hello-2", "m-0001", v1::TaskState::TaskFailed),
            task("hello-1", "m-0001", v1::TaskState::TaskRunning),
            task("x", "m-0000", v1::TaskState::TaskGoneByOperator),
        ]
    }

    #[test]
    fn table() {
        assert_eq!(
            text(&rows(&tasks(), 142.0), Format::Table),
            "\
ID       NAME   STATE                  FRAMEWORK  HOST  CPUS     MEM  SINCE
x        hello  TASK_GONE_BY_OPERATOR  0000       h      0.5  64 MiB    42s
hello-1  hello  TASK_RUNNING           0001       h      0.5  64 MiB    42s
hello-2  hello  TASK_FAILED            0001       h      0.5  64 MiB    42s
"
        );
    }

    #[test]
    fn messages_cannot_break_the_table() {
        let wide = text(&rows(&tasks()[..1], 142.0), Format::Wide);
        assert_eq!(wide.lines().count(), 2, "{wide}");
        assert!(wide.contains("team:x"), "{wide}");
        assert!(wide.contains("REASON_EXECUTOR_TERMINATED  line break  [31m"), "{wide}");
    }

    #[test]
    fn json() {
        let json = text(&rows(&tasks()[..1], 0.0), Format::Json);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[0]["id"], "hello-2");
        assert_eq!(json[0]["state"], "TASK_FAILED");
        assert_eq!(json[0]["framework_id"], "m-0001");
        assert_eq!(json[0]["labels"], serde_json::json!([{"key": "team", "value": "x"}]));
        assert_eq!(json[0]["resources"], serde_json::json!({"cpus": 0.5, "mem": 64.0}));
        assert_eq!(json[0]["state_time"], 100.0);
    }
}
