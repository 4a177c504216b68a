//! Draining, deactivating and reactivating agents (rule 50, scenario 59).

use std::time::Duration;

use mezz_proto::{
    ids::AgentId,
    mezz::v1::{self as mezz, agent_message::Message as Said, master_message::Message},
    v1::{self, DrainState, DurationInfo, TaskState},
};

use super::env::Env;
use crate::core::{
    Change, Effect, Effects, Event, OperatorCommand, OperatorError, RequestId, agents::MAX_GONE,
    state::Duty,
};

const GRACE: DurationInfo = DurationInfo { nanoseconds: 5_000_000_000 };

fn drain_request(env: &Env, mark_gone: bool) -> mezz::DrainAgentRequest {
    mezz::DrainAgentRequest {
        agent_id: env.agent_id("a1"),
        max_grace_period: Some(GRACE),
        mark_gone: Some(mark_gone),
    }
}

fn drain(env: &mut Env, mark_gone: bool) {
    let request = drain_request(env, mark_gone);
    env.operator(OperatorCommand::DrainAgent(request)).unwrap();
}

fn reactivate(env: &mut Env) -> Result<(), OperatorError> {
    let agent_id = env.agent_id("a1");
    let request = mezz::ReactivateAgentRequest { agent_id };
    env.operator(OperatorCommand::ReactivateAgent(request)).map(drop)
}

fn deactivate(env: &mut Env) {
    let agent_id = env.agent_id("a1");
    let request = mezz::DeactivateAgentRequest { agent_id };
    env.operator(OperatorCommand::DeactivateAgent(request)).unwrap();
}

/// As readers last heard of it.
fn shown(env: &Env) -> mezz::AgentState {
    let of = |c: &Change| match c {
        Change::Agent(agent) => Some(agent.record.clone()),
        _ => None,
    };
    env.changes.iter().rev().find_map(of).unwrap()
}

fn state(env: &Env) -> Option<DrainState> {
    shown(env).drain.map(|drain| drain.state())
}

/// Ends the task and acknowledges its end.
fn end(env: &mut Env, task: &str) {
    env.report("a1", "f1", task, TaskState::TaskKilled);
    let update = env.updates("f1").pop().unwrap();
    env.acknowledge("f1", &update);
}

fn drain_of(messages: &[Message]) -> Vec<mezz::Drain> {
    let of = |m: &Message| match m {
        Message::Drain(drain) => Some(*drain),
        Message::Registered(registered) => registered.drain,
        _ => None,
    };
    messages.iter().filter_map(of).collect()
}

const fn order(number: u64) -> mezz::Drain {
    mezz::Drain { max_grace_period: Some(GRACE), mark_gone: Some(false), number }
}

#[test]
fn a_drain_withdraws_offers_and_is_done_with_the_last_acknowledgement() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let offers = env.offers("f1");
    assert_eq!(offers.len(), 1, "the rest of the agent");
    env.inbox("f1");
    env.agent_inbox("a1");

    drain(&mut env, false);
    assert_eq!(env.core.counters().offers_rescinded, 1);
    assert_eq!(drain_of(&env.agent_inbox("a1")), [order(1)]);
    assert_eq!(state(&env), Some(DrainState::Draining));
    let start = Some(env.now.as_secs_f64());
    assert_eq!(shown(&env).drain_start_time, start);
    env.pass(Duration::from_secs(100));
    assert!(env.offers("f1").is_empty(), "a draining agent is not offered");
    // Too late: the offer is gone.
    let task = super::env::command_task("t2", &offers[0], "cpus:1;mem:64");
    env.launch("f1", &offers[0], vec![task]);
    assert_eq!(env.update("f1").state(), TaskState::TaskDropped);

    let error = reactivate(&mut env).unwrap_err();
    assert!(matches!(error, OperatorError::NotAllowed(_)), "{error:?}");
    assert!(error.to_string().contains("still draining (tasks left: 1)"), "{error}");

    // Ended, but not acknowledged: that counts.
    env.report("a1", "f1", "t1", TaskState::TaskKilled);
    let update = env.updates("f1").pop().unwrap();
    assert_eq!(state(&env), Some(DrainState::Draining));
    assert!(reactivate(&mut env).is_err());
    env.acknowledge("f1", &update);
    assert_eq!(state(&env), Some(DrainState::Drained));
    assert_eq!(shown(&env).drain_start_time, start);
    env.pass(Duration::from_secs(100));
    assert!(env.offers("f1").is_empty(), "nor is a drained one");

    env.agent_inbox("a1");
    reactivate(&mut env).unwrap();
    assert!(matches!(env.agent_inbox("a1")[..], [Message::Reactivate(_)]));
    assert_eq!((state(&env), env.registry.agents[0].drain), (None, None));
    env.settle();
    assert_eq!(env.offers("f1").len(), 1);
}

