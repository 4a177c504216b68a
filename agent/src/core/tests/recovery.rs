//! Restarts of the agent at each step.

use std::time::Duration;

use mezz_proto::{
    ids::ContainerId,
    v1::{self, TaskState, framework_info::capability::Type as Capability, task_status::Reason},
};

use super::env::*;
use crate::{
    containerizer::{Addressee, Termination},
    core::{Effect, Event},
};

#[test]
fn a_running_task_goes_on() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.restart(|_| true, false);
    assert!(env.take().iter().any(|effect| matches!(effect, Effect::Watch { .. })));
    env.register();
    assert!(env.updates().is_empty(), "nothing has changed");
    env.ended(&container, 0);
    env.expect(TaskState::TaskFinished);
}

#[test]
fn one_that_ended_meanwhile_tells_its_real_status() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.restart(|_| true, false);
    env.ended(&container, 5 << 8);
    env.register();
    let failed = env.expect(TaskState::TaskFailed);
    assert_eq!(failed.message.as_deref(), Some("exited with status 5"));
}

#[test]
fn an_unacknowledged_update_is_sent_again_with_its_uuid() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    let container = env.launch();
    env.launched(&container);
    let running = env.update();
    env.restart(|_| true, false);
    env.ended(&container, 0);
    env.register();
    let again = env.update();
    assert_eq!(again, running);
    env.ack(&again);
    env.expect(TaskState::TaskFinished);
}

#[test]
fn one_that_ended_before_and_was_not_acknowledged_is_told_again() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.ended(&container, 0);
    let finished = env.update();
    env.restart(|_| panic!("nothing is left to be found"), false);
    assert!(!env.log.iter().any(|effect| matches!(effect, Effect::Watch { .. })));
    env.register();
    assert_eq!(env.update(), finished);
    env.ack(&finished);
    assert!(env.store.tasks.is_empty() && env.store.frameworks.is_empty());
}

#[test]
fn one_that_was_launched_but_not_yet_told_is_told() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    env.launch();
    env.restart(|_| true, false);
    env.register();
    env.expect(TaskState::TaskRunning);
}

#[test]
fn one_that_never_started_failed() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    env.restart(|_| false, false);
    env.register();
    reason(&env.expect(TaskState::TaskFailed), Reason::ExecutorTerminated);
    assert!(env.store.tasks.is_empty());
}

#[test]
fn a_reboot_loses_what_ran() {
    for (capabilities, state) in
        [(&[][..], TaskState::TaskLost), (&[Capability::PartitionAware], TaskState::TaskGone)]
    {
        for found in [false, true] {
            let mut env = TestEnv::new();
            env.run_for(framework("F", capabilities), vec![task("t")], None);
            let container = env.launch();
            env.launched(&container);
            env.expect(TaskState::TaskRunning);
            env.restart(|_| found, true);
            env.register();
            if found {
                // Its record is there, but nobody saw its end.
                env.terminated(
                    &container,
                    Termination { wait_status: None, out_of_memory: None, failure: None },
                );
            }
            reason(&env.expect(state), Reason::AgentRestarted);
        }
    }
}

#[test]
fn a_kill_goes_on_after_a_restart() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.kill("t", None);
    env.restart(|_| true, false);
    assert!(env.take().contains(&Effect::Signal {
        container: container.clone(),
        signal: 15,
        to: Addressee::Tree
    }));
    env.advance(Duration::from_secs(3));
    assert!(env.take().contains(&Effect::Destroy { container: container.clone() }));
    env.ended(&container, 9);
    env.register();
    env.expect(TaskState::TaskKilled);
}

