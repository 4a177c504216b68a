//! Agents' coming and going.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message, agent_state::Status, master_message::Message},
    v1::{self, TaskState, scheduler::call, task_status::Reason},
};

use super::env::{Env, SchedulerEvent, command_task, executor, executor_task, text};
use crate::{
    core::{Change, Effect, Effects},
    shell::read_model::ReadModel,
};

fn refusal(env: &mut Env, name: &str) -> mezz::Refused {
    let inbox = env.agent_inbox(name);
    match inbox.as_slice() {
        [Message::Refused(refused)] => {
            assert!(env.agents[name].connection.is_none(), "the link is closed");
            refused.clone()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn registration_gives_an_id_and_offers() {
    let mut env = Env::new();
    env.framework("f1", "ads").agent("a1", "cpus:4;mem:1024");
    let inbox = env.agent_inbox("a1");
    let Message::Registered(registered) = &inbox[0] else { panic!("{inbox:?}") };
    assert_eq!(registered.agent_id.value, "m1-S0");
    assert_eq!(registered.master_id, "m1");
    assert_eq!(registered.ping_interval_ms, 15_000);
    assert_eq!(env.registry.agents.len(), 1);
    let offer = env.offer("f1");
    assert_eq!(text(&offer.resources), "cpus:4; mem:1024");
    assert_eq!(offer.hostname, "a1.example");
    assert_eq!(offer.url.unwrap().address.port, 5051);
    env.agent("a2", "cpus:1;mem:100");
    assert_eq!(env.agent_id("a2"), "m1-S1");
}

#[test]
fn agents_that_cannot_be_used_are_refused_with_a_reason() {
    let mut env = Env::with(|o| o.max_agents = 1);
    env.describe_agent("a1", "cpus:1;mem:100");
    let mut description = env.description("a1");
    description.protocol = 99;
    env.link("a1", agent_message::Message::Register(mezz::Register { description }));
    let refused = refusal(&mut env, "a1");
    assert!(refused.permanent && refused.reason.contains("protocol"), "{refused:?}");

    let mut description = env.description("a1");
    description.agent.resources[0].scalar.as_mut().unwrap().value = -1.0;
    env.link("a1", agent_message::Message::Register(mezz::Register { description }));
    let refused = refusal(&mut env, "a1");
    assert!(refused.reason.contains("cpus"), "{refused:?}");

    env.agent("a2", "cpus:1;mem:100").agent("a3", "cpus:1;mem:100");
    let refused = refusal(&mut env, "a3");
    assert!(!refused.permanent && refused.reason.contains("max_agents"), "{refused:?}");
    // Unreachable agents make room.
    env.agents.get_mut("a2").unwrap().answers_pings = false;
    env.pass(Duration::from_secs(120));
    env.register("a3");
    assert!(env.agents["a3"].id.is_some());
    assert_eq!(env.core.counters().agents_unreachable, 0);
}

#[test]
fn messages_before_registration_end_the_link() {
    let mut env = Env::new();
    env.describe_agent("a1", "cpus:1;mem:100");
    env.link("a1", agent_message::Message::Pong(mezz::Pong { number: 1 }));
    assert!(env.agents["a1"].connection.is_none());
    assert_eq!(env.core.counters().invalid_agent_messages, 1);
}

/// Scenarios 44 and 45, rules 45, 47 and 48.
#[test]
fn an_agent_that_answers_no_pings_is_unreachable_until_it_returns() {
    for partition_aware in [true, false] {
        let mut env = Env::new();
        env.agent("a1", "cpus:4;mem:1024");
        env.describe_framework("f1", &["ads"]);
        if !partition_aware {
            env.frameworks.get_mut("f1").unwrap().info.capabilities.truncate(1);
        }
        env.subscribe("f1");
        env.running("f1", "a1", "t1", "cpus:1;mem:64");
        env.agents.get_mut("a1").unwrap().answers_pings = false;
        env.inbox("f1");
        env.pass(Duration::from_secs(74));
        assert!(env.updates("f1").is_empty());
        env.pass(Duration::from_secs(32));
        let update = env.update("f1");
        let lost = if partition_aware { TaskState::TaskUnreachable } else { TaskState::TaskLost };
        assert_eq!(update.state(), lost);
        assert_eq!(update.reason(), Reason::AgentRemoved);
        assert!(update.uuid.is_none() && update.unreachable_time.is_some());
        assert!(env.event_types("f1").contains(&SchedulerEvent::Failure));
        assert!(env.registry.agents[0].unreachable_time.is_some());
        assert!(env.agents["a1"].connection.is_none());
        assert_eq!(env.core.counters().tasks_unreachable, 1);

        env.reregister("a1");
        let update = env.update("f1");
        assert_eq!(update.state(), TaskState::TaskRunning);
        assert_eq!(update.reason(), Reason::AgentReregistered);
        assert!(env.registry.agents[0].unreachable_time.is_none());
        assert_eq!(env.core.counters().tasks_unreachable, 0);
        assert_eq!(text(&env.offer("f1").resources), "cpus:3; mem:960");
    }
}

/// Rule 46; unlike Mesos, tasks wait for their agent whatever `checkpoint` says.
#[test]
fn a_broken_link_rescinds_offers_and_leaves_tasks_alone() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.offer("f1");
    env.agent_link_breaks("a1");
    assert!(env.event_types("f1").contains(&SchedulerEvent::Rescind));
    env.pass(Duration::from_secs(590));
    assert!(env.updates("f1").is_empty());
    env.reregister("a1");
    assert!(env.updates("f1").is_empty());
    assert_eq!(text(&env.offer("f1").resources), "cpus:3; mem:960");

    env.agent_link_breaks("a1");
    env.pass(Duration::from_secs(601));
    assert_eq!(env.update("f1").state(), TaskState::TaskUnreachable);
}

/// The agent's first word to a new master was sent long before, to another link: since then
/// the task has ended, and its framework has acknowledged that to another master.
#[test]
fn tasks_known_only_from_a_late_report_are_no_news() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.restart_master();
    env.reregister("a1");
    env.subscribe("f1");
    env.inbox("f1");
    env.agents.get_mut("a1").unwrap().tasks.clear();
    env.reregister("a1");
    assert!(env.updates("f1").is_empty());
    assert!(env.live_tasks().is_empty());
    let agent = env.agent_id("a1");
    env.reconcile("f1", &[("t1", Some(&agent))]);
    assert_eq!(env.update("f1").state(), TaskState::TaskGone);
}

/// Scenario 50, rule 48.
#[test]
fn tasks_that_the_agent_no_longer_has_are_dropped() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.offer("f1");
    env.agent_link_breaks("a1");
    env.agents.get_mut("a1").unwrap().tasks.clear();
    env.reregister("a1");
    let update = env.update("f1");
    assert_eq!(update.state(), TaskState::TaskDropped);
    assert_eq!(update.reason(), Reason::Reconciliation);
    assert!(env.live_tasks().is_empty());
    assert_eq!(text(&env.offer("f1").resources), "cpus:4; mem:1024");
}

