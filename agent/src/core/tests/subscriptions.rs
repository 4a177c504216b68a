//! Executors that come, go and stay away.

use std::time::Duration;

use mezz_proto::v1::{
    self, TaskState, framework_info::capability::Type as Capability, task_status::Reason,
};

use super::{
    env::*,
    executors::{closed, subscribed},
};
use crate::core::{CallError, ConnectionId, CoreOptions, Effect, Event};

#[test]
fn nobody_gets_in_without_the_token() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    for (token, id) in [("", "E"), ("x", "E"), (&*token, "other")] {
        let mut call = subscribe();
        call.executor_id.value = id.into();
        env.call(2, token, call);
        assert_eq!(closed(&mut env), Some(CallError::Unauthenticated));
    }
    env.call(3, &token, update(status("a", TaskState::TaskRunning, 1)));
    assert!(matches!(closed(&mut env), Some(CallError::NotAllowed(_))), "SUBSCRIBE comes first");
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
}

/// Mesos' executors show none unless they must (docs/adr/0015).
#[test]
fn without_a_token_one_of_this_machine_is_believed() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let spec = env.launches().remove(0);
    let token = spec.environment["MEZZ_EXECUTOR_TOKEN"].clone();
    env.launched(&spec.id);
    env.take();
    let hint = |error| matches!(error, Some(CallError::NoToken(_)));
    env.call_without_token(2, false, subscribe());
    assert!(hint(closed(&mut env)), "from elsewhere");
    for (framework, executor, what) in [("F", "other", "Executor"), ("G", "E", "Framework")] {
        let mut call = subscribe();
        call.framework_id.value = framework.into();
        call.executor_id.value = executor.into();
        env.call_without_token(2, true, call);
        assert_eq!(closed(&mut env), Some(CallError::Unknown(what)));
    }
    env.call_without_token(2, true, update(status("a", TaskState::TaskRunning, 1)));
    assert!(matches!(closed(&mut env), Some(CallError::NotAllowed(_))), "SUBSCRIBE comes first");
    env.call_without_token(2, true, subscribe());
    assert_eq!(env.event_types(2), ["SUBSCRIBED", "LAUNCH"]);
    env.call_without_token(2, true, update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
    env.call_without_token(3, true, subscribe());
    assert_eq!(env.event_types(3), ["SUBSCRIBED"], "it takes the place of the former");

    // From the first time that it shows one on, nobody is it without.
    env.call(4, &token, subscribe());
    assert_eq!(env.event_types(4), ["SUBSCRIBED"]);
    env.take();
    for restarts in [false, true] {
        if restarts {
            env.restart(|_| true, false);
            env.register();
            env.take();
        }
        env.call_without_token(5, true, subscribe());
        assert!(hint(closed(&mut env)), "restarts: {restarts}");
    }

    let options = CoreOptions { authenticate_executors: true, ..options() };
    let mut env = TestEnv::unlinked(options);
    env.register();
    subscribed(&mut env);
    env.call_without_token(2, true, subscribe());
    assert!(hint(closed(&mut env)), "the agent wants one");
}

/// Over HTTP calls come by themselves: one may be on its way while the stream ends.
#[test]
fn calls_are_heard_while_there_is_no_stream() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let container = env.launch();
    env.launched(&container);
    env.call_without_token(1, true, subscribe());
    env.take();
    env.handle(Event::ExecutorDisconnected { connection: ConnectionId(1) });
    env.take();
    env.call_without_token(2, true, update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
    let mut call = subscribe();
    call.subscribe.as_mut().unwrap().unacknowledged_updates =
        vec![update(status("a", TaskState::TaskRunning, 1)).update.unwrap()];
    env.call_without_token(3, true, call);
    assert_eq!(env.event_types(3), ["SUBSCRIBED", "ACKNOWLEDGED"], "it was taken before");
    // With a stream they come by themselves as well, and cost only themselves.
    env.call_without_token(4, true, update(status("a", TaskState::TaskRunning, 2)));
    assert_eq!(env.event_types(3), ["ACKNOWLEDGED"]);
    assert_eq!(env.event_types(4), Vec::<&str>::new());
    env.take();
    env.call_without_token(5, true, update(status("a", TaskState::TaskStaging, 3)));
    let closed: Vec<_> = env.take().into_iter().filter_map(closing).collect();
    assert!(matches!(&closed[..], [(5, Some(CallError::Invalid(_)))]), "{closed:?}");
    env.call_without_token(6, true, update(status("a", TaskState::TaskFinished, 4)));
    assert_eq!(env.event_types(3), ["ACKNOWLEDGED"]);
}

fn closing(effect: Effect) -> Option<(u64, Option<CallError>)> {
    match effect {
        Effect::CloseExecutor { connection, error } => Some((connection.0, error)),
        _ => None,
    }
}

/// What holds a group is the agent's own: it has an id that everybody can guess.
#[test]
fn nobody_subscribes_as_what_holds_a_group() {
    let mut env = TestEnv::new();
    env.run_group(&["a"]);
    env.take();
    env.call_without_token(1, true, subscribe());
    assert_eq!(closed(&mut env), Some(CallError::Unknown("Executor")));
}

