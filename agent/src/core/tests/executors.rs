//! Custom executors.

use std::{collections::BTreeSet, time::Duration};

use mezz_proto::{
    ids::ContainerId,
    mezz::v1::{self as mezz, agent_message, master_message},
    resources::Resources,
    v1::{self, TaskState, task_status::Reason},
};

use super::env::*;
use crate::core::{CallError, ConnectionId, CoreOptions, Effect, Event};

/// An executor that runs and has subscribed on connection 1, with task `a`.
pub(super) fn subscribed(env: &mut TestEnv) -> (ContainerId, String) {
    subscribed_with(env, None)
}

/// One that has a grace of its own.
pub(super) fn subscribed_with(env: &mut TestEnv, grace: Option<Duration>) -> (ContainerId, String) {
    let mut task = executor_task("a");
    if let Some(executor) = &mut task.executor {
        executor.shutdown_grace_period = grace.map(|grace| v1::DurationInfo {
            nanoseconds: i64::try_from(grace.as_nanos()).unwrap(),
        });
    }
    env.run(vec![task]);
    let spec = env.launches().remove(0);
    let token = spec.environment["MEZZ_EXECUTOR_TOKEN"].clone();
    env.launched(&spec.id);
    env.call(1, &token, subscribe());
    assert_eq!(env.event_types(1), ["SUBSCRIBED", "LAUNCH"]);
    (spec.id, token)
}

fn terminated(env: &mut TestEnv) -> Option<i32> {
    env.take().into_iter().find_map(|effect| match effect {
        Effect::SendMaster { message, .. } => match message.message {
            Some(agent_message::Message::ExecutorTerminated(terminated)) => Some(terminated.status),
            _ => None,
        },
        _ => None,
    })
}

pub(super) fn closed(env: &mut TestEnv) -> Option<CallError> {
    env.take().into_iter().find_map(|effect| match effect {
        Effect::CloseExecutor { error, .. } => error,
        _ => None,
    })
}

/// The master has not heard yet that it has ended, and counts no other (found by the
/// simulation; MESOS-1720).
#[test]
fn is_not_started_again_for_tasks_that_were_meant_for_the_one_before() {
    let mut env = TestEnv::new();
    let run = |task: &str| {
        master_message::Message::RunTasks(mezz::RunTasks {
            framework: framework("F", &[]),
            tasks: vec![executor_task(task)],
            running_executors: vec![v1::ExecutorId { value: "E".into() }],
            ..Default::default()
        })
    };
    env.master(run("a"));
    let lost = env.expect(TaskState::TaskLost);
    assert_eq!(lost.reason(), Reason::ExecutorTerminated);
    assert_eq!(terminated(&mut env), None, "its end was told once");
    env.run(vec![executor_task("b")]);
    env.launch();
    env.master(run("c"));
    assert!(env.updates().is_empty(), "it is there now");
}

/// The master has counted it, and gives back what it holds for it.
#[test]
fn that_cannot_be_started_is_told_to_have_ended() {
    let mut env = TestEnv::new();
    let bad = |id: &str| {
        let mut task = executor_task(id);
        let executor = task.executor.as_mut().unwrap();
        executor.container = Some(v1::ContainerInfo {
            r#type: v1::container_info::Type::Docker.into(),
            ..Default::default()
        });
        task
    };
    env.take();
    env.run(vec![bad("a"), executor_task("b")]);
    let effects = env.take();
    let told: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::SendMaster { message, .. } => message.message.as_ref(),
            _ => None,
        })
        .map(|message| match message {
            agent_message::Message::StatusUpdate(update) => update.status.task_id.value.as_str(),
            agent_message::Message::ExecutorTerminated(ended) => {
                assert_eq!(ended.status, -1);
                "ended"
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["a", "ended", "b"]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Launch(_))));
}

#[test]
fn is_started_once_and_gets_its_tasks_when_it_subscribes() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    env.run(vec![executor_task("b")]);
    let specs = env.launches();
    assert_eq!(specs.len(), 1);
    assert_eq!(specs[0].resources, Resources::cpus_mem(1.5, 96.0));
    env.launched(&specs[0].id);
    let token = specs[0].environment["MEZZ_EXECUTOR_TOKEN"].clone();
    env.call(1, &token, subscribe());
    let events = env.events(1);
    let subscribed = events[0].subscribed.as_ref().unwrap();
    assert_eq!(subscribed.agent_info.id.as_ref().unwrap().value, AGENT);
    assert_eq!(subscribed.container_id.as_ref().unwrap().value, specs[0].id.as_str());
    let launched: Vec<_> = events[1..]
        .iter()
        .map(|event| event.launch.as_ref().unwrap().task.task_id.value.as_str())
        .collect();
    assert_eq!(launched, ["a", "b"]);
    env.run(vec![executor_task("c")]);
    assert_eq!(env.event_types(1), ["LAUNCH"]);
}

