//! What goes out when, and how much at most.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message},
    v1::{
        self, TaskState,
        scheduler::{Call, call},
    },
};

use prost::Message as _;

use super::env::{Env, SchedulerEvent, command_task, executor, executor_task, launch};
use crate::core::{Change, Effect, Effects, Event, OperatorCommand, RequestId};

fn operator(env: &mut Env, command: OperatorCommand) -> Effects {
    let mut out = Effects::default();
    let event = Event::Operator { request: RequestId(1), command };
    env.core.handle(env.now, event, &mut out);
    out
}

/// What is confirmed has been written.
#[test]
fn confirmations_wait_for_the_registry() {
    let mut env = Env::new();
    env.framework("f1", "ads").framework("f2", "web");
    let weights = vec![mezz::RoleWeight { role: "ads".to_owned(), weight: 2.0 }];
    let request = mezz::UpdateWeightsRequest { weights };
    let out = operator(&mut env, OperatorCommand::UpdateWeights(request));
    assert!(!out.persist.is_empty());
    assert!(matches!(out.after_persist[..], [Effect::Reply { reply: Ok(_), .. }]), "{out:?}");

    let request = mezz::TeardownRequest { framework_id: env.framework_id("f1") };
    let out = operator(&mut env, OperatorCommand::Teardown(request));
    let [
        Effect::SendScheduler { event, .. },
        Effect::CloseScheduler { error: None, .. },
        Effect::Reply { reply: Ok(_), .. },
    ] = &out.after_persist[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!(event.r#type(), SchedulerEvent::Error);
    assert!(out.now.iter().all(|e| matches!(e, Effect::Change(_))), "{out:?}");

    let call = Call { r#type: Some(call::Type::Teardown as i32), ..Default::default() };
    let connection = env.frameworks["f2"].connection.unwrap();
    let mut out = Effects::default();
    env.core.handle(env.now, Event::SchedulerCall { connection, call: Box::new(call) }, &mut out);
    assert!(matches!(out.after_persist[..], [Effect::CloseScheduler { .. }]), "{out:?}");

    // Nothing is written, so nothing is waited for.
    let out = operator(&mut env, OperatorCommand::ListRoles);
    assert!(matches!(out.now[..], [Effect::Reply { .. }]), "{out:?}");
}

#[test]
fn many_agents_are_lost_bit_by_bit() {
    let mut env = Env::with(|options| options.agent_removal_rate_limit = None);
    env.framework("f1", "ads");
    for i in 0..100 {
        env.agent(&format!("a{i}"), "cpus:1;mem:64");
    }
    env.settle();
    for i in 0..100 {
        env.agent_link_breaks(&format!("a{i}"));
    }
    env.now = env.now + Duration::from_secs(600);
    let mut lost = Vec::new();
    while env.core.next_deadline().is_some_and(|at| at <= env.now) {
        let before = env.core.counters().agents_unreachable;
        let mut out = Effects::default();
        env.core.on_deadline(env.now, &mut out);
        env.core.check_invariants().unwrap();
        let failures = out.now.iter().filter(|e| {
            matches!(e, Effect::SendScheduler { event, .. } if event.r#type() == SchedulerEvent::Failure)
        });
        let now_lost = env.core.counters().agents_unreachable - before;
        assert_eq!(failures.count() as u64, now_lost);
        lost.extend((now_lost > 0).then_some(now_lost));
    }
    assert_eq!(lost, [64, 36]);
}

/// Only the master says of a task that it is unreachable or unknown.
#[test]
fn agents_may_not_report_the_masters_states() {
    use TaskState::{TaskRunning, TaskUnknown, TaskUnreachable};
    let cases = [
        (TaskUnreachable, TaskUnreachable),
        (TaskRunning, TaskUnreachable),
        (TaskUnknown, TaskRunning),
    ];
    for (state, latest) in cases {
        let mut env = Env::new();
        env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
        env.running("f1", "a1", "t1", "cpus:1;mem:64");
        env.report_late("a1", "f1", "t1", state, latest);
        assert!(env.agents["a1"].connection.is_none(), "{state:?} {latest:?}");
        assert!(env.updates("f1").is_empty());
    }
}

/// Rule 15: a takeover is no different from leaving and coming back.
#[test]
fn a_takeover_drops_filters() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let offer = env.offer("f1");
    env.decline("f1", &[offer], Some(1000.0));
    env.pass(Duration::from_secs(60));
    assert!(env.offers("f1").is_empty());
    env.subscribe("f1");
    env.offer("f1");
}

#[test]
fn long_messages_are_forwarded_whole_and_kept_in_part() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    // A cut after 4096 bytes would fall into the middle of a letter.
    let message = format!("x{}", "é".repeat(5000));
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: "t1".to_owned() },
        state: TaskState::TaskRunning as i32,
        message: Some(message.clone()),
        uuid: Some(vec![7; 16]),
        ..Default::default()
    };
    let latest_state = status.state;
    let framework_id = v1::FrameworkId { value: env.framework_id("f1") };
    let update = mezz::StatusUpdate { framework_id, status, latest_state };
    env.agent_says("a1", agent_message::Message::StatusUpdate(update));
    assert_eq!(env.update("f1").message(), message);
    let kept = env.changes.iter().rev().find_map(|c| match c {
        Change::Task(t) => t.decode().statuses.last().map(|s| s.message().len()),
        _ => None,
    });
    assert_eq!(kept, Some(4095));
}

