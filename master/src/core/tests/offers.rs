//! Offers and what becomes of them.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::master_message::Message,
    v1::{
        self, TaskState,
        offer::{Operation, operation},
        task_status::Reason,
    },
};

use super::env::{Env, SchedulerEvent, command_task, executor, launch, text};
use crate::core::CallError;

fn with_offer() -> (Env, v1::Offer) {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024;ports:[31000-31009]").framework("f1", "ads");
    let offer = env.offer("f1");
    env.agent_inbox("a1");
    env.inbox("f1");
    (env, offer)
}

#[test]
fn accept_launches_and_offers_the_rest_again() {
    let (mut env, offer) = with_offer();
    env.launch("f1", &offer, vec![command_task("t1", &offer, "cpus:1;mem:24;ports:[31003-31003]")]);
    let told = env.agent_inbox("a1");
    let [Message::RunTasks(run)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(run.framework.id.as_ref().unwrap().value, "m1-0000");
    let allocated = &run.tasks[0].resources[0].allocation_info;
    assert_eq!(allocated.as_ref().unwrap().role.as_deref(), Some("ads"));
    let rest = env.offer("f1");
    assert_eq!(text(&rest.resources), "cpus:3; mem:1000; ports:[31000-31002, 31004-31009]");
}

/// Scenario 35: several offers of one agent in one ACCEPT.
#[test]
fn offers_of_one_agent_are_used_together() {
    let (mut env, offer) = with_offer();
    env.launch("f1", &offer, vec![command_task("t1", &offer, "cpus:1;mem:24")]);
    let first = env.offer("f1");
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    let second = env.offer("f1");
    let task = command_task("t2", &first, "cpus:4;mem:1024");
    env.accept("f1", &[&first, &second], vec![launch(vec![task])]);
    assert!(env.agent_inbox("a1").iter().any(|m| matches!(m, Message::RunTasks(_))));
    assert!(env.updates("f1").iter().all(|u| u.state() != TaskState::TaskError));
}

/// Rule 23.
#[test]
fn offers_that_do_not_hold_drop_the_tasks_and_the_other_offers() {
    let (mut env, offer) = with_offer();
    env.agent("a2", "cpus:1;mem:100");
    let other = env.offer("f1");
    env.inbox("f1");
    let task = command_task("t1", &offer, "cpus:1;mem:24");
    env.accept("f1", &[&offer, &other], vec![launch(vec![task.clone()])]);
    let update = env.update("f1");
    assert_eq!(update.state(), TaskState::TaskDropped);
    assert_eq!(update.reason(), Reason::InvalidOffers);
    assert!(update.message().contains("different agents"), "{}", update.message());
    // Both are gone, and come again without a filter.
    assert_eq!(env.offers("f1").len(), 2);
    env.launch("f1", &offer, vec![task]);
    assert_eq!(env.update("f1").reason(), Reason::InvalidOffers);
    assert!(env.agent_inbox("a1").is_empty());
}

#[test]
fn offers_of_others_can_neither_be_used_nor_declined() {
    let (mut env, offer) = with_offer();
    env.framework("f2", "web");
    env.decline("f2", std::slice::from_ref(&offer), None);
    env.launch("f2", &offer, vec![command_task("t1", &offer, "cpus:1;mem:24")]);
    assert_eq!(env.update("f2").reason(), Reason::InvalidOffers);
    env.launch("f1", &offer, vec![command_task("t1", &offer, "cpus:1;mem:24")]);
    assert_eq!(env.live_tasks().len(), 1);
}

/// Rules 27 and 28: each bad task is refused by itself, with the field named.
#[test]
fn bad_tasks_are_refused_and_the_others_start() {
    type Damage = fn(&mut v1::TaskInfo);
    let cases: [(&str, Damage); 11] = [
        ("task_id", |t| t.task_id.value = "a/b".to_owned()),
        ("task_id", |t| t.task_id.value = "good".to_owned()),
        ("agent_id", |t| t.agent_id.value = "other".to_owned()),
        ("command, executor", |t| t.command = None),
        ("command, executor", |t| t.executor = Some(executor("e", "cpus:0.1;mem:32"))),
        ("resources", |t| t.resources.clear()),
        ("resources: asks for cpus:9", |t| t.resources = super::env::wire("cpus:9;mem:1")),
        ("resources: gpus", |t| t.resources = super::env::wire("cpus:0.1;gpus:0.5")),
        ("limits", |t| {
            t.limits.insert("disk".to_owned(), v1::value::Scalar { value: 1.0 });
        }),
        ("limits: cpus", |t| {
            t.limits.insert("cpus".to_owned(), v1::value::Scalar { value: 0.01 });
        }),
        ("kill_policy.grace_period", |t| {
            let grace_period = Some(v1::DurationInfo { nanoseconds: -1 });
            t.kill_policy = Some(v1::KillPolicy { grace_period });
        }),
    ];
    for (field, damage) in cases {
        let (mut env, offer) = with_offer();
        let mut bad = command_task("bad", &offer, "cpus:0.5;mem:10");
        damage(&mut bad);
        env.launch("f1", &offer, vec![command_task("good", &offer, "cpus:1;mem:10"), bad]);
        let update = env.update("f1");
        assert_eq!(update.state(), TaskState::TaskError);
        assert_eq!(update.reason(), Reason::TaskInvalid);
        assert!(update.message().starts_with(field), "{field}: {}", update.message());
        assert_eq!(env.live_tasks().len(), 1, "{field}");
    }
}

#[test]
fn there_is_a_limit_on_tasks() {
    let (mut env, offer) = with_offer();
    env.options.max_tasks = 1;
    env.core.options.max_tasks = 1;
    let tasks = ["t1", "t2"].map(|id| command_task(id, &offer, "cpus:1;mem:10"));
    env.launch("f1", &offer, tasks.into());
    assert!(env.update("f1").message().contains("max_tasks"));
}

fn group(offer: &v1::Offer, own: v1::ExecutorInfo, sizes: &[&str]) -> Operation {
    let tasks = sizes
        .iter()
        .enumerate()
        .map(|(i, size)| command_task(&format!("g{i}"), offer, size))
        .collect();
    Operation {
        r#type: Some(operation::Type::LaunchGroup as i32),
        launch_group: Some(Box::new(operation::LaunchGroup {
            executor: own,
            task_group: v1::TaskGroupInfo { tasks },
        })),
        ..Default::default()
    }
}

fn default_executor(resources: &str) -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Default as i32),
        command: None,
        ..executor("e1", resources)
    }
}

