//! Command tasks.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, master_message},
    resources::Resources,
    v1::{self, TaskState, container_info, task_status::Reason},
};

use super::env::*;
use crate::{
    containerizer::{OutOfMemory, Termination},
    core::{Abilities, CoreOptions, Effect, Event},
};

pub(super) fn signals(effects: &[Effect]) -> Vec<i32> {
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
    assert_eq!(get("MESOS_AGENT_ID"), Some(AGENT));
    assert_eq!(get("LIBPROCESS_IP"), None);
    assert_eq!(get("MESOS_ALLOCATION_ROLE"), Some("role"));
    assert_eq!(get("MESOS_CHECKPOINT"), Some("0"));
    assert_eq!(get("MESOS_AGENT_ENDPOINT"), Some("host:5051"));
    assert_eq!(get("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"), Some("5secs"));
    assert_eq!(get("MESOS_SANDBOX"), get("MESOS_DIRECTORY"));
    assert_eq!(get("MEZZ_EXECUTOR_TOKEN"), None);
    assert_eq!(get("MESOS_NATIVE_JAVA_LIBRARY"), None);
}

/// Rule 55; in an image the path would name nothing, or something else.
#[test]
fn a_native_library_is_named_to_who_sees_the_files_of_the_machine() {
    let abilities = Abilities { docker: true, images: true, isolation: true };
    let native_library = Some("/l.so".into());
    let mut env = TestEnv::unlinked(CoreOptions { native_library, abilities, ..options() });
    env.register();
    let in_image = v1::TaskInfo {
        container: Some(v1::ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            docker: Some(container_info::DockerInfo { image: "i".into(), ..Default::default() }),
            ..Default::default()
        }),
        ..task("in-image")
    };
    env.run(vec![task("plain"), in_image]);
    let mut named: Vec<_> = env
        .launches()
        .into_iter()
        .map(|spec| {
            let get = |name: &str| spec.environment.get(name).cloned();
            (get("MESOS_TASK_ID"), get("MESOS_NATIVE_JAVA_LIBRARY"), get("MESOS_NATIVE_LIBRARY"))
        })
        .collect();
    named.sort();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        named,
        [(text("in-image"), None, None), (text("plain"), text("/l.so"), text("/l.so"))]
    );
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
fn more_tasks_than_allowed_are_refused() {
    let mut env = TestEnv::unlinked(CoreOptions { max_tasks: 1, ..options() });
    env.register();
    env.running(task("a"));
    env.run(vec![task("b")]);
    assert!(env.launches().is_empty());
    let refused = env.expect(TaskState::TaskFailed);
    assert!(refused.message.unwrap().contains("--max-tasks"));
    assert_eq!(env.state_of("a"), Some(TaskState::TaskRunning));
}

#[test]
fn every_refused_task_is_told_one_end_even_when_no_more_are_kept() {
    let mut env = TestEnv::unlinked(CoreOptions { max_tasks: 2, ..options() });
    env.register();
    env.running(task("a"));
    env.running(task("b"));
    let refused: Vec<String> = (0..5).map(|n| format!("refused{n}")).collect();
    env.run(refused.iter().map(|id| task(id)).collect());
    let updates = env.updates();
    let mut told: Vec<_> = updates.iter().map(|update| &update.status.task_id.value).collect();
    told.sort();
    assert_eq!(told, refused.iter().collect::<Vec<_>>());
    for update in &updates {
        assert_eq!(update.status.state(), TaskState::TaskFailed);
        assert_eq!(update.latest_state(), TaskState::TaskFailed);
        assert_eq!(update.status.uuid.as_ref().unwrap().len(), 16);
        assert_eq!(update.status.agent_id.as_ref().unwrap().value, AGENT);
        assert!(update.status.timestamp.is_some());
    }
    assert_eq!(env.store.tasks.len(), 4, "two that run, and two that were refused");
    for update in &updates {
        env.ack(&update.status);
    }
    assert_eq!(env.store.tasks.len(), 2);
    env.advance(Duration::from_secs(30));
    assert!(env.updates().is_empty());
}

#[test]
fn an_end_that_nobody_saw_is_not_a_failed_launch() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    let termination = Termination { wait_status: None, out_of_memory: None, failure: None };
    env.terminated(&container, termination);
    let failed = env.expect(TaskState::TaskFailed);
    reason(&failed, Reason::ExecutorTerminated);
    assert!(failed.message.unwrap().contains("exit status is unknown"));
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
