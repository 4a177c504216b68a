//! Agents that come back: what they bring, and what frameworks are told.

use std::time::Duration;

use mezz_proto::{
    ids::AgentId,
    mezz::v1::{self as mezz, agent_message, master_message::Message},
    v1::{self, TaskState, task_status::Reason},
};

use super::env::{Env, executor, executor_task, text};
use crate::{core::Change, options::CoreOptions};

fn with_task(change: impl FnOnce(&mut CoreOptions)) -> Env {
    let mut env = Env::with(change);
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.agent_inbox("a1");
    env
}

fn unreachable(env: &mut Env, agent: &str) {
    env.agent_link_breaks(agent);
    env.pass(Duration::from_secs(601));
}

fn refused(env: &mut Env, agent: &str) -> mezz::Refused {
    let inbox = env.agent_inbox(agent);
    let [Message::Refused(refused)] = &inbox[..] else { panic!("{inbox:?}") };
    refused.clone()
}

/// Rule 48, scenario 45: whether or not this master still has the task.
#[test]
fn frameworks_hear_of_the_return_of_lost_tasks() {
    let back = |env: &mut Env| {
        env.reregister("a1");
        let update = env.update("f1");
        assert_eq!(update.state(), TaskState::TaskRunning);
        assert_eq!(update.reason(), Reason::AgentReregistered);
        assert_eq!(env.live_tasks().len(), 1);
    };
    // The master restarts in between.
    let mut env = with_task(|_| {});
    unreachable(&mut env, "a1");
    assert_eq!(env.update("f1").state(), TaskState::TaskUnreachable);
    env.restart_master();
    env.subscribe("f1");
    back(&mut env);

    // It forgets the agent.
    let mut env = with_task(|o| o.unreachable_retention = Duration::from_secs(3600));
    unreachable(&mut env, "a1");
    env.pass(Duration::from_secs(3600));
    let told: Vec<_> = env.updates("f1").iter().map(|u| u.state()).collect();
    assert_eq!(told, [TaskState::TaskUnreachable, TaskState::TaskGone]);
    back(&mut env);
}

#[test]
fn a_restart_of_the_master_is_no_news_of_tasks() {
    let mut env = with_task(|_| {});
    env.restart_master();
    env.subscribe("f1");
    env.reregister("a1");
    assert_eq!(env.live_tasks().len(), 1);
    assert!(env.updates("f1").is_empty());
}

/// Tens of thousands come back after a failover.
#[test]
fn only_what_the_registry_does_not_have_is_written() {
    fn writes(env: &mut Env) -> usize {
        let before = env.writes;
        env.reregister("a1");
        env.writes - before
    }
    let mut env = with_task(|_| {});
    env.restart_master();
    assert_eq!(writes(&mut env), 0);
    env.agent_link_breaks("a1");
    assert_eq!(writes(&mut env), 0);
    shrink(&mut env, "cpus:3;mem:1024");
    assert_eq!(writes(&mut env), 1);
    assert_eq!(text(&env.registry.agents[0].agent.resources), "cpus:3; mem:1024");
    unreachable(&mut env, "a1");
    assert!(env.registry.agents[0].unreachable_time.is_some());
    assert_eq!(writes(&mut env), 1);
    assert_eq!(env.registry.agents[0].unreachable_time, None);
}

/// Of a smaller agent the tasks that do not fit any more are held, too.
#[test]
fn what_is_in_use_beyond_the_total_is_not_offered() {
    let mut env = with_task(|_| {});
    env.running("f1", "a1", "t2", "cpus:3;mem:64");
    env.offers("f1");
    env.restart_from(Default::default());
    shrink(&mut env, "cpus:3;mem:1024");
    env.reregister("a1");
    env.subscribe("f1");
    assert_eq!(text(&env.offer("f1").resources), "mem:896");
    env.report("a1", "f1", "t2", TaskState::TaskFinished);
    // The rest of the memory is still offered.
    assert_eq!(text(&env.offer("f1").resources), "cpus:2; mem:64");
}

