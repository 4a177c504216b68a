//! Random sequences: invariants after every step, the grants of the naive
//! model, and the same again for the same sequence.

use std::{sync::Arc, time::Duration};

use mezz_proto::{
    resources::{Resource, Resources},
    time::Time,
    v1,
};
use proptest::prelude::*;

use super::{
    agent_spec, framework_spec,
    naive::{Filter, Naive, NaiveAgent, NaiveFramework},
    res,
};
use crate::allocator::{
    AgentKey, AgentSpec, Allocator, AllocatorOptions, DrfAllocator, FrameworkKey, FrameworkSpec,
    Grant,
};

const ROLES: [&str; 5] = ["a", "a/b", "a/c", "b", "c"];
const TOTALS: [&str; 6] = [
    "cpus:4;mem:1024;ports:[1-10]",
    "cpus:8;mem:512;disk:100",
    "cpus:2;cpus(a):2;mem:256",
    "cpus:1;mem:64;mem(a/b):64;cpus(c):1",
    "cpus:4;mem:1024;gpus:1",
    "cpus:0.005;mem:16",
];
const PARTS: [&str; 4] = ["cpus:1", "cpus:0.5;mem:100", "mem:32;ports:[2-3]", "cpus(a):1"];

#[derive(Clone, Debug)]
enum Op {
    AddAgent(u32, usize),
    UpdateAgent(u32, usize, bool),
    RemoveAgent(u32),
    AgentActive(u32, bool),
    AddFramework(u32, u8, u8, bool),
    UpdateFramework(u32, u8, u8, bool),
    RemoveFramework(u32),
    FrameworkActive(u32, bool),
    Suppress(u32, Option<usize>),
    Revive(u32, Option<usize>),
    Hold(u32, u32, usize, usize),
    /// Of an outstanding grant: give back all or a part, refuse it so long.
    Decline(usize, u64),
    Return(usize, usize, u64),
    Weight(usize, u8),
    Allocate(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let agent = 0..5u32;
    let framework = 0..6u32;
    let role = || 0..ROLES.len();
    let refuse = || prop_oneof![Just(0u64), 1..10u64, Just(1000)];
    prop_oneof![
        3 => (agent.clone(), 0..TOTALS.len()).prop_map(|(a, t)| Op::AddAgent(a, t)),
        1 => (agent.clone(), 0..TOTALS.len(), any::<bool>())
            .prop_map(|(a, t, x)| Op::UpdateAgent(a, t, x)),
        1 => agent.clone().prop_map(Op::RemoveAgent),
        1 => (agent.clone(), any::<bool>()).prop_map(|(a, on)| Op::AgentActive(a, on)),
        4 => (framework.clone(), 0..32u8, 0..32u8, any::<bool>())
            .prop_map(|(f, r, s, c)| Op::AddFramework(f, r, s & 5, c)),
        1 => (framework.clone(), 0..32u8, 0..32u8, any::<bool>())
            .prop_map(|(f, r, s, c)| Op::UpdateFramework(f, r, s, c)),
        1 => framework.clone().prop_map(Op::RemoveFramework),
        1 => (framework.clone(), any::<bool>()).prop_map(|(f, on)| Op::FrameworkActive(f, on)),
        1 => (framework.clone(), proptest::option::of(role()))
            .prop_map(|(f, r)| Op::Suppress(f, r)),
        2 => (framework.clone(), proptest::option::of(role())).prop_map(|(f, r)| Op::Revive(f, r)),
        2 => (agent, framework, role(), 0..PARTS.len())
            .prop_map(|(a, f, r, p)| Op::Hold(a, f, r, p)),
        6 => (any::<usize>(), refuse()).prop_map(|(g, s)| Op::Decline(g, s)),
        4 => (any::<usize>(), 0..PARTS.len(), refuse()).prop_map(|(g, p, s)| Op::Return(g, p, s)),
        1 => (role(), 1..5u8).prop_map(|(r, w)| Op::Weight(r, w)),
        8 => (0..8u64).prop_map(Op::Allocate),
    ]
}

/// The allocator and the model, driven together as the core would.
struct Pair {
    real: DrfAllocator,
    naive: Naive,
    now: Time,
    /// Granted or held, and not yet given back.
    out: Vec<(AgentKey, FrameworkKey, Arc<str>, Arc<Resources>)>,
    log: Vec<Vec<Grant>>,
}

fn roles(bits: u8) -> Vec<&'static str> {
    (0..5).filter(|i| bits >> i & 1 == 1).map(|i| ROLES[i as usize]).collect()
}

