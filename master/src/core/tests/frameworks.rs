//! Frameworks' coming and going, and their calls.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message, framework_state::Status, master_message::Message},
    v1::{
        self, TaskState,
        scheduler::{self, call},
    },
};

use super::env::{Env, SchedulerEvent, command_task};
use crate::{
    core::{CallError, Change, ConnectionId, Effect, Effects, Event},
    registry::RegistryOp,
};

fn error_text(env: &mut Env, name: &str) -> String {
    let events = env.inbox(name);
    let errors: Vec<_> = events.iter().filter_map(|e| e.error.as_ref()).collect();
    assert_eq!(errors.len(), 1, "{events:?}");
    errors[0].message.clone()
}

/// Rules 11 and 12; scenario 28.
#[test]
fn subscribed_comes_first_then_a_heartbeat_then_offers() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let events = env.inbox("f1");
    let types: Vec<_> = events.iter().map(|e| e.r#type()).collect();
    assert_eq!(types[..2], [SchedulerEvent::Subscribed, SchedulerEvent::Heartbeat], "{types:?}");
    let subscribed = events[0].subscribed.as_ref().unwrap();
    assert_eq!(subscribed.framework_id.value, "m1-0000");
    assert_eq!(subscribed.heartbeat_interval_seconds, Some(15.0));
    let master = subscribed.master_info.as_ref().unwrap();
    assert_eq!((master.id.as_str(), master.port), ("m1", 5050));
    assert_eq!(env.registry.frameworks.len(), 1);
}

#[test]
fn heartbeats_come_at_the_interval() {
    let mut env = Env::new();
    env.framework("f1", "ads");
    env.inbox("f1");
    env.pass(Duration::from_secs(46));
    assert_eq!(env.event_types("f1"), [SchedulerEvent::Heartbeat; 3]);
}

/// Scenario 31, rule 14.
#[test]
fn a_second_connection_takes_over() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.offer("f1");
    let old = env.frameworks["f1"].clone();
    env.frameworks.insert("old".to_owned(), old);
    let side = env.frameworks.get_mut("f1").unwrap();
    side.connection = None;
    side.inbox.clear();
    env.subscribe("f1");
    assert_eq!(error_text(&mut env, "old"), "Framework failed over");
    assert_eq!(env.frameworks["old"].closed, Some(None));
    assert_eq!(env.framework_id("f1"), "m1-0000");
    // The old offer is gone without a RESCIND, and the resources come again.
    env.offer("f1");
}

/// Scenario 32, rule 15: a timeout of 0 ends the framework with its connection.
#[test]
fn without_failover_timeout_a_framework_ends_with_its_connection() {
    let mut env = Env::new();
    env.describe_framework("f1", &["ads"]);
    env.frameworks.get_mut("f1").unwrap().info.failover_timeout = None;
    env.subscribe("f1");
    env.framework_leaves("f1");
    env.subscribe("f1");
    assert_eq!(error_text(&mut env, "f1"), "Framework has been removed");
    assert_eq!(env.frameworks["f1"].closed, Some(None));
    assert!(env.registry.frameworks[0].completed_time.is_some());
}

#[test]
fn a_framework_comes_back_within_its_timeout_or_not_at_all() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.framework_leaves("f1");
    assert!(env.registry.frameworks[0].failover_deadline.is_some());
    env.pass(Duration::from_secs(3500));
    env.subscribe("f1");
    assert!(env.registry.frameworks[0].failover_deadline.is_none());
    assert_eq!(env.live_tasks().len(), 1);
    env.framework_leaves("f1");
    env.agent_inbox("a1");
    env.pass(Duration::from_secs(3601));
    assert!(env.live_tasks().is_empty());
    let told = env.agent_inbox("a1");
    assert!(matches!(told[..], [Message::ShutdownFramework(_)]), "{told:?}");
}