#[test]
fn an_empty_agent_is_drained_at_once_and_a_second_drain_replaces_the_first() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    drain(&mut env, false);
    assert_eq!(state(&env), Some(DrainState::Drained));
    assert_eq!(env.registry.agents[0].drain.unwrap().state(), DrainState::Drained);

    let request = mezz::DrainAgentRequest {
        agent_id: env.agent_id("a1"),
        max_grace_period: None,
        mark_gone: None,
    };
    env.operator(OperatorCommand::DrainAgent(request)).unwrap();
    let record = env.registry.agents[0].drain.unwrap();
    assert_eq!((record.config.max_grace_period, record.state()), (None, DrainState::Drained));
}

#[test]
fn a_drain_survives_links_and_masters() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    drain(&mut env, false);
    env.inbox("f1");

    env.agent_link_breaks("a1");
    env.agent_inbox("a1");
    env.reregister("a1");
    assert_eq!(drain_of(&env.agent_inbox("a1")), [order(2)], "it is told again");

    env.restart_master();
    let error = reactivate(&mut env).unwrap_err();
    assert!(error.to_string().contains("it is away"), "{error}");
    env.reregister("a1");
    assert_eq!(drain_of(&env.agent_inbox("a1")), [order(1)]);
    env.subscribe("f1");
    env.pass(Duration::from_secs(10));
    assert!(env.offers("f1").is_empty());
    assert_eq!(state(&env), Some(DrainState::Draining));
    end(&mut env, "t1");
    assert_eq!(state(&env), Some(DrainState::Drained));

    env.restart_master();
    env.reregister("a1");
    env.subscribe("f1");
    env.pass(Duration::from_secs(10));
    assert_eq!(state(&env), Some(DrainState::Drained));
    assert!(env.offers("f1").is_empty());
    reactivate(&mut env).unwrap();
    env.settle();
    assert_eq!(env.offers("f1").len(), 1);
    env.agent_link_breaks("a1");
    env.agent_inbox("a1");
    env.reregister("a1");
    assert_eq!(drain_of(&env.agent_inbox("a1")), [], "the agent hears that it is over");
}

#[test]
fn a_drain_survives_unreachability_and_waits_for_the_agents_return() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.agent_link_breaks("a1");
    drain(&mut env, false);
    env.pass(env.options.agent_reregister_timeout * 2);
    assert_eq!(shown(&env).status(), mezz::agent_state::Status::Unreachable);
    assert_eq!(state(&env), Some(DrainState::Draining));
    assert!(reactivate(&mut env).is_err());
    env.agent_inbox("a1");
    env.reregister("a1");
    assert_eq!(drain_of(&env.agent_inbox("a1")), [order(2)]);
    env.updates("f1");
    end(&mut env, "t1");
    assert_eq!(state(&env), Some(DrainState::Drained));
}

#[test]
fn an_agent_that_is_away_is_drained_only_when_it_has_shown_what_it_has() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024");
    env.restart_master();
    drain(&mut env, false);
    assert_eq!(state(&env), Some(DrainState::Draining));
    assert_eq!(shown(&env).drain_start_time, None, "it has not heard of it");
    env.pass(Duration::from_secs(1));
    env.reregister("a1");
    assert_eq!(state(&env), Some(DrainState::Drained));
    assert_eq!(shown(&env).drain_start_time, Some(env.now.as_secs_f64()));
}

/// The acknowledgement of its last update did not reach the agent.
#[test]
fn a_drained_agent_that_brings_a_task_drains_again() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    drain(&mut env, false);
    env.report("a1", "f1", "t1", TaskState::TaskKilled);
    let before = env.agents["a1"].tasks.clone();
    let update = env.updates("f1").pop().unwrap();
    env.acknowledge("f1", &update);
    assert_eq!(state(&env), Some(DrainState::Drained));
    env.agent_link_breaks("a1");
    env.agents.get_mut("a1").unwrap().tasks = before;
    env.reregister("a1");
    assert_eq!(state(&env), Some(DrainState::Draining));
    assert_eq!(env.registry.agents[0].drain.unwrap().state(), DrainState::Draining);
    let mut again = update.clone();
    again.uuid.clone_from(&env.agents["a1"].tasks.values().next().unwrap().status_update_uuid);
    env.acknowledge("f1", &again);
    assert_eq!(state(&env), Some(DrainState::Drained));
}