#[test]
fn a_goodbye_loses_tasks_at_once() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.agent_says("a1", agent_message::Message::Unregister(mezz::Unregister::default()));
    // Rule 47: LOST also for frameworks with PARTITION_AWARE.
    assert_eq!(env.update("f1").state(), TaskState::TaskLost);
    assert!(env.registry.agents.is_empty());
    assert!(env.changes.iter().any(|c| matches!(c, Change::AgentRemoved(_))));
}

#[test]
fn a_known_id_replaces_the_older_link() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let old = env.agents["a1"].clone();
    env.agents.insert("old".to_owned(), old);
    env.agents.get_mut("a1").unwrap().connection = None;
    env.reregister("a1");
    assert!(env.agents["old"].connection.is_none(), "the old link is closed");
    assert_eq!(env.core.counters().agents_active, 1);
    assert_eq!(env.live_tasks().len(), 1);
}

/// Both registries: the agents bring back what runs.
#[test]
fn after_a_master_restart_nothing_is_lost() {
    for keep in [true, false] {
        let mut env = Env::new();
        env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
        env.running("f1", "a1", "t1", "cpus:1;mem:64");
        let registry = if keep { env.registry.clone() } else { Default::default() };
        env.restart_from(registry);
        assert_eq!(env.core.counters().agents_recovering, u64::from(keep));
        env.agent_inbox("a1");
        env.inbox("f1");
        env.reregister("a1");
        env.subscribe("f1");
        assert_eq!(env.agent_id("a1"), "m1-S0");
        assert_eq!(env.live_tasks().len(), 1);
        assert!(env.updates("f1").is_empty());
        let offer = env.offer("f1");
        assert_eq!(text(&offer.resources), "cpus:3; mem:960");
        // The offer is the new master's, and everything works on.
        env.launch("f1", &offer, vec![command_task("t2", &offer, "cpus:3;mem:64")]);
        assert_eq!(env.live_tasks().len(), 2);
        env.kill("f1", "t1");
        let told = env.agent_inbox("a1");
        assert!(told.iter().any(|m| matches!(m, Message::KillTask(_))), "{told:?}");
    }
}

