use super::{
    tests::{Env, failed, options},
    *,
};

/// Starts an executor on `bad` for this task, and tells of its end.
fn fails(env: &mut Env, task: u64) -> Vec<FineAction> {
    env.now = env.now + Duration::from_secs(60);
    let out = env.offers(&[("bad", 1.0)]);
    assert!(out.iter().any(|a| matches!(a, FineAction::Show { .. })), "{out:?}");
    env.answer(task, &[1], true);
    env.send(FineEvent::LostWith { task: TaskNo(task), exit: failed() })
}

fn gives_up(actions: &[FineAction]) -> bool {
    actions.iter().any(|a| matches!(a, FineAction::GiveUp { .. }))
}

#[test]
fn a_bad_agent_does_not_end_an_application_that_starts_an_executor_elsewhere() {
    let mut env = Env::busy(options());
    env.offers(&[("good", 1.0)]);
    env.answer(1, &[1], true);
    for task in 2..10 {
        let out = fails(&mut env, task);
        assert!(!gives_up(&out), "{task}: {out:?}");
    }
    // Unless that one does not come up either.
    let out = env.send(FineEvent::LostWith { task: TaskNo(1), exit: failed() });
    assert!(gives_up(&out), "{out:?}");
}

#[test]
fn an_agent_that_is_avoided_is_named() {
    let mut env = Env::busy(options());
    let named = |out: &[FineAction]| {
        let avoided = out.iter().filter_map(|a| match a {
            FineAction::Avoid(avoidance) => Some(avoidance.to_string()),
            _ => None,
        });
        avoided.collect::<Vec<_>>()
    };
    assert_eq!(named(&fails(&mut env, 1)), [""; 0]);
    let said = "2 executors in a row failed on bad.host (agent bad): none is started there for \
                60 s while any are up elsewhere";
    assert_eq!(named(&fails(&mut env, 2)), [said]);
}