/// A deadline in the registry is by the clock of another machine.
#[test]
fn a_former_leaders_deadline_leaves_time_to_return_and_no_more_than_was_agreed() {
    // What the registry says of the deadline, in seconds from now, and when it is over.
    for (deadline, until) in [(-5_000.0, 30), (5.0, 30), (700.0, 700), (1e6, 3_600)] {
        let mut env = Env::new();
        env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
        env.framework_leaves("f1");
        let now = env.now.as_nanos() as i64;
        let at = v1::TimeInfo { nanoseconds: now + (deadline * 1e9) as i64 };
        env.registry.frameworks[0].failover_deadline = Some(at);
        env.restart_master();
        env.pass(Duration::from_secs(until - 1));
        assert!(env.registry.frameworks[0].completed_time.is_none(), "{deadline}");
        env.pass(Duration::from_secs(2));
        assert!(env.registry.frameworks[0].completed_time.is_some(), "{deadline}");
    }
}

/// The next leader might not know of it.
#[test]
fn agents_hear_of_a_removal_when_it_is_written() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let connection = env.frameworks["f1"].connection.unwrap();
    let call = scheduler::Call {
        framework_id: Some(v1::FrameworkId { value: env.framework_id("f1") }),
        r#type: Some(call::Type::Teardown as i32),
        ..Default::default()
    };
    let mut out = Effects::default();
    let event = Event::SchedulerCall { connection, call: Box::new(call) };
    env.core.handle(env.now, event, &mut out);
    let told = |effects: &[Effect]| {
        effects.iter().filter(|effect| !matches!(effect, Effect::Change(_))).count()
    };
    // The agent, and the end of the framework's connection.
    assert_eq!((told(&out.now), told(&out.after_persist)), (0, 2), "{out:?}");
    assert!(matches!(out.persist[..], [RegistryOp::PutFramework(_)]));

    // An agent that comes back with its tasks, and the framework itself, before that is
    // known to be written.
    let again = |env: &mut Env, event: Event| {
        let mut out = Effects::default();
        env.core.handle(env.now, event, &mut out);
        assert_eq!(told(&out.now), 0, "{out:?}");
        assert!(told(&out.after_persist) >= 2, "{out:?}");
        // However often a framework tries, it costs no write.
        assert!(out.persist.is_empty() && out.waits, "{out:?}");
    };
    let agent = &env.agents["a1"];
    let message = agent_message::Message::Reregister(mezz::Reregister {
        description: env.description("a1"),
        tasks: agent.tasks.values().cloned().collect(),
        frameworks: agent.frameworks.values().cloned().collect(),
        ..Default::default()
    });
    let connection = agent.connection.unwrap();
    env.core.handle(env.now, Event::AgentDisconnected { connection }, &mut Effects::default());
    let message = Box::new(mezz::AgentMessage { message: Some(message) });
    again(&mut env, Event::AgentMessage { connection: ConnectionId(98), message });
    let framework_id = Some(v1::FrameworkId { value: env.framework_id("f1") });
    let framework_info =
        v1::FrameworkInfo { id: framework_id.clone(), ..env.frameworks["f1"].info.clone() };
    let call = scheduler::Call {
        framework_id,
        r#type: Some(call::Type::Subscribe as i32),
        subscribe: Some(call::Subscribe { framework_info, ..Default::default() }),
        ..Default::default()
    };
    let call = Box::new(call);
    again(&mut env, Event::SchedulerCall { connection: ConnectionId(99), call });
}