/// Rule 76: without task updates.
#[test]
fn an_agent_that_does_not_come_back_after_a_restart_is_unreachable() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024");
    env.restart_master();
    env.framework("f1", "ads");
    env.pass(Duration::from_secs(601));
    assert!(env.event_types("f1").contains(&SchedulerEvent::Failure));
    let last = env.changes.iter().rev().find_map(|c| match c {
        Change::Agent(a) => Some(a.record.status()),
        _ => None,
    });
    assert_eq!(last, Some(Status::Unreachable));
    env.restart_master();
    assert_eq!(env.core.counters().agents_unreachable, 1);
}

#[test]
fn more_in_use_than_there_is_does_not_stop_an_agent_from_returning() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:3;mem:64");
    env.restart_from(Default::default());
    env.describe_agent("small", "cpus:2;mem:1024");
    let info = env.agents["small"].info.clone();
    env.agents.get_mut("a1").unwrap().info = info;
    env.reregister("a1");
    env.subscribe("f1");
    assert_eq!(env.live_tasks().len(), 1);
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    let update = env.update("f1");
    env.acknowledge("f1", &update);
    assert!(env.live_tasks().is_empty());
}

/// Rule 39.
#[test]
fn a_kill_waits_for_an_agent_that_is_away() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.agent_link_breaks("a1");
    env.kill("f1", "t1");
    env.agent_inbox("a1");
    env.reregister("a1");
    assert_eq!(kills(&mut env).len(), 1);
}

/// What the agent was asked to end since the last look, and how.
fn kills(env: &mut Env) -> Vec<(String, Option<v1::KillPolicy>)> {
    let inbox = env.agent_inbox("a1").into_iter();
    inbox
        .filter_map(|message| match message {
            Message::KillTask(kill) => Some((kill.task_id.value, kill.kill_policy)),
            _ => None,
        })
        .collect()
}

/// A link that breaks may have swallowed the kill, and the task may have been
/// reported unreachable since.
#[test]
fn a_kill_is_sent_at_every_return_until_the_task_has_ended() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let grace_period = Some(v1::DurationInfo { nanoseconds: 7 });
    let policy = Some(v1::KillPolicy { grace_period });
    env.call("f1", call::Type::Kill, |c| {
        let task_id = v1::TaskId { value: "t1".to_owned() };
        c.kill = Some(call::Kill { task_id, agent_id: None, kill_policy: policy });
    });
    let kill = [("t1".to_owned(), policy)];
    assert_eq!(kills(&mut env), kill);
    for away in [1, 601] {
        env.agent_link_breaks("a1");
        env.pass(Duration::from_secs(away));
        env.reregister("a1");
        assert_eq!(kills(&mut env), kill, "after {away} s");
    }
    assert_eq!(env.updates("f1").len(), 2, "unreachable, and back");
    // Without saying how, it does not take more time than was given before.
    env.kill("f1", "t1");
    assert_eq!(kills(&mut env), [("t1".to_owned(), None)]);
    env.reregister("a1");
    assert_eq!(kills(&mut env), kill);

    env.report("a1", "f1", "t1", TaskState::TaskKilled);
    env.agent_link_breaks("a1");
    env.reregister("a1");
    assert_eq!(kills(&mut env), []);
}

/// 20,000 agents are too slow for a debug test; but the work for each must not
/// grow with their number, and its steps can be counted.
#[test]
fn many_agents_return_after_a_restart() {
    let mut env = Env::new();
    env.framework("f1", "ads");
    for i in 0..50 {
        let name = format!("a{i}");
        env.agent(&name, "cpus:4;mem:1024");
        env.running("f1", &name, &format!("t{i}"), "cpus:4;mem:1024");
    }
    env.restart_master();
    for i in 0..50 {
        env.reregister(&format!("a{i}"));
    }
    assert_eq!(env.live_tasks().len(), 50);
    assert_eq!(env.core.counters().tasks_recovered, 50);
}

/// Rule 47.
#[test]
fn a_new_agent_at_the_address_of_one_that_is_away_replaces_it() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").agent("b1", "cpus:1;mem:64").framework("f1", "ads");
    let offer = env.offers("f1").into_iter().find(|o| o.hostname == "a1.example").unwrap();
    env.launch("f1", &offer, vec![command_task("t1", &offer, "cpus:1;mem:64")]);
    env.report("a1", "f1", "t1", TaskState::TaskRunning);
    let old = env.agent_id("a1");
    env.agent_link_breaks("a1");
    env.agent_link_breaks("b1");
    env.inbox("f1");
    // Its work dir was wiped: it knows neither its id nor its tasks.
    env.agent("a1", "cpus:4;mem:1024");
    assert_ne!(env.agent_id("a1"), old);
    let lost = env.update("f1");
    assert_eq!((lost.state(), lost.reason()), (TaskState::TaskLost, Reason::AgentRemoved));
    assert!(env.live_tasks().is_empty());
    let gone: Vec<_> = env
        .changes
        .iter()
        .filter_map(|c| if let Change::AgentRemoved(id) = c { Some(id.as_str()) } else { None })
        .collect();
    assert_eq!(gone, [old.as_str()], "and b1, which is elsewhere, is kept");
    assert_eq!(env.registry.agents.len(), 2);
}