#[test]
fn an_agent_marked_gone_is_told_to_stop_and_its_id_is_burnt() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let id = env.agent_id("a1");
    drain(&mut env, true);
    assert_eq!(drain_of(&env.agent_inbox("a1")).last().unwrap().mark_gone, Some(true));
    assert!(!env.agents["a1"].refused);
    env.inbox("f1");
    end(&mut env, "t1");
    assert!(env.agents["a1"].refused && env.agents["a1"].connection.is_none());
    let removed = Change::AgentGone(AgentId::new(&id));
    assert!(env.changes.contains(&removed));
    assert!(env.inbox("f1").iter().any(|e| e.failure.is_some()), "frameworks are told");
    assert!(env.registry.agents[0].gone_time.is_some());

    for _ in 0..2 {
        env.agents.get_mut("a1").unwrap().refused = false;
        env.agent_inbox("a1");
        env.reregister("a1");
        let [Message::Refused(refused)] = &env.agent_inbox("a1")[..] else { panic!("admitted") };
        assert!(refused.permanent && refused.reason.contains("as gone"), "{refused:?}");
        assert!(refused.gone(), "it is to end what it still runs: {refused:?}");
        env.reconcile("f1", &[("t9", Some(&id))]);
        assert_eq!(env.updates("f1").pop().unwrap().state(), TaskState::TaskGoneByOperator);
        let error = reactivate(&mut env).unwrap_err();
        assert!(matches!(error, OperatorError::NotAllowed(_)), "{error:?}");
        assert!(error.to_string().contains("was marked gone"), "{error}");
        // And the next master knows it, too.
        env.restart_master();
        env.subscribe("f1");
    }
}

/// The end of a removed framework's tasks is heard of by nobody but the agent itself.
#[test]
fn an_agent_that_still_ends_a_removed_framework_is_neither_drained_nor_gone() {
    for mark_gone in [false, true] {
        let mut env = Env::new();
        env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
        env.running("f1", "a1", "t1", "cpus:1;mem:64");
        env.agents.get_mut("a1").unwrap().lingers = true;
        drain(&mut env, mark_gone);
        let framework_id = env.framework_id("f1");
        env.operator(OperatorCommand::Teardown(mezz::TeardownRequest { framework_id })).unwrap();
        assert!(env.live_tasks().is_empty());
        assert_eq!(state(&env), Some(DrainState::Draining));
        let error = reactivate(&mut env).unwrap_err().to_string();
        assert!(error.contains("what ran there is still ending"), "{error}");
        // Nor does a new link or master believe so.
        env.agent_link_breaks("a1");
        env.reregister("a1");
        env.restart_master();
        env.reregister("a1");
        assert_eq!(state(&env), Some(DrainState::Draining));
        assert!(!env.agents["a1"].refused);

        env.agents.get_mut("a1").unwrap().lingers = false;
        env.confirm_drains();
        assert_eq!(env.agents["a1"].refused, mark_gone);
        assert!(mark_gone || state(&env) == Some(DrainState::Drained));
    }
}

#[test]
fn what_an_agent_says_of_an_earlier_order_does_not_count() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024");
    let says = |env: &mut Env, number| {
        env.agent_says("a1", Said::Drained(mezz::Drained { number }));
    };
    says(&mut env, 0);
    drain(&mut env, false);
    reactivate(&mut env).unwrap();
    env.agents.get_mut("a1").unwrap().lingers = true;
    drain(&mut env, false);
    says(&mut env, 1);
    assert_eq!(state(&env), Some(DrainState::Draining));
    says(&mut env, 2);
    assert_eq!(state(&env), Some(DrainState::Drained));
}

#[test]
fn what_is_wanted_of_an_agent_holds_when_it_was_forgotten() {
    for restart in [false, true] {
        let mut env = Env::with(|options| options.unreachable_retention = Duration::from_secs(300));
        env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
        env.running("f1", "a1", "t1", "cpus:1;mem:64");
        env.agent("a2", "cpus:1;mem:64");
        let a2 = env.agent_id("a2");
        env.operator(OperatorCommand::DeactivateAgent(mezz::DeactivateAgentRequest {
            agent_id: a2.clone(),
        }))
        .unwrap();
        drain(&mut env, false);
        env.agent_link_breaks("a1");
        env.agent_link_breaks("a2");
        env.pass(env.options.agent_reregister_timeout + env.options.unreachable_retention * 2);
        assert_eq!(env.core.counters().agents_unreachable, 0, "they are forgotten");
        let error = reactivate(&mut env).unwrap_err();
        assert!(matches!(&error, OperatorError::NotFound(t) if t.contains("forgotten")), "{error}");
        // It cannot be given up either, and is told why in words of that order.
        let given_up = env.operator(OperatorCommand::MarkAgentGone(a2.clone())).unwrap_err();
        assert!(
            matches!(&given_up, OperatorError::NotFound(t) if t.contains("marked gone if it comes")),
            "{given_up}"
        );
        if restart {
            env.restart_master();
            assert!(env.core.initial_changes().all(|c| !matches!(c, Change::Agent(_))));
        }
        env.agent_inbox("a1");
        env.reregister("a2");
        assert!(shown(&env).deactivated());
        env.reregister("a1");
        assert_eq!(drain_of(&env.agent_inbox("a1")), [order(1)]);
        assert_eq!(state(&env), Some(DrainState::Draining));
        let records = &env.registry.agents;
        assert!(records.iter().all(|r| r.given_up_time.is_none()), "{records:?}");
        assert!(
            records.iter().any(|r| r.deactivated()) && records.iter().any(|r| r.drain.is_some())
        );
        env.inbox("f1");
        env.subscribe("f1");
        assert!(env.offers("f1").is_empty());
    }
}

