//! Checks and health checks (behaviour rule 61, scenario 61).

use std::time::Duration;

use mezz_proto::v1::{
    self, CheckInfo, HealthCheck, TaskState, check_info, health_check, task_status::Reason,
};

use super::{commands::signals, env::*};
use crate::{
    containerizer::Program,
    core::{Answer, Effect, Event, NoAnswer, Probe, ProbeId},
};

pub(super) const BAD: Result<Answer, NoAnswer> = Ok(Answer::Tcp(false));
pub(super) const GOOD: Result<Answer, NoAnswer> = Ok(Answer::Tcp(true));

/// TCP, at once and each second, with no grace.
pub(super) fn health(consecutive_failures: u32) -> HealthCheck {
    HealthCheck {
        r#type: Some(health_check::Type::Tcp.into()),
        tcp: Some(health_check::TcpCheckInfo { port: 80, protocol: None }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(1.0),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(consecutive_failures),
        ..Default::default()
    }
}

fn check() -> CheckInfo {
    CheckInfo {
        r#type: Some(check_info::Type::Command.into()),
        command: Some(check_info::Command { command: command("true") }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(1.0),
        ..Default::default()
    }
}

fn healthy_task(health_check: HealthCheck) -> v1::TaskInfo {
    v1::TaskInfo { health_check: Some(health_check), ..task("t") }
}

pub(super) fn probes(env: &mut TestEnv) -> Vec<(ProbeId, Probe, Option<Duration>)> {
    let mut probes = Vec::new();
    env.log.retain(|effect| match effect {
        Effect::Probe { probe, what, timeout, .. } => {
            probes.push((*probe, (**what).clone(), *timeout));
            false
        }
        _ => true,
    });
    probes
}

/// The attempt that is due after `wait`, and what it found.
#[track_caller]
fn answer(
    env: &mut TestEnv,
    container: &mezz_proto::ids::ContainerId,
    wait: u64,
    outcome: Result<Answer, NoAnswer>,
) {
    env.advance(Duration::from_secs(wait));
    let due = probes(env);
    assert_eq!(due.len(), 1, "one attempt: {due:?}");
    env.handle(Event::Probed { container: container.clone(), probe: due[0].0, outcome });
}

#[test]
fn too_many_failures_kill_the_task_and_each_is_told() {
    let mut env = TestEnv::new();
    let container = env.running(healthy_task(health(4)));
    for at in 0..4 {
        answer(&mut env, &container, at.min(1), BAD);
        let told = env.expect(TaskState::TaskRunning);
        assert_eq!(told.healthy, Some(false));
        reason(&told, Reason::TaskHealthCheckStatusUpdated);
        assert!(told.message.unwrap().contains("nobody listened"));
    }
    assert_eq!(signals(&env.take()), [15]);
    env.ended(&container, 15);
    let killed = env.expect(TaskState::TaskKilled);
    assert_eq!(killed.healthy, Some(false));
    assert_eq!(killed.reason, None);
    env.advance(Duration::from_secs(60));
    assert!(probes(&mut env).is_empty());
}

#[test]
fn grace_masks_failures_until_the_first_success_only() {
    let mut env = TestEnv::new();
    let check = HealthCheck { grace_period_seconds: Some(9999.0), ..health(2) };
    let container = env.running(healthy_task(check.clone()));
    for at in 0..10 {
        answer(&mut env, &container, at.min(1), BAD);
        assert!(env.updates().is_empty());
    }
    env.ended(&container, 0);
    let finished = env.expect(TaskState::TaskFinished);
    assert_eq!(finished.healthy, None, "scenario 61");

    let container = env.running(healthy_task(check));
    answer(&mut env, &container, 0, GOOD);
    assert_eq!(env.expect(TaskState::TaskRunning).healthy, Some(true));
    answer(&mut env, &container, 1, BAD);
    assert_eq!(env.expect(TaskState::TaskRunning).healthy, Some(false));
    answer(&mut env, &container, 1, BAD);
    env.expect(TaskState::TaskRunning);
    assert_eq!(signals(&env.take()), [15]);
}

#[test]
fn success_is_told_first_and_after_failures() {
    let mut env = TestEnv::new();
    let container = env.running(healthy_task(health(3)));
    for (outcome, told) in [
        (GOOD, Some(true)),
        (GOOD, None),
        (BAD, Some(false)),
        (Err(NoAnswer::Failed("no answer".to_owned())), Some(false)),
        (GOOD, Some(true)),
        (BAD, Some(false)),
        (BAD, Some(false)),
        (GOOD, Some(true)),
    ] {
        env.advance(Duration::from_secs(1));
        let due = probes(&mut env);
        env.handle(Event::Probed { container: container.clone(), probe: due[0].0, outcome });
        match told {
            Some(_) => assert_eq!(env.expect(TaskState::TaskRunning).healthy, told),
            None => assert!(env.updates().is_empty()),
        }
    }
    assert!(signals(&env.take()).is_empty(), "never three in a row");
}

#[test]
fn a_check_that_could_not_be_made_says_nothing_of_the_task() {
    let mut env = TestEnv::new();
    let info = v1::TaskInfo { check: Some(check()), ..healthy_task(health(2)) };
    let container = env.running(info);
    // In turns, of both checks: the attempt of the first kind that is out.
    let mut made = |tcp: Result<Answer, NoAnswer>, exit: Result<Answer, NoAnswer>| {
        env.advance(Duration::from_secs(1));
        let due = probes(&mut env);
        assert_eq!(due.len(), 2, "each is tried again after its interval: {due:?}");
        for (probe, what, _) in due {
            let outcome = if matches!(what, Probe::Tcp { .. }) { &tcp } else { &exit };
            let (container, outcome) = (container.clone(), outcome.clone());
            env.handle(Event::Probed { container, probe, outcome });
        }
        let mut told = Vec::new();
        while let Some(update) = env.updates().pop() {
            env.ack(&update.status);
            let exit_code = update.status.check_status.and_then(|check| check.command?.exit_code);
            told.push((update.status.healthy, exit_code));
        }
        (told, signals(&env.take()))
    };
    let not_made = || Err(NoAnswer::NotMade("too many open files".to_owned()));
    for _ in 0..5 {
        assert_eq!(made(not_made(), not_made()), (vec![], vec![]));
    }
    let (told, killed) = made(BAD, Ok(Answer::Exit(0)));
    assert_eq!((told.last(), killed), (Some(&(Some(false), Some(0))), vec![]));
    for _ in 0..5 {
        assert_eq!(made(not_made(), not_made()), (vec![], vec![]));
    }
    // It makes nobody healthy either: this is the second failure in a row.
    let (told, killed) = made(BAD, Ok(Answer::Exit(0)));
    assert_eq!((told, killed), (vec![(Some(false), Some(0))], vec![15]));
}

#[test]
fn a_clock_that_is_set_back_puts_no_check_off() {
    let mut env = TestEnv::new();
    let info = HealthCheck { grace_period_seconds: Some(5.0), ..health(2) };
    let info = HealthCheck { delay_seconds: Some(2.0), ..info };
    let container = env.running(healthy_task(info));
    env.now = env.now - Duration::from_secs(600);
    env.restart(|_| true, false);
    env.register();
    assert!(probes(&mut env).is_empty(), "not all at once");
    answer(&mut env, &container, 2, BAD);
    assert!(env.updates().is_empty(), "in its grace");
    for _ in 0..3 {
        answer(&mut env, &container, 1, BAD);
        assert!(env.updates().is_empty(), "in its grace");
    }
    answer(&mut env, &container, 1, BAD);
    assert_eq!(env.expect(TaskState::TaskRunning).healthy, Some(false), "after its grace");
    answer(&mut env, &container, 1, BAD);
    env.expect(TaskState::TaskRunning);
    assert_eq!(signals(&env.take()), [15]);
}

#[test]
fn times_are_those_of_mesos_where_none_are_given() {
    let mut env = TestEnv::new();
    let check = HealthCheck { tcp: health(1).tcp, r#type: health(1).r#type, ..Default::default() };
    let container = env.running(healthy_task(check));
    env.advance(Duration::from_millis(14_999));
    assert!(probes(&mut env).is_empty());
    env.advance(Duration::from_millis(1));
    let due = probes(&mut env);
    assert_eq!(due[0].1, Probe::Tcp { port: 80, ipv6: false });
    assert_eq!(due[0].2, Some(Duration::from_secs(20)));
    // It takes its time; the interval begins afterwards.
    env.advance(Duration::from_secs(19));
    assert!(probes(&mut env).is_empty());
    env.handle(Event::Probed { container: container.clone(), probe: due[0].0, outcome: BAD });
    assert_eq!(env.expect(TaskState::TaskRunning).healthy, Some(false));
    env.advance(Duration::from_millis(9_999));
    assert!(probes(&mut env).is_empty());
    answer(&mut env, &container, 1, BAD);
    env.expect(TaskState::TaskRunning);
    answer(&mut env, &container, 10, BAD);
    env.expect(TaskState::TaskRunning);
    assert_eq!(signals(&env.take()), [15], "three");
}

#[test]
fn a_check_tells_changes_and_kills_nobody() {
    let mut env = TestEnv::new();
    let info = v1::TaskInfo { check: Some(check()), ..task("t") };
    env.run(vec![info]);
    let container = env.launch();
    env.launched(&container);
    let exit_code = |status: &v1::TaskStatus| {
        let check = status.check_status.as_ref().expect("each status tells of the check");
        assert_eq!(check.r#type(), check_info::Type::Command);
        check.command.as_ref().unwrap().exit_code
    };
    assert_eq!(exit_code(&env.expect(TaskState::TaskRunning)), None);
    for (outcome, told) in [
        (Ok(Answer::Exit(0)), Some(Some(0))),
        (Ok(Answer::Exit(0)), None),
        (Ok(Answer::Exit(3)), Some(Some(3))),
        (Err(NoAnswer::Failed("no answer".to_owned())), Some(None)),
        (Err(NoAnswer::Failed("no answer".to_owned())), None),
    ] {
        env.advance(Duration::from_secs(1));
        let due = probes(&mut env);
        assert!(
            matches!(&due[0].1, Probe::Command(spec) if spec.program == Program::Shell("true".into()))
        );
        env.handle(Event::Probed { container: container.clone(), probe: due[0].0, outcome });
        match told {
            Some(code) => {
                let status = env.expect(TaskState::TaskRunning);
                reason(&status, Reason::TaskCheckStatusUpdated);
                assert_eq!((exit_code(&status), status.healthy), (code, None));
            }
            None => assert!(env.updates().is_empty()),
        }
    }
    env.ended(&container, 0);
    assert_eq!(exit_code(&env.expect(TaskState::TaskFinished)), None);
}

#[test]
fn health_outlives_the_agent() {
    let mut env = TestEnv::new();
    let container = env.running(healthy_task(health(3)));
    for wait in [0, 1] {
        answer(&mut env, &container, wait, BAD);
        env.expect(TaskState::TaskRunning);
    }
    env.restart(|_| true, false);
    env.register();
    assert!(env.updates().is_empty());
    assert!(probes(&mut env).is_empty(), "not all at once");
    answer(&mut env, &container, 1, BAD);
    assert_eq!(env.expect(TaskState::TaskRunning).healthy, Some(false));
    assert_eq!(signals(&env.take()), [15], "two before, one now");
    env.restart(|_| true, false);
    env.register();
    env.advance(Duration::from_secs(2));
    assert!(probes(&mut env).is_empty(), "it is to end");
    env.ended(&container, 9);
    assert_eq!(env.expect(TaskState::TaskKilled).healthy, Some(false));
}

#[test]
fn an_answer_that_comes_late_is_nobodys() {
    let mut env = TestEnv::new();
    let container = env.running(healthy_task(health(1)));
    env.advance(Duration::ZERO);
    let probe = probes(&mut env)[0].0;
    env.kill("t", None);
    env.take();
    env.handle(Event::Probed { container: container.clone(), probe, outcome: BAD });
    assert!(env.updates().is_empty());
    env.ended(&container, 9);
    let killed = env.expect(TaskState::TaskKilled);
    assert_eq!(killed.healthy, None, "not for its health");
    env.handle(Event::Probed { container, probe, outcome: BAD });
    assert!(env.updates().is_empty());
}

#[test]
fn a_framework_that_is_away_does_not_fill_the_agent() {
    let mut env = TestEnv::new();
    let container = env.running(healthy_task(health(3)));
    for at in 0..100 {
        answer(&mut env, &container, 1, if at % 2 == 0 { BAD } else { GOOD });
    }
    let waiting = &env.store.states[&key("t")].updates;
    assert_eq!(waiting.len(), 16);
    assert_eq!(waiting.last().unwrap().healthy, Some(true), "the newest is kept");
}

#[test]
fn what_is_wrong_is_refused_with_the_field() {
    type Break = fn(&mut v1::TaskInfo);
    let broken: [(&str, Break); 9] = [
        ("health_check.type", |t| t.health_check = Some(HealthCheck::default())),
        ("health_check.tcp", |t| t.health_check = Some(HealthCheck { tcp: None, ..health(1) })),
        ("health_check.tcp.port", |t| {
            let tcp = Some(health_check::TcpCheckInfo { port: 70_000, protocol: None });
            t.health_check = Some(HealthCheck { tcp, ..health(1) });
        }),
        ("health_check.interval_seconds", |t| {
            t.health_check = Some(HealthCheck { interval_seconds: Some(-1.0), ..health(1) });
        }),
        ("health_check.grace_period_seconds", |t| {
            t.health_check =
                Some(HealthCheck { grace_period_seconds: Some(f64::NAN), ..health(1) });
        }),
        ("health_check.http.path", |t| {
            t.health_check = Some(HealthCheck {
                r#type: Some(health_check::Type::Http.into()),
                http: Some(health_check::HttpCheckInfo {
                    port: 80,
                    path: Some("x".into()),
                    ..Default::default()
                }),
                ..health(1)
            });
        }),
        ("health_check.http.scheme", |t| {
            t.health_check = Some(HealthCheck {
                r#type: Some(health_check::Type::Http.into()),
                http: Some(health_check::HttpCheckInfo {
                    port: 80,
                    scheme: Some("ftp".into()),
                    ..Default::default()
                }),
                ..health(1)
            });
        }),
        ("check.command.command.value", |t| {
            let command = Some(check_info::Command { command: v1::CommandInfo::default() });
            t.check = Some(CheckInfo { command, ..check() });
        }),
        ("check.timeout_seconds", |t| {
            t.check = Some(CheckInfo { timeout_seconds: Some(-0.5), ..check() });
        }),
    ];
    for (field, break_it) in broken {
        let mut env = TestEnv::new();
        let mut info = task("t");
        break_it(&mut info);
        env.run(vec![info]);
        assert!(env.launches().is_empty());
        let refused = env.expect(TaskState::TaskError);
        reason(&refused, Reason::TaskInvalid);
        let message = refused.message.unwrap();
        assert!(message.starts_with(field), "{field}: {message}");
    }
}

#[test]
fn an_executors_task_is_its_own_to_check() {
    let mut env = TestEnv::new();
    env.run(vec![v1::TaskInfo { health_check: Some(health(1)), ..executor_task("t") }]);
    let spec = env.launches().remove(0);
    env.launched(&spec.id);
    env.call(1, &spec.environment["MEZZ_EXECUTOR_TOKEN"], subscribe());
    env.call(1, "", update(status("t", TaskState::TaskRunning, 1)));
    env.advance(Duration::from_secs(60));
    assert!(probes(&mut env).is_empty());
}
