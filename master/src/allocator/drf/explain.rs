//! Why somebody gets no (more) offers, by the rules that allocation itself uses.

use std::{collections::BTreeMap, fmt::Write as _};

use mezz_proto::time::Time;

use super::{
    DrfAllocator,
    agents::Agent,
    clients::{Client, ClientId},
    quantities::Quantities,
};
use crate::allocator::{FrameworkKey, Reason, ReasonCode, RoleShare};

/// Ids that a reason names at most.
const EXAMPLES: usize = 3;

/// Pairs of framework and agent that explaining a role looks at, at most; more
/// would hold up the master.
const MAX_PAIRS: usize = 500_000;

/// What counts towards one reason.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    examples: Vec<String>,
    /// Of filters: the first and the last end.
    ends: Option<(Time, Time)>,
    /// Of agents that are given away: to whom.
    holders: BTreeMap<FrameworkKey, Quantities>,
}

impl Tally {
    fn add(&mut self, example: &str) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example.to_owned());
        }
    }
}

type Tallies = BTreeMap<ReasonCode, Tally>;

impl DrfAllocator {
    pub(super) fn framework_reasons(&self, key: FrameworkKey, now: Time) -> Vec<Reason> {
        let Some(framework) = self.framework(key) else { return Vec::new() };
        let plain = |code, text: &str| {
            vec![Reason { code, count: 0, text: text.to_owned(), examples: Vec::new() }]
        };
        let mut clients: Vec<(ClientId, &Client)> = framework
            .clients
            .iter()
            .filter_map(|&id| Some((id, self.clients.get(id)?)))
            .filter(|(_, c)| c.subscribed)
            .collect();
        clients.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
        if !framework.active {
            return plain(ReasonCode::Disconnected, "the framework is disconnected");
        }
        if clients.is_empty() {
            return plain(ReasonCode::NoRoles, "the framework is subscribed to no role");
        }
        if self.agents.iter().flatten().next().is_none() {
            return plain(ReasonCode::NoAgents, "there are no agents");
        }
        let mut reasons = Vec::new();
        for (id, client) in clients {
            for (code, tally) in self.tally(id, client) {
                let mut text = format!("{} {}", agents(tally.count), phrase(code));
                self.detail(&mut text, code, &tally, client, now);
                if framework.clients.len() > 1 {
                    text = format!("role {}: {text}", client.path);
                }
                reasons.push(Reason { code, count: tally.count, text, examples: tally.examples });
            }
        }
        sort(&mut reasons);
        reasons
    }

    /// Looks at the client on every agent.
    fn tally(&self, id: ClientId, client: &Client) -> Tallies {
        let rules = self.rules();
        let mut tallies = Tallies::new();
        for agent in self.agents.iter().flatten() {
            let code = if client.suppressed {
                ReasonCode::Suppressed
            } else {
                match rules.eligibility(id, client, agent) {
                    Ok(_) => ReasonCode::Eligible,
                    Err(code) => code,
                }
            };
            let tally = tallies.entry(code).or_default();
            tally.add(agent.spec.id.as_str());
            match code {
                ReasonCode::Filtered => {
                    if let Some(end) = agent.filters.last_end_of(id) {
                        let (first, last) = tally.ends.unwrap_or((end, end));
                        tally.ends = Some((first.min(end), last.max(end)));
                    }
                }
                ReasonCode::Held | ReasonCode::BelowMinimum => self.add_holders(agent, tally),
                _ => {}
            }
        }
        tallies
    }

    fn add_holders(&self, agent: &Agent, tally: &mut Tally) {
        for h in &agent.holdings {
            if let Some(holder) = self.clients.get(h.client) {
                tally.holders.entry(holder.framework).or_default().add(&h.piece.quantities);
            }
        }
    }

    /// What there is to say beyond the code.
    fn detail(
        &self,
        text: &mut String,
        code: ReasonCode,
        tally: &Tally,
        client: &Client,
        now: Time,
    ) {
        if let Some((first, last)) = tally.ends {
            let (first, last) = (first.since(now).as_secs(), last.since(now).as_secs());
            let _ = if first == last {
                write!(text, ", filtered for another {first} s")
            } else {
                write!(text, ", filtered for another {first} to {last} s")
            };
            text.push_str("; REVIVE ends that");
        }
        if code == ReasonCode::BelowMinimum {
            let minimum = client.minimum.as_ref().unwrap_or(&self.minimum);
            let _ = write!(text, " ({})", minimum.describe(&self.names));
        }
        let mut holders: Vec<_> = tally.holders.iter().collect();
        let share = |q: &Quantities| q.share_of(self.roles.total());
        // Stable: those with equal shares stay in the order of their keys.
        holders.sort_by(|(_, a), (_, b)| share(b).total_cmp(&share(a)));
        for (i, (key, held)) in holders.into_iter().take(EXAMPLES).enumerate() {
            let Some(framework) = self.framework(*key) else { continue };
            text.push_str(if i == 0 { "; held by: " } else { ", " });
            let _ =
                write!(text, "framework {} ({})", framework.spec.id, self.names.resources(held));
        }
    }

