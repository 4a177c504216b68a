//! `mezz agents`.

use mezz_proto::{
    mezz::v1::{AgentState, ListAgentsRequest, agent_state::Status},
    v1::{self, DrainState},
};
use serde::Serialize;

use crate::{
    cli::ListArgs,
    client::plain,
    clock, ids,
    output::{self, Amounts, Cells, Column, Row},
    units,
};

/// An agent, as its list shows it.
#[derive(Debug, Serialize)]
pub struct AgentRow {
    id: String,
    #[serde(skip)]
    short_id: String,
    hostname: String,
    status: &'static str,
    /// What an operator wants of it.
    duty: Option<&'static str>,
    tasks: u32,
    total: Amounts,
    allocated: Amounts,
    offered: Amounts,
    attributes: Vec<String>,
    api_address: Option<String>,
    version: Option<String>,
    registered_time: Option<f64>,
    reregistered_time: Option<f64>,
    #[serde(skip)]
    age: String,
}

impl Row for AgentRow {
    const NOUN: &'static str = "agent";
    const COLUMNS: &'static [Column] = &[
        Column::left("ID"),
        Column::left("FULL ID").wide(),
        Column::left("HOST"),
        Column::left("STATUS"),
        Column::right("TASKS"),
        Column::right("CPUS"),
        Column::right("MEM"),
        Column::right("DISK"),
        Column::left("OTHERS").wide(),
        Column::left("OFFERED").wide(),
        Column::left("ATTRIBUTES").wide(),
        Column::left("ADDRESS").wide(),
        Column::left("VERSION").wide(),
        Column::right("AGE"),
    ];

    fn cells(&self) -> Cells {
        vec![
            self.short_id.clone(),
            self.id.clone(),
            self.hostname.clone(),
            match self.duty {
                Some(duty) if duty != self.status => format!("{} ({duty})", self.status),
                _ => self.status.to_owned(),
            },
            self.tasks.to_string(),
            self.allocated.cpus_of(&self.total),
            self.allocated.mem_of(&self.total),
            self.allocated.disk_of(&self.total),
            self.total.others(),
            self.offered.to_string(),
            self.attributes.join("; "),
            self.api_address.clone().unwrap_or_default(),
            self.version.clone().unwrap_or_default(),
            self.age.clone(),
        ]
    }
}

/// Where it stands, and what an operator wants of it if that is something.
pub fn status(state: &AgentState) -> &'static str {
    match (state.status(), duty(state)) {
        (Status::Active, Some(duty)) => duty,
        (Status::Active, None) => "active",
        (Status::Disconnected, _) => "disconnected",
        (Status::Unreachable, _) => "unreachable",
        (Status::Recovering, _) => "recovering",
    }
}

fn duty(state: &AgentState) -> Option<&'static str> {
    match state.drain.map(|drain| drain.state()) {
        Some(DrainState::Drained) => Some("drained"),
        Some(_) => Some("draining"),
        None => state.deactivated().then_some("deactivated"),
    }
}

