//! `mezz offers`.

use mezz_proto::mezz::v1::{ListOffersRequest, OfferRecord};
use serde::Serialize;

use crate::{
    cli::ListArgs,
    client::plain,
    clock, ids,
    output::{self, Amounts, Cells, Column, Row},
    units,
};

/// An offer, as its list shows it.
#[derive(Debug, Serialize)]
pub struct OfferRow {
    id: String,
    #[serde(skip)]
    short_id: String,
    framework_id: String,
    #[serde(skip)]
    short_framework: String,
    role: String,
    agent_id: String,
    agent_hostname: String,
    resources: Amounts,
    made_time: f64,
    #[serde(skip)]
    age: String,
}

impl Row for OfferRow {
    const NOUN: &'static str = "offer";
    const COLUMNS: &'static [Column] = &[
        Column::left("ID"),
        Column::left("FULL ID").wide(),
        Column::left("FRAMEWORK"),
        Column::left("FRAMEWORK ID").wide(),
        Column::left("ROLE"),
        Column::left("HOST"),
        Column::left("AGENT ID").wide(),
        Column::right("CPUS"),
        Column::right("MEM"),
        Column::right("DISK"),
        Column::left("OTHERS").wide(),
        Column::right("AGE"),
    ];

    fn cells(&self) -> Cells {
        vec![
            self.short_id.clone(),
            self.id.clone(),
            self.short_framework.clone(),
            self.framework_id.clone(),
            self.role.clone(),
            self.agent_hostname.clone(),
            self.agent_id.clone(),
            self.resources.cpus(),
            self.resources.mem(),
            self.resources.disk(),
            self.resources.others(),
            self.age.clone(),
        ]
    }
}

/// The rows of a list, oldest first.
pub fn rows(offers: &[OfferRecord], now: f64) -> Vec<OfferRow> {
    let short = ids::short(offers.iter().map(|o| o.offer.id.value.as_str()));
    let frameworks = ids::short(offers.iter().map(|o| o.offer.framework_id.value.as_str()));
    let mut rows: Vec<OfferRow> = offers
        .iter()
        .map(|record| {
            let offer = &record.offer;
            let (id, framework) = (offer.id.value.as_str(), offer.framework_id.value.as_str());
            OfferRow {
                id: id.to_owned(),
                short_id: short.get(id).copied().unwrap_or_default().to_owned(),
                framework_id: framework.to_owned(),
                short_framework: frameworks.get(framework).copied().unwrap_or_default().to_owned(),
                role: record.role.clone(),
                agent_id: offer.agent_id.value.clone(),
                agent_hostname: offer.hostname.clone(),
                resources: Amounts::of(&offer.resources),
                made_time: record.made_time,
                age: units::age(now, record.made_time),
            }
        })
        .collect();
    rows.sort_by(|a, b| a.made_time.total_cmp(&b.made_time).then_with(|| a.id.cmp(&b.id)));
    rows
}

/// Lists offers.
///
/// # Errors
/// When the master cannot be asked.
pub async fn run(args: &ListArgs) -> anyhow::Result<()> {
    let mut operator = args.client.operator().await?;
    let answer = operator.list_offers(ListOffersRequest {}).await.map_err(|s| plain(&s))?;
    output::print(&rows(&answer.into_inner().offers, clock::now()), args.output.output)?;
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

    #[test]
    fn table_and_json() {
        let offer = |id: &str, made_time| OfferRecord {
            offer: v1::Offer {
                id: v1::OfferId { value: id.to_owned() },
                framework_id: v1::FrameworkId { value: "m-0000".to_owned() },
                agent_id: v1::AgentId { value: "m-S0".to_owned() },
                hostname: "h".to_owned(),
                resources: Resources::cpus_mem(4.0, 512.0).to_proto(Dialect::Refined, Some("ads")),
                ..Default::default()
            },
            role: "ads".to_owned(),
            made_time,
        };
        let rows = rows(&[offer("m-O2", 50.0), offer("m-O10", 40.0)], 60.0);
        assert_eq!(
            text(&rows, Format::Table),
            "\
ID   FRAMEWORK  ROLE  HOST  CPUS      MEM   DISK  AGE
O10  0000       ads   h        4  512 MiB  0 MiB  20s
O2   0000       ads   h        4  512 MiB  0 MiB  10s
"
        );
        let json: serde_json::Value = serde_json::from_str(&text(&rows, Format::Json)).unwrap();
        assert_eq!(json[0]["id"], "m-O10");
        assert_eq!(json[0]["agent_hostname"], "h");
    }
}