/// Rule 16.
#[test]
fn teardown_kills_tasks_without_updates_and_burns_the_id() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.inbox("f1");
    env.agent_inbox("a1");
    env.call("f1", call::Type::Teardown, |_| {});
    assert!(env.updates("f1").is_empty());
    assert_eq!(env.frameworks["f1"].closed, Some(None));
    assert!(matches!(env.agent_inbox("a1")[..], [Message::ShutdownFramework(_)]));
    let killed = env.changes.iter().any(|c| {
        matches!(c, Change::Task(t) if t.state == TaskState::TaskKilled
            && t.decode().statuses.last().unwrap().reason() == v1::task_status::Reason::FrameworkRemoved)
    });
    assert!(killed);
    let completed = env
        .changes
        .iter()
        .any(|c| matches!(c, Change::Framework(f) if f.status() == Status::Completed));
    assert!(completed);
    env.subscribe("f1");
    assert_eq!(error_text(&mut env, "f1"), "Framework has been removed");
    // What it held is offered to others.
    env.framework("f2", "web");
    assert_eq!(super::env::text(&env.offer("f2").resources), "cpus:4; mem:1024");
}

#[test]
fn an_agent_that_was_away_ends_the_tasks_of_a_framework_torn_down_meanwhile() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.agent_link_breaks("a1");
    env.call("f1", call::Type::Teardown, |_| {});
    env.agent_inbox("a1");
    env.reregister("a1");
    let inbox = env.agent_inbox("a1");
    let Message::Registered(registered) = &inbox[0] else { panic!("{inbox:?}") };
    assert_eq!(registered.completed_frameworks.len(), 1);
    assert!(matches!(inbox[1..], [Message::ShutdownFramework(_)]), "{inbox:?}");
    assert!(env.live_tasks().is_empty());
}

#[test]
fn only_so_many_completed_frameworks_are_remembered() {
    let mut env = Env::with(|o| o.max_completed_frameworks = 1);
    for name in ["f1", "f2"] {
        env.framework(name, "ads");
        env.call(name, call::Type::Teardown, |_| {});
    }
    assert_eq!(env.registry.frameworks.len(), 1);
    assert!(
        env.changes
            .iter()
            .any(|c| matches!(c, Change::FrameworkRemoved(id) if id.as_str() == "m1-0000"))
    );
}

/// Rules 6, 7, 17, 18: answered with ERROR and the end of the stream.
#[test]
#[allow(deprecated)]
fn bad_infos_are_refused_with_the_field_named() {
    type Damage = fn(&mut super::env::FrameworkSide);
    let cases: [(&str, Damage); 8] = [
        ("'FrameworkInfo.roles'", |f| f.info.roles = vec!["a b".to_owned()]),
        ("'FrameworkInfo.roles'", |f| f.info.roles = vec!["a".to_owned(), "a".to_owned()]),
        ("'FrameworkInfo.roles'", |f| f.info.capabilities.clear()),
        ("'FrameworkInfo.role'", |f| f.info.role = Some("a".to_owned())),
        ("suppressed_roles", |f| f.suppressed = vec!["other".to_owned()]),
        ("framework_info.failover_timeout", |f| f.info.failover_timeout = Some(1e30)),
        ("framework_info.failover_timeout", |f| f.info.failover_timeout = Some(f64::NAN)),
        ("framework_info.offer_filters", |f| {
            f.info.offer_filters.insert("other".to_owned(), Default::default());
        }),
    ];
    for (field, damage) in cases {
        let mut env = Env::new();
        env.describe_framework("f1", &["ads"]);
        damage(env.frameworks.get_mut("f1").unwrap());
        env.subscribe("f1");
        let text = error_text(&mut env, "f1");
        assert!(text.starts_with(field), "{field}: {text}");
        assert_eq!(env.frameworks["f1"].closed, Some(None));
    }
}

#[test]
fn a_principal_never_changes_and_a_user_keeps_its_old_value() {
    let mut env = Env::new();
    env.framework("f1", "ads");
    env.framework_leaves("f1");
    env.frameworks.get_mut("f1").unwrap().info.user = "other".to_owned();
    env.subscribe("f1");
    assert_eq!(env.registry.frameworks[0].framework.user, "nobody");
    env.framework_leaves("f1");
    env.inbox("f1");
    env.frameworks.get_mut("f1").unwrap().info.principal = Some("p".to_owned());
    env.subscribe("f1");
    let text = error_text(&mut env, "f1");
    assert_eq!(text, "Changing framework's principal is not allowed.");
}