/// The rows of a list, sorted by host, then id.
pub fn rows(agents: &[AgentState], now: f64) -> Vec<AgentRow> {
    let id = |a: &AgentState| a.agent.id.as_ref().map_or_else(String::new, |id| id.value.clone());
    let all: Vec<String> = agents.iter().map(id).collect();
    let short = ids::short(all.iter().map(String::as_str));
    let mut rows: Vec<AgentRow> = agents
        .iter()
        .map(|a| {
            let id = id(a);
            AgentRow {
                short_id: short.get(id.as_str()).copied().unwrap_or_default().to_owned(),
                id,
                hostname: a.agent.hostname.clone(),
                status: status(a),
                duty: duty(a),
                tasks: a.tasks,
                total: Amounts::of(&a.total),
                allocated: Amounts::of(&a.allocated),
                offered: Amounts::of(&a.offered),
                attributes: a.agent.attributes.iter().map(attribute).collect(),
                api_address: a.api_address.clone(),
                version: a.version.clone(),
                registered_time: a.registered_time,
                reregistered_time: a.reregistered_time,
                age: a.registered_time.map_or_else(String::new, |then| units::age(now, then)),
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.hostname, &a.id).cmp(&(&b.hostname, &b.id)));
    rows
}

/// `rack:r1`, `ssd:true`, `ports:[1-5]`.
fn attribute(attribute: &v1::Attribute) -> String {
    let value = if let Some(text) = &attribute.text {
        text.value.clone()
    } else if let Some(scalar) = &attribute.scalar {
        scalar.value.to_string()
    } else if let Some(ranges) = &attribute.ranges {
        let ranges: Vec<String> =
            ranges.range.iter().map(|r| format!("{}-{}", r.begin, r.end)).collect();
        format!("[{}]", ranges.join(","))
    } else {
        let items = attribute.set.as_ref().map_or_else(String::new, |set| set.item.join(","));
        format!("{{{items}}}")
    };
    format!("{}:{value}", attribute.name)
}

/// Lists agents.
///
/// # Errors
/// When the master cannot be asked.
pub async fn run(args: &ListArgs) -> anyhow::Result<()> {
    let mut operator = args.client.operator().await?;
    let answer = operator.list_agents(ListAgentsRequest {}).await.map_err(|s| plain(&s))?;
    output::print(&rows(&answer.into_inner().agents, clock::now()), args.output.output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use mezz_proto::resources::{Dialect, Resources};

    use super::*;
    use crate::output::{Format, testing::text};

    fn wire(text: &str) -> Vec<v1::Resource> {
        Resources::parse(text).unwrap().to_proto(Dialect::Refined, None)
    }

    fn agents() -> Vec<AgentState> {
        let agent = |id: &str, hostname: &str, status: Status| AgentState {
            agent: v1::AgentInfo {
                hostname: hostname.to_owned(),
                id: Some(v1::AgentId { value: id.to_owned() }),
                attributes: mezz_proto::attributes::parse("rack:r1;gen:4;p:[1-2]").unwrap(),
                ..Default::default()
            },
            status: status as i32,
            version: Some("0.1.0".to_owned()),
            api_address: Some("10.0.0.1:5051".to_owned()),
            registered_time: Some(1000.0),
            reregistered_time: None,
            total: wire("cpus:4;mem:8192;disk:102400;ports:[31000-32000]"),
            allocated: wire("cpus:1.5;mem:1536"),
            offered: wire("cpus:2.5"),
            tasks: 3,
            drain: None,
            deactivated: None,
            drain_start_time: None,
        };
        vec![
            agent("8d5d0f6c-S1", "web2", Status::Unreachable),
            agent("8d5d0f6c-S0", "web1", Status::Active),
        ]
    }

    #[test]
    fn table() {
        assert_eq!(
            text(&rows(&agents(), 1300.0), Format::Table),
            "\
ID  HOST  STATUS       TASKS   CPUS            MEM           DISK  AGE
S0  web1  active           3  1.5/4  1.5 GiB/8 GiB  0 MiB/100 GiB   5m
S1  web2  unreachable      3  1.5/4  1.5 GiB/8 GiB  0 MiB/100 GiB   5m
"
        );
    }

    #[test]
    fn what_operators_want_is_shown() {
        let shown = |status: Status, drain: Option<DrainState>, deactivated: bool| {
            let drain = drain.map(|state| v1::DrainInfo {
                state: state as i32,
                config: v1::DrainConfig::default(),
            });
            let mut agent = agents().remove(1);
            agent.set_status(status);
            agent.drain = drain;
            agent.deactivated = deactivated.then_some(true);
            rows(&[agent], 0.0)[0].cells()[3].clone()
        };
        use DrainState::{Drained, Draining};
        assert_eq!(shown(Status::Active, Some(Draining), false), "draining");
        assert_eq!(shown(Status::Active, Some(Drained), false), "drained");
        assert_eq!(shown(Status::Active, None, true), "deactivated");
        assert_eq!(shown(Status::Disconnected, Some(Draining), false), "disconnected (draining)");
        assert_eq!(shown(Status::Unreachable, None, false), "unreachable");
    }

    #[test]
    fn wide() {
        let text = text(&rows(&agents()[1..], 1300.0), Format::Wide);
        for part in [
            "8d5d0f6c-S0",
            "ports:[31000-32000]",
            "cpus:2.5",
            "rack:r1; gen:4; p:[1-2]",
            "10.0.0.1:5051",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn json() {
        let json: serde_json::Value =
            serde_json::from_str(&text(&rows(&agents()[1..], 0.0), Format::Json)).unwrap();
        assert_eq!(
            json,
            serde_json::json!([{
                "id": "8d5d0f6c-S0", "hostname": "web1", "status": "active", "duty": null,
                "tasks": 3,
                "total": {"cpus": 4.0, "disk": 102400.0, "mem": 8192.0, "ports": "[31000-32000]"},
                "allocated": {"cpus": 1.5, "mem": 1536.0}, "offered": {"cpus": 2.5},
                "attributes": ["rack:r1", "gen:4", "p:[1-2]"],
                "api_address": "10.0.0.1:5051", "version": "0.1.0",
                "registered_time": 1000.0, "reregistered_time": null
            }])
        );
    }
}
