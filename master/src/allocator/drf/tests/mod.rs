//! Behaviour of the DRF allocator.

mod explain;
mod filters;
mod naive;
mod random;
mod rules;
mod scenarios;
mod unchanged;

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    resources::Resources,
    time::Time,
};

use super::DrfAllocator;
use crate::allocator::{
    AgentKey, AgentSpec, Allocator, AllocatorOptions, FrameworkCapabilities, FrameworkKey,
    FrameworkSpec, Grant,
};

pub(super) fn res(text: &str) -> Resources {
    Resources::parse(text).expect(text)
}

pub(super) fn agent_spec(key: u32, total: &str) -> AgentSpec {
    AgentSpec {
        id: AgentId::new(format!("a{key}")),
        hostname: format!("host{key}"),
        attributes: Vec::new(),
        domain: None,
        total: res(total),
    }
}

pub(super) fn framework_spec(key: u32, roles: &[&str]) -> FrameworkSpec {
    let mut roles: Vec<Arc<str>> = roles.iter().map(|r| Arc::from(*r)).collect();
    roles.sort();
    FrameworkSpec {
        id: FrameworkId::new(format!("f{key:03}")),
        roles,
        suppressed: Vec::new(),
        capabilities: FrameworkCapabilities::default(),
        min_allocatable: BTreeMap::new(),
        constraints: BTreeMap::new(),
    }
}

/// An allocator whose invariants are checked after every step, and a clock.
pub(super) struct Env {
    pub(super) allocator: DrfAllocator,
    pub(super) now: Time,
}

impl Env {
    pub(super) fn new() -> Self {
        Self::with(AllocatorOptions::default())
    }

    pub(super) fn with(options: AllocatorOptions) -> Self {
        Self { allocator: DrfAllocator::new(options), now: Time::from_secs(1000) }
    }

    pub(super) fn step<T>(&mut self, step: impl FnOnce(&mut DrfAllocator) -> T) -> T {
        let out = step(&mut self.allocator);
        self.allocator.check_invariants().expect("invariants hold");
        out
    }

    pub(super) fn agent(&mut self, key: u32, total: &str) {
        self.step(|a| a.add_agent(AgentKey(key), agent_spec(key, total)));
    }

    pub(super) fn framework(&mut self, key: u32, roles: &[&str]) {
        self.step(|a| a.add_framework(FrameworkKey(key), framework_spec(key, roles)));
    }

    /// One cycle, as `f1@a2 role: resources` each.
    pub(super) fn cycle(&mut self) -> Vec<Grant> {
        let now = self.now;
        self.step(|a| a.allocate(now))
    }

    pub(super) fn offers(&mut self) -> Vec<String> {
        self.cycle().iter().map(show).collect()
    }

    pub(super) fn decline(&mut self, grant: &Grant, seconds: u64) {
        let until = self.now + std::time::Duration::from_secs(seconds);
        self.step(|a| a.recover(grant.agent, grant.framework, &grant.role, &grant.resources));
        if seconds > 0 {
            self.step(|a| {
                a.refuse(grant.agent, grant.framework, &grant.role, grant.resources.clone(), until);
            });
        }
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now = self.now + std::time::Duration::from_secs(seconds);
    }
}

pub(super) fn show(g: &Grant) -> String {
    format!("f{}@a{} {}: {}", g.framework.0, g.agent.0, g.role, g.resources)
}