fn closed_with(env: &Env, name: &str) -> CallError {
    env.frameworks[name].closed.clone().expect("closed").expect("with an error")
}

#[test]
fn calls_that_break_the_protocol_end_the_connection_and_name_the_field() {
    let mut env = Env::new();
    env.framework("f1", "ads");
    env.call("f1", call::Type::Accept, |_| {});
    assert!(matches!(closed_with(&env, "f1"), CallError::Invalid(t) if t.contains("'accept'")));

    env.subscribe("f1");
    env.call("f1", call::Type::Unknown, |_| {});
    assert!(matches!(closed_with(&env, "f1"), CallError::Invalid(t) if t.starts_with("type:")));

    env.subscribe("f1");
    env.call("f1", call::Type::Revive, |c| {
        c.framework_id = Some(v1::FrameworkId { value: "other".to_owned() });
    });
    assert!(
        matches!(closed_with(&env, "f1"), CallError::Invalid(t) if t.starts_with("framework_id:"))
    );

    env.subscribe("f1");
    env.call("f1", call::Type::Acknowledge, |c| {
        c.acknowledge = Some(call::Acknowledge { uuid: vec![1, 2], ..Default::default() });
    });
    assert!(
        matches!(closed_with(&env, "f1"), CallError::Invalid(t) if t.contains("acknowledge.uuid:"))
    );

    // Nothing but SUBSCRIBE is legal on a fresh connection.
    env.describe_framework("f2", &["ads"]);
    env.frameworks.get_mut("f2").unwrap().connection = Some(crate::core::ConnectionId(999));
    env.call("f2", call::Type::Revive, |_| {});
    assert!(matches!(closed_with(&env, "f2"), CallError::NotAllowed(_)));
}

#[test]
fn there_is_a_limit_on_frameworks() {
    let mut env = Env::with(|o| o.max_frameworks = 1);
    env.framework("f1", "ads");
    env.framework("f2", "ads");
    assert!(matches!(closed_with(&env, "f2"), CallError::LimitReached(_)));
}

/// Rule 19.
#[test]
fn leaving_a_role_rescinds_its_offers_only() {
    let mut env = Env::new();
    env.describe_framework("f1", &["ads", "web"]);
    env.subscribe("f1");
    env.agent("a1", "cpus:1;mem:100").agent("a2", "cpus:1;mem:100");
    let offers = env.offers("f1");
    assert_eq!(offers.len(), 2);
    let role = |o: &v1::Offer| o.allocation_info.clone().unwrap().role.unwrap();
    assert_ne!(role(&offers[0]), role(&offers[1]));
    let mut framework_info = env.frameworks["f1"].info.clone();
    framework_info.roles = vec!["web".to_owned()];
    env.inbox("f1");
    env.call("f1", call::Type::UpdateFramework, |c| {
        let update = call::UpdateFramework { framework_info, ..Default::default() };
        c.update_framework = Some(update);
    });
    assert_eq!(role(&env.offer("f1")), "web");
    let rescinded: Vec<_> =
        env.inbox("f1").into_iter().filter_map(|e| Some(e.rescind?.offer_id)).collect();
    let left = offers.iter().find(|o| role(o) == "ads").unwrap();
    assert_eq!(rescinded, std::slice::from_ref(&left.id));
}

/// Scenario 34.
#[test]
fn tasks_of_a_role_that_was_left_run_on() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.frameworks.get_mut("f1").unwrap().info.roles.clear();
    env.subscribe("f1");
    env.inbox("f1");
    assert!(env.offers("f1").is_empty());
    assert_eq!(env.live_tasks().len(), 1);
}