#[test]
fn nothing_is_done_about_a_kill_before_it_is_stored() {
    for grace in [Duration::ZERO, Duration::from_secs(7)] {
        for running in [false, true] {
            let mut env = TestEnv::new();
            env.run(vec![task("t")]);
            let container = env.launch();
            if running {
                env.launched(&container);
                env.expect(TaskState::TaskRunning);
            }
            env.take();
            env.dies = true;
            env.kill("t", Some(grace));
            assert_eq!(env.take(), [], "{grace:?}, running: {running}");
        }
    }
    let mut env = TestEnv::new();
    let mut info = task("t");
    info.max_completion_time = Some(v1::DurationInfo { nanoseconds: 5_000_000_000 });
    env.running(info);
    env.take();
    env.dies = true;
    env.advance(Duration::from_secs(5));
    assert_eq!(env.take(), []);
}

#[test]
fn a_kill_keeps_its_own_grace_and_what_is_left_of_it() {
    let mut env = TestEnv::new();
    let mut info = task("t");
    info.kill_policy = Some(policy(Duration::from_secs(1)));
    let container = env.running(info);
    env.kill("t", Some(Duration::from_secs(60)));
    env.advance(Duration::from_secs(10));
    env.kill("t", Some(Duration::from_secs(20)));
    env.advance(Duration::from_secs(5));
    env.restart(|_| true, false);
    assert!(env.take().contains(&Effect::Signal {
        container: container.clone(),
        signal: 15,
        to: Addressee::Tree
    }));
    env.advance(Duration::from_millis(14_999));
    assert_eq!(env.take(), []);
    env.advance(Duration::from_millis(1));
    assert_eq!(env.take(), [Effect::Destroy { container: container.clone() }]);
    // Long after the grace: no SIGTERM any more.
    env.restart(|_| true, false);
    let effects = env.take();
    assert!(effects.contains(&Effect::Destroy { container: container.clone() }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Signal { .. })));
    env.ended(&container, 9);
    env.register();
    env.expect(TaskState::TaskKilled);
}

#[test]
fn a_clock_that_was_set_back_does_not_lengthen_a_grace() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.kill("t", Some(Duration::from_secs(60)));
    env.now = mezz_proto::time::Time::from_secs(10);
    env.restart(|_| true, false);
    env.take();
    env.advance(Duration::from_secs(60));
    assert_eq!(env.take(), [Effect::Destroy { container }]);
}

#[test]
fn a_kill_before_the_start_goes_on_after_a_restart() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    let container = env.launch();
    env.kill("t", Some(Duration::from_secs(60)));
    env.restart(|_| true, false);
    assert!(env.take().contains(&Effect::Destroy { container: container.clone() }));
    env.ended(&container, 9);
    env.register();
    reason(&env.expect(TaskState::TaskKilled), Reason::TaskKilledDuringLaunch);
}

#[test]
fn a_returning_executor_is_asked_for_a_kill_with_its_policy() {
    let mut env = TestEnv::new();
    let (_, token) = executor_with_task(&mut env);
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
    env.events(1);
    env.dies = true;
    env.kill("a", Some(Duration::from_secs(7)));
    assert!(env.events(1).is_empty(), "not before it is stored");
    env.dies = false;
    env.restart(|_| true, false);
    env.register();
    env.kill("a", Some(Duration::from_secs(7)));
    env.restart(|_| true, false);
    env.call(9, &token, subscribe());
    let events = env.events(9);
    let kill = events[1].kill.as_ref().unwrap();
    assert_eq!(kill.kill_policy, Some(policy(Duration::from_secs(7))));
}

/// An executor that runs and has subscribed on connection 1, with task `a`.
fn executor_with_task(env: &mut TestEnv) -> (ContainerId, String) {
    env.run(vec![executor_task("a")]);
    let spec = env.launches().remove(0);
    let token = spec.environment["MEZZ_EXECUTOR_TOKEN"].clone();
    env.launched(&spec.id);
    env.call(1, &token, subscribe());
    (spec.id, token)
}

