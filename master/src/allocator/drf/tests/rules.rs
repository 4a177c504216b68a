//! Roles, reservations, capabilities, constraints, and what is held by whom.

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::{
    resources::{Resource, Resources},
    v1::{
        self,
        scheduler::{
            AttributeConstraint,
            attribute_constraint::{
                Predicate as PredicateMessage, Selector as SelectorMessage,
                predicate::{Predicate, TextEquals, TextMatches},
                selector::{PseudoattributeType, Selector},
            },
            offer_constraints::{RoleConstraints, role_constraints::Group},
        },
    },
};

use super::{Env, agent_spec, framework_spec, res};
use crate::allocator::{AgentKey, Allocator, AllocatorOptions, FrameworkKey, ReasonCode};

fn role(name: &str) -> Arc<str> {
    Arc::from(name)
}

fn served(env: &mut Env) -> Vec<u32> {
    env.cycle().iter().map(|g| g.framework.0).collect()
}

/// A role with twice the weight gets twice as much.
#[test]
fn weights_divide_shares() {
    let mut env = Env::new();
    env.framework(1, &["heavy"]);
    env.framework(2, &["light"]);
    env.step(|a| a.set_weight(&role("heavy"), 2.0));
    for i in 0..9 {
        env.agent(i, "cpus:1;mem:100");
    }
    let who = served(&mut env);
    assert_eq!(who.iter().filter(|f| **f == 1).count(), 6);
    let roles = env.allocator.roles();
    assert_eq!((roles[0].weight, roles[1].weight), (2.0, 1.0));
    assert!((roles[0].dominant_share - 6.0 / 9.0).abs() < 1e-9);
    assert_eq!(roles[0].held, res("cpus:6;mem:600"));
    assert!((env.allocator.framework_share(FrameworkKey(2)) - 3.0 / 9.0).abs() < 1e-9);
}

/// "a" and "b" share alike, however many roles are below "a"; the frameworks of
/// "a" itself count as one child beside "a/x" and "a/y".
#[test]
fn the_role_tree_shares_level_by_level() {
    let mut env = Env::new();
    for (key, path) in [(1, "a"), (2, "a/x"), (3, "a/y"), (4, "b")] {
        env.framework(key, &[path]);
    }
    for i in 0..12 {
        env.agent(i, "cpus:1;mem:100");
    }
    let mut count = BTreeMap::new();
    served(&mut env).into_iter().for_each(|f| *count.entry(f).or_insert(0) += 1);
    assert_eq!(count, BTreeMap::from([(1, 2), (2, 2), (3, 2), (4, 6)]));
    let a = env.allocator.roles().into_iter().find(|r| &*r.role == "a").unwrap();
    assert_eq!(a.held, res("cpus:6;mem:600"));
    assert_eq!(a.frameworks, [FrameworkKey(1)]);
}

/// A framework in two roles competes in each.
#[test]
fn a_framework_may_have_several_roles() {
    let mut env = Env::new();
    env.framework(1, &["a", "b"]);
    env.agent(1, "cpus:1;mem:100");
    env.agent(2, "cpus:1;mem:100");
    let grants = env.cycle();
    let roles: Vec<&str> = grants.iter().map(|g| &*g.role).collect();
    assert_eq!(roles, ["a", "b"]);
    // A filter in one role says nothing about the other.
    env.decline(&grants[0], 100);
    assert_eq!(env.offers(), ["f1@a1 b: cpus:1; mem:100"]);
}

/// Own and ancestors' reservations are offered, others' never, and what is
/// reserved for another role goes to it in the same cycle.
#[test]
fn reservations_go_to_their_roles_only() {
    let mut env = Env::new();
    env.framework(1, &["a/b"]);
    env.framework(2, &["ab"]);
    env.agent(1, "cpus:1;mem:100;cpus(a):2;cpus(a/b):3;cpus(a/b/c):4;cpus(ab):5");
    let grants = env.cycle();
    assert_eq!(grants.len(), 2);
    assert_eq!(*grants[0].resources, res("cpus:1;mem:100;cpus(a):2;cpus(a/b):3"));
    assert_eq!(*grants[1].resources, res("cpus(ab):5"));
    assert_eq!(env.allocator.available(AgentKey(1)), Some(&res("cpus(a/b/c):4")));
    let reasons = env.allocator.explain_framework(FrameworkKey(2), env.now);
    assert_eq!(reasons[0].code, ReasonCode::Reserved);
}

#[test]
fn agents_with_gpus_are_for_those_who_want_gpus() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:1;mem:100;gpus:1");
    assert!(env.cycle().is_empty());
    let reasons = env.allocator.explain_framework(FrameworkKey(1), env.now);
    assert_eq!(reasons[0].code, ReasonCode::Capability);
    let mut spec = framework_spec(1, &["*"]);
    spec.capabilities.gpu_resources = true;
    env.step(|a| a.update_framework(FrameworkKey(1), spec));
    assert_eq!(env.cycle().len(), 1);

    let mut env = Env::with(AllocatorOptions { filter_gpu_resources: false, ..Default::default() });
    env.framework(1, &["*"]);
    env.agent(1, "cpus:1;mem:100;gpus:1");
    assert_eq!(env.cycle().len(), 1);
}