/// Scenario 33 and rule 20.
#[test]
fn suppress_and_revive() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let offer = env.offer("f1");
    env.call("f1", call::Type::Suppress, |_| {});
    env.decline("f1", &[offer], Some(3600.0));
    env.pass(Duration::from_secs(1800));
    assert!(env.offers("f1").is_empty());
    // A role that it has not: the whole call is ignored.
    env.call("f1", call::Type::Revive, |c| {
        c.revive = Some(call::Revive { roles: vec!["ads".to_owned(), "x".to_owned()] });
    });
    assert!(env.offers("f1").is_empty());
    env.call("f1", call::Type::Revive, |_| {});
    env.offer("f1");
}

/// A returning framework's agents hear of it, so that they resend at once.
#[test]
fn agents_hear_of_a_framework_that_came_back() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let offer = env.offer("f1");
    env.launch("f1", &offer, vec![command_task("t1", &offer, "cpus:1;mem:64")]);
    env.framework_leaves("f1");
    env.report("a1", "f1", "t1", TaskState::TaskRunning);
    env.agent_inbox("a1");
    env.inbox("f1");
    env.subscribe("f1");
    assert!(matches!(env.agent_inbox("a1")[..], [Message::UpdateFramework(_)]));
    assert!(env.updates("f1").is_empty());
}

#[test]
fn after_a_master_restart_frameworks_have_their_time_to_come_back() {
    let mut env = Env::new();
    env.framework("f1", "ads").framework("f2", "web");
    env.framework_leaves("f2");
    env.pass(Duration::from_secs(3000));
    env.restart_master();
    assert_eq!(env.core.initial_changes().count(), 2);
    assert_eq!(env.core.counters().frameworks_recovered, 2);
    // f2 left long ago: its deadline is the old one.
    env.pass(Duration::from_secs(601));
    assert_eq!(env.core.counters().frameworks_recovered, 1);
    env.subscribe("f1");
    assert_eq!(env.framework_id("f1"), "m1-0000");
    env.subscribe("f2");
    assert_eq!(error_text(&mut env, "f2"), "Framework has been removed");
    // The end of it outlives the master, too.
    env.restart_master();
    let ended = env.core.initial_changes().any(
        |c| matches!(c, Change::Framework(f) if f.status() == Status::Completed && f.framework.name == "f2"),
    );
    assert!(ended);
    env.subscribe("f2");
    assert_eq!(error_text(&mut env, "f2"), "Framework has been removed");
}

/// What happened to a task before the teardown is not rewritten by it.
#[test]
fn teardown_leaves_ended_tasks_as_they_ended() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    env.call("f1", call::Type::Teardown, |_| {});
    let last = env
        .changes
        .iter()
        .rev()
        .find_map(|c| if let Change::Task(task) = c { Some(task.decode()) } else { None })
        .unwrap();
    assert_eq!(last.state(), TaskState::TaskFinished);
    let status = last.statuses.last().unwrap();
    assert_eq!(status.state(), TaskState::TaskFinished);
    assert_eq!((status.reason, status.message.as_deref()), (None, None));
    assert!(env.live_tasks().is_empty());
}

/// What the master does while its registry stalls.
#[test]
fn heartbeats_alone_write_nothing_and_lose_nobody() {
    let mut env = Env::with(|options| options.heartbeat_interval = Duration::from_secs(15));
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.inbox("f1");
    let mut beats = 0;
    for _ in 0..200 {
        env.now = env.now + Duration::from_secs(1);
        let mut out = crate::core::Effects::default();
        env.core.on_heartbeats(env.now, &mut out);
        assert!(out.persist.is_empty() && out.after_persist.is_empty());
        for effect in out.now {
            let crate::core::Effect::SendScheduler { event, .. } = effect else {
                panic!("{effect:?}")
            };
            assert_eq!(event.r#type(), SchedulerEvent::Heartbeat);
            beats += 1;
        }
        env.core.check_invariants().unwrap();
    }
    assert_eq!(beats, 200 / 15);
    assert_eq!(env.core.counters().agents_active, 1);
}
