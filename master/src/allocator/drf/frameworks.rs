//! Frameworks that come, change and go, and what that means for their clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    DrfAllocator,
    clients::{Client, ClientId, Framework},
    order::{rank_between, spread_ranks},
    quantities::{Minimum, Quantities},
};
use crate::allocator::{FrameworkKey, FrameworkSpec, constraints::Constraints};

impl DrfAllocator {
    pub(super) fn new_framework(&mut self, key: FrameworkKey, spec: FrameworkSpec) {
        let i = key.0 as usize;
        if self.framework(key).is_some() {
            return self.change_framework(key, spec);
        }
        if self.frameworks.len() <= i {
            self.frameworks.resize_with(i + 1, || None);
        }
        let rank = self.rank_framework(key, &spec);
        // Its roles are joined below, as changes of a framework without any.
        let empty = FrameworkSpec {
            id: spec.id.clone(),
            roles: Vec::new(),
            suppressed: Vec::new(),
            capabilities: spec.capabilities,
            min_allocatable: BTreeMap::new(),
            constraints: BTreeMap::new(),
        };
        self.frameworks[i] =
            Some(Framework { spec: empty, active: true, rank, clients: Vec::new() });
        self.change_framework(key, spec);
    }

    /// Gives the framework its place among the ids.
    fn rank_framework(&mut self, key: FrameworkKey, spec: &FrameworkSpec) -> u64 {
        let name = (spec.id.clone(), key);
        let before = self.ranks.range(..&name).next_back().map(|(_, &r)| r);
        let after = self.ranks.range(&name..).next().map(|(_, &r)| r);
        if let Some(rank) = rank_between(before, after) {
            self.ranks.insert(name, rank);
            return rank;
        }
        self.ranks.insert(name, 0);
        let mut mine = 0;
        for (rank, ((_, k), r)) in spread_ranks(self.ranks.len()).zip(&mut self.ranks) {
            *r = rank;
            match self.frameworks.get_mut(k.0 as usize).and_then(Option::as_mut) {
                Some(f) if *k != key => {
                    f.rank = rank;
                    for &id in &f.clients {
                        if let Some(c) = self.clients.get_mut(id) {
                            c.rank = rank;
                        }
                    }
                }
                _ => mine = rank,
            }
        }
        self.roles.set_stale();
        mine
    }

    pub(super) fn change_framework(&mut self, key: FrameworkKey, spec: FrameworkSpec) {
        let Some(framework) = self.frameworks.get_mut(key.0 as usize).and_then(Option::as_mut)
        else {
            return;
        };
        let old = std::mem::replace(&mut framework.spec, spec.clone());
        let old_roles: BTreeSet<&Arc<str>> = old.roles.iter().collect();
        let new_roles: BTreeSet<&Arc<str>> = spec.roles.iter().collect();
        let new_suppressed: BTreeSet<&Arc<str>> = spec.suppressed.iter().collect();
        for role in &spec.roles {
            let Some(id) = self.ensure_client(key, role) else { continue };
            let kept = old_roles.contains(role);
            let suppressed = new_suppressed.contains(role);
            let was_suppressed = self.clients.get(id).is_some_and(|c| c.suppressed);
            if kept && was_suppressed && !suppressed {
                self.clear_client_filters(id);
            }
            let same = kept
                && old.capabilities == spec.capabilities
                && old.min_allocatable.get(role) == spec.min_allocatable.get(role)
                && old.constraints.get(role) == spec.constraints.get(role);
            let minimum = spec.min_allocatable.get(role).map(|m| Minimum::new(m, &mut self.names));
            self.own_minimum.assign(id.index(), minimum.is_some());
            // The core has validated constraints; if it had not, no offer is the
            // harmless answer.
            let constraints = spec
                .constraints
                .get(role)
                .map(|c| Constraints::compile(role, c).unwrap_or_else(|_| Constraints::nothing()));
            if let Some(client) = self.clients.get_mut(id) {
                client.subscribed = true;
                client.suppressed = suppressed;
                client.capabilities = spec.capabilities;
                client.minimum = minimum;
                client.constraints = constraints;
            }
            self.review_wants(id);
            if !same {
                self.unsettle(id);
            }
        }
        // After joining the new roles, so that a role above both keeps its counts.
        for role in old.roles.iter().filter(|r| !new_roles.contains(r)) {
            if let Some(id) = self.framework_client(key, role) {
                self.clear_client_filters(id);
                if let Some(client) = self.clients.get_mut(id) {
                    client.subscribed = false;
                }
                self.review_wants(id);
                self.drop_if_unused(id);
            }
        }
    }

