//! The policy's interface: each call as the small steps that it takes.

use std::sync::Arc;

use mezz_proto::{resources::Resources, time::Time};

use super::{
    DrfAllocator,
    agents::{Agent, Piece},
    quantities::Quantities,
};
use crate::allocator::{
    AgentKey, AgentSpec, Allocator, FrameworkKey, FrameworkSpec, Grant, Reason, RoleShare,
};

impl Allocator for DrfAllocator {
    fn add_agent(&mut self, key: AgentKey, spec: AgentSpec) {
        let i = key.0 as usize;
        if self.agent(key).is_some() {
            return self.update_agent(key, spec);
        }
        if self.agents.len() <= i {
            self.agents.resize_with(i + 1, || None);
        }
        let agent = Agent::new(spec, &mut self.names);
        self.total.add(&agent.total);
        self.agents[i] = Some(agent);
        self.total_changed();
        self.touch(i);
    }

    fn update_agent(&mut self, key: AgentKey, spec: AgentSpec) {
        let i = key.0 as usize;
        let Some(agent) = self.agents.get_mut(i).and_then(Option::as_mut) else { return };
        if agent.spec == spec {
            return;
        }
        let attributes = agent.spec.attributes != spec.attributes;
        self.total.sub(&agent.total);
        agent.update(spec, &mut self.names);
        self.total.add(&agent.total);
        self.total_changed();
        if attributes {
            self.clear_agent_filters(key);
        }
        self.touch(i);
    }

    fn remove_agent(&mut self, key: AgentKey) {
        self.clear_agent_filters(key);
        let i = key.0 as usize;
        let Some(agent) = self.agents.get_mut(i).and_then(Option::take) else { return };
        self.total.sub(&agent.total);
        self.total_changed();
        self.touch(i);
        for h in &agent.holdings {
            self.discharge(h.client, &h.piece.quantities);
        }
        for h in &agent.holdings {
            self.drop_if_unused(h.client);
        }
    }

    fn set_agent_active(&mut self, key: AgentKey, active: bool) {
        let i = key.0 as usize;
        if let Some(agent) = self.agents.get_mut(i).and_then(Option::as_mut)
            && agent.active != active
        {
            agent.active = active;
            // What was settled by its being inactive is open again.
            agent.grown = true;
            self.touch(i);
        }
    }

    fn add_framework(&mut self, key: FrameworkKey, spec: FrameworkSpec) {
        self.new_framework(key, spec);
    }

    fn update_framework(&mut self, key: FrameworkKey, spec: FrameworkSpec) {
        self.change_framework(key, spec);
    }

    fn remove_framework(&mut self, key: FrameworkKey) {
        self.drop_framework(key);
    }

    fn set_framework_active(&mut self, key: FrameworkKey, active: bool) {
        let Some(framework) = self.frameworks.get_mut(key.0 as usize).and_then(Option::as_mut)
        else {
            return;
        };
        if framework.active == active {
            return;
        }
        framework.active = active;
        for id in framework.clients.clone() {
            if !active {
                self.clear_client_filters(id);
            }
            self.review_wants(id);
        }
    }

    fn suppress(&mut self, key: FrameworkKey, roles: &[Arc<str>]) {
        for id in self.clients_of(key, roles) {
            if let Some(client) = self.clients.get_mut(id) {
                client.suppressed = true;
            }
            self.review_wants(id);
        }
    }

    fn revive(&mut self, key: FrameworkKey, roles: &[Arc<str>]) {
        for id in self.clients_of(key, roles) {
            self.clear_client_filters(id);
            if let Some(client) = self.clients.get_mut(id) {
                client.suppressed = false;
            }
            self.review_wants(id);
        }
    }

    fn hold(
        &mut self,
        agent: AgentKey,
        framework: FrameworkKey,
        role: &Arc<str>,
        resources: &Arc<Resources>,
    ) {
        if resources.is_empty() || self.agent(agent).is_none() {
            return;
        }
        let Some(id) = self.ensure_client(framework, role) else { return };
        let piece = Piece::new(Arc::clone(resources), &mut self.names);
        self.charge(id, &piece.quantities);
        let i = agent.0 as usize;
        if let Some(agent) = self.agents.get_mut(i).and_then(Option::as_mut) {
            agent.hold(id, piece, &mut self.names);
            self.open.assign(i, agent.is_open());
        }
    }

    fn recover(
        &mut self,
        agent: AgentKey,
        framework: FrameworkKey,
        role: &Arc<str>,
        resources: &Resources,
    ) {
        let Some(id) = self.framework_client(framework, role) else { return };
        let i = agent.0 as usize;
        let Some(agent) = self.agents.get_mut(i).and_then(Option::as_mut) else { return };
        let piece = agent.give_back(id, resources, &mut self.names);
        self.touch(i);
        self.discharge(id, &piece.quantities);
        self.drop_if_unused(id);
    }

    fn refuse(
        &mut self,
        agent: AgentKey,
        framework: FrameworkKey,
        role: &Arc<str>,
        refused: Arc<Resources>,
        until: Time,
    ) {
        let Some(id) = self.framework_client(framework, role) else { return };
        let active = self.framework(framework).is_some_and(|f| f.active);
        let subscribed = self.clients.get(id).is_some_and(|c| c.subscribed);
        if refused.is_empty() || !active || !subscribed {
            return;
        }
        let i = agent.0 as usize;
        let Some(a) = self.agents.get_mut(i).and_then(Option::as_mut) else { return };
        let before = a.filters.next_end();
        a.filters.add(id, refused, until);
        if let Some(client) = self.clients.get_mut(id) {
            client.filtered.insert(i);
        }
        self.arm(agent, before);
    }

    fn set_weight(&mut self, role: &Arc<str>, weight: f64) {
        let id = self.roles.ensure(role);
        self.roles.set_weight(id, weight);
    }

    fn allocate(&mut self, now: Time) -> Vec<Grant> {
        self.run_cycle(now)
    }

    fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|&(at, _)| at)
    }

    fn explain_framework(&self, key: FrameworkKey, now: Time) -> Vec<Reason> {
        self.framework_reasons(key, now)
    }

    fn explain_role(&self, role: &str, now: Time) -> Vec<Reason> {
        self.role_reasons(role, now)
    }

    fn roles(&self) -> Vec<RoleShare> {
        self.role_shares()
    }

    fn framework_share(&self, key: FrameworkKey) -> f64 {
        let mut held = Quantities::default();
        for &id in self.framework(key).map_or(&[][..], |f| &f.clients) {
            if let Some(client) = self.clients.get(id) {
                held.add(&client.held);
            }
        }
        held.share_of(self.roles.total())
    }

    fn available(&self, key: AgentKey) -> Option<&Resources> {
        Some(&self.agent(key)?.available.resources)
    }

    fn check_invariants(&self) -> Result<(), String> {
        self.check()
    }
}