    pub(super) fn role_reasons(&self, role: &str, _now: Time) -> Vec<Reason> {
        let inside = |path: &str| {
            path.strip_prefix(role).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let clients = || self.clients.iter().filter(|(_, c)| c.subscribed && inside(&c.path));
        let all = clients().count();
        if all == 0 {
            let text = format!("no framework is subscribed to role {role}");
            let code = ReasonCode::NoRoles;
            return vec![Reason { code, count: 0, text, examples: Vec::new() }];
        }
        let agents = self.agents.iter().flatten().count();
        let looked = all.min((MAX_PAIRS / agents.max(1)).max(1));
        let mut tallies = Tallies::new();
        for (id, client) in clients().take(looked) {
            let active = self.framework(client.framework).is_some_and(|f| f.active);
            let code = if !active {
                ReasonCode::Disconnected
            } else if agents == 0 {
                ReasonCode::NoAgents
            } else {
                // What keeps it from most agents.
                self.tally(id, client)
                    .into_iter()
                    .rev()
                    .max_by_key(|(_, t)| t.count)
                    .map_or(ReasonCode::NoAgents, |(code, _)| code)
            };
            tallies.entry(code).or_default().add(client.framework_id.as_str());
        }
        let of = if looked < all { format!(" (of the first {looked})") } else { String::new() };
        let reason = |(code, tally): (ReasonCode, Tally)| Reason {
            code,
            count: tally.count,
            text: format!(
                "{} framework{}{of}: {}{}",
                tally.count,
                if tally.count == 1 { "" } else { "s" },
                match code {
                    ReasonCode::Disconnected | ReasonCode::NoAgents => "",
                    _ => "most or all agents: ",
                },
                phrase(code)
            ),
            examples: tally.examples,
        };
        let mut reasons: Vec<Reason> = tallies.into_iter().map(reason).collect();
        sort(&mut reasons);
        reasons
    }

    pub(super) fn role_shares(&self) -> Vec<RoleShare> {
        let shown = self.roles.iter().filter_map(|(id, role)| {
            let frameworks: Vec<FrameworkKey> = self
                .clients
                .iter()
                .filter(|(_, c)| c.role == id && c.subscribed)
                .map(|(_, c)| c.framework)
                .collect();
            if frameworks.is_empty() && role.weight.is_none() && role.held.is_zero() {
                return None;
            }
            Some(RoleShare {
                role: role.path.clone(),
                weight: role.weight.unwrap_or(1.0),
                frameworks,
                held: self.names.resources(&role.held),
                dominant_share: role.held.share_of(self.roles.total()),
            })
        });
        shown.collect()
    }
}

/// Those that decide everything first, then what concerns most.
fn sort(reasons: &mut [Reason]) {
    reasons.sort_by_key(|r| {
        let whole = matches!(r.code, ReasonCode::Disconnected | ReasonCode::Suppressed);
        (!whole, std::cmp::Reverse(r.count), r.code)
    });
}

fn agents(count: u64) -> String {
    if count == 1 { "1 agent:".to_owned() } else { format!("{count} agents:") }
}

fn phrase(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::Disconnected => "disconnected",
        ReasonCode::Suppressed => "the framework suppressed the role; REVIVE ends that",
        ReasonCode::Filtered => "refused by the framework",
        ReasonCode::BelowMinimum => "less is left than the smallest offer",
        ReasonCode::Reserved => "what is left is reserved for other roles",
        ReasonCode::Capability => {
            "need a capability that the framework lacks (gpus, another region, revocable, \
             shared or refined resources)"
        }
        ReasonCode::Constraint => "excluded by the framework's offer constraints",
        ReasonCode::Held => "nothing is left",
        ReasonCode::InactiveAgent => "not active",
        ReasonCode::RoleLimit => "the role is at its limit",
        ReasonCode::Eligible => "can be offered at the next allocation",
        ReasonCode::NoAgents => "there are no agents",
        ReasonCode::NoRoles => "the framework has no role",
    }
}