#[test]
fn an_executor_that_was_shut_down_ends_after_a_restart_too() {
    let mut env = TestEnv::new();
    let (container, token) = executor_with_task(&mut env);
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
    env.take();
    env.dies = true;
    env.shutdown_executor();
    assert_eq!(env.take(), [], "not before it is stored");
    env.restart(|_| true, false);
    env.register();
    env.call(2, &token, subscribe());
    env.take();
    env.shutdown_executor();
    assert_eq!(env.event_types(2), ["SHUTDOWN"]);
    env.advance(Duration::from_secs(3));
    env.restart(|_| true, false);
    env.register();
    env.call(3, &token, subscribe());
    assert!(env.events(3).is_empty(), "it may not come back");
    env.take();
    env.advance(Duration::from_millis(1_999));
    assert_eq!(env.take(), []);
    env.advance(Duration::from_millis(1));
    assert_eq!(env.take(), [Effect::Destroy { container: container.clone() }]);
    // And when the agent restarts just then.
    env.restart(|_| true, false);
    env.take();
    env.advance(Duration::ZERO);
    assert_eq!(env.take(), [Effect::Destroy { container: container.clone() }]);
    env.register();
    env.ended(&container, 9);
    let failed = env.expect(TaskState::TaskFailed);
    reason(&failed, Reason::ExecutorTerminated);
    assert!(failed.message.unwrap().contains("its framework asked for it"));
    assert!(env.store.executors.is_empty());
}

#[test]
fn why_an_executor_is_ended_is_known_after_a_restart() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let container = env.launch();
    env.launched(&container);
    env.take();
    env.dies = true;
    env.advance(Duration::from_secs(60));
    assert_eq!(env.take(), [], "not before it is stored");
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let container = env.launch();
    env.launched(&container);
    env.advance(Duration::from_secs(60));
    env.restart(|_| true, false);
    env.register();
    env.ended(&container, 9);
    reason(&env.expect(TaskState::TaskFailed), Reason::ExecutorRegistrationTimeout);
}

#[test]
fn max_completion_time_counts_from_the_first_start() {
    let mut env = TestEnv::new();
    let mut info = task("t");
    info.max_completion_time = Some(v1::DurationInfo { nanoseconds: 5_000_000_000 });
    let container = env.running(info);
    env.advance(Duration::from_secs(4));
    env.restart(|_| true, false);
    env.take();
    env.advance(Duration::from_secs(1));
    assert!(env.take().contains(&Effect::Destroy { container }));
}

#[test]
fn a_clock_that_was_set_back_does_not_lengthen_max_completion_time() {
    let mut env = TestEnv::new();
    let mut info = task("t");
    info.max_completion_time = Some(v1::DurationInfo { nanoseconds: 5_000_000_000 });
    let container = env.running(info);
    env.now = mezz_proto::time::Time::from_secs(10);
    env.restart(|_| true, false);
    env.take();
    env.advance(Duration::from_secs(5));
    assert_eq!(env.take(), [Effect::Destroy { container }]);
}

#[test]
fn an_executor_comes_back_with_what_it_knows() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a"), executor_task("b"), executor_task("c")]);
    let spec = env.launches().remove(0);
    let token = spec.environment["MEZZ_EXECUTOR_TOKEN"].clone();
    env.launched(&spec.id);
    env.call(1, &token, subscribe());
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
    env.restart(|_| true, false);
    env.register();
    let mut call = subscribe();
    let known = call.subscribe.as_mut().unwrap();
    known.unacknowledged_tasks = vec![executor_task("b")];
    known.unacknowledged_updates =
        vec![v1::executor::call::Update { status: status("a", TaskState::TaskFinished, 2) }];
    env.call(9, &token, call);
    assert_eq!(env.event_types(9), ["SUBSCRIBED", "ACKNOWLEDGED"]);
    let told: Vec<_> = env
        .updates()
        .iter()
        .map(|update| (update.status.task_id.value.clone(), update.status.state()))
        .collect();
    let expected = [("a", TaskState::TaskFinished), ("c", TaskState::TaskLost)];
    assert_eq!(told, expected.map(|(task, state)| (task.to_owned(), state)));
    env.advance(Duration::from_secs(10));
    assert!(env.take().iter().all(|effect| !matches!(effect, Effect::Destroy { .. })));
}

