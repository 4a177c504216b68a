//! An operator gives an agent up, whatever runs there (rules 47 and 80).

use mezz_proto::{
    mezz::v1::master_message::Message,
    v1::{TaskState, task_status::Reason},
};

use super::env::{Env, SchedulerEvent};
use crate::core::{Effects, Event, OperatorCommand, OperatorError, RequestId};

fn gone(env: &mut Env, agent: &str) -> Result<(), OperatorError> {
    let id = env.agent_id(agent);
    env.operator(OperatorCommand::MarkAgentGone(id)).map(drop)
}

#[test]
fn its_tasks_are_gone_by_operator_and_it_may_not_come_back() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.inbox("f1");
    env.agent_inbox("a1");

    gone(&mut env, "a1").unwrap();
    let update = env.update("f1");
    assert_eq!(update.state(), TaskState::TaskGoneByOperator);
    assert_eq!(update.reason(), Reason::AgentRemovedByOperator);
    assert!(update.uuid.is_none(), "there is nobody to acknowledge it to");
    assert!(env.live_tasks().is_empty());
    let told = env.agent_inbox("a1");
    assert!(
        told.iter().any(|m| matches!(m, Message::Refused(r) if r.gone() && r.permanent)),
        "{told:?}"
    );
    assert!(env.registry.agents[0].gone_time.is_some());

    // Asked again, it is done already; another one is not known.
    gone(&mut env, "a1").unwrap();
    let unknown = env.operator(OperatorCommand::MarkAgentGone("S99".to_owned())).unwrap_err();
    assert!(matches!(unknown, OperatorError::NotFound(_)), "{unknown:?}");
    let empty = env.operator(OperatorCommand::MarkAgentGone(String::new())).unwrap_err();
    assert!(matches!(empty, OperatorError::Invalid(_)), "{empty:?}");

    // Neither to this master nor to the next one.
    for restart in [false, true] {
        if restart {
            env.restart_master();
        }
        env.reregister("a1");
        let told = env.agent_inbox("a1");
        assert!(matches!(&told[..], [Message::Refused(r)] if r.gone()), "{told:?}");
        gone(&mut env, "a1").unwrap();
    }
    env.subscribe("f1");
    env.inbox("f1");
    let agent = env.agent_id("a1");
    env.reconcile("f1", &[("t1", Some(&agent))]);
    assert_eq!(env.update("f1").state(), TaskState::TaskGoneByOperator);
}

#[test]
fn an_unreachable_agent_can_be_given_up_too() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.agent_link_breaks("a1");
    env.pass(std::time::Duration::from_secs(601));
    assert_eq!(env.update("f1").state(), TaskState::TaskUnreachable);
    gone(&mut env, "a1").unwrap();
    assert_eq!(env.update("f1").state(), TaskState::TaskGoneByOperator);
    assert_eq!(env.core.counters().agents_unreachable, 0);
}

/// Persist before you speak: neither the operator nor a framework hears of it before it is
/// written, and who asks again while it is being written does not either.
#[test]
fn nobody_hears_of_it_before_it_is_written() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.framework("f2", "other");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let id = env.agent_id("a1");
    let ask = |number| Event::Operator {
        request: RequestId(number),
        command: OperatorCommand::MarkAgentGone(id.clone()),
    };
    let mut first = Effects::default();
    env.core.handle(env.now, ask(1), &mut first);
    let is_said = |e: &crate::core::Effect| !matches!(e, crate::core::Effect::Change(_));
    assert!(!first.persist.is_empty());
    assert!(!first.now.iter().any(is_said), "{:?}", first.now);
    assert!(first.after_persist.iter().any(|e| matches!(e, crate::core::Effect::Reply { .. })));
    let mut again = Effects::default();
    env.core.handle(env.now, ask(2), &mut again);
    assert!(again.persist.is_empty() && again.waits);
    assert!(matches!(
        again.after_persist[..],
        [crate::core::Effect::Reply { request: RequestId(2), reply: Ok(_) }]
    ));
}

/// Rule 47.
#[test]
fn who_knows_no_partitions_hears_that_its_tasks_are_lost() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024");
    env.describe_framework("f1", &["ads"]);
    // MULTI_ROLE alone.
    env.frameworks.get_mut("f1").unwrap().info.capabilities.truncate(1);
    env.subscribe("f1");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    gone(&mut env, "a1").unwrap();
    let update = env.update("f1");
    assert_eq!(update.state(), TaskState::TaskLost);
    assert_eq!(update.reason(), Reason::AgentRemovedByOperator);
    let agent = env.agent_id("a1");
    env.reconcile("f1", &[("t2", Some(&agent))]);
    assert_eq!(env.update("f1").state(), TaskState::TaskLost);
}

/// What its agent said of a task is not undone by the agent's end.
#[test]
fn a_task_that_has_ended_keeps_its_end() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.report("a1", "f1", "t1", TaskState::TaskFinished);
    let unacknowledged = env.update("f1");
    assert!(unacknowledged.uuid.is_some());
    gone(&mut env, "a1").unwrap();
    let update = env.update("f1");
    assert_eq!(update.state(), TaskState::TaskFinished);
    assert!(update.uuid.is_none(), "there is nobody to acknowledge it to");
    assert!(env.live_tasks().is_empty());
    env.reconcile("f1", &[("t1", None)]);
    assert_eq!(env.update("f1").state(), TaskState::TaskFinished);
}

/// Rule 40: with or without tasks there.
#[test]
fn every_framework_hears_of_the_agents_end() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads").framework("f2", "other");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let agent = env.agent_id("a1");
    for framework in ["f1", "f2"] {
        env.inbox(framework);
    }
    gone(&mut env, "a1").unwrap();
    for framework in ["f1", "f2"] {
        let inbox = env.inbox(framework);
        let failures: Vec<_> = inbox.iter().filter_map(|event| event.failure.as_ref()).collect();
        let [failure] = &failures[..] else { panic!("{framework}: {inbox:?}") };
        assert_eq!(failure.agent_id.as_ref().map(|id| &id.value), Some(&agent));
        assert!(failure.executor_id.is_none() && failure.status.is_none(), "{failure:?}");
        let updates = inbox.iter().filter(|event| event.r#type() == SchedulerEvent::Update);
        assert_eq!(updates.count(), usize::from(framework == "f1"));
    }
}

/// The master has restarted, and the agent is not back yet.
#[test]
fn an_agent_that_is_awaited_can_be_given_up_too() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.restart_master();
    env.subscribe("f1");
    env.inbox("f1");
    let agent = env.agent_id("a1");
    env.reconcile("f1", &[("t1", Some(&agent))]);
    assert!(env.updates("f1").is_empty(), "it may still bring the task");
    gone(&mut env, "a1").unwrap();
    assert_eq!(env.core.counters().agents_recovering, 0);
    assert_eq!(env.event_types("f1"), [SchedulerEvent::Failure]);
    env.reconcile("f1", &[("t1", Some(&agent))]);
    assert_eq!(env.update("f1").state(), TaskState::TaskGoneByOperator);
    env.agent_inbox("a1");
    env.reregister("a1");
    let told = env.agent_inbox("a1");
    assert!(matches!(&told[..], [Message::Refused(r)] if r.gone()), "{told:?}");
    assert!(env.live_tasks().is_empty());
}