#[test]
fn revocable_resources_are_shown_to_those_who_understand_them() {
    let revocable: Resources = res("cpus:4")
        .iter()
        .map(|r| Resource {
            identity: r.identity.clone().with_revocable(true),
            amount: r.amount.clone(),
        })
        .collect();
    let mut env = Env::new();
    env.framework(1, &["*"]);
    let mut spec = agent_spec(1, "cpus:1;mem:100");
    spec.total += &revocable;
    env.step(|a| a.add_agent(AgentKey(1), spec));
    assert_eq!(env.offers(), ["f1@a1 *: cpus:1; mem:100"]);
    let mut spec = framework_spec(2, &["*"]);
    spec.capabilities.revocable_resources = true;
    env.step(|a| a.add_framework(FrameworkKey(2), spec));
    let grants = env.cycle();
    assert_eq!((grants[0].framework, &*grants[0].resources), (FrameworkKey(2), &revocable));
}

fn domain(region: &str) -> v1::DomainInfo {
    use v1::domain_info::{FaultDomain, fault_domain};
    v1::DomainInfo {
        fault_domain: Some(FaultDomain {
            region: fault_domain::RegionInfo { name: region.to_owned() },
            zone: fault_domain::ZoneInfo { name: "z".to_owned() },
        }),
    }
}

#[test]
fn other_regions_are_for_those_who_know_regions() {
    let options = AllocatorOptions { region: Some("here".to_owned()), ..Default::default() };
    let mut env = Env::with(options);
    env.framework(1, &["*"]);
    let mut aware = framework_spec(2, &["*"]);
    aware.capabilities.region_aware = true;
    env.step(|a| a.add_framework(FrameworkKey(2), aware));
    for (key, region) in [(1, "here"), (2, "there"), (3, "there")] {
        let mut spec = agent_spec(key, "cpus:1;mem:100");
        spec.domain = Some(domain(region));
        env.step(|a| a.add_agent(AgentKey(key), spec));
    }
    assert_eq!(served(&mut env), [1, 2, 2]);
}

fn constraint(selector: Selector, predicate: Predicate) -> AttributeConstraint {
    AttributeConstraint {
        selector: SelectorMessage { selector: Some(selector) },
        predicate: PredicateMessage { predicate: Some(predicate) },
    }
}

/// Constraints of a role decide before shares do (rule 32).
#[test]
fn constraints_exclude_agents() {
    let hostname = Selector::PseudoattributeType(PseudoattributeType::Hostname.into());
    let matches = |regex: &str| {
        constraint(hostname.clone(), Predicate::TextMatches(TextMatches { regex: regex.into() }))
    };
    let rack = |value: &str| {
        constraint(
            Selector::AttributeName("rack".into()),
            Predicate::TextEquals(TextEquals { value: value.into() }),
        )
    };
    let group = |attribute_constraints| Group { attribute_constraints };
    // host1 by its name, or anything of rack r2 whose name ends in 3.
    let constraints = RoleConstraints {
        groups: vec![group(vec![matches("ost1|host1")]), group(vec![rack("r2"), matches(".*3")])],
    };
    let mut env = Env::new();
    let mut spec = framework_spec(1, &["*"]);
    spec.constraints.insert(role("*"), constraints);
    env.step(|a| a.add_framework(FrameworkKey(1), spec));
    for (key, name) in [(1, "r1"), (11, "r1"), (2, "r2"), (3, "r2"), (13, "r1")] {
        let mut spec = agent_spec(key, "cpus:1;mem:100");
        spec.attributes.push(v1::Attribute {
            name: "rack".into(),
            r#type: v1::value::Type::Text.into(),
            text: Some(v1::value::Text { value: name.into() }),
            ..Default::default()
        });
        env.step(|a| a.add_agent(AgentKey(key), spec));
    }
    let agents: Vec<u32> = env.cycle().iter().map(|g| g.agent.0).collect();
    assert_eq!(agents, [1, 3]);
    let reasons = env.allocator.explain_framework(FrameworkKey(1), env.now);
    assert_eq!((reasons[0].code, reasons[0].count), (ReasonCode::Constraint, 3));
    // Without them the rest is free to go.
    env.step(|a| a.update_framework(FrameworkKey(1), framework_spec(1, &["*"])));
    assert_eq!(env.cycle().len(), 3);
}

#[test]
fn what_a_removed_framework_held_is_free_again() {
    let mut env = Env::new();
    env.framework(1, &["a"]);
    env.agent(1, "cpus:2;mem:100;ports:[1-9]");
    env.step(|a| {
        a.hold(AgentKey(1), FrameworkKey(1), &role("a"), &Arc::new(res("cpus:1;ports:[2-3]")))
    });
    assert_eq!(env.cycle().len(), 1);
    env.step(|a| a.remove_framework(FrameworkKey(1)));
    assert_eq!(env.allocator.available(AgentKey(1)), Some(&res("cpus:2;mem:100;ports:[1-9]")));
    assert!(env.allocator.roles().is_empty());
    env.framework(1, &["b"]);
    assert_eq!(env.offers(), ["f1@a1 b: cpus:2; mem:100; ports:[1-9]"]);
}

