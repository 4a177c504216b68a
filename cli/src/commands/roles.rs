//! `mezz roles`.

use mezz_proto::mezz::v1::{ListRolesRequest, RoleState};
use serde::Serialize;

use crate::{
    cli::ListArgs,
    client::plain,
    output::{self, Amounts, Cells, Column, Row},
    units,
};

/// A role, as its list shows it.
#[derive(Debug, Serialize)]
pub struct RoleRow {
    name: String,
    weight: f64,
    frameworks: Vec<String>,
    allocated: Amounts,
    offered: Amounts,
    dominant_share: f64,
}

impl Row for RoleRow {
    const NOUN: &'static str = "role";
    const COLUMNS: &'static [Column] = &[
        Column::left("ROLE"),
        Column::right("WEIGHT"),
        Column::right("FRAMEWORKS"),
        Column::right("CPUS"),
        Column::right("MEM"),
        Column::right("DISK").wide(),
        Column::left("OTHERS").wide(),
        Column::left("OFFERED").wide(),
        Column::right("SHARE"),
    ];

    fn cells(&self) -> Cells {
        vec![
            self.name.clone(),
            self.weight.to_string(),
            self.frameworks.len().to_string(),
            self.allocated.cpus(),
            self.allocated.mem(),
            self.allocated.disk(),
            self.allocated.others(),
            self.offered.to_string(),
            units::percent(self.dominant_share),
        ]
    }
}

/// The rows of a list, sorted by name.
pub fn rows(roles: &[RoleState]) -> Vec<RoleRow> {
    let mut rows: Vec<RoleRow> = roles
        .iter()
        .map(|role| RoleRow {
            name: role.name.clone(),
            weight: role.weight,
            frameworks: role.frameworks.clone(),
            allocated: Amounts::of(&role.allocated),
            offered: Amounts::of(&role.offered),
            dominant_share: role.dominant_share,
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Lists roles.
///
/// # Errors
/// When the master cannot be asked.
pub async fn run(args: &ListArgs) -> anyhow::Result<()> {
    let mut operator = args.client.operator().await?;
    let answer = operator.list_roles(ListRolesRequest {}).await.map_err(|s| plain(&s))?;
    output::print(&rows(&answer.into_inner().roles), args.output.output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use mezz_proto::resources::{Dialect, Resources};

    use super::*;
    use crate::output::{Format, testing::text};

    #[test]
    fn table_and_json() {
        let role = |name: &str, weight, frameworks: &[&str]| RoleState {
            name: name.to_owned(),
            weight,
            frameworks: frameworks.iter().map(ToString::to_string).collect(),
            allocated: Resources::cpus_mem(1.0, 64.0).to_proto(Dialect::Refined, None),
            offered: Vec::new(),
            dominant_share: 0.125,
        };
        let rows = rows(&[role("web", 2.5, &["m-0000", "m-0001"]), role("ads", 1.0, &[])]);
        assert_eq!(
            text(&rows, Format::Table),
            "\
ROLE  WEIGHT  FRAMEWORKS  CPUS     MEM  SHARE
ads        1           0     1  64 MiB  12.5%
web      2.5           2     1  64 MiB  12.5%
"
        );
        let json: serde_json::Value = serde_json::from_str(&text(&rows, Format::Json)).unwrap();
        assert_eq!(json[1]["frameworks"], serde_json::json!(["m-0000", "m-0001"]));
    }
}
