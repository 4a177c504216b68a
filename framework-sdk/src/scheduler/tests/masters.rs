//! Which master is asked next, and when.

use std::time::Duration;

use super::{Env, after, lost, not_leading};
use crate::{drive::LinkEnd, scheduler::Event};

#[test]
fn follows_redirections_and_goes_round_the_masters() {
    let mut env = Env::new(&["m1:1", "m2:2"]);
    env.tick();
    env.end(not_leading("m9:9"));
    assert!(env.events.is_empty(), "a redirection is no failure");
    assert_eq!(env.wait(), Duration::ZERO);
    assert_eq!(env.connects.last().unwrap().0, "m9:9");
    assert_eq!(env.tried, None);
    env.end(lost());
    assert_eq!(env.wait(), Duration::ZERO);
    assert_eq!(env.connects.last().unwrap().0, "m2:2");
    assert_eq!(env.tried.as_deref(), Some("m9:9"), "it was named in vain");
    env.end(not_leading(""));
    let pause = env.wait();
    assert!(pause > Duration::ZERO, "a round was made");
    assert_eq!(env.connects.last().unwrap().0, "m1:1");
    assert_eq!(env.events.len(), 2);
}

/// Only its link may be broken; but a master that ends each subscription at once is left.
#[test]
fn a_lost_leader_is_tried_again_first() {
    let mut env = Env::new(&["http://m1:1", "m2:2"]);
    env.tick();
    env.subscribe();
    env.now = env.now + Duration::from_secs(60);
    env.end(lost());
    env.wait();
    assert_eq!(env.connects.last().unwrap().0, "m1:1");
    assert_eq!(env.tried.as_deref(), Some("m1:1"));
    env.subscribe();
    env.end(LinkEnd::Closed);
    env.wait();
    assert_eq!(env.connects.last().unwrap().0, "m2:2");
    assert_eq!(env.tried.as_deref(), Some("m1:1"));
}

#[test]
fn redirections_in_a_circle_are_left() {
    let mut env = Env::new(&["m1:1"]);
    env.tick();
    for _ in 0..4 {
        env.end(not_leading("m2:2"));
        if env.events.is_empty() {
            env.wait();
        }
    }
    assert!(matches!(env.events[0], Event::Disconnected { .. }));
    assert!(env.wait() > Duration::ZERO);
}

#[test]
fn backs_off_up_to_the_limit_with_jitter() {
    let mut env = Env::new(&["m1:1"]);
    env.tick();
    let pauses: Vec<Duration> = (0..10)
        .map(|_| {
            env.end(lost());
            env.wait()
        })
        .collect();
    let full = |i: usize| Duration::from_millis(100 << i).min(Duration::from_secs(5));
    for (i, pause) in pauses.iter().enumerate() {
        assert!(*pause <= full(i), "{i}: {pause:?} of {:?}", full(i));
    }
    let short = pauses.iter().enumerate().filter(|(i, pause)| **pause < full(*i) / 2).count();
    assert!((1..10).contains(&short), "not of all of their range: {pauses:?}");
    assert!(pauses.iter().max() > Some(&Duration::from_secs(1)), "{pauses:?}");
    env.subscribe();
    env.end(lost());
    assert!(env.wait() <= Duration::from_millis(100), "a subscription resets it");
}

/// However long the lease is: who is kept waiting at a standby is soon there again.
#[test]
fn pauses_do_not_grow_while_a_standby_waits_for_a_leader() {
    let mut env = Env::new(&["m1:1"]);
    env.tick();
    for _ in 0..12 {
        env.end(lost());
        env.wait();
    }
    let kept = |leader| after(Duration::from_secs(4), leader);
    let mut spread = Vec::new();
    for _ in 0..20 {
        // All who wait are told of the next leader at once, and do not go there at once.
        env.end(kept("m2:2"));
        spread.push(env.wait());
        env.end(lost());
        assert!(env.wait() <= Duration::from_millis(100));
        env.end(kept(""));
        assert!(env.wait() <= Duration::from_millis(100));
    }
    assert!(spread.iter().max() <= Some(&Duration::from_millis(100)), "{spread:?}");
    assert!(spread.iter().max() > Some(&Duration::from_millis(50)), "{spread:?}");
    assert!(spread.iter().min() < Some(&Duration::from_millis(50)), "{spread:?}");
    // One that answers at once waits for nobody, however slow the connection was.
    let pauses: Vec<Duration> = (0..10)
        .map(|_| {
            env.now = env.now + Duration::from_secs(3);
            env.end(not_leading(""));
            env.wait()
        })
        .collect();
    assert!(pauses.iter().max() > Some(&Duration::from_secs(1)), "{pauses:?}");
}
