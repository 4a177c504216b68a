//! Command tasks.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, master_message},
    resources::Resources,
    v1::{
        self, TaskState, container_info, framework_info::capability::Type as Capability,
        task_status::Reason,
    },
};

use super::env::*;
use crate::{
    containerizer::{OutOfMemory, Termination},
    core::{Effect, Event},
};

const KILLED: i32 = 9;

fn signals(effects: &[Effect]) -> Vec<i32> {
    let signal = |effect: &Effect| match effect {
        Effect::Signal { signal, .. } => Some(*signal),
        Effect::Destroy { .. } => Some(9),
        _ => None,
    };
    effects.iter().filter_map(signal).collect()
}

#[test]
fn runs_and_finishes() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    let specs = env.launches();
    let spec = &specs[0];
    assert_eq!(shell(spec), "true");
    assert_eq!(spec.user.as_deref(), Some("user"));
    assert_eq!(spec.resources, Resources::cpus_mem(1.0, 64.0));
    assert!(spec.sandbox.starts_with("/work/slaves/S0/frameworks/F/executors/t/runs"));
    assert!(env.updates().is_empty(), "nothing is told before it runs");
    env.launched(&spec.id);
    let running = env.expect(TaskState::TaskRunning);
    assert_eq!(running.uuid.as_ref().unwrap().len(), 16);
    assert_eq!(running.agent_id.unwrap().value, AGENT);
    assert_eq!(running.timestamp, Some(1000.0));
    assert_eq!(running.container_status.unwrap().container_id.unwrap().value, spec.id.as_str());
    env.ended(&spec.id, 0);
    env.expect(TaskState::TaskFinished);
    assert!(env.store.tasks.is_empty() && env.store.frameworks.is_empty());
    assert!(env.containers.is_empty(), "it is removed");
    assert!(env.store.sandboxes[spec.id.as_str()].ended_at.is_some());
}

#[test]
fn the_environment_tells_what_mesos_tells_and_the_command_wins() {
    let mut env = TestEnv::new();
    let mut info = task("t");
    let variable = |name: &str, value: &str| v1::environment::Variable {
        name: name.into(),
        value: Some(value.into()),
        ..Default::default()
    };
    info.command.as_mut().unwrap().environment =
        Some(v1::Environment { variables: vec![variable("PATH", "/mine"), variable("X", "1")] });
    env.run(vec![info]);
    let environment = env.launches().remove(0).environment;
    let get = |name: &str| environment.get(name).map(String::as_str);
    assert_eq!(get("PATH"), Some("/mine"));
    assert_eq!(get("X"), Some("1"));
    assert_eq!(get("MESOS_FRAMEWORK_ID"), Some("F"));
    assert_eq!(get("MESOS_EXECUTOR_ID"), Some("t"));
    assert_eq!(get("MESOS_TASK_ID"), Some("t"));
    assert_eq!(get("MESOS_SLAVE_ID"), Some(AGENT));
    assert_eq!(get("MESOS_ALLOCATION_ROLE"), Some("role"));
    assert_eq!(get("MESOS_CHECKPOINT"), Some("0"));
    assert_eq!(get("MESOS_AGENT_ENDPOINT"), Some("host:5051"));
    assert_eq!(get("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"), Some("5secs"));
    assert_eq!(get("MESOS_SANDBOX"), get("MESOS_DIRECTORY"));
    assert_eq!(get("MEZZ_EXECUTOR_TOKEN"), None);
}

#[test]
fn one_update_is_in_flight_and_is_sent_again_with_the_latest_state() {
    let mut env = TestEnv::unlinked(options());
    env.ping_interval_ms = 0;
    env.register();
    env.run(vec![task("t")]);
    let container = env.launch();
    env.launched(&container);
    let first = env.update();
    env.ended(&container, 0);
    assert!(env.updates().is_empty(), "the second waits");
    let mut waits = Vec::new();
    let mut last = env.now;
    for _ in 0..8 {
        let again = loop {
            let at = env.core.next_deadline().unwrap();
            env.advance(at.since(env.now));
            if let Some(again) = env.updates().pop() {
                break again;
            }
        };
        assert_eq!(again.status, first, "the same update with the same uuid");
        assert_eq!(again.latest_state(), TaskState::TaskFinished);
        waits.push(env.now.since(last).as_secs());
        last = env.now;
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
    env.ack(&first);
    env.expect(TaskState::TaskFinished);
    env.advance(Duration::from_secs(30));
    assert!(env.updates().is_empty());
}

#[test]
fn an_acknowledgement_that_does_not_match_is_ignored() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    let container = env.launch();
    env.launched(&container);
    let first = env.update();
    let mut wrong = first.clone();
    wrong.uuid = Some(vec![0; 16]);
    env.ack(&wrong);
    env.ended(&container, 0);
    assert!(env.updates().is_empty());
    env.ack(&first);
    let second = env.update();
    env.ack(&first);
    assert!(env.updates().is_empty());
    env.ack(&second);
    assert!(env.store.tasks.is_empty());
}

