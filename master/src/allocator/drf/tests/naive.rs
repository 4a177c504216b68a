//! DRF as one would write it down: everything is computed anew from the plain
//! facts, nothing is remembered but counts of allocations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mezz_proto::{
    resources::{Resource, Resources},
    time::Time,
};

use crate::allocator::{AgentKey, AgentSpec, FrameworkKey, FrameworkSpec, Grant};

type ClientKey = (u32, Arc<str>);

pub(super) struct NaiveAgent {
    pub(super) spec: AgentSpec,
    pub(super) active: bool,
    pub(super) held: Vec<(ClientKey, Resources)>,
}

pub(super) struct NaiveFramework {
    pub(super) spec: FrameworkSpec,
    pub(super) active: bool,
    pub(super) suppressed: BTreeSet<Arc<str>>,
}

pub(super) struct Filter {
    pub(super) agent: u32,
    pub(super) client: ClientKey,
    pub(super) refused: Arc<Resources>,
    pub(super) until: Time,
}

#[derive(Default)]
pub(super) struct Naive {
    pub(super) agents: BTreeMap<u32, NaiveAgent>,
    pub(super) frameworks: BTreeMap<u32, NaiveFramework>,
    pub(super) filters: Vec<Filter>,
    pub(super) weights: BTreeMap<String, f64>,
    client_counts: BTreeMap<ClientKey, u64>,
    role_counts: BTreeMap<String, u64>,
    own_counts: BTreeMap<String, u64>,
    cursor: u32,
}

fn ancestors(role: &str) -> Vec<String> {
    let mut out: Vec<String> = role.match_indices('/').map(|(i, _)| role[..i].to_owned()).collect();
    out.push(role.to_owned());
    out
}

impl Naive {
    pub(super) fn available(&self, agent: u32) -> Resources {
        let a = &self.agents[&agent];
        let mut left = a.spec.total.clone();
        for (_, held) in &a.held {
            left.saturating_sub(held);
        }
        left
    }

    pub(super) fn give(&mut self, agent: u32, client: &ClientKey, resources: Resources) {
        self.agents.get_mut(&agent).unwrap().held.push((client.clone(), resources));
        self.count(client);
    }

    fn count(&mut self, client: &ClientKey) {
        *self.client_counts.entry(client.clone()).or_default() += 1;
        *self.own_counts.entry(client.1.to_string()).or_default() += 1;
        for role in ancestors(&client.1) {
            *self.role_counts.entry(role).or_default() += 1;
        }
    }

    pub(super) fn take(&mut self, agent: u32, client: &ClientKey, resources: &Resources) {
        let held = &mut self.agents.get_mut(&agent).unwrap().held;
        let mut mine = Resources::new();
        held.retain(|(c, r)| {
            if c == client {
                mine += r;
            }
            c != client
        });
        mine.saturating_sub(resources);
        if !mine.is_empty() {
            held.push((client.clone(), mine));
        }
    }

    fn exists(&self, (framework, role): &ClientKey) -> bool {
        let holds = || {
            self.agents
                .values()
                .flat_map(|a| &a.held)
                .any(|(c, _)| c.0 == *framework && c.1 == *role)
        };
        self.frameworks.get(framework).is_some_and(|f| f.spec.roles.contains(role) || holds())
    }

    /// Forgets the counts of clients and roles that are no more.
    pub(super) fn forget(&mut self) {
        let mut counts = std::mem::take(&mut self.client_counts);
        counts.retain(|c, _| self.exists(c));
        self.client_counts = counts;
        let mut roles: BTreeSet<String> = self.weights.keys().flat_map(|r| ancestors(r)).collect();
        for (key, f) in &self.frameworks {
            roles.extend(f.spec.roles.iter().flat_map(|r| ancestors(r)));
            for (c, _) in self.agents.values().flat_map(|a| &a.held).filter(|(c, _)| c.0 == *key) {
                roles.extend(ancestors(&c.1));
            }
        }
        self.role_counts.retain(|r, _| roles.contains(r));
        self.own_counts.retain(|r, _| roles.contains(r));
    }

    fn wants(&self, client: &ClientKey) -> bool {
        self.frameworks.get(&client.0).is_some_and(|f| {
            f.active && f.spec.roles.contains(&client.1) && !f.suppressed.contains(&client.1)
        })
    }

    fn share(&self, holds: impl Fn(&ClientKey) -> bool) -> f64 {
        let mut total: BTreeMap<String, u64> = BTreeMap::new();
        let mut held: BTreeMap<String, u64> = BTreeMap::new();
        for a in self.agents.values() {
            for (name, s) in a.spec.total.scalars() {
                *total.entry(name.to_owned()).or_default() += s.millis();
            }
            for (_, r) in a.held.iter().filter(|(c, _)| holds(c)) {
                for (name, s) in r.scalars() {
                    *held.entry(name.to_owned()).or_default() += s.millis();
                }
            }
        }
        held.iter().fold(0.0, |m: f64, (name, h)| match total.get(name) {
            Some(t) => m.max(*h as f64 / *t as f64),
            None => m,
        })
    }