#[test]
fn executors_beyond_the_total_are_held_too() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let offer = env.offer("f1");
    let tasks = ["e1", "e2"]
        .map(|id| executor_task(id, &offer, "mem:10", &executor(id, "cpus:2;mem:10")))
        .into();
    env.launch("f1", &offer, tasks);
    env.restart_from(Default::default());
    shrink(&mut env, "cpus:3;mem:1024");
    env.reregister("a1");
    env.subscribe("f1");
    env.offers("f1");
    let framework_id = mezz_proto::v1::FrameworkId { value: env.framework_id("f1") };
    let executor_id = mezz_proto::v1::ExecutorId { value: "e1".to_owned() };
    let terminated = mezz::ExecutorTerminated { framework_id, executor_id, status: 0 };
    env.agent_says("a1", agent_message::Message::ExecutorTerminated(terminated));
    assert_eq!(text(&env.offer("f1").resources), "cpus:1; mem:10");
}

fn shrink(env: &mut Env, resources: &str) {
    env.describe_agent("small", resources);
    let small = env.agents["small"].info.resources.clone();
    env.agents.get_mut("a1").unwrap().info.resources = small;
}

/// Rule 49: a copied work directory.
#[test]
fn a_linked_agent_is_not_thrown_off_from_elsewhere() {
    let mut env = with_task(|_| {});
    env.describe_agent("b1", "cpus:4;mem:1024");
    env.agents.get_mut("b1").unwrap().id = Some(env.agent_id("a1"));
    env.reregister("b1");
    let text = refused(&mut env, "b1");
    assert!(text.permanent, "{text:?}");
    for name in ["a1.example:5051", "b1.example:5051"] {
        assert!(text.reason.contains(name), "{text:?}");
    }
    assert!(env.agents["a1"].connection.is_some());
    assert_eq!(env.live_tasks().len(), 1);

    // On the same host it may be a successor: it tries again.
    let mut description = env.description("a1");
    description.api_address = "a1.example:6000".to_owned();
    let again = mezz::Reregister { description, ..Default::default() };
    env.link("b1", agent_message::Message::Reregister(again.clone()));
    assert!(!refused(&mut env, "b1").permanent);
    env.agent_link_breaks("a1");
    env.link("b1", agent_message::Message::Reregister(again));
    assert!(matches!(env.agent_inbox("b1")[..], [Message::Registered(_)]));
}

/// An agent has given a link up and come back on the next one before its master reads what it
/// said on the first: tasks that it got since go on.
#[test]
fn what_an_agent_said_before_its_last_return_is_not_heard() {
    let mut env = with_task(|_| {});
    let said = |env: &mut Env, start, link| {
        let agent = &env.agents["a1"];
        mezz::Reregister {
            description: env.description("a1"),
            tasks: agent.tasks.values().cloned().collect(),
            frameworks: agent.frameworks.values().cloned().collect(),
            attempt: Some(mezz::Attempt { start, link }),
            ..Default::default()
        }
    };
    let comes = |env: &mut Env, message: &mezz::Reregister| {
        env.link("a1", agent_message::Message::Reregister(message.clone()));
        env.agent_inbox("a1")
    };
    let early = said(&mut env, 3, 7);
    let returns = said(&mut env, 3, 8);
    // Of the former link, and not to be used any more.
    env.offers("f1");
    let inbox = comes(&mut env, &returns);
    assert!(matches!(inbox[..], [Message::Registered(_)]), "{inbox:?}");
    let linked = env.agents["a1"].connection;
    env.running("f1", "a1", "t2", "cpus:1;mem:64");
    env.updates("f1");
    env.agent_inbox("a1");
    let of_a_former_process = said(&mut env, 2, 900);
    for old in [&early, &returns, &of_a_former_process] {
        comes_late(&mut env, old);
        assert_eq!(env.live_tasks().len(), 2);
        assert!(env.updates("f1").is_empty());
    }
    // Of an agent that has counted, nor what has no number.
    let uncounted = mezz::Reregister { attempt: None, ..early.clone() };
    comes_late(&mut env, &uncounted);
    assert_eq!(env.live_tasks().len(), 2);
    // Nor when the last link has ended meanwhile.
    env.agents.get_mut("a1").unwrap().connection = linked;
    env.agent_link_breaks("a1");
    comes_late(&mut env, &early);
    assert_eq!(env.live_tasks().len(), 2);
    // What it says now is heard, whatever it has lost.
    env.agents.get_mut("a1").unwrap().tasks.retain(|(_, task), _| task != "t2");
    let newest = said(&mut env, 4, 1);
    let inbox = comes(&mut env, &newest);
    assert!(matches!(inbox[..], [Message::Registered(_)]), "{inbox:?}");
    assert_eq!(env.update("f1").state(), TaskState::TaskDropped);
    // An older version in its place does not count.
    env.agent_link_breaks("a1");
    let uncounted = mezz::Reregister { attempt: None, ..newest };
    let inbox = comes(&mut env, &uncounted);
    assert!(matches!(inbox[..], [Message::Registered(_)]), "{inbox:?}");
    // Another term knows of nothing newer.
    env.restart_master();
    let inbox = comes(&mut env, &early);
    assert!(matches!(inbox[..], [Message::Registered(_)]), "{inbox:?}");
}