/// Tasks go to executors before they are stored, as containers start before they are.
#[test]
fn a_task_of_an_executor_that_the_store_never_had_is_killed() {
    let mut env = TestEnv::new();
    let (_, token) = executor_with_task(&mut env);
    env.take();
    env.dies = true;
    env.run(vec![executor_task("b")]);
    assert_eq!(env.event_types(1), ["LAUNCH"]);
    env.take();
    env.call(1, &token, update(status("b", TaskState::TaskRunning, 1)));
    assert_eq!(env.take(), [], "what it says waits for the store");
    env.restart(|_| true, false);
    env.register();
    let mut call = subscribe();
    call.subscribe.as_mut().unwrap().unacknowledged_tasks = ["a", "b"].map(executor_task).to_vec();
    env.call(9, &token, call);
    let events = env.events(9);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[1].kill.as_ref().unwrap().task_id.value, "b");
    env.call(9, &token, update(status("b", TaskState::TaskKilled, 2)));
    assert_eq!(env.event_types(9), ["ACKNOWLEDGED"]);
    assert!(env.updates().is_empty());
}

#[test]
fn an_executor_that_does_not_come_back_is_ended() {
    for (capabilities, state) in
        [(&[][..], TaskState::TaskLost), (&[Capability::PartitionAware], TaskState::TaskGone)]
    {
        let mut env = TestEnv::new();
        env.run_for(framework("F", capabilities), vec![executor_task("a")], None);
        let spec = env.launches().remove(0);
        let container = spec.id;
        env.launched(&container);
        env.call(1, &spec.environment["MEZZ_EXECUTOR_TOKEN"], subscribe());
        env.restart(|_| true, false);
        env.register();
        env.take();
        env.advance(Duration::from_secs(2));
        assert!(env.take().contains(&Effect::Destroy { container: container.clone() }));
        env.ended(&container, 9);
        reason(&env.expect(state), Reason::ExecutorReregistrationTimeout);
    }
}

/// It is not one that has to come back, which has little time for it.
#[test]
fn an_executor_that_was_being_started_goes_on_with_that() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let spec = env.launches().remove(0);
    env.launched(&spec.id);
    env.restart(|_| true, false);
    env.register();
    env.take();
    env.advance(Duration::from_secs(59));
    assert!(env.take().iter().all(|effect| !matches!(effect, Effect::Destroy { .. })));
    env.restart(|_| true, false);
    env.register();
    env.take();
    env.advance(Duration::from_secs(60));
    let container = spec.id.clone();
    assert!(env.take().contains(&Effect::Destroy { container }), "not for ever");
    env.ended(&spec.id, 9);
    reason(&env.expect(TaskState::TaskFailed), Reason::ExecutorRegistrationTimeout);

    // One that comes is one that has to come back from then on.
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let spec = env.launches().remove(0);
    env.launched(&spec.id);
    env.restart(|_| true, false);
    env.register();
    env.call(1, &spec.environment["MEZZ_EXECUTOR_TOKEN"], subscribe());
    env.restart(|_| true, false);
    env.take();
    env.advance(Duration::from_secs(2));
    assert!(env.take().contains(&Effect::Destroy { container: spec.id }));
}

#[test]
fn an_executor_that_never_started_fails_its_tasks() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    env.restart(|_| false, false);
    env.register();
    reason(&env.expect(TaskState::TaskFailed), Reason::ExecutorTerminated);
    assert!(env.store.executors.is_empty());
}

#[test]
fn ids_are_not_used_twice_over_restarts() {
    let mut env = TestEnv::new();
    env.run(vec![task("a")]);
    let first = env.launch();
    env.restart(|_| true, false);
    env.register();
    env.run(vec![task("b")]);
    assert_ne!(env.launch(), first);
    env.handle(Event::LaunchFailed { container: first, error: String::new() });
}