    /// Wanting clients below `prefix` ("" is the top), in the order of service.
    fn order(&self, prefix: &str, wanting: &[ClientKey]) -> Vec<ClientKey> {
        let below = |role: &str| {
            prefix.is_empty()
                || role.strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        };
        let skip = if prefix.is_empty() { 0 } else { prefix.len() + 1 };
        let children: BTreeSet<String> = wanting
            .iter()
            .filter(|c| below(&c.1) && *c.1 != *prefix)
            .map(|c| {
                let end = c.1[skip..].find('/').map_or(c.1.len(), |i| skip + i);
                c.1[..end].to_owned()
            })
            .collect();
        let mut nodes: Vec<(f64, u64, String, bool)> = children
            .into_iter()
            .map(|role| {
                let inside = |c: &ClientKey| *c.1 == *role || c.1.starts_with(&format!("{role}/"));
                let weight = self.weights.get(&role).copied().unwrap_or(1.0);
                let count = self.role_counts.get(&role).copied().unwrap_or(0);
                (self.share(inside) / weight, count, role, false)
            })
            .collect();
        if wanting.iter().any(|c| *c.1 == *prefix) {
            let count = self.own_counts.get(prefix).copied().unwrap_or(0);
            nodes.push((self.share(|c| *c.1 == *prefix), count, String::new(), true));
        }
        nodes.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, &a.2).cmp(&(b.1, &b.2))));
        let mut out = Vec::new();
        for (_, _, role, own) in nodes {
            if !own {
                out.extend(self.order(&role, wanting));
                continue;
            }
            let mut mine: Vec<(f64, u64, ClientKey)> = wanting
                .iter()
                .filter(|c| *c.1 == *prefix)
                .map(|c| {
                    let count = self.client_counts.get(c).copied().unwrap_or(0);
                    (self.share(|other| other == c), count, c.clone())
                })
                .collect();
            mine.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, &a.2).cmp(&(b.1, &b.2))));
            out.extend(mine.into_iter().map(|(_, _, c)| c));
        }
        out
    }

    fn offerable(&self, agent: u32, client: &ClientKey) -> Option<Resources> {
        let a = &self.agents[&agent];
        let f = &self.frameworks[&client.0];
        let can = f.spec.capabilities;
        if !a.spec.total.scalar("gpus").is_zero() && !can.gpu_resources {
            return None;
        }
        let ok = |r: &Resource| {
            let role_fits = r
                .identity
                .reserved_for()
                .is_none_or(|role| ancestors(&client.1).iter().any(|own| own == role));
            role_fits && (can.revocable_resources || !r.identity.is_revocable())
        };
        let offer = self.available(agent).filter(ok);
        let cpus = offer.scalar("cpus").millis() >= 10;
        let mem = offer.scalar("mem").millis() >= 32_000;
        let filtered = self
            .filters
            .iter()
            .any(|x| x.agent == agent && x.client == *client && x.refused.contains(&offer));
        ((cpus || mem) && !filtered).then_some(offer)
    }

    pub(super) fn allocate(&mut self, now: Time) -> Vec<Grant> {
        self.filters.retain(|f| f.until > now);
        let wanting: Vec<ClientKey> = self
            .frameworks
            .iter()
            .flat_map(|(k, f)| f.spec.roles.iter().map(|r| (*k, r.clone())))
            .filter(|c| self.wants(c))
            .collect();
        let mut agents: Vec<u32> = self.agents.keys().copied().collect();
        agents.sort_by_key(|k| (*k < self.cursor, *k));
        let mut grants: Vec<Grant> = Vec::new();
        for agent in agents {
            if !self.agents[&agent].active || self.available(agent).is_empty() {
                continue;
            }
            let order = self.order("", &wanting);
            let mut given = Vec::new();
            for client in order {
                if let Some(offer) = self.offerable(agent, &client) {
                    // Shares follow after the agent; what is left at once.
                    self.agents.get_mut(&agent).unwrap().held.push((client.clone(), offer.clone()));
                    given.push(client.clone());
                    grants.push(Grant {
                        framework: FrameworkKey(client.0),
                        role: client.1,
                        agent: AgentKey(agent),
                        resources: Arc::new(offer),
                    });
                }
            }
            given.iter().for_each(|c| self.count(c));
        }
        if let Some(first) = grants.first() {
            self.cursor = first.agent.0 + 1;
        }
        grants
    }
}