#[test]
fn its_container_holds_the_sum_of_itself_and_its_tasks() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    let container = env.launch();
    env.run(vec![executor_task("b")]);
    let held = |env: &mut TestEnv| {
        env.take().into_iter().rev().find_map(|effect| match effect {
            Effect::Update { resources, .. } => Some(resources),
            _ => None,
        })
    };
    assert_eq!(held(&mut env), None, "there is nothing to change yet");
    env.launched(&container);
    assert_eq!(held(&mut env), Some(Resources::cpus_mem(2.5, 160.0)));
    env.kill("b", None);
    assert_eq!(held(&mut env), Some(Resources::cpus_mem(1.5, 96.0)));
}

#[test]
fn its_updates_are_passed_on_and_acknowledged_to_it_at_once() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    assert_eq!(env.event_types(1), ["ACKNOWLEDGED"]);
    let running = env.expect(TaskState::TaskRunning);
    assert_eq!(running.uuid, Some(vec![1; 16]));
    assert_eq!(running.executor_id.unwrap().value, "E");
    // Sent again, after the framework's acknowledgement and before.
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    env.call(1, &token, update(status("a", TaskState::TaskFinished, 2)));
    env.call(1, &token, update(status("a", TaskState::TaskFinished, 2)));
    // After the last one, and of no task.
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 3)));
    env.call(1, &token, update(status("unknown", TaskState::TaskRunning, 4)));
    assert_eq!(env.event_types(1), ["ACKNOWLEDGED"; 5]);
    env.expect(TaskState::TaskFinished);
    assert!(env.store.tasks.is_empty());
}

