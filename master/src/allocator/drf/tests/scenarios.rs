//! Scenarios of Mesos' allocator tests (scenarios.md, by number; those with
//! quotas are not here, and 26 is not: all our agents have MULTI_ROLE).

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::{resources::Scalar, v1};

use super::{Env, agent_spec, framework_spec, res};
use crate::allocator::{AgentKey, Allocator, FrameworkKey};

/// 1: the role with the smaller share is served first, and within it the
/// framework with the smaller share.
#[test]
fn unreserved_drf() {
    let mut env = Env::new();
    env.framework(1, &["role1"]);
    env.framework(2, &["role2"]);
    env.agent(1, "cpus:2;mem:1024");
    assert_eq!(env.offers(), ["f1@a1 role1: cpus:2; mem:1024"]);
    env.agent(2, "cpus:1;mem:512");
    assert_eq!(env.offers(), ["f2@a2 role2: cpus:1; mem:512"]);
    env.agent(3, "cpus:3;mem:2048");
    assert_eq!(env.offers(), ["f2@a3 role2: cpus:3; mem:2048"]);
    env.framework(3, &["role1"]);
    env.agent(4, "cpus:4;mem:4096");
    assert_eq!(env.offers(), ["f3@a4 role1: cpus:4; mem:4096"]);
    env.framework(4, &["role1"]);
    env.agent(5, "cpus:1;mem:512");
    assert_eq!(env.offers(), ["f2@a5 role2: cpus:1; mem:512"]);
}

/// 2: reservations count in their role's share, and are given away fairly
/// inside the role.
#[test]
fn reserved_drf() {
    let mut env = Env::new();
    env.framework(1, &["role1"]);
    env.agent(1, "cpus:1;mem:512;cpus(role1):100;mem(role1):1024");
    assert_eq!(env.cycle().len(), 1);
    assert!(env.allocator.available(AgentKey(1)).unwrap().is_empty());
    env.framework(2, &["role2"]);
    env.agent(2, "cpus:2;mem:512");
    assert_eq!(env.offers(), ["f2@a2 role2: cpus:2; mem:512"]);
    env.agent(3, "cpus:2;mem:512");
    assert_eq!(env.offers(), ["f2@a3 role2: cpus:2; mem:512"]);
    env.framework(3, &["role1"]);
    env.agent(4, "cpus(role1):2;mem(role1):1024");
    assert_eq!(env.offers(), ["f3@a4 role1: cpus(role1):2; mem(role1):1024"]);
}

/// 4: whole agents.
#[test]
fn coarse_grained() {
    let mut env = Env::new();
    env.agent(1, "cpus:2;mem:1024");
    env.agent(2, "cpus:2;mem:1024");
    env.framework(1, &["role1"]);
    env.framework(2, &["role2"]);
    assert_eq!(env.offers(), ["f1@a1 role1: cpus:2; mem:1024", "f2@a2 role2: cpus:2; mem:1024"]);
}

/// 5: with equal shares, who was served less often.
#[test]
fn same_share_fairness() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.framework(2, &["*"]);
    env.agent(1, "cpus:2;mem:1024");
    let mut times = BTreeMap::new();
    for _ in 0..10 {
        let grants = env.cycle();
        assert_eq!(grants.len(), 1);
        *times.entry(grants[0].framework.0).or_insert(0) += 1;
        env.decline(&grants[0], 0);
    }
    assert_eq!(times, BTreeMap::from([(1, 5), (2, 5)]));
}

/// 7: a filter ends by itself, and says when it will.
#[test]
fn offer_filter() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:2;mem:1024");
    let grants = env.cycle();
    env.decline(&grants[0], 2);
    env.pass(1);
    assert!(env.cycle().is_empty());
    let end = env.allocator.next_deadline().expect("a filter is set");
    assert_eq!(end.since(env.now).as_secs(), 1);
    env.pass(1);
    assert_eq!(env.cycle().len(), 1);
    assert_eq!(env.allocator.next_deadline(), None);
}

/// 9: REVIVE ends filters.
#[test]
fn revive_offers() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:2;mem:1024");
    let grants = env.cycle();
    env.decline(&grants[0], 1000);
    assert!(env.cycle().is_empty());
    env.step(|a| a.revive(FrameworkKey(1), &[]));
    assert_eq!(env.cycle().len(), 1);
    assert_eq!(env.allocator.next_deadline(), None);
}

/// 10: so does a change of the agent's attributes, but not of anything else.
#[test]
fn remove_filters() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:2;mem:1024");
    let grants = env.cycle();
    env.decline(&grants[0], 1000);
    let mut spec = agent_spec(1, "cpus:2;mem:1024");
    spec.hostname = "other".to_owned();
    env.step(|a| a.update_agent(AgentKey(1), spec.clone()));
    assert!(env.cycle().is_empty());
    spec.attributes.push(v1::Attribute { name: "rack".into(), ..Default::default() });
    env.step(|a| a.update_agent(AgentKey(1), spec));
    assert_eq!(env.cycle().len(), 1);
}

/// 11: the smallest offer; reserved and unreserved amounts add up.
#[test]
fn allocatable() {
    let mut env = Env::new();
    env.framework(1, &["role1"]);
    env.agent(1, "cpus:0.005;mem:16");
    env.agent(2, "cpus:0.01;mem:16");
    env.agent(3, "cpus:0.005;mem:32");
    env.agent(4, "cpus:0.005;cpus(role1):0.005;mem:16;mem(role1):15");
    let agents: Vec<u32> = env.cycle().iter().map(|g| g.agent.0).collect();
    assert_eq!(agents, [2, 3, 4]);
}

/// 12: a framework's own smallest offer may be below the cluster's, and an empty
/// one lets anything through.
#[test]
fn framework_min_allocatable() {
    let mut env = Env::new();
    env.framework(1, &["role1"]);
    env.agent(1, "cpus:0.005;mem:16;disk:128");
    assert!(env.cycle().is_empty());
    let mut spec = framework_spec(1, &["role1"]);
    let least = BTreeMap::from([(Arc::from("cpus"), Scalar::from_millis(3))]);
    spec.min_allocatable.insert(Arc::from("role1"), vec![least]);
    env.step(|a| a.update_framework(FrameworkKey(1), spec));
    let grants = env.cycle();
    assert_eq!(*grants[0].resources, res("cpus:0.005;mem:16;disk:128"));

    env.agent(2, "ports:[1-2]");
    assert!(env.cycle().is_empty());
    let mut spec = framework_spec(1, &["role1"]);
    spec.min_allocatable.insert(Arc::from("role1"), Vec::new());
    env.step(|a| a.update_framework(FrameworkKey(1), spec));
    assert_eq!(env.offers(), ["f1@a2 role1: ports:[1-2]"]);
}