fn spec(key: u32, bits: u8, suppressed: u8, able: bool) -> FrameworkSpec {
    let mut spec = framework_spec(key, &roles(bits));
    spec.suppressed = roles(bits & suppressed).into_iter().map(Arc::from).collect();
    spec.capabilities.gpu_resources = able;
    spec.capabilities.revocable_resources = able;
    spec
}

fn total(key: u32, which: usize) -> AgentSpec {
    let mut spec = agent_spec(key, TOTALS[which]);
    if which == 1 {
        let cpus = res("cpus:1").iter().next().unwrap().clone();
        let identity = cpus.identity.with_revocable(true);
        spec.total.insert(Resource { identity, amount: cpus.amount });
    }
    spec
}

impl Pair {
    fn new() -> Self {
        Self {
            real: DrfAllocator::new(AllocatorOptions::default()),
            naive: Naive::default(),
            now: Time::from_secs(100),
            out: Vec::new(),
            log: Vec::new(),
        }
    }

    fn give_back(&mut self, i: usize, part: Option<&Resources>, refuse: u64) {
        let (agent, framework, role, all) = self.out.swap_remove(i);
        let mut back = (*all).clone();
        if let Some(part) = part {
            let mut rest = back.clone();
            rest.saturating_sub(part);
            back.saturating_sub(&rest);
            if !rest.is_empty() {
                self.out.push((agent, framework, role.clone(), Arc::new(rest)));
            }
            self.real.recover(agent, framework, &role, &back);
        } else {
            self.real.recover(agent, framework, &role, &all);
        }
        let client = (framework.0, role.clone());
        self.naive.take(agent.0, &client, &back);
        if refuse > 0 && !back.is_empty() {
            let until = self.now + Duration::from_secs(refuse);
            let back = Arc::new(back);
            self.real.refuse(agent, framework, &role, back.clone(), until);
            let f = &self.naive.frameworks[&framework.0];
            if f.active && f.spec.roles.contains(&role) {
                self.naive.filters.push(Filter { agent: agent.0, client, refused: back, until });
            }
        }
    }

    fn update(&mut self, key: u32, new: FrameworkSpec) {
        self.real.update_framework(FrameworkKey(key), new.clone());
        let Some(f) = self.naive.frameworks.get_mut(&key) else { return };
        for role in &ROLES {
            let kept = f.spec.roles.iter().any(|r| **r == **role)
                && new.roles.iter().any(|r| **r == **role);
            let was = f.suppressed.iter().any(|r| **r == **role);
            let is = new.suppressed.iter().any(|r| **r == **role);
            if !kept || (was && !is) {
                self.naive.filters.retain(|x| x.client != (key, Arc::from(*role)));
            }
        }
        f.suppressed = new.suppressed.iter().cloned().collect();
        f.spec = new;
    }

    fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::AddAgent(a, t) if !self.naive.agents.contains_key(&a) => {
                let spec = total(a, t);
                self.real.add_agent(AgentKey(a), spec.clone());
                self.naive.agents.insert(a, NaiveAgent { spec, active: true, held: Vec::new() });
            }
            Op::AddAgent(..) => {}
            Op::UpdateAgent(a, t, attribute) => {
                let mut spec = total(a, t);
                if attribute {
                    spec.attributes.push(v1::Attribute { name: "x".into(), ..Default::default() });
                }
                self.real.update_agent(AgentKey(a), spec.clone());
                if let Some(agent) = self.naive.agents.get_mut(&a) {
                    if agent.spec.attributes != spec.attributes {
                        self.naive.filters.retain(|f| f.agent != a);
                    }
                    agent.spec = spec;
                }
            }
            Op::RemoveAgent(a) => {
                self.real.remove_agent(AgentKey(a));
                self.naive.agents.remove(&a);
                self.naive.filters.retain(|f| f.agent != a);
                self.out.retain(|o| o.0.0 != a);
            }
            Op::AgentActive(a, on) => {
                self.real.set_agent_active(AgentKey(a), on);
                if let Some(agent) = self.naive.agents.get_mut(&a) {
                    agent.active = on;
                }
            }
            Op::AddFramework(f, r, s, c) if !self.naive.frameworks.contains_key(&f) => {
                let spec = spec(f, r, s, c);
                self.real.add_framework(FrameworkKey(f), spec.clone());
                let suppressed = spec.suppressed.iter().cloned().collect();
                self.naive.frameworks.insert(f, NaiveFramework { spec, active: true, suppressed });
            }
            Op::AddFramework(..) => {}
            Op::UpdateFramework(f, r, s, c) => self.update(f, spec(f, r, s, c)),
            Op::RemoveFramework(f) => {
                self.real.remove_framework(FrameworkKey(f));
                self.naive.frameworks.remove(&f);
                self.naive.filters.retain(|x| x.client.0 != f);
                for a in self.naive.agents.values_mut() {
                    a.held.retain(|(c, _)| c.0 != f);
                }
                self.out.retain(|o| o.1.0 != f);
            }
            Op::FrameworkActive(f, on) => {
                self.real.set_framework_active(FrameworkKey(f), on);
                if let Some(framework) = self.naive.frameworks.get_mut(&f) {
                    framework.active = on;
                    if !on {
                        self.naive.filters.retain(|x| x.client.0 != f);
                    }
                }
            }
            Op::Suppress(f, role) => {
                let roles: Vec<Arc<str>> = role.iter().map(|r| Arc::from(ROLES[*r])).collect();
                self.real.suppress(FrameworkKey(f), &roles);
                if let Some(framework) = self.naive.frameworks.get_mut(&f) {
                    let all = framework.spec.roles.clone();
                    let hit = all.into_iter().filter(|r| roles.is_empty() || roles.contains(r));
                    framework.suppressed.extend(hit);
                }
            }
            Op::Revive(f, role) => {
                let roles: Vec<Arc<str>> = role.iter().map(|r| Arc::from(ROLES[*r])).collect();
                self.real.revive(FrameworkKey(f), &roles);
                if let Some(framework) = self.naive.frameworks.get_mut(&f) {
                    let hit = |r: &Arc<str>| roles.is_empty() || roles.contains(r);
                    framework.suppressed.retain(|r| !hit(r));
                    self.naive.filters.retain(|x| x.client.0 != f || !hit(&x.client.1));
                }
            }
            Op::Hold(a, f, r, p) => {
                let (role, part) = (Arc::from(ROLES[r]), res(PARTS[p]));
                if !self.naive.frameworks.contains_key(&f)
                    || !self.naive.agents.contains_key(&a)
                    // Else it would be in two hands, where the order of
                    // subtraction matters and the two may rightly differ.
                    || !self.naive.available(a).contains(&part)
                {
                    return;
                }
                let held = Arc::new(part.clone());
                self.real.hold(AgentKey(a), FrameworkKey(f), &role, &held);
                self.naive.give(a, &(f, role.clone()), part);
                self.out.push((AgentKey(a), FrameworkKey(f), role, held));
            }
            Op::Decline(i, refuse) if !self.out.is_empty() => {
                self.give_back(i % self.out.len(), None, refuse);
            }
            Op::Return(i, p, refuse) if !self.out.is_empty() => {
                let part = res(PARTS[p]);
                self.give_back(i % self.out.len(), Some(&part), refuse);
            }
            Op::Decline(..) | Op::Return(..) => {}
            Op::Weight(r, w) => {
                self.real.set_weight(&Arc::from(ROLES[r]), f64::from(w));
                self.naive.weights.insert(ROLES[r].to_owned(), f64::from(w));
            }
            Op::Allocate(seconds) => {
                self.now = self.now + Duration::from_secs(seconds);
                let real = self.real.allocate(self.now);
                let naive = self.naive.allocate(self.now);
                assert_eq!(real, naive, "grants of the allocator and of the model");
                for g in &real {
                    self.out.push((g.agent, g.framework, g.role.clone(), g.resources.clone()));
                }
                self.log.push(real);
            }
        }
        self.naive.forget();
    }

    fn run(ops: &[Op]) -> Self {
        let mut pair = Self::new();
        for op in ops {
            pair.apply(op);
            pair.real.check_invariants().unwrap_or_else(|e| panic!("after {op:?}: {e}"));
            for a in pair.naive.agents.keys() {
                assert_eq!(
                    pair.real.available(AgentKey(*a)),
                    Some(&pair.naive.available(*a)),
                    "left of a{a} after {op:?}"
                );
            }
            let end = pair.naive.filters.iter().map(|f| f.until).min();
            // Filters that others make pointless are dropped early, so the
            // allocator may be later than the model, never earlier.
            assert!(pair.real.next_deadline() >= end || end.is_none(), "deadline");
        }
        pair
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn grants_are_those_of_the_model_and_repeatable(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let once = Pair::run(&ops);
        let again = Pair::run(&ops);
        prop_assert_eq!(once.log, again.log);
    }
}
