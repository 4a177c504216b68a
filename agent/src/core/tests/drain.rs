//! Draining, and what an agent cannot run.

use std::time::Duration;

use mezz_proto::{
    ids::ContainerId,
    mezz::v1::{self as mezz, agent_message, master_message},
    v1::{
        self, TaskState, container_info, framework_info::capability::Type as Capability,
        task_status::Reason,
    },
};

use super::{
    commands::signals,
    env::*,
    executors::{subscribed, subscribed_with},
};
use crate::{
    containerizer::{Limitation, LimitationKind, Program},
    core::{Abilities, Change, CoreOptions, Effect, Event},
};

fn drain(env: &mut TestEnv, grace: Option<u64>, mark_gone: bool) {
    let max_grace_period = grace.map(|secs| v1::DurationInfo {
        nanoseconds: i64::try_from(Duration::from_secs(secs).as_nanos()).unwrap(),
    });
    let mark_gone = Some(mark_gone);
    env.master(master_message::Message::Drain(mezz::Drain {
        max_grace_period,
        mark_gone,
        number: 7,
    }));
}

#[test]
fn kills_what_runs_and_takes_nothing_more() {
    let mut env = TestEnv::new();
    env.run_for(framework("F", &[Capability::TaskKillingState]), vec![task("t")], None);
    let running = env.launch();
    env.launched(&running);
    env.expect(TaskState::TaskRunning);
    env.run_for(framework("F", &[Capability::TaskKillingState]), vec![task("u")], None);
    let starting = env.launch();
    drain(&mut env, None, false);
    let killing = env.expect(TaskState::TaskKilling);
    reason(&killing, Reason::AgentDraining);
    assert_eq!(signals(&env.take()), [15, 9]);
    env.handle(Event::LaunchFailed { container: starting, error: "ended".into() });
    reason(&env.expect(TaskState::TaskKilled), Reason::AgentDraining);
    env.ended(&running, 15);
    reason(&env.expect(TaskState::TaskKilled), Reason::AgentDraining);
    env.run(vec![task("late")]);
    reason(&env.expect(TaskState::TaskLost), Reason::AgentDraining);
    env.run_for(framework("F", &[Capability::PartitionAware]), vec![task("late")], None);
    reason(&env.expect(TaskState::TaskDropped), Reason::AgentDraining);
    env.master(master_message::Message::Reactivate(mezz::Reactivate {}));
    env.running(task("after"));
}

#[test]
fn grace_is_only_shortened() {
    for (own, longest, expected) in [(8, Some(2), 2), (1, Some(5), 1), (8, None, 8)] {
        let mut env = TestEnv::new();
        let kill_policy = Some(policy(Duration::from_secs(own)));
        env.running(v1::TaskInfo { kill_policy, ..task("t") });
        drain(&mut env, longest, false);
        env.take();
        env.advance(Duration::from_millis(expected * 1000 - 1));
        assert!(signals(&env.take()).is_empty());
        env.advance(Duration::from_millis(1));
        assert_eq!(signals(&env.take()), [9], "{own} {longest:?}");
    }
}

#[test]
fn lasts_as_long_as_the_master_says_and_its_kills_longer() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    drain(&mut env, None, false);
    env.restart(|_| true, false);
    env.link_up();
    env.master(master_message::Message::Registered(mezz::Registered {
        agent_id: v1::AgentId { value: AGENT.into() },
        master_id: "M".into(),
        ping_interval_ms: 0,
        completed_frameworks: vec![],
        drain: Some(mezz::Drain::default()),
        ..Default::default()
    }));
    env.take();
    env.run(vec![task("late")]);
    reason(&env.expect(TaskState::TaskLost), Reason::AgentDraining);
    env.ended(&container, 15);
    reason(&env.expect(TaskState::TaskKilled), Reason::AgentDraining);
    // One that an operator ended meanwhile is over.
    env.register();
    env.running(task("after"));
}

#[test]
fn a_task_of_an_agent_that_does_not_come_back_is_gone_for_whoever_knows() {
    for (capabilities, state) in [
        (&[Capability::PartitionAware][..], TaskState::TaskGoneByOperator),
        (&[], TaskState::TaskKilled),
    ] {
        let mut env = TestEnv::new();
        env.run_for(framework("F", capabilities), vec![task("t")], None);
        let container = env.launch();
        env.launched(&container);
        env.expect(TaskState::TaskRunning);
        drain(&mut env, None, true);
        env.ended(&container, 15);
        reason(&env.expect(state), Reason::AgentDraining);
    }
}