#[test]
fn a_group_starts_as_a_whole_or_not_at_all() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024;disk:100").framework("f1", "ads");
    let offer = env.offer("f1");
    let own = default_executor("cpus:0.1;mem:32;disk:10");
    env.accept(
        "f1",
        &[&offer],
        vec![group(&offer, own.clone(), &["cpus:1;mem:1", "cpus:9;mem:1"])],
    );
    let updates = env.updates("f1");
    assert_eq!(updates.len(), 2);
    assert!(
        updates
            .iter()
            .all(|u| u.reason() == Reason::TaskGroupInvalid && u.state() == TaskState::TaskError)
    );
    assert!(env.live_tasks().is_empty());

    let offer = env.offer("f1");
    let small = default_executor("cpus:0.1;mem:8;disk:10");
    env.accept("f1", &[&offer], vec![group(&offer, small, &["cpus:1;mem:1"])]);
    assert!(env.update("f1").message().contains("at least 32"));

    let offer = env.offer("f1");
    env.agent_inbox("a1");
    env.accept("f1", &[&offer], vec![group(&offer, own, &["cpus:1;mem:1", "cpus:2;mem:1"])]);
    let told = env.agent_inbox("a1");
    let [Message::RunTasks(run)] = &told[..] else { panic!("{told:?}") };
    assert!(run.tasks.len() == 2 && run.group_executor.is_some());
    assert_eq!(text(&env.offer("f1").resources), "cpus:0.9; disk:90; mem:990");
}