#[test]
fn a_failing_command_tells_its_status() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.ended(&container, 3 << 8);
    let failed = env.expect(TaskState::TaskFailed);
    assert_eq!(failed.message.as_deref(), Some("exited with status 3"));
    reason(&failed, Reason::CommandExecutorFailed);
}

#[test]
fn out_of_memory_is_told_as_such() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.terminated(
        &container,
        Termination {
            wait_status: Some(9),
            out_of_memory: Some(OutOfMemory { limit_bytes: 64 << 20, peak_bytes: 64 << 20 }),
            failure: None,
        },
    );
    let failed = env.expect(TaskState::TaskFailed);
    reason(&failed, Reason::ContainerLimitationMemory);
    let message = failed.message.unwrap();
    assert!(message.contains("64.0 MiB") && message.contains("the tail"), "{message}");
}

#[test]
fn a_launch_that_fails_fails_the_task() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    let container = env.launch();
    env.handle(Event::LaunchFailed { container, error: "no such uri".into() });
    let failed = env.expect(TaskState::TaskFailed);
    reason(&failed, Reason::ContainerLaunchFailed);
    assert_eq!(failed.message.as_deref(), Some("no such uri"));
    assert!(env.store.tasks.is_empty());
}

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

#[test]
fn more_tasks_than_allowed_are_refused() {
    let mut env = TestEnv::unlinked(crate::core::CoreOptions { max_tasks: 1, ..options() });
    env.register();
    env.running(task("a"));
    env.run(vec![task("b")]);
    assert!(env.launches().is_empty());
    let refused = env.expect(TaskState::TaskFailed);
    assert!(refused.message.unwrap().contains("max_tasks"));
    assert_eq!(env.state_of("a"), Some(TaskState::TaskRunning));
}

#[test]
fn what_cannot_be_run_is_refused_with_the_field() {
    type Break = fn(&mut v1::TaskInfo);
    let broken: [(&str, TaskState, Break); 5] = [
        ("neither command nor executor", TaskState::TaskError, |task| task.command = None),
        ("command.value", TaskState::TaskError, |task| task.command = Some(Default::default())),
        ("resources", TaskState::TaskError, |task| task.resources[0].scalar = None),
        ("DOCKER", TaskState::TaskFailed, |task| {
            let r#type = container_info::Type::Docker.into();
            task.container = Some(v1::ContainerInfo { r#type, ..Default::default() });
        }),
        ("container.volumes", TaskState::TaskFailed, |task| {
            task.container = Some(v1::ContainerInfo {
                r#type: container_info::Type::Mesos.into(),
                volumes: vec![v1::Volume::default()],
                ..Default::default()
            });
        }),
    ];
    for (text, state, break_it) in broken {
        let mut env = TestEnv::new();
        let mut info = task("t");
        break_it(&mut info);
        env.run(vec![info]);
        assert!(env.launches().is_empty());
        let refused = env.expect(state);
        let message = refused.message.unwrap();
        assert!(message.contains(text), "{message}");
        assert!(env.store.tasks.is_empty());
    }
}

#[test]
fn a_launch_that_comes_twice_starts_once() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    env.run(vec![task("t")]);
    assert_eq!(env.launches().len(), 1);
}

#[test]
fn a_removed_frameworks_tasks_end_without_a_word() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.run(vec![task("u")]);
    let starting = env.launch();
    env.take();
    env.master(master_message::Message::ShutdownFramework(mezz::ShutdownFramework {
        framework_id: v1::FrameworkId { value: "F".into() },
    }));
    assert_eq!(signals(&env.take()), [15, 9]);
    env.run(vec![task("late")]);
    env.ended(&container, 15);
    env.handle(Event::LaunchFailed { container: starting, error: "ended".into() });
    assert!(env.launches().is_empty());
    assert!(env.updates().is_empty());
    assert!(env.store.tasks.is_empty() && env.store.frameworks.is_empty());
}