#[test]
fn executors_are_asked_and_what_they_say_gets_the_reason() {
    let mut env = TestEnv::new();
    subscribed(&mut env);
    env.call(1, "", update(status("a", TaskState::TaskRunning, 1)));
    env.expect(TaskState::TaskRunning);
    drain(&mut env, Some(1), false);
    let kill = env.events(1).into_iter().find_map(|event| event.kill).unwrap();
    assert_eq!(kill.kill_policy, Some(policy(Duration::from_secs(1))));
    env.call(1, "", update(status("a", TaskState::TaskKilled, 2)));
    reason(&env.expect(TaskState::TaskKilled), Reason::AgentDraining);
}

#[test]
fn what_waits_for_its_executor_is_killed_at_once() {
    let mut env = TestEnv::new();
    env.run(vec![executor_task("a")]);
    env.launch();
    drain(&mut env, None, false);
    reason(&env.expect(TaskState::TaskKilled), Reason::AgentDraining);
}

#[test]
fn one_that_took_too_much_is_told_so() {
    for (kind, expected) in [
        (LimitationKind::Disk, Reason::ContainerLimitationDisk),
        (LimitationKind::Ports, Reason::ContainerLimitation),
    ] {
        let mut env = TestEnv::new();
        let container = env.running(task("t"));
        let limitation = Limitation { kind, message: "2 GB of 1 GB".into() };
        env.handle(Event::ContainerLimited { container: container.clone(), limitation });
        assert_eq!(signals(&env.take()), [9]);
        // Also by an agent that was not there when it ended.
        env.restart(|_| true, false);
        assert_eq!(signals(&env.take()), [9], "and that sees to it");
        env.register();
        env.ended(&container, 9);
        let failed = env.expect(TaskState::TaskFailed);
        reason(&failed, expected);
        assert_eq!(failed.message.as_deref(), Some("2 GB of 1 GB"));
    }
}

#[test]
fn what_a_container_took_is_stored_before_it_ends() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.take();
    env.dies = true;
    let limitation = Limitation { kind: LimitationKind::Disk, message: "much".into() };
    env.handle(Event::ContainerLimited { container: container.clone(), limitation });
    assert!(signals(&env.take()).is_empty());
    env.restart(|_| true, false);
    assert!(signals(&env.take()).is_empty(), "the next agent sees for itself");
}

#[test]
fn a_task_that_was_to_be_killed_anyway_is_killed_at_once_for_what_it_took() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    env.kill("t", Some(Duration::from_secs(100)));
    env.take();
    let limitation = Limitation { kind: LimitationKind::Disk, message: "much".into() };
    env.handle(Event::ContainerLimited { container: container.clone(), limitation });
    assert_eq!(signals(&env.take()), [9]);
    env.ended(&container, 9);
    env.expect(TaskState::TaskKilled);
}

#[test]
fn an_executor_that_took_too_much_ends_for_that_with_its_tasks() {
    for in_its_grace in [false, true] {
        let mut env = TestEnv::new();
        let container = subscribed(&mut env).0;
        env.call(1, "", update(status("a", TaskState::TaskRunning, 1)));
        env.expect(TaskState::TaskRunning);
        if in_its_grace {
            env.shutdown_executor();
        }
        env.take();
        let limitation = Limitation { kind: LimitationKind::Disk, message: "much".into() };
        env.handle(Event::ContainerLimited { container: container.clone(), limitation });
        assert_eq!(signals(&env.take()), [9]);
        env.restart(|_| true, false);
        env.register();
        env.ended(&container, 9);
        let failed = env.expect(TaskState::TaskFailed);
        reason(&failed, Reason::ContainerLimitationDisk);
        assert_eq!(failed.message.as_deref(), Some("much"));
    }
}

fn with(abilities: Abilities) -> TestEnv {
    let mut env = TestEnv::unlinked(CoreOptions { abilities, ..options() });
    env.register();
    env
}

fn docker(id: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        container: Some(v1::ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            docker: Some(container_info::DockerInfo { image: "i".into(), ..Default::default() }),
            ..Default::default()
        }),
        ..task(id)
    }
}

#[test]
fn what_the_agent_can_do_is_taken_in_as_it_is() {
    let mut env = with(Abilities { docker: true, images: true, isolation: true });
    env.run(vec![docker("t")]);
    let spec = env.launches().remove(0);
    assert_eq!(spec.info.as_deref(), docker("t").container.as_ref());
    assert_eq!(spec.program, Program::Shell("true".into()));
    let mut own = docker("u");
    own.command = Some(v1::CommandInfo {
        shell: Some(false),
        value: Some("serve".into()),
        arguments: vec!["-v".into()],
        ..Default::default()
    });
    env.run(vec![own.clone()]);
    let argv = vec!["serve".to_owned(), "-v".to_owned()];
    assert_eq!(env.launches()[0].program, Program::Image { argv });
    own.task_id.value = "v".into();
    own.command = Some(v1::CommandInfo { shell: Some(false), ..Default::default() });
    env.run(vec![own]);
    assert_eq!(env.launches()[0].program, Program::Image { argv: vec![] });
}

