//! Every reason has its sentence.

use std::sync::Arc;

use super::{Env, framework_spec, res};
use crate::allocator::{AgentKey, Allocator, FrameworkKey, Reason, ReasonCode};

fn why(env: &Env, key: u32) -> Vec<Reason> {
    env.allocator.explain_framework(FrameworkKey(key), env.now)
}

#[test]
fn a_framework_learns_who_has_what_it_lacks() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    assert_eq!(why(&env, 1)[0].code, ReasonCode::NoAgents);
    env.framework(2, &["*"]);
    env.agent(1, "cpus:4;mem:400");
    env.agent(2, "cpus:4;mem:400");
    env.agent(3, "cpus:4;mem:400");
    let held = Arc::new(res("cpus:4;mem:400"));
    env.step(|a| a.hold(AgentKey(1), FrameworkKey(2), &Arc::from("*"), &held));
    let grants = env.cycle();
    assert_eq!(grants.len(), 2);
    for g in grants.iter().filter(|g| g.framework == FrameworkKey(1)) {
        env.decline(g, 90);
    }
    env.step(|a| a.set_agent_active(AgentKey(3), false));
    env.pass(30);
    let reasons = why(&env, 1);
    let texts: Vec<&str> = reasons.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "1 agent: refused by the framework, filtered for another 60 s; REVIVE ends that",
            "1 agent: nothing is left; held by: framework f002 (cpus:4; mem:400)",
            "1 agent: not active",
        ]
    );
    assert_eq!(reasons[0].examples, ["a2"]);
}

#[test]
fn reasons_that_decide_all() {
    let mut env = Env::new();
    env.agent(1, "cpus:0.001;mem:4");
    env.framework(1, &["a", "b"]);
    env.step(|a| a.suppress(FrameworkKey(1), &[Arc::from("b")]));
    let reasons = why(&env, 1);
    assert_eq!(
        reasons[0].text,
        "role b: 1 agent: the framework suppressed the role; REVIVE ends that"
    );
    assert_eq!(
        reasons[1].text,
        "role a: 1 agent: less is left than the smallest offer (cpus:0.01 or mem:32)"
    );
    env.step(|a| a.set_framework_active(FrameworkKey(1), false));
    assert_eq!(why(&env, 1)[0].code, ReasonCode::Disconnected);
    env.framework(2, &[]);
    assert_eq!(why(&env, 2)[0].code, ReasonCode::NoRoles);
}

#[test]
fn a_pair_that_can_be_offered_at_once_is_told_so() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:1;mem:100");
    assert_eq!(why(&env, 1)[0].code, ReasonCode::Eligible);
}

#[test]
fn a_role_is_explained_by_its_frameworks() {
    let mut env = Env::new();
    let role = |env: &Env, name: &str| env.allocator.explain_role(name, env.now);
    assert_eq!(role(&env, "a")[0].code, ReasonCode::NoRoles);
    env.framework(1, &["a"]);
    env.framework(2, &["a/b"]);
    let mut spec = framework_spec(3, &["a"]);
    spec.suppressed = spec.roles.clone();
    env.step(|a| a.add_framework(FrameworkKey(3), spec));
    env.step(|a| a.set_framework_active(FrameworkKey(2), false));
    env.agent(1, "cpus:4;mem:400;gpus:1");
    let texts: Vec<String> = role(&env, "a").into_iter().map(|r| r.text).collect();
    assert_eq!(
        texts,
        [
            "1 framework: disconnected",
            "1 framework: most or all agents: the framework suppressed the role; REVIVE ends that",
            "1 framework: most or all agents: need a capability that the framework lacks (gpus, \
             another region, revocable, shared or refined resources)",
        ]
    );
    assert_eq!(role(&env, "a/b").len(), 1);
}