/// Rule 69: a left role stays charged until its tasks end.
#[test]
fn a_left_role_stays_charged() {
    let mut env = Env::new();
    env.framework(1, &["a"]);
    env.agent(1, "cpus:2;mem:100");
    let held = Arc::new(res("ports:[1-2]") + &res("cpus:1"));
    env.step(|a| a.update_agent(AgentKey(1), agent_spec(1, "cpus:2;mem:100;ports:[1-2]")));
    env.step(|a| a.hold(AgentKey(1), FrameworkKey(1), &role("a"), &held));
    env.step(|a| a.update_framework(FrameworkKey(1), framework_spec(1, &["b"])));
    let roles = env.allocator.roles();
    assert_eq!((&*roles[0].role, &roles[0].held), ("a", &res("cpus:1")));
    assert!(roles[0].frameworks.is_empty());
    assert_eq!(env.offers(), ["f1@a1 b: cpus:1; mem:100"]);
    env.step(|a| a.recover(AgentKey(1), FrameworkKey(1), &role("a"), &res("cpus:1")));
    env.step(|a| a.recover(AgentKey(1), FrameworkKey(1), &role("a"), &res("ports:[1-2]")));
    assert!(env.allocator.roles().iter().all(|r| &*r.role == "b"));
}

/// Inactive agents and frameworks are charged and not served.
#[test]
fn the_inactive_keep_what_they_have() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:1;mem:100");
    let grants = env.cycle();
    env.step(|a| a.set_agent_active(AgentKey(1), false));
    env.decline(&grants[0], 0);
    assert!(env.cycle().is_empty());
    env.step(|a| a.set_agent_active(AgentKey(1), true));
    env.step(|a| a.set_framework_active(FrameworkKey(1), false));
    assert!(env.cycle().is_empty());
    env.step(|a| a.set_framework_active(FrameworkKey(1), true));
    let grants = env.cycle();
    assert_eq!(grants.len(), 1);
    env.step(|a| a.set_framework_active(FrameworkKey(1), false));
    assert!((env.allocator.framework_share(FrameworkKey(1)) - 1.0).abs() < 1e-9);
}

/// An agent may come back with more in use than it has now.
#[test]
fn more_held_than_there_is_is_paid_back_first() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:4;mem:100");
    env.step(|a| a.hold(AgentKey(1), FrameworkKey(1), &role("*"), &Arc::new(res("cpus:4;mem:64"))));
    env.step(|a| a.update_agent(AgentKey(1), agent_spec(1, "cpus:2;mem:100")));
    env.step(|a| a.recover(AgentKey(1), FrameworkKey(1), &role("*"), &res("cpus:1")));
    assert_eq!(env.allocator.available(AgentKey(1)), Some(&res("mem:36")));
    env.step(|a| a.recover(AgentKey(1), FrameworkKey(1), &role("*"), &res("cpus:3;mem:64")));
    assert_eq!(env.offers(), ["f1@a1 *: cpus:2; mem:100"]);
}

/// Names that do not count leave shares alone.
#[test]
fn excluded_names_do_not_count_in_shares() {
    let options = AllocatorOptions {
        fair_sharing_excluded: vec!["licences".to_owned()],
        ..Default::default()
    };
    let mut env = Env::with(options);
    env.framework(1, &["a"]);
    env.agent(1, "licences:1;cpus:1;mem:100");
    env.agent(2, "cpus:9;mem:900");
    env.step(|a| a.hold(AgentKey(1), FrameworkKey(1), &role("a"), &Arc::new(res("licences:1"))));
    assert_eq!(env.allocator.framework_share(FrameworkKey(1)), 0.0);
    env.step(|a| a.hold(AgentKey(1), FrameworkKey(1), &role("a"), &Arc::new(res("cpus:1"))));
    assert!((env.allocator.framework_share(FrameworkKey(1)) - 0.1).abs() < 1e-9);
}

/// Unknown keys do no harm.
#[test]
fn unknown_keys_are_ignored() {
    let mut env = Env::new();
    let (agent, framework) = (AgentKey(7), FrameworkKey(7));
    env.step(|a| {
        a.remove_agent(agent);
        a.set_agent_active(agent, true);
        a.update_agent(agent, agent_spec(7, "cpus:1"));
        a.remove_framework(framework);
        a.update_framework(framework, framework_spec(7, &["*"]));
        a.set_framework_active(framework, true);
        a.suppress(framework, &[]);
        a.revive(framework, &[]);
        a.hold(agent, framework, &role("*"), &Arc::new(res("cpus:1")));
        a.recover(agent, framework, &role("*"), &res("cpus:1"));
        a.refuse(agent, framework, &role("*"), Arc::new(res("cpus:1")), super::Time::MAX);
    });
    assert!(env.cycle().is_empty());
    assert!(env.allocator.explain_framework(framework, env.now).is_empty());
    assert_eq!(env.allocator.available(agent), None);
}