#[test]
fn docker_has_more_grace() {
    let mut env = with(Abilities { docker: true, ..Default::default() });
    env.running(docker("t"));
    env.kill("t", None);
    env.take();
    env.advance(Duration::from_millis(4999));
    assert!(signals(&env.take()).is_empty());
    env.advance(Duration::from_millis(1));
    assert_eq!(signals(&env.take()), [9]);
}

/// What readers hear of drains.
fn told(env: &mut TestEnv) -> Vec<Option<(Option<bool>, u64)>> {
    let drain = |effect| match effect {
        Effect::Change(Change::Drain(drain)) => {
            Some(drain.map(|(config, since)| (config.mark_gone, since.as_nanos() / 1_000_000_000)))
        }
        _ => None,
    };
    std::mem::take(&mut env.log).into_iter().filter_map(drain).collect()
}

#[test]
fn readers_hear_of_a_drain_from_its_beginning_to_its_end() {
    let mut env = TestEnv::new();
    env.running(task("t"));
    env.take();
    drain(&mut env, None, true);
    assert_eq!(told(&mut env), [Some((Some(true), 1_000))]);
    // The next master says it again: it has lasted since the first one did.
    env.advance(Duration::from_secs(5));
    env.link_down();
    env.link_up();
    assert!(told(&mut env).is_empty(), "it goes on without a master");
    let again = mezz::Drain { max_grace_period: None, mark_gone: Some(true), number: 1 };
    env.master(master_message::Message::Registered(mezz::Registered {
        agent_id: v1::AgentId { value: AGENT.into() },
        drain: Some(again),
        ..Default::default()
    }));
    assert_eq!(told(&mut env), [Some((Some(true), 1_000))]);
    env.advance(Duration::from_secs(5));
    drain(&mut env, None, false);
    assert_eq!(told(&mut env), [Some((Some(false), 1_010))]);
    env.master(master_message::Message::Reactivate(mezz::Reactivate {}));
    assert_eq!(told(&mut env), [None]);
    env.link_down();
    env.register();
    assert!(told(&mut env).is_empty());
}

fn torn_down(env: &mut TestEnv) {
    let framework_id = v1::FrameworkId { value: "F".into() };
    env.master(master_message::Message::ShutdownFramework(mezz::ShutdownFramework {
        framework_id,
    }));
}

/// Orders that the agent has said to have carried out.
fn carried_out(env: &mut TestEnv) -> Vec<u64> {
    let drained = |effect| match effect {
        Effect::SendMaster { message, .. } => match message.message {
            Some(agent_message::Message::Drained(drained)) => Some(drained.number),
            _ => None,
        },
        _ => None,
    };
    env.take().into_iter().filter_map(drained).collect()
}

fn shut_down(env: &mut TestEnv) -> bool {
    env.event_types(1).contains(&"SHUTDOWN")
}

#[test]
fn says_when_nothing_is_left_and_not_before() {
    let mut env = TestEnv::new();
    let kill_policy = Some(policy(Duration::from_secs(50)));
    let container = env.running(v1::TaskInfo { kill_policy, ..task("t") });
    drain(&mut env, None, true);
    torn_down(&mut env);
    env.advance(Duration::from_secs(49));
    assert!(carried_out(&mut env).is_empty(), "it is in its grace, whoever knows");
    env.ended(&container, 15);
    assert_eq!(carried_out(&mut env), [7]);
    // And again whenever it is asked.
    drain(&mut env, None, true);
    assert_eq!(carried_out(&mut env), [7]);
    env.run(vec![task("late")]);
    assert!(carried_out(&mut env).is_empty());
    env.register();
    assert!(carried_out(&mut env).is_empty(), "it is over");
}

#[test]
fn says_it_to_the_master_that_asks() {
    let mut env = TestEnv::new();
    let container = env.running(task("t"));
    drain(&mut env, None, false);
    env.link_down();
    env.ended(&container, 15);
    assert!(carried_out(&mut env).is_empty());
    env.link_up();
    env.master(master_message::Message::Registered(mezz::Registered {
        agent_id: v1::AgentId { value: AGENT.into() },
        master_id: "M".into(),
        ping_interval_ms: 0,
        completed_frameworks: vec![],
        drain: Some(mezz::Drain { number: 1, ..Default::default() }),
        ..Default::default()
    }));
    assert_eq!(carried_out(&mut env), [1]);
}