/// It is refused on its own link, and the agent's stays.
fn comes_late(env: &mut Env, message: &mezz::Reregister) {
    let links = env.core.counters().agents_active;
    env.link("a1", agent_message::Message::Reregister(message.clone()));
    let text = refused(env, "a1");
    assert!(!text.permanent && text.newer_start == Some(3), "{text:?}");
    assert_eq!(env.core.counters().agents_active, links);
}

/// Rule 76.
#[test]
fn unreachable_agents_are_forgotten_after_a_time() {
    assert_eq!(CoreOptions::default().unreachable_retention, Duration::from_secs(14 * 86_400));
    let mut env = with_task(|o| o.unreachable_retention = Duration::from_secs(3600));
    let id = AgentId::from(env.agent_id("a1"));
    unreachable(&mut env, "a1");
    env.restart_master();
    assert_eq!(env.core.counters().agents_unreachable, 1, "the time goes on over restarts");
    env.pass(Duration::from_secs(3590));
    assert_eq!(env.registry.agents.len(), 1);
    env.pass(Duration::from_secs(10));
    assert!(env.registry.agents.is_empty());
    assert!(env.changes.contains(&Change::AgentRemoved(id)));
}

#[test]
fn tasks_of_unreachable_agents_leave_room_for_others() {
    let mut env = with_task(|o| o.max_tasks = 1);
    unreachable(&mut env, "a1");
    env.inbox("f1");
    env.agent("a2", "cpus:4;mem:1024");
    env.running("f1", "a2", "t2", "cpus:1;mem:64");
    assert_eq!(env.live_tasks().len(), 2);
}

#[test]
fn an_ended_task_leaves_the_list_though_its_agent_is_unreachable() {
    let mut env = with_task(|_| {});
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    let update = env.update("f1");
    unreachable(&mut env, "a1");
    assert_eq!(env.live_tasks().len(), 1);
    env.acknowledge("f1", &update);
    assert!(env.live_tasks().is_empty());
    // The agent does not know that yet, and is told when it comes back.
    env.reregister("a1");
    env.acknowledge("f1", &update);
    assert!(env.live_tasks().is_empty());
    assert!(env.agents["a1"].tasks.is_empty());
}

/// Rule 36: also when its agent goes for good before the framework has read it.
#[test]
fn the_end_of_a_task_is_told_after_its_agent_is_gone() {
    let failed = |env: &mut Env| {
        let id = v1::TaskId { value: "t1".to_owned() };
        let status = v1::TaskStatus {
            task_id: id.clone(),
            state: TaskState::TaskFailed as i32,
            reason: Some(Reason::ContainerLimitationMemory as i32),
            message: Some("out of memory".to_owned()),
            uuid: Some(vec![5; 16]),
            ..Default::default()
        };
        let framework_id = v1::FrameworkId { value: env.framework_id("f1") };
        let latest_state = status.state;
        let update = mezz::StatusUpdate { framework_id, status, latest_state };
        env.agent_says("a1", agent_message::Message::StatusUpdate(update));
        id
    };
    let leaves = |env: &mut Env| {
        env.agent_says("a1", agent_message::Message::Unregister(mezz::Unregister::default()));
    };
    let given_up = |env: &mut Env| {
        unreachable(env, "a1");
        env.pass(Duration::from_secs(3600));
    };
    let forgets = |env: &mut Env| {
        env.agents.get_mut("a1").unwrap().tasks.clear();
        env.reregister("a1");
    };
    for goes in [leaves as fn(&mut Env), given_up, forgets] {
        // The framework is there.
        let mut env = with_task(|o| o.unreachable_retention = Duration::from_secs(3600));
        failed(&mut env);
        env.updates("f1");
        goes(&mut env);
        let last = env.update("f1");
        assert_eq!(last.state(), TaskState::TaskFailed);
        assert_eq!(last.reason(), Reason::ContainerLimitationMemory);
        assert_eq!(last.message(), "out of memory");
        assert!(last.uuid.is_none(), "nobody could take the acknowledgement");
        assert!(env.live_tasks().is_empty());

        // The framework is away, and asks when it is back.
        let mut env = with_task(|o| o.unreachable_retention = Duration::from_secs(3600));
        env.frameworks.get_mut("f1").unwrap().info.failover_timeout = Some(1e6);
        env.subscribe("f1");
        let agent = env.agent_id("a1");
        env.framework_leaves("f1");
        failed(&mut env);
        goes(&mut env);
        assert!(env.live_tasks().is_empty());
        env.subscribe("f1");
        for of in [None, Some(agent.as_str())] {
            env.updates("f1");
            env.reconcile("f1", &[("t1", of)]);
            let last = env.update("f1");
            assert_eq!(last.state(), TaskState::TaskFailed);
            assert_eq!((last.reason(), last.message()), (Reason::Reconciliation, "out of memory"));
            assert_eq!(last.agent_id.unwrap().value, agent);
        }
        env.reconcile("f1", &[("t1", Some("another"))]);
        assert_eq!(env.update("f1").state(), TaskState::TaskUnknown);
    }
}

