//! Hierarchical weighted dominant resource fairness.
//!
//! Everything is incremental. Roles and frameworks stand in sorted sets whose
//! keys follow what is held; an agent is looked at again only when it has more
//! left than before, a filter on it ended, or somebody newly wants offers; and
//! each agent remembers who gets nothing of it as it is (`settled`), so that a
//! refusal costs a bit and not a comparison.

mod agents;
mod bits;
mod clients;
mod cycle;
mod eligibility;
mod explain;
mod filters;
mod frameworks;
mod invariants;
mod order;
mod policy;
mod quantities;
mod roles;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use mezz_proto::{ids::FrameworkId, time::Time};

use self::{
    agents::Agent,
    bits::BitSet,
    clients::{ClientId, Clients, Framework},
    eligibility::Rules,
    quantities::{Minimum, Names, Quantities},
    roles::Roles,
};
use super::{AgentKey, AllocatorOptions, FrameworkKey};

/// The DRF policy; see [`Allocator`](super::Allocator).
#[derive(Debug)]
pub struct DrfAllocator {
    options: AllocatorOptions,
    names: Names,
    /// The cluster's smallest offer.
    minimum: Minimum,
    agents: Vec<Option<Agent>>,
    frameworks: Vec<Option<Framework>>,
    /// Frameworks in the order of their ids, with their ranks.
    ranks: BTreeMap<(FrameworkId, FrameworkKey), u64>,
    clients: Clients,
    roles: Roles,
    /// All scalars of all agents.
    total: Quantities,
    /// Clients that want offers, and how many.
    wanting: BitSet,
    wanting_count: usize,
    /// Clients with a smallest offer of their own.
    own_minimum: BitSet,
    /// Agents of which something can be offered to somebody.
    open: BitSet,
    /// Agents to be looked at in the next cycle.
    dirty: BitSet,
    /// The earliest end of a filter of each agent that has one.
    timers: BTreeSet<(Time, AgentKey)>,
    /// Agent with which the next cycle begins.
    cursor: usize,
    /// Pairs of client and agent that were looked at so far.
    considered: u64,
}

impl DrfAllocator {
    /// Without agents and frameworks.
    pub fn new(options: AllocatorOptions) -> Self {
        let mut names = Names::default();
        let minimum = Minimum::new(&options.min_allocatable, &mut names);
        Self {
            options,
            names,
            minimum,
            agents: Vec::new(),
            frameworks: Vec::new(),
            ranks: BTreeMap::new(),
            clients: Clients::default(),
            roles: Roles::default(),
            total: Quantities::default(),
            wanting: BitSet::default(),
            wanting_count: 0,
            own_minimum: BitSet::default(),
            open: BitSet::default(),
            dirty: BitSet::default(),
            timers: BTreeSet::new(),
            cursor: 0,
            considered: 0,
        }
    }

    /// How many pairs of client and agent were looked at since the beginning.
    #[cfg(test)]
    pub(crate) fn considered(&self) -> u64 {
        self.considered
    }

    fn agent(&self, key: AgentKey) -> Option<&Agent> {
        self.agents.get(key.0 as usize)?.as_ref()
    }

    fn framework(&self, key: FrameworkKey) -> Option<&Framework> {
        self.frameworks.get(key.0 as usize)?.as_ref()
    }

    fn rules(&self) -> Rules<'_> {
        Rules { options: &self.options, minimum: &self.minimum, names: &self.names }
    }

    fn total_changed(&mut self) {
        let counted = self.names.counted(&self.total, &self.options.fair_sharing_excluded);
        self.roles.set_total(counted);
    }

    /// Notes that more may be left of an agent, or to more clients.
    fn touch(&mut self, i: usize) {
        let open = self.agents.get(i).and_then(Option::as_ref).is_some_and(Agent::is_open);
        self.open.assign(i, open);
        self.dirty.assign(i, open);
    }

    /// Adds to what a client holds.
    fn charge(&mut self, id: ClientId, quantities: &Quantities) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.held.add(quantities);
        client.allocations += 1;
        self.roles.place_client(id, client);
        self.roles.charge(client.role, quantities, true);
    }

    /// Takes from what a client holds.
    fn discharge(&mut self, id: ClientId, quantities: &Quantities) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.held.sub(quantities);
        self.roles.place_client(id, client);
        self.roles.charge(client.role, quantities, false);
    }

    /// Brings the timer of an agent in line with its filters; `before` is the
    /// earliest end that it stands for now.
    fn arm(&mut self, key: AgentKey, before: Option<Time>) {
        let after = self.agent(key).and_then(|a| a.filters.next_end());
        if before == after {
            return;
        }
        if let Some(t) = before {
            self.timers.remove(&(t, key));
        }
        if let Some(t) = after {
            self.timers.insert((t, key));
        }
    }

    fn expire_filters(&mut self, now: Time) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            let i = key.0 as usize;
            if let Some(agent) = self.agents.get_mut(i).and_then(Option::as_mut) {
                let clients = &mut self.clients;
                let (filters, settled) = (&mut agent.filters, &mut agent.settled);
                let excluded = &agent.excluded;
                filters.expire(now, |client, last| {
                    settled.assign(client.index(), excluded.contains(client.index()));
                    if last && let Some(c) = clients.get_mut(client) {
                        c.filtered.remove(i);
                    }
                });
            }
            self.arm(key, Some(at));
            self.touch(i);
        }
    }

    /// Drops all filters on an agent.
    fn clear_agent_filters(&mut self, key: AgentKey) {
        let i = key.0 as usize;
        let Some(agent) = self.agents.get_mut(i).and_then(Option::as_mut) else { return };
        let before = agent.filters.next_end();
        for client in agent.filters.clients() {
            if let Some(c) = self.clients.get_mut(client) {
                c.filtered.remove(i);
            }
        }
        agent.filters.clear();
        agent.grown = true;
        self.arm(key, before);
    }

    fn framework_client(&self, key: FrameworkKey, role: &str) -> Option<ClientId> {
        self.framework(key)?
            .clients
            .iter()
            .copied()
            .find(|&id| self.clients.get(id).is_some_and(|c| *c.path == *role))
    }
}