    pub(super) fn drop_framework(&mut self, key: FrameworkKey) {
        let Some(mut framework) = self.frameworks.get_mut(key.0 as usize).and_then(Option::take)
        else {
            return;
        };
        self.ranks.remove(&(framework.spec.id.clone(), key));
        for id in std::mem::take(&mut framework.clients) {
            self.clear_client_filters(id);
            let mut all = Quantities::default();
            for i in 0..self.agents.len() {
                let Some(agent) = self.agents[i].as_mut() else { continue };
                if agent.holdings.iter().any(|h| h.client == id) {
                    all.add(&agent.give_back_all(id, &mut self.names));
                    self.touch(i);
                }
            }
            self.discharge(id, &all);
            if let Some(client) = self.clients.get_mut(id) {
                client.subscribed = false;
            }
            self.review_wants(id);
            self.forget_client(id);
        }
    }

    /// The framework's client in a role, made when there is none.
    pub(super) fn ensure_client(&mut self, key: FrameworkKey, role: &Arc<str>) -> Option<ClientId> {
        if let Some(id) = self.framework_client(key, role) {
            return Some(id);
        }
        let framework = self.frameworks.get_mut(key.0 as usize).and_then(Option::as_mut)?;
        let role_id = self.roles.ensure(role);
        self.roles.join(role_id);
        let id = self.clients.add(Client {
            framework: key,
            framework_id: framework.spec.id.clone(),
            rank: framework.rank,
            role: role_id,
            path: self.roles.get(role_id).path.clone(),
            subscribed: false,
            suppressed: false,
            wanting: false,
            capabilities: framework.spec.capabilities,
            minimum: None,
            constraints: None,
            held: Quantities::default(),
            allocations: 0,
            key: None,
            filtered: Default::default(),
        });
        framework.clients.push(id);
        Some(id)
    }

    /// The framework's clients in `roles`, or all that it is subscribed to.
    pub(super) fn clients_of(&self, key: FrameworkKey, roles: &[Arc<str>]) -> Vec<ClientId> {
        let Some(framework) = self.framework(key) else { return Vec::new() };
        let roles: BTreeSet<&Arc<str>> = roles.iter().collect();
        let wanted = |id: &ClientId| {
            self.clients
                .get(*id)
                .is_some_and(|c| c.subscribed && (roles.is_empty() || roles.contains(&c.path)))
        };
        framework.clients.iter().copied().filter(wanted).collect()
    }

    /// Computes whether a client wants offers; one that newly does is looked at
    /// on every agent.
    pub(super) fn review_wants(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let active = self
            .frameworks
            .get(client.framework.0 as usize)
            .and_then(Option::as_ref)
            .is_some_and(|f| f.active);
        let wants = active && client.subscribed && !client.suppressed;
        client.wanting = wants;
        self.roles.place_client(id, client);
        if self.wanting.assign(id.index(), wants) {
            if wants {
                self.wanting_count += 1;
                self.dirty.union_with(&self.open);
            } else {
                self.wanting_count -= 1;
            }
        }
    }

    /// Drops what the agents remember of a client.
    pub(super) fn unsettle(&mut self, id: ClientId) {
        for agent in self.agents.iter_mut().flatten() {
            agent.excluded.remove(id.index());
            agent.settled.remove(id.index());
        }
        self.dirty.union_with(&self.open);
    }

    pub(super) fn clear_client_filters(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        for i in std::mem::take(&mut client.filtered).iter() {
            let Some(agent) = self.agents.get_mut(i).and_then(Option::as_mut) else { continue };
            let before = agent.filters.next_end();
            agent.filters.remove_client(id);
            let out = agent.excluded.contains(id.index());
            agent.settled.assign(id.index(), out);
            self.arm(crate::allocator::AgentKey(i as u32), before);
            self.touch(i);
        }
    }

    /// Forgets a client whose framework left the role once it holds nothing.
    pub(super) fn drop_if_unused(&mut self, id: ClientId) {
        let unused = |c: &Client| !c.subscribed && c.held.is_zero();
        if !self.clients.get(id).is_some_and(unused) {
            return;
        }
        // It may still hold ports or names.
        let holds = |a: &super::Agent| a.holdings.iter().any(|h| h.client == id);
        if !self.agents.iter().flatten().any(holds) {
            self.forget_client(id);
        }
    }

    fn forget_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(id) else { return };
        if let Some(f) =
            self.frameworks.get_mut(client.framework.0 as usize).and_then(Option::as_mut)
        {
            f.clients.retain(|c| *c != id);
        }
        self.own_minimum.remove(id.index());
        self.unsettle(id);
        self.roles.leave(client.role);
    }
}