#[test]
fn only_frameworks_with_something_to_lose_are_taken_from_agents() {
    let mut env = with_task(|_| {});
    env.framework_leaves("f1");
    env.framework("f2", "web");
    let offer = env.offer("f2");
    env.launch("f2", &offer, vec![super::env::command_task("t2", &offer, "cpus:1;mem:64")]);
    env.report("a1", "f2", "t2", TaskState::TaskFinished);
    let update = env.update("f2");
    env.acknowledge("f2", &update);
    assert_eq!(env.agents["a1"].frameworks.len(), 2);
    env.restart_from(Default::default());
    env.reregister("a1");
    assert_eq!(env.core.counters().frameworks_recovered, 1);
    // Its tasks wait for as long as it may be away.
    env.pass(Duration::from_secs(3500));
    env.subscribe("f1");
    assert_eq!(env.live_tasks().len(), 1);
}

#[test]
fn frameworks_from_agents_are_bounded() {
    let mut env = with_task(|_| {});
    env.restart_from(Default::default());
    env.options.max_frameworks = 1;
    env.restart_from(Default::default());
    env.framework("other", "web");
    env.reregister("a1");
    let text = refused(&mut env, "a1");
    assert!(!text.permanent && text.reason.contains("max_frameworks"), "{text:?}");
    assert_eq!(env.core.counters().frameworks_recovered, 0);
}

/// No leader could write it down, so each would end.
#[test]
fn an_agent_with_a_framework_that_no_registry_takes_is_refused() {
    let mut env = with_task(|_| {});
    env.restart_master();
    let id = env.framework_id("f1");
    let side = env.agents.get_mut("a1").unwrap();
    let label =
        |bytes| v1::Labels { labels: vec![v1::Label { key: "x".repeat(bytes), value: None }] };
    let writes = env.writes;
    side.frameworks.get_mut(&id).unwrap().labels = Some(label(3 << 20));
    env.reregister("a1");
    let refused = refused(&mut env, "a1");
    assert!(refused.permanent, "{refused:?}");
    assert!(refused.reason.starts_with("frameworks: the description of framework"), "{refused:?}");
    assert_eq!(env.writes, writes);
}

/// What the master added to a description keeps nobody out.
#[test]
fn the_longest_description_comes_back() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024");
    env.describe_framework("f1", &["ads"]);
    let info = &mut env.frameworks.get_mut("f1").unwrap().info;
    let room = crate::core::MAX_RECORD_BYTES - prost::Message::encoded_len(info) - 16;
    let label = v1::Label { key: "x".repeat(room), value: None };
    info.labels = Some(v1::Labels { labels: vec![label] });
    env.subscribe("f1");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.registry.frameworks.clear();
    env.restart_master();
    env.agent_inbox("a1");
    env.reregister("a1");
    let inbox = env.agent_inbox("a1");
    assert!(!inbox.iter().any(|m| matches!(m, Message::Refused(_))), "refused");
    assert_eq!(env.live_tasks().len(), 1);
}