/// Rule 23; scenario 40 for what we do not support.
#[test]
fn other_operations_are_refused_and_change_nothing() {
    let (mut env, offer) = with_offer();
    let reserve = |id: Option<&str>| Operation {
        r#type: Some(operation::Type::Reserve as i32),
        id: id.map(|id| v1::OperationId { value: id.to_owned() }),
        reserve: Some(operation::Reserve::default()),
        ..Default::default()
    };
    env.accept("f1", &[&offer], vec![reserve(None), reserve(Some("op"))]);
    env.settle();
    let statuses: Vec<_> = env.frameworks["f1"]
        .inbox
        .iter()
        .filter_map(|e| e.update_operation_status.clone())
        .collect();
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].status.state(), v1::OperationState::OperationError);
    let again = env.offer("f1");
    assert_eq!(again.resources, offer.resources);
    // Rule 26.
    let offer = again;
    let mut bad = launch(vec![command_task("t", &offer, "cpus:1")]);
    bad.id = Some(v1::OperationId { value: "x".to_owned() });
    env.accept("f1", &[&offer], vec![bad]);
    let status = env.update("f1");
    assert_eq!((status.state(), status.reason()), (v1::TaskState::TaskError, Reason::TaskInvalid));
    assert!(status.message().contains("`id`"), "{status:?}");
    let empty = Operation { launch: None, ..launch(vec![]) };
    env.accept("f1", &[&offer], vec![empty]);
    let closed = env.frameworks["f1"].closed.clone().unwrap().unwrap();
    assert!(
        matches!(closed, CallError::Invalid(t) if t.starts_with("accept.operations[0].launch"))
    );
}

/// Rule 30.
#[test]
fn a_declined_offer_comes_again_when_its_filter_ends() {
    let (mut env, offer) = with_offer();
    env.decline("f1", &[offer], Some(10.0));
    env.pass(Duration::from_secs(9));
    assert!(env.offers("f1").is_empty());
    env.pass(Duration::from_secs(2));
    let offer = env.offer("f1");
    // Others get it at once, with no tick in between.
    env.framework("f2", "web");
    env.decline("f1", &[offer], None);
    env.offer("f2");
}

/// Scenario 37.
#[test]
fn unused_offers_are_rescinded_after_the_timeout() {
    let mut env = Env::with(|o| o.offer_timeout = Some(Duration::from_secs(30)));
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.offer("f1");
    env.inbox("f1");
    env.pass(Duration::from_secs(31));
    let types = env.event_types("f1");
    let seen: Vec<_> = types.into_iter().filter(|t| *t != SchedulerEvent::Heartbeat).collect();
    assert_eq!(seen, [SchedulerEvent::Rescind, SchedulerEvent::Offers]);
    assert_eq!(env.core.counters().offers_expired, 1);
}

#[test]
fn one_allocation_answers_a_burst_of_changes() {
    let mut env = Env::new();
    env.framework("f1", "ads").agent("a0", "cpus:1;mem:100");
    let before = env.core.counters().allocations;
    for i in 1..10 {
        env.agent(&format!("a{i}"), "cpus:1;mem:100");
    }
    assert_eq!(env.offers("f1").len(), 10);
    assert!(env.core.counters().allocations - before <= 2);
}

/// Rule 21.
#[test]
fn without_multi_role_there_is_no_allocation_info() {
    let mut env = Env::new();
    env.agent("a1", "cpus:1;mem:100");
    env.describe_framework("f1", &[]);
    let info = &mut env.frameworks.get_mut("f1").unwrap().info;
    info.capabilities.clear();
    env.subscribe("f1");
    let offer = env.offer("f1");
    assert!(offer.allocation_info.is_none() && offer.resources[0].allocation_info.is_none());
    #[allow(deprecated)]
    let role = offer.resources[0].role.as_deref();
    assert_eq!(role, Some("*"));
}
