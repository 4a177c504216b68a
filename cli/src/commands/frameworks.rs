//! `mezz frameworks`.

use clap::Args;
use mezz_proto::mezz::v1::{FrameworkState, ListFrameworksRequest, framework_state::Status};
use serde::Serialize;

use crate::{
    client::{ClientArgs, plain},
    clock, ids,
    output::{self, Amounts, Cells, Column, OutputArgs, Row},
    units,
};

/// List frameworks.
#[derive(Debug, Args)]
pub struct FrameworksArgs {
    /// Also those that have ended, as far as the master remembers them
    #[arg(long)]
    pub completed: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub client: ClientArgs,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A framework, as its list shows it.
#[derive(Debug, Serialize)]
pub struct FrameworkRow {
    id: String,
    #[serde(skip)]
    short_id: String,
    name: String,
    status: &'static str,
    user: String,
    roles: Vec<String>,
    suppressed_roles: Vec<String>,
    tasks: u32,
    allocated: Amounts,
    offered: Amounts,
    dominant_share: f64,
    offers_sent: u64,
    offers_accepted: u64,
    hostname: Option<String>,
    webui_url: Option<String>,
    registered_time: Option<f64>,
    reregistered_time: Option<f64>,
    unregistered_time: Option<f64>,
    #[serde(skip)]
    age: String,
}

impl Row for FrameworkRow {
    const NOUN: &'static str = "framework";
    const COLUMNS: &'static [Column] = &[
        Column::left("ID"),
        Column::left("FULL ID").wide(),
        Column::left("NAME"),
        Column::left("STATUS"),
        Column::left("USER"),
        Column::left("ROLES"),
        Column::left("SUPPRESSED").wide(),
        Column::right("TASKS"),
        Column::right("CPUS"),
        Column::right("MEM"),
        Column::left("OTHERS").wide(),
        Column::left("OFFERED").wide(),
        Column::right("SHARE"),
        Column::right("OFFERS").wide(),
        Column::right("ACCEPTED").wide(),
        Column::left("WEB UI").wide(),
        Column::right("AGE"),
    ];

    fn cells(&self) -> Cells {
        vec![
            self.short_id.clone(),
            self.id.clone(),
            self.name.clone(),
            self.status.to_owned(),
            self.user.clone(),
            self.roles.join(","),
            self.suppressed_roles.join(","),
            self.tasks.to_string(),
            self.allocated.cpus(),
            self.allocated.mem(),
            self.allocated.others(),
            self.offered.to_string(),
            units::percent(self.dominant_share),
            self.offers_sent.to_string(),
            self.offers_accepted.to_string(),
            self.webui_url.clone().unwrap_or_default(),
            self.age.clone(),
        ]
    }
}

fn status(state: &FrameworkState) -> &'static str {
    match state.status() {
        Status::Active => "active",
        Status::Disconnected => "disconnected",
        Status::Recovered => "recovered",
        Status::Completed => "completed",
    }
}

/// A framework's id; empty when it has none, which a master never sends.
pub fn id(state: &FrameworkState) -> &str {
    state.framework.id.as_ref().map_or("", |id| id.value.as_str())
}

/// The rows of a list, live ones first, then by name and id.
pub fn rows(frameworks: &[FrameworkState], now: f64) -> Vec<FrameworkRow> {
    let short = ids::short(frameworks.iter().map(id));
    let mut rows: Vec<FrameworkRow> = frameworks
        .iter()
        .map(|f| {
            let info = &f.framework;
            // What is set decides, not the capability: frameworks of old have one role.
            #[allow(deprecated)]
            let roles = if info.roles.is_empty() {
                vec![info.role.clone().unwrap_or_else(|| "*".to_owned())]
            } else {
                info.roles.clone()
            };
            FrameworkRow {
                id: id(f).to_owned(),
                short_id: short.get(id(f)).copied().unwrap_or_default().to_owned(),
                name: info.name.clone(),
                status: status(f),
                user: info.user.clone(),
                roles,
                suppressed_roles: f.suppressed_roles.clone(),
                tasks: f.tasks,
                allocated: Amounts::of(&f.allocated),
                offered: Amounts::of(&f.offered),
                dominant_share: f.dominant_share,
                offers_sent: f.offers_sent,
                offers_accepted: f.offers_accepted,
                hostname: info.hostname.clone(),
                webui_url: info.webui_url.clone(),
                registered_time: f.registered_time,
                reregistered_time: f.reregistered_time,
                unregistered_time: f.unregistered_time,
                age: f.registered_time.map_or_else(String::new, |then| units::age(now, then)),
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        let key = |r: &FrameworkRow| (r.status == "completed", r.name.clone(), r.id.clone());
        key(a).cmp(&key(b))
    });
    rows
}

/// Lists frameworks.
///
/// # Errors
/// When the master cannot be asked.
pub async fn run(args: &FrameworksArgs) -> anyhow::Result<()> {
    let mut operator = args.client.operator().await?;
    let request = ListFrameworksRequest { completed: Some(args.completed) };
    let answer = operator.list_frameworks(request).await.map_err(|s| plain(&s))?;
    output::print(&rows(&answer.into_inner().frameworks, clock::now()), args.output.output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use mezz_proto::{
        resources::{Dialect, Resources},
        v1,
    };

    use super::*;
    use crate::output::{Format, testing::text};

    fn frameworks() -> Vec<FrameworkState> {
        let framework = |id: &str, name: &str, status: Status| FrameworkState {
            framework: v1::FrameworkInfo {
                user: "ann".to_owned(),
                name: name.to_owned(),
                id: Some(v1::FrameworkId { value: id.to_owned() }),
                roles: vec!["ads".to_owned(), "web".to_owned()],
                ..Default::default()
            },
            status: status as i32,
            registered_time: Some(0.0),
            tasks: 2,
            allocated: Resources::cpus_mem(3.0, 2048.0).to_proto(Dialect::Refined, None),
            offers_sent: 12,
            offers_accepted: 2,
            dominant_share: 0.25,
            ..Default::default()
        };
        vec![
            framework("m-0002", "a", Status::Completed),
            framework("m-0001", "spark", Status::Active),
            framework("m-0000", "batch", Status::Disconnected),
        ]
    }

    #[test]
    fn table() {
        assert_eq!(
            text(&rows(&frameworks(), 7300.0), Format::Table),
            "\
ID    NAME   STATUS        USER  ROLES    TASKS  CPUS    MEM  SHARE  AGE
0000  batch  disconnected  ann   ads,web      2     3  2 GiB    25%   2h
0001  spark  active        ann   ads,web      2     3  2 GiB    25%   2h
0002  a      completed     ann   ads,web      2     3  2 GiB    25%   2h
"
        );
    }

    #[test]
    fn wide_and_json() {
        let rows = rows(&frameworks()[1..2], 0.0);
        let wide = text(&rows, Format::Wide);
        assert!(wide.contains("m-0001") && wide.contains(" 12 "), "{wide}");
        let json: serde_json::Value = serde_json::from_str(&text(&rows, Format::Json)).unwrap();
        assert_eq!(json[0]["roles"], serde_json::json!(["ads", "web"]));
        assert_eq!(json[0]["offers_accepted"], 2);
        assert_eq!(json[0]["dominant_share"], 0.25);
        assert_eq!(json[0]["unregistered_time"], serde_json::Value::Null);
    }
}
