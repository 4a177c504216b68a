//! What did not change costs nothing.

use mezz_proto::time::Time;

use super::{Env, framework_spec, res};
use crate::allocator::{AgentKey, Allocator, FrameworkKey};

/// Ten agents, ten frameworks, all refused by all for ever.
fn refused() -> Env {
    let mut env = Env::new();
    for i in 0..10 {
        env.framework(i, &["*"]);
        env.agent(i, "cpus:4;mem:400");
    }
    loop {
        let grants = env.cycle();
        if grants.is_empty() {
            return env;
        }
        for g in grants {
            env.decline(&g, 1_000_000);
        }
    }
}

fn considered(env: &mut Env, step: impl FnOnce(&mut Env)) -> u64 {
    let before = env.allocator.considered();
    step(env);
    env.cycle();
    env.allocator.considered() - before
}

#[test]
fn pairs_are_looked_at_only_when_something_changed_for_them() {
    let mut env = refused();
    assert_eq!(considered(&mut env, |_| {}), 0, "nothing changed");
    let one = |env: &mut Env| env.framework(20, &["*"]);
    assert_eq!(considered(&mut env, one), 10, "the new one on every agent, the others on none");
    // All ten agents are its own now.
    let back = |env: &mut Env| {
        let left = res("cpus:4;mem:400");
        env.step(|a| a.recover(AgentKey(3), FrameworkKey(20), &"*".into(), &left));
    };
    assert_eq!(considered(&mut env, back), 1, "refused by the others, granted to the new one");
    let suppress = |env: &mut Env| env.step(|a| a.suppress(FrameworkKey(2), &[]));
    assert_eq!(considered(&mut env, suppress), 0);
    let off = |env: &mut Env| env.step(|a| a.set_agent_active(AgentKey(5), false));
    assert_eq!(considered(&mut env, off), 0);
    let weight = |env: &mut Env| env.step(|a| a.set_weight(&"*".into(), 3.0));
    assert_eq!(considered(&mut env, weight), 0);
}

#[test]
fn a_filter_that_ends_wakes_its_own_pair() {
    let mut env = Env::new();
    for i in 0..3 {
        env.framework(i, &["*"]);
    }
    env.agent(1, "cpus:4;mem:400");
    for seconds in [10, 20, 30] {
        let grants = env.cycle();
        env.decline(&grants[0], seconds);
    }
    assert!(env.cycle().is_empty());
    env.pass(10);
    let grants = env.cycle();
    assert_eq!(grants[0].framework, FrameworkKey(0));
    assert!(considered(&mut env, |e| e.pass(10)) == 0, "what is left is nothing");
}

/// What is reserved for a role costs the others nothing.
#[test]
fn a_rest_that_is_reserved_is_shown_to_its_role_only() {
    let mut env = Env::new();
    for i in 0..20 {
        env.framework(i, &["a"]);
    }
    env.framework(20, &["b/c"]);
    let add = |env: &mut Env| env.agent(1, "cpus:1;mem:100;cpus(b):5;cpus(x):1");
    assert_eq!(considered(&mut env, add), 2, "one of role a, and the one below b");
    assert_eq!(env.allocator.available(AgentKey(1)), Some(&res("cpus(x):1")));
}

/// The order survives names that come between others, until there is no room
/// between their ranks and all get new ones.
#[test]
fn names_are_ranked_however_they_come() {
    let mut env = Env::new();
    let id = |low: u32, n: u32| {
        let mut spec = framework_spec(low, &["*"]);
        // Each is between the first and the one before: f, fz, fyz, fyyz…
        spec.id =
            format!("f{}{}", "y".repeat(n as usize), if n > 0 { "z" } else { "" }).as_str().into();
        spec
    };
    for n in 0..80 {
        env.step(|a| a.add_framework(FrameworkKey(n), id(n, n)));
    }
    for i in 0..80 {
        env.agent(i, "cpus:1;mem:100");
    }
    let order: Vec<u32> = env.cycle().iter().map(|g| g.framework.0).collect();
    let mut names: Vec<(String, u32)> = (0..80).map(|n| (id(n, n).id.to_string(), n)).collect();
    names.sort();
    assert_eq!(order, names.into_iter().map(|(_, n)| n).collect::<Vec<_>>());
    assert_eq!(env.allocator.allocate(Time::MAX), []);
}