#[test]
fn wrong_updates_end_the_connection_and_say_why() {
    type Break = fn(&mut v1::TaskStatus);
    let broken: [(&str, Break); 5] = [
        ("Expecting 'uuid' to be present", |status| status.uuid = None),
        ("Not a valid UUID", |status| status.uuid = Some(vec![1; 15])),
        ("expecting 'SOURCE_EXECUTOR'", |status| status.source = None),
        ("Received TASK_STAGING from", |status| status.state = TaskState::TaskStaging.into()),
        ("state", |status| status.state = 99),
    ];
    for (tells, break_it) in broken {
        let mut env = TestEnv::new();
        let (_, token) = subscribed(&mut env);
        let mut wrong = status("a", TaskState::TaskRunning, 1);
        break_it(&mut wrong);
        env.call(1, &token, update(wrong));
        match closed(&mut env) {
            Some(CallError::Invalid(text)) => assert!(text.contains(tells), "{text}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(env.state_of("a"), Some(TaskState::TaskStaging));
    }
}

#[test]
fn its_death_fails_its_tasks_and_then_is_told() {
    let mut env = TestEnv::new();
    let (container, token) = subscribed(&mut env);
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
    env.ended(&container, 9);
    let failed = env.expect(TaskState::TaskFailed);
    reason(&failed, Reason::ExecutorTerminated);
    assert!(failed.message.unwrap().contains("SIGKILL"));
    assert_eq!(terminated(&mut env), Some(9));
    assert!(env.store.executors.is_empty() && env.store.frameworks.is_empty());
}

#[test]
fn one_that_cannot_be_launched_fails_its_tasks() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a"), executor_task("b")]);
    let container = env.launch();
    env.handle(Event::LaunchFailed { container, error: "no disk".into() });
    let failed: BTreeSet<_> =
        env.updates().iter().map(|update| update.status.message.clone().unwrap()).collect();
    assert_eq!(failed, BTreeSet::from(["no disk".to_owned()]));
    assert_eq!(terminated(&mut env), Some(-1));
}

#[test]
fn shutdown_gives_grace_and_then_destroys() {
    let mut env = TestEnv::new();
    let (container, _) = subscribed(&mut env);
    env.shutdown_executor();
    assert_eq!(env.event_types(1), ["SHUTDOWN"]);
    env.run(vec![executor_task("late")]);
    reason(&env.expect(TaskState::TaskLost), Reason::ExecutorTerminated);
    env.take();
    env.advance(Duration::from_secs(5));
    assert!(env.take().contains(&Effect::Destroy { container: container.clone() }));
    env.ended(&container, 9);
    reason(&env.expect(TaskState::TaskFailed), Reason::ExecutorTerminated);
}

#[test]
fn kill_goes_to_the_executor_and_again_when_it_comes_back() {
    let mut env = TestEnv::new();
    let (_, token) = subscribed(&mut env);
    env.call(1, &token, update(status("a", TaskState::TaskRunning, 1)));
    env.events(1);
    env.handle(Event::ExecutorDisconnected { connection: ConnectionId(1) });
    env.kill("a", Some(Duration::from_secs(7)));
    assert!(env.events(1).is_empty());
    env.call(2, &token, subscribe());
    let events = env.events(2);
    let kill = events[1].kill.as_ref().unwrap();
    assert_eq!(kill.task_id.value, "a");
    assert_eq!(kill.kill_policy, Some(policy(Duration::from_secs(7))));
}

#[test]
fn a_kill_of_a_queued_task_ends_its_group_and_a_useless_executor() {
    let mut env = TestEnv::new();
    env.run_for(framework("F", &[]), vec![task("a"), task("b")], Some(executor("E")));
    let container = env.launch();
    env.kill("a", None);
    let killed = env.updates();
    assert_eq!(killed.len(), 2);
    for update in killed {
        assert_eq!(update.status.state(), TaskState::TaskKilled);
        reason(&update.status, Reason::TaskKilledDuringLaunch);
    }
    assert!(env.take().contains(&Effect::Destroy { container }));
}

#[test]
fn a_group_is_launched_as_one() {
    let mut env = TestEnv::new();
    env.run_for(framework("F", &[]), vec![task("a"), task("b")], Some(executor("E")));
    let spec = env.launches().remove(0);
    env.launched(&spec.id);
    env.call(1, &spec.environment["MEZZ_EXECUTOR_TOKEN"], subscribe());
    let events = env.events(1);
    assert_eq!(events[1].launch_group.as_ref().unwrap().task_group.tasks.len(), 2);
}

#[test]
fn messages_go_both_ways_and_are_dropped_when_one_is_away() {
    let mut env = TestEnv::new();
    let message = master_message::Message::ExecutorMessage(mezz::ExecutorMessage {
        framework_id: v1::FrameworkId { value: "F".into() },
        executor_id: v1::ExecutorId { value: "E".into() },
        data: b"hi".to_vec(),
    });
    env.master(message.clone());
    let (_, token) = subscribed(&mut env);
    env.master(message);
    assert_eq!(env.events(1)[0].message.as_ref().unwrap().data, b"hi");
    let call = v1::executor::Call {
        r#type: Some(v1::executor::call::Type::Message.into()),
        message: Some(v1::executor::call::Message { data: b"ho".to_vec() }),
        ..subscribe()
    };
    env.take();
    env.call(1, &token, call.clone());
    assert_eq!(env.take().len(), 1);
    env.link_down();
    env.take();
    env.call(1, &token, call);
    assert_eq!(env.take(), []);
}

#[test]
fn a_removed_framework_shuts_its_executors_down() {
    let mut env = TestEnv::new();
    let (container, _) = subscribed(&mut env);
    env.master(master_message::Message::ShutdownFramework(mezz::ShutdownFramework {
        framework_id: v1::FrameworkId { value: "F".into() },
    }));
    assert_eq!(env.event_types(1), ["SHUTDOWN"]);
    env.ended(&container, 0);
    assert!(env.updates().is_empty());
    assert_eq!(terminated(&mut env), None);
    assert!(env.store.frameworks.is_empty() && env.store.tasks.is_empty());
}

#[test]
fn the_environment_is_that_of_mesos() {
    let options = CoreOptions {
        api_address: "10.0.0.5:5051".into(),
        executor_ip: Some([10, 0, 0, 5].into()),
        ..options()
    };
    let start = |checkpoint: bool, container: Option<v1::ContainerInfo>| {
        let mut env = TestEnv::unlinked(options.clone());
        env.register();
        let mut task = executor_task("a");
        let executor = task.executor.as_mut().unwrap();
        executor.container = container;
        let framework = v1::FrameworkInfo { checkpoint: Some(checkpoint), ..framework("F", &[]) };
        env.run_for(framework, vec![task], None);
        env.launches().remove(0)
    };
    let spec = start(true, None);
    let sandbox = spec.sandbox.display().to_string();
    for (name, value) in [
        ("LIBPROCESS_IP", "10.0.0.5"),
        ("LIBPROCESS_PORT", "0"),
        ("MESOS_AGENT_ENDPOINT", "10.0.0.5:5051"),
        ("MESOS_AGENT_ID", AGENT),
        ("MESOS_ALLOCATION_ROLE", "role"),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_DIRECTORY", &*sandbox),
        ("MESOS_EXECUTOR_ID", "E"),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5secs"),
        ("MESOS_FRAMEWORK_ID", "F"),
        ("MESOS_HTTP_COMMAND_EXECUTOR", "0"),
        ("MESOS_RECOVERY_TIMEOUT", "15mins"),
        ("MESOS_SANDBOX", &*sandbox),
        ("MESOS_SLAVE_ID", AGENT),
        ("MESOS_SLAVE_PID", "slave(1)@10.0.0.5:5051"),
        ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
    ] {
        assert_eq!(spec.environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    let environment = start(false, None).environment;
    assert_eq!(environment["MESOS_CHECKPOINT"], "0");
    for absent in ["MESOS_RECOVERY_TIMEOUT", "MESOS_SUBSCRIPTION_BACKOFF_MAX", "MESOS_TASK_ID"] {
        assert!(!environment.contains_key(absent), "{absent}");
    }
    // It has other addresses than its machine.
    let elsewhere = v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        network_infos: vec![v1::NetworkInfo::default()],
        ..Default::default()
    };
    assert!(!start(false, Some(elsewhere)).environment.contains_key("LIBPROCESS_IP"));
}
