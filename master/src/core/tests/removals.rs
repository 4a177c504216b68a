//! The rate at which agents become unreachable.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message},
    v1::TaskState,
};

use super::env::{Env, SchedulerEvent};
use crate::options::{CoreOptions, RemovalRate};

const AGENTS: [&str; 4] = ["a1", "a2", "a3", "a4"];
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// With four agents that run a task each, of which one in ten minutes may be lost.
fn env() -> Env {
    let mut env = Env::with(|options| {
        options.agent_removal_rate_limit = Some(RemovalRate { agents: 1, per: TEN_MINUTES });
    });
    env.framework("f1", "ads");
    for agent in AGENTS {
        // All of each, so that nothing is left to be offered.
        env.agent(agent, "cpus:1;mem:64");
        env.running("f1", agent, &format!("on-{agent}"), "cpus:1;mem:64");
    }
    env.inbox("f1");
    env
}

/// Unreachable, waiting for it, had to wait, and need not after all.
fn counts(env: &Env) -> [u64; 4] {
    let c = env.core.counters();
    [c.agents_unreachable, c.agent_losses_waiting, c.agent_losses_delayed, c.agent_losses_cancelled]
}

/// The states that the framework was told of, and how often that an agent failed.
fn told(env: &mut Env) -> (Vec<TaskState>, usize) {
    let events = env.inbox("f1");
    let failures = events.iter().filter(|e| e.r#type() == SchedulerEvent::Failure).count();
    let states = events.iter().filter_map(|e| Some(e.update.as_ref()?.status.state())).collect();
    (states, failures)
}

#[test]
fn the_limit_is_high_enough_for_a_rack() {
    let limit = CoreOptions::default().agent_removal_rate_limit.unwrap();
    assert_eq!(limit.interval(), Duration::from_millis(600));
}

/// Scenario 55, with more than one of them.
#[test]
fn agents_that_do_not_return_to_a_new_master_are_lost_one_by_one() {
    let mut env = env();
    env.restart_master();
    env.subscribe("f1");
    env.pass(TEN_MINUTES - Duration::from_secs(1));
    assert_eq!(counts(&env), [0, 0, 0, 0]);
    env.pass(Duration::from_secs(2));
    assert_eq!(counts(&env), [1, 3, 3, 0], "the first at once");
    assert_eq!(told(&mut env).1, 1);
    // Whoever comes back while it waits is not lost, and gives its turn to the next.
    env.reregister("a3");
    assert_eq!(counts(&env), [1, 2, 3, 1]);
    env.pass(TEN_MINUTES - Duration::from_secs(2));
    assert_eq!(counts(&env), [1, 2, 3, 1]);
    env.pass(Duration::from_secs(2));
    assert_eq!(counts(&env), [2, 1, 3, 1]);
    env.pass(TEN_MINUTES);
    assert_eq!(counts(&env), [3, 0, 3, 1]);
    assert_eq!(told(&mut env).1, 2);
    // The new leader knows whom the old one has given up, and begins anew.
    env.restart_master();
    assert_eq!(counts(&env), [3, 0, 0, 0]);
}

/// What cuts the master off from everybody harms nobody who is back soon.
#[test]
fn agents_that_answer_no_pings_wait_for_their_turn_and_are_back_unharmed() {
    let mut env = env();
    for agent in AGENTS {
        env.agents.get_mut(agent).unwrap().answers_pings = false;
    }
    env.pass(Duration::from_secs(120));
    assert_eq!(counts(&env), [1, 3, 3, 0]);
    assert_eq!(told(&mut env), (vec![TaskState::TaskUnreachable], 1));
    let unlinked = env.agents.values().filter(|agent| agent.connection.is_none());
    assert_eq!(unlinked.count(), 4, "all links are ended, so that they come anew");
    assert_eq!(env.core.counters().offers_outstanding, 0, "nobody is offered who waits");
    for agent in AGENTS {
        env.agents.get_mut(agent).unwrap().answers_pings = true;
        env.reregister(agent);
    }
    assert_eq!(counts(&env), [0, 0, 3, 3]);
    let back: Vec<_> = env.updates("f1").iter().map(|u| u.state()).collect();
    assert_eq!(back, [TaskState::TaskRunning], "only of the one that was lost");
    env.pass(TEN_MINUTES * 3);
    assert_eq!(counts(&env), [0, 0, 3, 3]);
    assert_eq!(env.live_tasks().len(), 4);
}

/// To a master that was stopped for long everybody seems to be gone.
#[test]
fn a_pause_of_the_master_loses_no_more() {
    let mut env = env();
    for agent in AGENTS {
        env.agent_link_breaks(agent);
    }
    env.now = env.now + TEN_MINUTES * 10;
    env.settle();
    assert_eq!(counts(&env), [1, 3, 3, 0]);
    env.now = env.now + TEN_MINUTES * 10;
    env.settle();
    assert_eq!(counts(&env), [2, 2, 3, 0]);
}

#[test]
fn who_waits_and_is_replaced_or_given_up_leaves_the_queue() {
    let mut env = env();
    for agent in AGENTS {
        env.agent_link_breaks(agent);
    }
    env.pass(TEN_MINUTES);
    assert_eq!(counts(&env), [1, 3, 3, 0]);
    // Its work dir was deleted: a new agent at the same address.
    env.agents.get_mut("a2").unwrap().id = None;
    env.register("a2");
    assert_eq!(counts(&env), [1, 2, 3, 1]);
    // Another says goodbye as soon as it is back.
    env.reregister("a3");
    env.agent_says("a3", agent_message::Message::Unregister(mezz::Unregister::default()));
    assert_eq!(counts(&env), [1, 1, 3, 2]);
    env.pass(TEN_MINUTES);
    assert_eq!(counts(&env), [2, 0, 3, 2]);
}
