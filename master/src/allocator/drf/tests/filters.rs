//! Refusals (rule 30) and suppression.

use std::sync::Arc;

use super::{Env, framework_spec, res};
use crate::allocator::{AgentKey, Allocator, FrameworkKey};

/// Only what is contained in the refused set is kept back.
#[test]
fn a_filter_lets_through_what_is_more_than_was_refused() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.framework(2, &["*"]);
    env.agent(1, "cpus:4;mem:400;ports:[1-4]");
    let used = Arc::new(res("cpus:1;ports:[1-1]"));
    env.step(|a| a.hold(AgentKey(1), FrameworkKey(2), &Arc::from("*"), &used));
    let grants = env.cycle();
    assert_eq!(grants[0].framework, FrameworkKey(1));
    env.decline(&grants[0], 1000);
    // Goes to the other one, and only to it.
    let grants = env.cycle();
    assert_eq!(grants[0].framework, FrameworkKey(2));
    env.decline(&grants[0], 1000);
    assert!(env.cycle().is_empty());
    // One port more than either refused: to the one that holds less.
    env.step(|a| {
        a.recover(AgentKey(1), FrameworkKey(2), &Arc::from("*"), &res("ports:[1-1]"));
    });
    let grants = env.cycle();
    assert_eq!((grants[0].framework, grants.len()), (FrameworkKey(1), 1));
    assert_eq!(*grants[0].resources, res("cpus:3;mem:400;ports:[1-4]"));
}

/// Two refusals stand beside each other; each has its own end.
#[test]
fn filters_of_one_framework_add_up() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:4;mem:400");
    let (key, role) = (FrameworkKey(1), Arc::from("*"));
    let now = env.now;
    let refuse = |env: &mut Env, what: &str, seconds| {
        let until = now + std::time::Duration::from_secs(seconds);
        env.step(|a| a.refuse(AgentKey(1), key, &role, Arc::new(res(what)), until));
    };
    refuse(&mut env, "cpus:4;mem:300", 100);
    refuse(&mut env, "cpus:3;mem:400", 200);
    assert_eq!(env.cycle().len(), 1, "it is in neither of them");
    env.step(|a| a.recover(AgentKey(1), key, &role, &res("cpus:3;mem:400")));
    assert!(env.cycle().is_empty(), "it is in the second");
    env.pass(100);
    assert!(env.cycle().is_empty());
    assert_eq!(env.allocator.next_deadline().unwrap().since(env.now).as_secs(), 100);
    // A smaller and earlier refusal changes nothing, a larger and later one
    // takes the place of the second.
    refuse(&mut env, "cpus:1", 150);
    assert_eq!(env.allocator.next_deadline().unwrap().since(env.now).as_secs(), 100);
    refuse(&mut env, "cpus:4;mem:400", 400);
    assert_eq!(env.allocator.next_deadline().unwrap().since(env.now).as_secs(), 300);
    env.pass(300);
    assert_eq!(env.cycle().len(), 1);
}

/// Filters do not grow without end.
#[test]
fn the_filters_of_one_framework_on_one_agent_are_limited() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:100;mem:100");
    let now = env.now;
    for i in 1..50u64 {
        let refused = Arc::new(res(&format!("cpus:{i};mem:{}", 100 - i)));
        let until = now + std::time::Duration::from_secs(i);
        env.step(|a| a.refuse(AgentKey(1), FrameworkKey(1), &Arc::from("*"), refused, until));
    }
    assert_eq!(env.allocator.next_deadline().unwrap().since(now).as_secs(), 42);
}

/// Filters end with the framework's activity (rule 15) and the agent.
#[test]
fn filters_end_with_their_framework_and_agent() {
    let mut env = Env::new();
    env.framework(1, &["*"]);
    env.agent(1, "cpus:4;mem:400");
    let grants = env.cycle();
    env.decline(&grants[0], 1000);
    env.step(|a| a.set_framework_active(FrameworkKey(1), false));
    assert_eq!(env.allocator.next_deadline(), None);
    env.step(|a| a.set_framework_active(FrameworkKey(1), true));
    let grants = env.cycle();
    env.decline(&grants[0], 1000);
    env.step(|a| a.remove_agent(AgentKey(1)));
    assert_eq!(env.allocator.next_deadline(), None);
    env.agent(1, "cpus:4;mem:400");
    assert_eq!(env.cycle().len(), 1);
}

/// Suppression keeps offers away, per role; REVIVE and an update end it, and the
/// filters with it (rule 19).
#[test]
fn suppression() {
    let mut env = Env::new();
    env.framework(1, &["a", "b"]);
    env.agent(1, "cpus:4;mem:400");
    env.step(|a| a.suppress(FrameworkKey(1), &[Arc::from("a")]));
    let grants = env.cycle();
    assert_eq!(&*grants[0].role, "b");
    env.decline(&grants[0], 1000);
    assert!(env.cycle().is_empty());
    env.step(|a| a.revive(FrameworkKey(1), &[Arc::from("a")]));
    let grants = env.cycle();
    assert_eq!(&*grants[0].role, "a");
    env.decline(&grants[0], 0);
    env.step(|a| a.suppress(FrameworkKey(1), &[]));
    assert!(env.cycle().is_empty());
    let mut spec = framework_spec(1, &["a", "b"]);
    spec.suppressed = vec![Arc::from("a")];
    env.step(|a| a.update_framework(FrameworkKey(1), spec));
    assert_eq!(env.offers(), ["f1@a1 b: cpus:4; mem:400"], "its filter is gone");
}
