use super::{
    tests::{Env, LONG, declined, failed, launched, options, shown},
    *,
};

/// Agent, task and cores of all that is launched.
fn starts(actions: &[FineAction]) -> Vec<(String, String, f64)> {
    let launches = actions.iter().filter_map(|a| match a {
        FineAction::Launch(l) => Some(l),
        _ => None,
    });
    let each = launches.flat_map(|l| l.tasks.iter().map(|(task, r)| (l.agent.clone(), task, r)));
    each.map(|(a, t, r)| (a.to_string(), t.to_string(), r.scalar("cpus").to_f64())).collect()
}

#[test]
fn executors_are_started_ahead_of_tasks_on_the_first_offers() {
    let mut env = Env::new(FineOptions { ahead: 2, ..options() });
    assert!(env.policy.wants_offers());
    let out = env.offers(&[("a", 2.0), ("b", 0.5), ("c", 3.0), ("d", 2.0)]);
    assert_eq!(
        starts(&out),
        [("a".into(), "start-1".into(), 1.0), ("c".into(), "start-2".into(), 1.0)]
    );
    assert_eq!(declined(&out), [LONG, LONG]);
    assert_eq!(out.last(), Some(&FineAction::Suppress));
    assert!(!env.policy.wants_offers());
    // Offers that were on their way.
    assert_eq!(declined(&env.offers(&[("d", 2.0)])), [LONG]);

    let start = TaskNo::parse("start-1").unwrap();
    assert_eq!(start, TaskNo::start_of(ExecutorNo(1)));
    assert_eq!(env.send(FineEvent::Done(start)), [FineAction::Up(ExecutorNo(1))]);
    assert_eq!(env.send(FineEvent::Revive(1)), [FineAction::Revive]);
    assert_eq!(shown(&env.offers(&[("a", 2.0)])), [(1, "a".into(), 2.0)]);
    assert!(launched(&env.answer(1, &[2], false)).up);

    // One that does not come up is a failure as any other.
    let out =
        env.send(FineEvent::LostWith { task: TaskNo::start_of(ExecutorNo(2)), exit: failed() });
    assert!(out.iter().any(|a| matches!(a, FineAction::Ended { ran, .. } if ran.is_empty())));
}

#[test]
fn no_executor_is_started_ahead_of_tasks_that_are_there_or_beyond_the_bound_on_cores() {
    let mut env = Env::busy(FineOptions { ahead: 2, ..options() });
    let out = env.offers(&[("a", 2.0)]);
    assert_eq!((starts(&out).len(), shown(&out).len()), (0, 1));
    let mut env = Env::new(FineOptions { ahead: 2, cores_max: Some(1), ..options() });
    assert_eq!(starts(&env.offers(&[("a", 2.0), ("b", 2.0)])).len(), 1);
    // Nothing of it is shown to a driver that is told of no tasks.
    let mut env = Env::new(FineOptions { ahead: 2, ..options() });
    assert_eq!(env.offers(&[("a", 0.0)]).last(), Some(&FineAction::Suppress));
}