#[test]
fn only_so_many_gone_agents_are_remembered() {
    let mut env = Env::new();
    let second = |n: usize| mezz_proto::time::Time::from_secs(n as u64);
    for n in 0..MAX_GONE {
        assert_eq!(env.core.remember_gone(AgentId::from(format!("old{n}")), second(n)), None);
    }
    let forgotten = env.core.remember_gone("new".into(), second(MAX_GONE));
    assert_eq!(forgotten, Some("old0".into()));
    assert!(!env.core.is_gone(&"old0".into()) && env.core.is_gone(&"new".into()));
    // Scenario 54.
    env.framework("f1", "ads");
    env.inbox("f1");
    for (agent, state) in [("old0", TaskState::TaskUnknown), ("new", TaskState::TaskGoneByOperator)]
    {
        env.reconcile("f1", &[("t", Some(agent))]);
        assert_eq!(env.update("f1").state(), state, "{agent}");
    }
    let mut keep =
        |id: String, n| env.core.keep_duty(AgentId::from(id), second(n), Duty::Deactivated);
    for n in 0..MAX_GONE {
        assert_eq!(keep(format!("kept{n}"), n), None);
    }
    assert_eq!(keep("new2".to_owned(), MAX_GONE), Some("kept0".into()));
}

#[test]
fn a_deactivated_agent_keeps_its_tasks_and_gets_no_offers() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.agent_inbox("a1");
    deactivate(&mut env);
    assert_eq!(env.agent_inbox("a1"), [], "the agent need not know");
    assert!(shown(&env).deactivated() && env.registry.agents[0].deactivated());
    env.pass(Duration::from_secs(10));
    env.inbox("f1");
    end(&mut env, "t1");
    env.restart_master();
    env.reregister("a1");
    env.subscribe("f1");
    env.pass(Duration::from_secs(10));
    assert!(env.offers("f1").is_empty());
    reactivate(&mut env).unwrap();
    reactivate(&mut env).unwrap();
    env.settle();
    assert_eq!(env.offers("f1").len(), 1);

    // A drain is more than that, and is not undone by it.
    drain(&mut env, false);
    deactivate(&mut env);
    assert_eq!(state(&env), Some(DrainState::Drained));
}

#[test]
fn orders_and_answers_wait_for_the_registry() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    let mut out = Effects::default();
    let command = OperatorCommand::DrainAgent(drain_request(&env, false));
    env.core.handle(env.now, Event::Operator { request: RequestId(1), command }, &mut out);
    assert!(!out.persist.is_empty());
    let early = |e: &Effect| matches!(e, Effect::SendAgent { .. } | Effect::Reply { .. });
    assert!(!out.now.iter().any(early), "{:?}", out.now);
    assert_eq!(out.after_persist.iter().filter(|e| early(e)).count(), 2);
}

#[test]
fn mistakes_are_named() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024");
    let request = |agent_id: &str, nanoseconds: i64| {
        OperatorCommand::DrainAgent(mezz::DrainAgentRequest {
            agent_id: agent_id.to_owned(),
            max_grace_period: Some(v1::DurationInfo { nanoseconds }),
            mark_gone: None,
        })
    };
    let error = env.operator(request("", 0)).unwrap_err();
    assert_eq!(error, OperatorError::Invalid("agent_id: must not be empty".to_owned()));
    let error = env.operator(request("nobody", 0)).unwrap_err();
    assert!(matches!(&error, OperatorError::NotFound(t) if t.contains("mezz agents")), "{error:?}");
    let id = env.agent_id("a1");
    let error = env.operator(request(&id, -1)).unwrap_err();
    assert!(
        matches!(&error, OperatorError::Invalid(t) if t.starts_with("max_grace_period: -1 ns")),
        "{error:?}"
    );
    assert_eq!(state(&env), None);
}
