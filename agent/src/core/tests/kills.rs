//! Killing command tasks.

use std::time::Duration;

use mezz_proto::{
    labels,
    v1::{self, TaskState, framework_info::capability::Type as Capability, task_status::Reason},
};

use super::{commands::signals, env::*};
use crate::{
    containerizer::Addressee,
    core::{Effect, Event},
};

const KILLED: i32 = 9;

#[test]
fn kill_gives_grace_and_then_destroys() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.kill("t", None);
    assert_eq!(signals(&env.take()), [15]);
    env.advance(Duration::from_millis(2999));
    assert!(signals(&env.take()).is_empty());
    env.advance(Duration::from_millis(1));
    assert_eq!(signals(&env.take()), [9]);
    env.ended(&container, KILLED);
    let killed = env.expect(TaskState::TaskKilled);
    assert_eq!(killed.reason, None);
}

/// Not with a label that nobody understands.
#[test]
fn a_label_says_whom_the_first_signal_goes_to() {
    let labelled = |value: &str| {
        let labels = vec![labels::label(labels::KILL_SIGNAL, value)];
        v1::TaskInfo { labels: Some(v1::Labels { labels }), ..task("t") }
    };
    for (info, expected) in [
        (task("t"), Addressee::Tree),
        (labelled("tree"), Addressee::Tree),
        (labelled("first-process"), Addressee::FirstProcess),
    ] {
        let mut env = TestEnv::new();
        let container = env.running(info);
        env.kill("t", None);
        let signal = Effect::Signal { container: container.clone(), signal: 15, to: expected };
        assert!(env.take().contains(&signal), "{expected:?}");
        env.restart(|_| true, false);
        assert!(env.take().contains(&signal), "{expected:?}, also after a restart");
        env.advance(Duration::from_secs(3));
        assert!(env.take().contains(&Effect::Destroy { container }), "all of it");
    }
    let mut env = TestEnv::new();
    env.run(vec![labelled("parent")]);
    let refused = env.expect(TaskState::TaskError);
    let said = refused.message.unwrap();
    assert!(said.contains("dev.mezz.kill-signal is `parent`"), "{said}");
}

#[test]
fn killed_whatever_the_exit_status() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.kill("t", None);
    env.ended(&container, 0);
    env.expect(TaskState::TaskKilled);
    env.advance(Duration::from_secs(10));
    assert_eq!(signals(&env.take()), [15], "no timer is left");
}

#[test]
fn the_kills_policy_goes_before_the_tasks() {
    for (of_task, of_kill, expected) in
        [(Some(8), Some(6), 6), (Some(8), None, 8), (None, Some(6), 6), (None, None, 3)]
    {
        let mut env = TestEnv::new();
        let mut info = task("t");
        info.kill_policy = of_task.map(|secs| policy(Duration::from_secs(secs)));
        env.running(info);
        env.kill("t", of_kill.map(Duration::from_secs));
        env.take();
        env.advance(Duration::from_millis(expected * 1000 - 1));
        assert!(signals(&env.take()).is_empty());
        env.advance(Duration::from_millis(1));
        assert_eq!(signals(&env.take()), [9], "{of_task:?} {of_kill:?}");
    }
}

#[test]
fn a_repeated_kill_only_shortens() {
    let mut env = TestEnv::new();
    env.running(task("t"));
    env.kill("t", Some(Duration::from_secs(10)));
    env.kill("t", Some(Duration::from_secs(100)));
    env.kill("t", Some(Duration::from_secs(2)));
    assert_eq!(signals(&env.take()), [15]);
    env.advance(Duration::from_secs(2));
    assert_eq!(signals(&env.take()), [9]);
}

#[test]
fn no_grace_is_no_sigterm() {
    let mut env = TestEnv::new();
    env.running(task("t"));
    env.kill("t", Some(Duration::ZERO));
    assert_eq!(signals(&env.take()), [9]);
}

#[test]
fn killing_is_told_to_those_who_know_the_state() {
    let mut env = TestEnv::new();
    let info = framework("F", &[Capability::TaskKillingState]);
    env.run_for(info, vec![task("t")], None);
    let container = env.launch();
    env.launched(&container);
    env.expect(TaskState::TaskRunning);
    env.kill("t", None);
    env.expect(TaskState::TaskKilling);
    env.ended(&container, 15);
    env.expect(TaskState::TaskKilled);
}

#[test]
fn kill_before_the_start_never_shows_it_running() {
    for came_to_run in [false, true] {
        let mut env = TestEnv::new();
        env.run(vec![task("t")]);
        let container = env.launch();
        env.kill("t", None);
        assert_eq!(signals(&env.take()), [9]);
        if came_to_run {
            env.launched(&container);
            assert!(env.updates().is_empty());
            env.ended(&container, KILLED);
        } else {
            env.handle(Event::LaunchFailed { container, error: "ended before".into() });
        }
        let killed = env.expect(TaskState::TaskKilled);
        reason(&killed, Reason::TaskKilledDuringLaunch);
    }
}

#[test]
fn a_kill_after_the_end_or_of_nobody_does_nothing() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.ended(&container, 0);
    env.take();
    env.kill("t", None);
    env.kill("unknown", None);
    assert_eq!(env.take(), []);
}

#[test]
fn max_completion_time_fails_the_task() {
    let mut env = TestEnv::new();
    let mut info = task("t");
    info.max_completion_time = Some(v1::DurationInfo { nanoseconds: 5_000_000_000 });
    let container = env.running(info);
    env.take();
    env.advance(Duration::from_secs(5));
    assert_eq!(signals(&env.take()), [9]);
    env.ended(&container, KILLED);
    reason(&env.expect(TaskState::TaskFailed), Reason::MaxCompletionTimeReached);
}