#[test]
fn tasks_that_would_take_much_memory_are_refused() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let offer = env.offer("f1");
    let label = v1::Label { key: "k".to_owned(), value: Some("x".repeat(70_000)) };
    let labels = Some(v1::Labels { labels: vec![label] });
    let task = v1::TaskInfo { labels, ..command_task("t1", &offer, "cpus:1;mem:64") };
    env.launch("f1", &offer, vec![task]);
    let update = env.update("f1");
    assert_eq!(update.state(), TaskState::TaskError);
    assert!(update.message().starts_with("labels: "), "{}", update.message());
    assert!(env.live_tasks().is_empty());
}

/// The master keeps executors for comparison.
#[test]
fn executors_that_would_take_much_memory_are_refused() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let with_data = |id: &str, bytes: usize| v1::ExecutorInfo {
        data: Some(vec![0; bytes]),
        ..executor(id, "cpus:1;mem:64")
    };
    let offer = env.offer("f1");
    let tasks = [("t1", 1_000_000), ("t2", 1_100_000)];
    let tasks =
        tasks.map(|(id, data)| executor_task(id, &offer, "cpus:1;mem:64", &with_data(id, data)));
    env.launch("f1", &offer, tasks.into());
    let update = env.update("f1");
    assert_eq!((update.task_id.value.as_str(), update.state()), ("t2", TaskState::TaskError));
    assert!(update.message().starts_with("executor: takes 11"), "{}", update.message());
    assert!(update.message().contains("1048576"), "{}", update.message());
    assert_eq!(env.live_tasks().len(), 1);
}

#[test]
fn long_container_statuses_are_forwarded_and_not_kept() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    for (n, name, kept) in [(1, "eth0".to_owned(), true), (2, "x".repeat(5000), false)] {
        let network = v1::NetworkInfo { name: Some(name), ..Default::default() };
        let container = v1::ContainerStatus { network_infos: vec![network], ..Default::default() };
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: "t1".to_owned() },
            state: TaskState::TaskRunning as i32,
            container_status: Some(container.clone()),
            uuid: Some(vec![n; 16]),
            ..Default::default()
        };
        let latest_state = status.state;
        let framework_id = v1::FrameworkId { value: env.framework_id("f1") };
        let update = mezz::StatusUpdate { framework_id, status, latest_state };
        env.agent_says("a1", agent_message::Message::StatusUpdate(update));
        assert_eq!(env.update("f1").container_status, Some(container.clone()));
        env.reconcile("f1", &[("t1", None)]);
        assert_eq!(env.update("f1").container_status, kept.then_some(container));
    }
}