/// The next leader might not know of it, and not say that the task is there after all.
#[test]
fn frameworks_hear_of_lost_tasks_when_the_loss_is_written() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads").framework("f2", "web");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.agent_link_breaks("a1");
    let mut out = Effects::default();
    while out.persist.is_empty() {
        env.now = env.core.next_deadline().unwrap();
        env.core.on_deadline(env.now, &mut out);
    }
    let updates = |effects: &[Effect]| {
        let updates = effects.iter().filter(|effect| match effect {
            Effect::SendScheduler { event, .. } => event.update.is_some(),
            _ => false,
        });
        updates.count()
    };
    assert_eq!((updates(&out.now), updates(&out.after_persist)), (0, 1));
}

/// It was admitted and has not heard so: it registers as new, with the same master or with
/// the next.
#[test]
fn an_agent_that_never_heard_of_its_admission_leaves_nothing_behind() {
    let lost = |change: fn(&mut Env)| {
        let mut env = Env::new();
        env.framework("f1", "ads").agent("a1", "cpus:4;mem:1024").agent("b1", "cpus:1;mem:64");
        let offer = env.offers("f1").into_iter().find(|o| o.hostname == "a1.example").unwrap();
        env.launch("f1", &offer, vec![command_task("t1", &offer, "cpus:1;mem:64")]);
        let former = env.agents["a1"].connection;
        change(&mut env);
        env.agent("a1", "cpus:4;mem:1024");
        let agents: Vec<_> = env.registry.agents.iter().map(|a| &a.agent.hostname).collect();
        assert_eq!(agents.iter().filter(|host| **host == "a1.example").count(), 1);
        assert_eq!(agents.len(), 2);
        (env, former)
    };
    // Its link is broken, and that is not known yet.
    let (mut env, _) = lost(|_| {});
    assert_eq!(env.update("f1").state(), TaskState::TaskLost);
    // One that has answered is there, whoever has the same name.
    env.agent_says("b1", agent_message::Message::Pong(mezz::Pong { number: 0 }));
    env.agent("b1", "cpus:1;mem:64");
    assert_eq!(env.core.counters().agents_active, 3);
    // The next master knows it from the registry, and the time to come back may be over.
    lost(Env::restart_master);
    lost(|env| {
        env.restart_master();
        env.reregister("b1");
        env.pass(Duration::from_secs(601));
    });
}

/// What readers are told is allocated is what the core holds.
#[test]
fn executors_are_among_what_is_allocated() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let offer = env.offer("f1");
    let own = executor("e1", "cpus:0.5;mem:32");
    env.launch("f1", &offer, vec![executor_task("t1", &offer, "cpus:1;mem:64", &own)]);
    let model = ReadModel::default();
    let allocated = |env: &mut Env| {
        model.apply(std::mem::take(&mut env.changes));
        let (agents, frameworks) = (model.agents(), model.frameworks(false));
        assert_eq!(text(&agents[0].allocated), text(&frameworks[0].allocated));
        text(&agents[0].allocated)
    };
    assert_eq!(allocated(&mut env), "cpus:1.5; mem:96");
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    assert_eq!(allocated(&mut env), "cpus:0.5; mem:32");
    let id = mezz_proto::v1::FrameworkId { value: env.framework_id("f1") };
    let terminated = mezz::ExecutorTerminated {
        framework_id: id,
        executor_id: own.executor_id.clone(),
        status: 0,
    };
    env.agent_says("a1", agent_message::Message::ExecutorTerminated(terminated));
    assert_eq!(allocated(&mut env), "");
}

/// All agents of a large cluster must not come to a new leader in the same instant, and
/// those of a small one need not wait.
#[test]
fn the_larger_the_cluster_the_longer_agents_take_to_return() {
    let mut env = Env::new();
    let mut spreads = Vec::new();
    for n in 0..200 {
        let name = format!("a{n}");
        env.agent(&name, "cpus:1;mem:64");
        spreads.extend(env.agent_inbox(&name).into_iter().find_map(|m| match m {
            Message::Registered(m) => m.return_spread_ms,
            _ => None,
        }));
    }
    assert_eq!((spreads[0], spreads[99], spreads[199]), (0, 2, 5));
}