#[test]
fn a_new_subscription_takes_the_place_of_the_old() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    let mut call = subscribe();
    call.subscribe.as_mut().unwrap().unacknowledged_tasks = vec![executor_task("a")];
    env.call(2, &token, call);
    assert_eq!(env.event_types(2), ["SUBSCRIBED"]);
    assert!(matches!(closed(&mut env), Some(CallError::NotAllowed(_))));
    env.call(1, "", update(status("a", TaskState::TaskRunning, 1)));
    assert!(env.updates().is_empty(), "the old connection counts no more");
}

/// What is to be fetched or pulled before has bounds of its own.
#[test]
fn one_that_does_not_subscribe_once_it_runs_is_ended() {
    let mut env = TestEnv::unlinked(options());
    env.ping_interval_ms = 0;
    env.register();
    env.run(vec![executor_task("a")]);
    let container = env.launch();
    env.take();
    env.advance(Duration::from_secs(3000));
    assert_eq!(env.take(), [], "it may take its time to start");
    env.launched(&container);
    env.take();
    env.advance(Duration::from_secs(59));
    assert_eq!(env.take(), []);
    env.advance(Duration::from_secs(1));
    assert!(env.take().contains(&Effect::Destroy { container: container.clone() }));
    env.ended(&container, 9);
    reason(&env.expect(TaskState::TaskFailed), Reason::ExecutorRegistrationTimeout);
}

#[test]
fn one_that_is_faster_than_the_word_of_its_start_is_not_waited_for() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let spec = env.launches().remove(0);
    env.call(1, &spec.environment["MEZZ_EXECUTOR_TOKEN"], subscribe());
    assert_eq!(env.event_types(1), ["SUBSCRIBED", "LAUNCH"]);
    env.launched(&spec.id);
    env.take();
    env.advance(Duration::from_secs(600));
    assert!(env.take().iter().all(|effect| !matches!(effect, Effect::Destroy { .. })));
}

#[test]
fn a_returning_executor_that_never_got_a_task_loses_it() {
    for (capabilities, state) in
        [(&[][..], TaskState::TaskLost), (&[Capability::PartitionAware], TaskState::TaskDropped)]
    {
        let mut env = TestEnv::new();
        env.run_for(framework("F", capabilities), vec![executor_task("a")], None);
        let spec = env.launches().remove(0);
        let token = spec.environment["MEZZ_EXECUTOR_TOKEN"].clone();
        env.launched(&spec.id);
        env.call(1, &token, subscribe());
        env.call(2, &token, subscribe());
        reason(&env.expect(state), Reason::AgentRestarted);
    }
}

#[test]
fn one_that_is_away_too_long_is_ended() {
    let mut env = TestEnv::new();
    let (container, token) = subscribed(&mut env);
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
    env.handle(Event::ExecutorDisconnected { connection: ConnectionId(1) });
    // It comes back in time, and is away again.
    destroyed_after(&mut env, 899, false);
    env.call(2, &token, subscribe());
    destroyed_after(&mut env, 2, false);
    env.handle(Event::ExecutorDisconnected { connection: ConnectionId(2) });
    destroyed_after(&mut env, 899, false);
    destroyed_after(&mut env, 1, true);
    // The master has been silent all the while.
    env.register();
    env.take();
    env.ended(&container, 9);
    let failed = env.expect(TaskState::TaskFailed);
    reason(&failed, Reason::ExecutorTerminated);
    let message = failed.message.unwrap();
    assert!(message.contains("lost its connection") && message.contains("900s"), "{message}");
}

#[track_caller]
fn destroyed_after(env: &mut TestEnv, secs: u64, expected: bool) {
    env.take();
    env.advance(Duration::from_secs(secs));
    let destroyed = env.take().iter().any(|effect| matches!(effect, Effect::Destroy { .. }));
    assert_eq!(destroyed, expected);
}

#[test]
fn one_that_is_cut_off_has_a_deadline_too() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    env.call(1, &token, update(status("a", TaskState::TaskStaging, 1)));
    assert!(matches!(closed(&mut env), Some(CallError::Invalid(_))));
    destroyed_after(&mut env, 899, false);
    destroyed_after(&mut env, 1, true);
}

#[test]
fn a_wrong_subscription_stops_no_deadline_and_takes_no_connection() {
    let wrong = || {
        let mut call = subscribe();
        call.subscribe.as_mut().unwrap().unacknowledged_updates = vec![
            v1::executor::call::Update { status: status("a", TaskState::TaskRunning, 1) },
            v1::executor::call::Update { status: status("a", TaskState::TaskStaging, 2) },
        ];
        call
    };
    let is_refused = |env: &mut TestEnv| match closed(env) {
        Some(CallError::Invalid(text)) => {
            assert!(text.contains("unacknowledged_updates") && text.contains("STAGING"), "{text}");
        }
        other => panic!("{other:?}"),
    };
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let spec = env.launches().remove(0);
    let token = &spec.environment["MEZZ_EXECUTOR_TOKEN"];
    env.launched(&spec.id);
    env.call(1, token, wrong());
    is_refused(&mut env);
    assert_eq!(env.state_of("a"), Some(TaskState::TaskStaging), "not even the right update");
    env.call(2, token, subscribe());
    assert_eq!(env.event_types(2), ["SUBSCRIBED", "LAUNCH"], "and nothing was sent to nobody");
    env.call(3, token, wrong());
    is_refused(&mut env);
    env.call(2, token, update(status("a", TaskState::TaskRunning, 3)));
    env.expect(TaskState::TaskRunning);
    env.restart(|_| true, false);
    env.register();
    env.call(4, token, wrong());
    is_refused(&mut env);
    destroyed_after(&mut env, 2, true);
}