/// What the core makes of an ACCEPT, in bytes.
fn made_of(env: &mut Env, accept: call::Accept) -> (Effects, usize) {
    let call = Call {
        r#type: Some(call::Type::Accept as i32),
        accept: Some(accept),
        ..Default::default()
    };
    let connection = env.frameworks["f1"].connection.unwrap();
    let mut out = Effects::default();
    env.core.handle(env.now, Event::SchedulerCall { connection, call: Box::new(call) }, &mut out);
    env.core.check_invariants().unwrap();
    let bytes = out.now.iter().map(|effect| match effect {
        Effect::SendScheduler { event, .. } => event.encoded_len(),
        Effect::SendAgent { message, .. } => message.encoded_len(),
        _ => 0,
    });
    let bytes = bytes.sum();
    (out, bytes)
}

fn group(mut executor: v1::ExecutorInfo, tasks: Vec<v1::TaskInfo>) -> v1::offer::Operation {
    executor.r#type = Some(v1::executor_info::Type::Custom as i32);
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::LaunchGroup as i32),
        launch_group: Some(Box::new(v1::offer::operation::LaunchGroup {
            executor,
            task_group: v1::TaskGroupInfo { tasks },
        })),
        ..Default::default()
    }
}

/// A thousand answers do not repeat a long text of the call a thousand times.
#[test]
fn a_refused_accept_makes_no_more_than_it_is() {
    const LONG: usize = 200_000;
    let long = || "x".repeat(LONG);
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let mut offer = env.offer("f1");
    let first = offer.clone();
    let task = |i: usize| command_task(&format!("t{i}"), &first, "cpus:0.01;mem:1");
    let tasks = || (0..1000).map(task).collect::<Vec<_>>();
    let accept = |id: &v1::OfferId, operation| call::Accept {
        offer_ids: vec![id.clone()],
        operations: vec![operation],
        filters: Some(v1::Filters { refuse_seconds: Some(0.0) }),
    };
    let unknown = v1::OfferId { value: long() };
    let (out, bytes) = made_of(&mut env, accept(&unknown, launch(tasks())));
    assert!(out.now.len() >= 1000 && bytes < 2_000_000, "{bytes}");

    // The text is of one task, and told of all.
    let bad: [fn(&mut v1::TaskInfo, String); 4] = [
        |task, long| task.task_id.value = long,
        |task, long| task.agent_id.value = long,
        |task, long| task.resources[0].name = long,
        |task, long| {
            let id = v1::ExecutorId { value: long };
            task.executor = Some(v1::ExecutorInfo { executor_id: id, ..Default::default() });
        },
    ];
    for spoil in bad {
        let mut tasks = tasks();
        spoil(&mut tasks[500], long());
        let operation = group(executor("e1", "cpus:0.1;mem:32;disk:1"), tasks);
        let (out, bytes) = made_of(&mut env, accept(&offer.id, operation));
        let told = out.now.iter().filter(|e| matches!(e, Effect::SendScheduler { .. })).count();
        // Its own id comes back with it.
        assert!(told >= 1000 && bytes < 2_000_000 + 2 * LONG, "{told} {bytes}");
        let offers = out.now.iter().find_map(|effect| match effect {
            Effect::SendScheduler { event, .. } => event.offers.as_ref()?.offers.first(),
            _ => None,
        });
        offer = offers.cloned().unwrap_or_else(|| env.offer("f1"));
    }
}

