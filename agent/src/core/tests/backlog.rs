//! Executors whose framework does not acknowledge.

use mezz_proto::v1::{self, TaskState};

use super::{
    env::*,
    executors::{closed, subscribed},
};
use crate::core::{Change, Effect, Intake};

const MEBIBYTE: usize = 1 << 20;

fn sized(task: &str, state: TaskState, uuid: u8, bytes: usize) -> v1::TaskStatus {
    v1::TaskStatus { data: Some(vec![0; bytes]), ..status(task, state, uuid) }
}

/// The last word on what may come of the executor since the last look.
fn intake(env: &mut TestEnv) -> Option<Intake> {
    let all = std::mem::take(&mut env.log);
    all.into_iter().rev().find_map(|effect| match effect {
        Effect::Change(Change::Intake { intake, .. }) => Some(intake),
        _ => None,
    })
}

/// One SUBSCRIBE that knows of the tasks `a` and `b` and tells these updates.
fn with_updates(updates: &[v1::TaskStatus]) -> v1::executor::Call {
    let mut call = subscribe();
    let known = call.subscribe.as_mut().unwrap();
    known.unacknowledged_tasks = ["a", "b"].map(executor_task).to_vec();
    known.unacknowledged_updates =
        updates.iter().filter_map(|status| update(status.clone()).update).collect();
    call
}

#[test]
fn one_with_too_much_is_slowed_and_not_ended() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    env.run(vec![executor_task("b")]);
    let large = |task, uuid| sized(task, TaskState::TaskRunning, uuid, 8 * MEBIBYTE);
    env.call(1, &token, update(large("a", 1)));
    assert_eq!(intake(&mut env), None);
    env.call(1, &token, update(large("b", 2)));
    assert_eq!(intake(&mut env), Some(Intake::Ends));
    // After a restart they count as before.
    env.restart(|_| true, false);
    env.register();
    env.call(2, &token, subscribe());
    assert_eq!(intake(&mut env), Some(Intake::Ends));
    env.call(2, &token, update(sized("b", TaskState::TaskFinished, 3, 15 * MEBIBYTE)));
    assert_eq!(env.event_types(2), ["ACKNOWLEDGED"], "what ends a task");
    assert_eq!(closed(&mut env), None);
    env.ack(&large("a", 1));
    env.ack(&large("b", 2));
    assert_eq!(intake(&mut env), Some(Intake::Open));
    assert_eq!(closed(&mut env), None);
}

/// What the shell has no say in: a subscription brings all at once.
#[test]
fn what_a_subscription_brings_too_much_comes_with_the_next() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    env.run(vec![executor_task("b")]);
    env.take();
    let all: Vec<_> =
        (1..=3).map(|uuid| sized("a", TaskState::TaskRunning, uuid, 8 * MEBIBYTE)).collect();
    env.call(2, &token, with_updates(&all));
    assert_eq!(env.event_types(2), ["SUBSCRIBED", "ACKNOWLEDGED", "ACKNOWLEDGED"]);
    env.ack(&all[0]);
    assert_eq!(closing(&mut env), 0, "that is too little room");
    env.ack(&all[1]);
    assert_eq!(closing(&mut env), 1, "it subscribes again");
    env.call(3, &token, with_updates(&all[2..]));
    assert_eq!(env.event_types(3), ["SUBSCRIBED", "ACKNOWLEDGED"]);
    env.ack(&all[2]);
    assert_eq!(closing(&mut env), 0, "nothing is missing");
}

/// Connections that are closed without a reproach.
fn closing(env: &mut TestEnv) -> usize {
    let closed = |effect: &Effect| matches!(effect, Effect::CloseExecutor { error: None, .. });
    env.take().iter().filter(|effect| closed(effect)).count()
}

/// Its framework is away, and its task tells of its progress.
#[test]
fn one_with_too_many_of_a_task_is_not_shut_out() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    let running = |n: u16| {
        let mut status = status("a", TaskState::TaskRunning, 0);
        status.uuid.as_mut().unwrap()[..2].copy_from_slice(&n.to_be_bytes());
        status
    };
    for n in 0..256 {
        env.take();
        env.call(1, &token, update(running(n)));
        assert_eq!(env.event_types(1), ["ACKNOWLEDGED"], "{n}");
    }
    assert_eq!(intake(&mut env), Some(Intake::Ends));
    // As after a moment without a connection; the task is to be killed meanwhile.
    env.kill("a", None);
    env.take();
    env.call(2, &token, with_updates(&[running(255), running(256)]));
    assert_eq!(env.event_types(2), ["SUBSCRIBED", "KILL", "ACKNOWLEDGED", "KILL"]);
    env.take();
    env.call(2, &token, update(status("a", TaskState::TaskKilled, 9)));
    assert_eq!(env.event_types(2), ["ACKNOWLEDGED"]);
    env.ack(&running(0));
    assert_eq!(closing(&mut env), 0, "its task has still too many, the last included");
    env.ack(&running(1));
    assert_eq!(closing(&mut env), 1);
}

#[test]
fn even_what_ends_tasks_has_a_bound() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    let names = ["b", "c", "d", "e", "f"];
    for name in names {
        env.run(vec![executor_task(name)]);
    }
    env.take();
    for (uuid, name) in (1..).zip(names) {
        let end = sized(name, TaskState::TaskFinished, uuid, 16 * MEBIBYTE - 1000);
        env.call(1, &token, update(end));
    }
    assert_eq!(intake(&mut env), Some(Intake::Closed));
    env.ack(&sized("b", TaskState::TaskFinished, 1, 0));
    assert_eq!(intake(&mut env), Some(Intake::Ends), "less than 64 MiB are left");
}