#[test]
fn executors_end_with_their_last_task() {
    for idle in [false, true] {
        let mut env = TestEnv::new();
        let (container, _) = subscribed(&mut env);
        let finish = |env: &mut TestEnv| {
            env.call(1, "", update(status("a", TaskState::TaskFinished, 1)));
            env.expect(TaskState::TaskFinished);
        };
        if idle {
            finish(&mut env);
        }
        drain(&mut env, None, false);
        if !idle {
            assert!(!shut_down(&mut env), "its task comes first");
            finish(&mut env);
        }
        assert!(shut_down(&mut env));
        assert!(carried_out(&mut env).is_empty());
        env.ended(&container, 0);
        assert_eq!(carried_out(&mut env), [7]);
    }
}

/// What has happened since it was last asked.
fn destroyed(env: &mut TestEnv, container: &ContainerId) -> bool {
    env.take().contains(&Effect::Destroy { container: container.clone() })
}

#[test]
fn no_executor_holds_a_drain_up() {
    let own = Duration::from_secs(10 * 365 * 24 * 3600);
    let earlier: [fn(&mut TestEnv); 3] = [|_| {}, torn_down, TestEnv::shutdown_executor];
    let later: [fn(&mut TestEnv); 2] = [|_| {}, torn_down];
    for (grace, expected) in [(Some(20), 20), (None, 60), (Some(0), 0)] {
        for (before, after) in earlier.iter().flat_map(|b| later.iter().map(move |a| (b, a))) {
            let mut env = TestEnv::new();
            let (container, _) = subscribed_with(&mut env, Some(own));
            env.call(1, "", update(status("a", TaskState::TaskFinished, 1)));
            before(&mut env);
            drain(&mut env, grace, false);
            after(&mut env);
            assert!(grace == Some(0) || !destroyed(&mut env, &container));
            if expected > 0 {
                env.advance(Duration::from_secs(expected - 1));
                assert!(!destroyed(&mut env, &container), "it is in its grace");
                // The order is said again, after which it has no more either.
                drain(&mut env, grace, false);
                env.advance(Duration::from_secs(1));
            }
            assert!(destroyed(&mut env, &container), "{grace:?}");
            env.ended(&container, 9);
            assert_eq!(carried_out(&mut env), [7]);
        }
    }
}

#[test]
fn what_a_drain_leaves_of_an_executors_grace_holds_over_restarts() {
    let mut env = TestEnv::new();
    let (container, _) = subscribed_with(&mut env, Some(Duration::from_secs(100_000)));
    env.shutdown_executor();
    drain(&mut env, Some(20), false);
    env.restart(|_| true, false);
    env.take();
    env.advance(Duration::from_secs(19));
    assert!(!destroyed(&mut env, &container));
    env.advance(Duration::from_secs(1));
    assert!(destroyed(&mut env, &container));
}

fn given_up(env: &mut TestEnv) {
    env.master(master_message::Message::Refused(mezz::Refused {
        reason: "gone".into(),
        permanent: true,
        gone: Some(true),
        ..Default::default()
    }));
}

fn end(env: &mut TestEnv) -> Option<usize> {
    env.take().into_iter().find_map(|effect| match effect {
        Effect::Gone { left, reason } => {
            assert_eq!(reason, "gone");
            Some(left)
        }
        _ => None,
    })
}

#[test]
fn an_agent_that_is_given_up_ends_all_that_it_runs_and_then_itself() {
    let mut env = TestEnv::new();
    let (executor, _) = subscribed(&mut env);
    let command = env.running(task("t"));
    env.take();
    given_up(&mut env);
    assert_eq!(signals(&env.log), [15]);
    assert!(shut_down(&mut env));
    // It looks for no master meanwhile.
    env.link_up();
    let said = env.take();
    assert!(said.contains(&Effect::CloseLink { link: env.link }));
    assert!(!said.iter().any(|effect| matches!(effect, Effect::SendMaster { .. })), "{said:?}");
    env.ended(&command, 15);
    assert_eq!(end(&mut env), None);
    env.ended(&executor, 0);
    assert_eq!(end(&mut env), Some(0));
}

#[test]
fn an_agent_that_is_given_up_and_has_nothing_ends_at_once() {
    let mut env = TestEnv::unlinked(options());
    env.link_up();
    given_up(&mut env);
    assert_eq!(end(&mut env), Some(0));
}

#[test]
fn an_agent_that_is_given_up_waits_for_no_grace_that_has_no_end() {
    let mut env = TestEnv::new();
    let kill_policy = Some(policy(Duration::from_secs(100_000)));
    env.running(v1::TaskInfo { kill_policy, ..task("t") });
    given_up(&mut env);
    env.take();
    env.advance(Duration::from_secs(59));
    assert!(signals(&env.take()).is_empty());
    env.advance(Duration::from_secs(1));
    assert_eq!(signals(&env.take()), [9]);
    env.advance(Duration::from_secs(60));
    assert_eq!(end(&mut env), Some(1), "nor for what cannot be ended");
}