/// The framework's description goes to the agent once, not with each task.
#[test]
fn many_tasks_of_a_framework_with_many_roles_fit_into_the_agents_outbox() {
    let mut env = Env::new();
    env.agent("a1", "cpus:100;mem:102400");
    let roles: Vec<String> = (0..700).map(|i| format!("department-{i:04}/some-team")).collect();
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    env.describe_framework("f1", &roles);
    env.subscribe("f1");
    let offer = env.offer("f1");
    let task = |i: usize| command_task(&format!("t{i}"), &offer, "cpus:0.01;mem:1");
    let accept = call::Accept {
        offer_ids: vec![offer.id.clone()],
        operations: vec![launch((0..1000).map(task).collect())],
        filters: None,
    };
    let (out, bytes) = made_of(&mut env, accept);
    assert!(bytes < 1_000_000, "{bytes}");
    let told = out.now.iter().filter_map(|effect| match effect {
        Effect::SendAgent { message, .. } => message.message.as_ref(),
        _ => None,
    });
    let mut ids = Vec::new();
    for message in told {
        let mezz::master_message::Message::RunTasks(run) = message else { panic!("{message:?}") };
        assert_eq!((run.framework.roles.len(), run.group_executor.as_ref()), (700, None));
        ids.extend(run.tasks.iter().map(|task| task.task_id.value.clone()));
    }
    assert_eq!(ids, (0..1000).map(|i| format!("t{i}")).collect::<Vec<_>>());
}

/// Messages to agents do not get longer than they take.
#[test]
fn many_large_tasks_go_in_several_messages() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024;disk:100").framework("f1", "ads");
    let offer = env.offer("f1");
    let task = |i: usize| v1::TaskInfo {
        data: Some(vec![0; 300_000]),
        ..command_task(&format!("t{i}"), &offer, "cpus:0.1;mem:1")
    };
    let pod = |i: usize| command_task(&format!("p{i}"), &offer, "cpus:0.1;mem:1");
    let accept = call::Accept {
        offer_ids: vec![offer.id.clone()],
        operations: vec![
            launch((0..8).map(task).collect()),
            group(executor("e1", "cpus:0.1;mem:32;disk:1"), (0..2).map(pod).collect()),
            launch(vec![task(8)]),
        ],
        filters: None,
    };
    let (out, _) = made_of(&mut env, accept);
    let runs = out.now.iter().filter_map(|effect| match effect {
        Effect::SendAgent { message, .. } => match &message.message {
            Some(mezz::master_message::Message::RunTasks(run)) => {
                let ids: Vec<_> = run.tasks.iter().map(|t| t.task_id.value.as_str()).collect();
                Some((ids.join(" "), run.group_executor.is_some()))
            }
            other => panic!("{other:?}"),
        },
        _ => None,
    });
    let runs: Vec<_> = runs.collect();
    let expected = [
        ("t0 t1 t2", false),
        ("t3 t4 t5", false),
        ("t6 t7", false),
        ("p0 p1", true),
        ("t8", false),
    ];
    assert_eq!(runs, expected.map(|(ids, group)| (ids.to_owned(), group)));
}

/// Roles that are named again and again are the same roles.
#[test]
fn a_role_may_be_named_often() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024");
    let roles: Vec<String> = (0..1000).map(|i| format!("r{i}")).collect();
    let named: Vec<&str> = roles.iter().map(String::as_str).collect();
    env.describe_framework("f1", &named);
    env.subscribe("f1");
    env.offer("f1");
    let often: Vec<String> = (0..500_000).map(|i| format!("r{}", i % 999)).collect();
    let suppress = call::Suppress { roles: often.clone() };
    env.call("f1", call::Type::Suppress, |call| call.suppress = Some(suppress));
    let suppressed = |env: &Env| {
        env.changes.iter().rev().find_map(|change| match change {
            Change::Framework(state) => Some(state.suppressed_roles.len()),
            _ => None,
        })
    };
    assert_eq!(suppressed(&env), Some(999));
    let revive = call::Revive { roles: often };
    env.call("f1", call::Type::Revive, |call| call.revive = Some(revive));
    assert_eq!(suppressed(&env), Some(0));
}
