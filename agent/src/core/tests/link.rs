//! The link to the master.

use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_message, master_message},
    v1::{self, TaskState},
};

use super::env::*;
use crate::{
    containerizer::Addressee,
    core::{Effect, Effects, Event},
};

fn said(env: &mut TestEnv) -> Vec<agent_message::Message> {
    env.take()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::SendMaster { message, .. } => message.message,
            _ => None,
        })
        .collect()
}

#[test]
fn registers_first_and_reregisters_with_everything_after() {
    let mut env = TestEnv::unlinked(options());
    env.link_up();
    match &said(&mut env)[..] {
        [agent_message::Message::Register(register)] => {
            assert_eq!(register.description.agent.id, None);
            assert_eq!(register.description.boot_id.as_deref(), Some("boot"));
        }
        other => panic!("{other:?}"),
    }
    env.registered(Vec::new());
    env.running(task("t"));
    env.run(vec![executor_task("e")]);
    env.launch();
    env.link_down();
    env.take();
    env.link_up();
    match &said(&mut env)[..] {
        [agent_message::Message::Reregister(again)] => {
            assert_eq!(again.description.agent.id.as_ref().unwrap().value, AGENT);
            let tasks: Vec<_> =
                again.tasks.iter().map(|task| (&*task.task_id.value, task.state())).collect();
            assert_eq!(tasks, [("e", TaskState::TaskStaging), ("t", TaskState::TaskRunning)]);
            assert_eq!(again.frameworks.len(), 1);
            assert_eq!(again.executors[0].framework_id.as_ref().unwrap().value, "F");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn updates_wait_for_a_master_and_start_anew_with_it() {
    let mut env = TestEnv::new();
    env.run(vec![task("t")]);
    let container = env.launch();
    env.launched(&container);
    let running = env.update();
    env.link_down();
    env.advance(Duration::from_secs(100));
    env.ended(&container, 0);
    assert!(env.updates().is_empty());
    env.link_up();
    assert!(env.updates().is_empty(), "not before the master has answered");
    env.registered(Vec::new());
    let again = env.updates().remove(0);
    assert_eq!(again.status, running);
    assert_eq!(again.latest_state(), TaskState::TaskFinished);
    env.advance(Duration::from_secs(10));
    assert_eq!(env.updates().len(), 1, "the first wait again");
}

#[test]
fn a_framework_that_is_back_gets_its_updates_at_once() {
    let mut env = TestEnv::new();
    let container = env.running(task("acknowledged"));
    env.run(vec![task("t")]);
    let waiting = env.launch();
    env.launched(&waiting);
    let running = env.update();
    env.advance(Duration::from_secs(10));
    assert_eq!(env.updates().len(), 1, "the wait is 20 s from now on");
    env.advance(Duration::from_secs(1));
    assert!(env.updates().is_empty());
    let back = |id: &str| {
        let id = v1::FrameworkId { value: id.into() };
        let framework = v1::FrameworkInfo { id: Some(id), ..Default::default() };
        master_message::Message::UpdateFramework(mezz::UpdateFramework { framework })
    };
    env.master(back("another"));
    assert!(env.updates().is_empty());
    env.master(back("F"));
    let again = env.updates();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].status, running);
    env.advance(Duration::from_secs(10));
    assert_eq!(env.updates().len(), 1, "the first wait again");
    env.ended(&container, 0);
}

#[test]
fn pings_are_answered_and_missed_ones_end_the_link() {
    let mut env = TestEnv::new();
    env.advance(Duration::from_secs(70));
    env.take();
    env.master(master_message::Message::Ping(mezz::Ping { number: 7 }));
    match &said(&mut env)[..] {
        [agent_message::Message::Pong(pong)] => assert_eq!(pong.number, 7),
        other => panic!("{other:?}"),
    }
    env.advance(Duration::from_secs(74));
    assert_eq!(env.take(), []);
    env.advance(Duration::from_secs(1));
    assert_eq!(env.take(), [Effect::CloseLink { link: env.link }]);
    assert_eq!(env.core.next_deadline(), None);
}

#[test]
fn a_master_that_never_answers_is_given_up() {
    let mut env = TestEnv::unlinked(options());
    env.link_up();
    env.take();
    env.advance(Duration::from_secs(74));
    assert_eq!(env.take(), []);
    env.advance(Duration::from_secs(1));
    assert_eq!(env.take(), [Effect::CloseLink { link: env.link }]);
}

#[test]
fn a_refusal_ends_the_link_or_the_agent() {
    let mut env = TestEnv::unlinked(options());
    let refused = |permanent| {
        let reason = "go away".to_owned();
        let refused = mezz::Refused { reason, permanent, ..Default::default() };
        master_message::Message::Refused(refused)
    };
    env.link_up();
    env.take();
    env.master(refused(false));
    assert_eq!(env.take(), [Effect::CloseLink { link: env.link }]);
    env.link_up();
    env.take();
    env.master(refused(true));
    assert!(env.take().contains(&Effect::Refused { reason: "go away".into() }));
}

/// The number of the last introduction: of the start, and of the link.
fn attempt(env: &mut TestEnv) -> (u64, u64) {
    match &said(env)[..] {
        [agent_message::Message::Reregister(again)] => {
            let attempt = again.attempt.unwrap();
            (attempt.start, attempt.link)
        }
        other => panic!("{other:?}"),
    }
}

/// A master orders by it what comes on links that the agent has given up.
#[test]
fn introductions_are_numbered_over_starts_and_restored_stores() {
    let mut env = TestEnv::new();
    let mut last = (0, 0);
    for _ in 0..2 {
        for _ in 0..2 {
            env.link_down();
            env.take();
            env.link_up();
            let this = attempt(&mut env);
            assert!(this > last, "{this:?} after {last:?}");
            last = this;
        }
        env.link = crate::core::LinkId(0);
        env.restart(|_| true, false);
    }
    // A master has heard of a later start: the store was restored.
    env.link_up();
    assert!(attempt(&mut env).0 < 40);
    let refused = mezz::Refused { newer_start: Some(40), ..Default::default() };
    env.master(master_message::Message::Refused(refused));
    assert_eq!(env.take(), [Effect::CloseLink { link: env.link }]);
    env.link_up();
    assert_eq!(attempt(&mut env).0, 41);
    env.restart(|_| true, false);
    env.link_up();
    assert_eq!(attempt(&mut env).0, 42);
}

/// A greeting names tasks: a master that hears of one that the store may lose would take
/// its absence later for an end.
#[test]
fn a_greeting_waits_for_the_store() {
    let mut env = TestEnv::new();
    env.running(task("t"));
    env.link_down();
    let mut out = Effects::default();
    let up = Event::LinkUp { link: crate::core::LinkId(99), master: "m:1".to_owned() };
    env.core.handle(env.now, up, &mut out);
    let greets = |effects: &[Effect]| {
        effects.iter().filter(|e| matches!(e, Effect::SendMaster { .. })).count()
    };
    assert_eq!((greets(&out.now), greets(&out.after_persist)), (0, 1), "{out:?}");
}

#[test]
fn a_master_of_another_mind_is_not_believed() {
    let mut env = TestEnv::new();
    env.running(task("t"));
    env.link_up();
    env.take();
    env.master(master_message::Message::Registered(mezz::Registered {
        agent_id: v1::AgentId { value: "S99".into() },
        ..Default::default()
    }));
    match &env.take()[..] {
        [Effect::Alarm { message }, Effect::CloseLink { link }] => {
            assert_eq!(*link, env.link);
            for part in ["master:5050", "S99", AGENT, "`meta` in its --work-dir"] {
                assert!(message.contains(part), "{message}");
            }
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(env.core.agent_id().unwrap().as_str(), AGENT);
}

#[test]
fn commands_before_registration_or_of_an_old_link_are_not_obeyed() {
    let mut env = TestEnv::unlinked(options());
    env.link_up();
    env.run(vec![task("t")]);
    assert!(env.launches().is_empty());
    env.registered(Vec::new());
    env.link_up();
    env.registered(Vec::new());
    let now = env.link;
    env.link = crate::core::LinkId(1);
    env.run(vec![task("t")]);
    assert!(env.launches().is_empty());
    env.link_down();
    env.link = now;
    env.run(vec![task("t")]);
    assert_eq!(env.launches().len(), 1, "the end of the old link is not the end of the new");
}

#[test]
fn frameworks_that_were_torn_down_meanwhile_are_ended() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.link_down();
    env.link_up();
    env.take();
    env.registered(vec![v1::FrameworkId { value: "F".into() }]);
    assert!(env.take().contains(&Effect::Signal {
        container: container.clone(),
        signal: 15,
        to: Addressee::Tree
    }));
    env.ended(&container, 15);
    assert!(env.updates().is_empty());
    assert!(env.store.tasks.is_empty());
}

#[test]
fn an_executor_that_ends_while_the_master_considers_is_told_afterwards() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("e")]);
    let container = env.launch();
    env.launched(&container);
    env.link_down();
    env.take();
    env.link_up();
    match &said(&mut env)[..] {
        [agent_message::Message::Reregister(again)] => assert_eq!(again.executors.len(), 1),
        other => panic!("{other:?}"),
    }
    env.ended(&container, 9);
    assert_eq!(said(&mut env), [], "not before the master has answered");
    env.registered(Vec::new());
    match &said(&mut env)[..] {
        [
            agent_message::Message::StatusUpdate(update),
            agent_message::Message::ExecutorTerminated(terminated),
        ] => {
            assert_eq!(update.status.state(), TaskState::TaskFailed);
            assert_eq!(terminated.framework_id.value, "F");
            assert_eq!(terminated.executor_id.value, "E");
            assert_eq!(terminated.status, 9);
        }
        other => panic!("{other:?}"),
    }
    env.link_down();
    env.register();
    let told_once = |message: &_| !matches!(message, agent_message::Message::ExecutorTerminated(_));
    assert!(said(&mut env).iter().all(told_once));
}

#[test]
fn an_executor_of_a_framework_removed_meanwhile_is_not_told_of() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("e")]);
    let container = env.launch();
    env.launched(&container);
    env.link_down();
    env.link_up();
    env.ended(&container, 9);
    env.take();
    env.registered(vec![v1::FrameworkId { value: "F".into() }]);
    assert_eq!(said(&mut env), []);
    assert!(env.store.frameworks.is_empty());
}
