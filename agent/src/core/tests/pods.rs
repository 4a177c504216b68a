//! The default executor: groups that the agent runs itself (behaviour rules 56 and
//! 60).

use std::{path::PathBuf, time::Duration};

use mezz_proto::{
    ids::ContainerId,
    mezz::v1::{self as mezz, agent_message, master_message},
    resources::Resources,
    v1::{self, TaskState, container_info, executor_info, task_status::Reason},
};

use super::{checks, commands::signals, env::*};
use crate::{
    containerizer::{ContainerSpec, Program},
    core::{Abilities, CoreOptions, Effect, Event, SandboxRecord},
};

pub(super) fn default_executor(id: &str) -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        r#type: Some(executor_info::Type::Default.into()),
        command: None,
        ..executor(id)
    }
}

impl TestEnv {
    pub(super) fn run_group(&mut self, ids: &[&str]) {
        let tasks = ids.iter().map(|id| task(id)).collect();
        self.run_for(framework("F", &[]), tasks, Some(default_executor("E")));
    }

    /// The states of all updates since the last look, which are acknowledged until no
    /// more come, as `task STATE`.
    pub(super) fn states(&mut self) -> Vec<String> {
        let mut states = Vec::new();
        loop {
            let updates = self.updates();
            if updates.is_empty() {
                states.sort();
                return states;
            }
            for update in updates {
                let status = update.status;
                let state = status.state().as_str_name().trim_start_matches("TASK_").to_owned();
                states.push(format!("{} {state}", status.task_id.value));
                self.ack(&status);
            }
        }
    }

    /// A pod of `a` and `b` that runs.
    fn pod(&mut self) -> (ContainerId, ContainerSpec, ContainerSpec) {
        self.run_group(&["a", "b"]);
        let holder = self.launch();
        self.launched(&holder);
        let members = self.launches();
        for member in &members {
            self.launched(&member.id);
        }
        assert_eq!(self.states(), ["a RUNNING", "a STARTING", "b RUNNING", "b STARTING"]);
        (holder, members[0].clone(), members[1].clone())
    }

    fn is_destroyed(&self, container: &ContainerId) -> bool {
        let destroy = Effect::Destroy { container: container.clone() };
        self.log.contains(&destroy)
    }

    fn terminated_with(&mut self) -> Option<i32> {
        self.take().into_iter().find_map(|effect| match effect {
            Effect::SendMaster { message, .. } => match message.message {
                Some(agent_message::Message::ExecutorTerminated(told)) => Some(told.status),
                _ => None,
            },
            _ => None,
        })
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert!(self.store.tasks.is_empty(), "{:?}", self.store.tasks);
        assert!(self.store.executors.is_empty(), "{:?}", self.store.executors);
        assert!(self.store.frameworks.is_empty());
    }
}

#[test]
fn members_know_where_they_are_reached() {
    let ip = [10, 0, 0, 5].into();
    let mut env = TestEnv::unlinked(CoreOptions { executor_ip: Some(ip), ..options() });
    env.register();
    let (_, a, _) = env.pod();
    assert_eq!(a.environment["MESOS_CONTAINER_IP"], "10.0.0.5");

    // A pod that has other addresses than its machine.
    let mut env = TestEnv::unlinked(CoreOptions { executor_ip: Some(ip), ..options() });
    env.register();
    let mut elsewhere = default_executor("E");
    elsewhere.container = Some(v1::ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        network_infos: vec![v1::NetworkInfo::default()],
        ..Default::default()
    });
    env.run_for(framework("F", &[]), vec![task("a")], Some(elsewhere));
    let pod = env.launch();
    env.launched(&pod);
    assert!(!env.launches()[0].environment.contains_key("MESOS_CONTAINER_IP"));
}

#[test]
fn members_start_in_the_pod_and_are_held_to_their_own() {
    let mut env = TestEnv::new();
    env.run_group(&["a", "b"]);
    let pod = env.launches();
    assert_eq!(pod.len(), 1, "the pod comes first");
    let pod = &pod[0];
    assert_eq!(pod.program, Program::Hold);
    assert_eq!(pod.resources, Resources::cpus_mem(0.5, 32.0));
    assert_eq!(pod.user, None, "it is the agent's own");
    assert!(!pod.environment.contains_key("MEZZ_EXECUTOR_TOKEN"));
    assert!(env.updates().is_empty());
    env.launched(&pod.id);
    let links: Vec<Option<PathBuf>> = env
        .log
        .iter()
        .filter_map(|effect| match effect {
            Effect::Launch(launch) => Some(launch.link.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(links[0], Some(pod.sandbox.join("tasks/a")));
    let members = env.launches();
    assert_eq!(members.len(), 2);
    for (member, id) in members.iter().zip(["a", "b"]) {
        assert_eq!(member.pod.as_ref(), Some(&pod.id));
        assert_eq!(member.resources, Resources::cpus_mem(1.0, 64.0));
        assert_eq!(member.sandbox, pod.sandbox.join("containers").join(member.id.as_str()));
        assert_eq!(member.environment["MESOS_TASK_ID"], id);
        assert_eq!(member.environment["MESOS_EXECUTOR_ID"], "E");
        assert_eq!(member.environment["MESOS_SANDBOX"], member.sandbox.display().to_string());
        assert_eq!(member.user.as_deref(), Some("user"));
        let SandboxRecord { executor_id, path, .. } = &env.store.sandboxes[member.id.as_str()];
        assert_eq!((executor_id.as_str(), path), ("E", &member.sandbox.display().to_string()));
        let starting = env.updates().into_iter().next();
        if let Some(update) = starting {
            assert_eq!(update.status.state(), TaskState::TaskStarting);
            assert_eq!(update.status.executor_id.as_ref().unwrap().value, "E");
        }
    }
}

#[test]
fn one_that_fails_ends_its_group_and_the_pod() {
    let mut env = TestEnv::new();
    let (holder, a, b) = env.pod();
    env.ended(&a.id, 1 << 8);
    assert_eq!(env.states(), ["a FAILED"]);
    assert_eq!(signals(&env.take()), [15]);
    env.advance(Duration::from_secs(3));
    assert!(env.is_destroyed(&b.id) && !env.is_destroyed(&holder));
    env.ended(&b.id, 9);
    let killed = env.expect(TaskState::TaskKilled);
    assert!(killed.message.unwrap().contains("of its group"));
    assert!(env.is_destroyed(&holder));
    env.ended(&holder, 9);
    assert_eq!(env.terminated_with(), Some(0), "it has done its work");
    env.nothing_is_left();
}

#[test]
fn one_that_finishes_leaves_the_others_alone() {
    let mut env = TestEnv::new();
    let (holder, a, b) = env.pod();
    env.ended(&a.id, 0);
    assert_eq!(env.states(), ["a FINISHED"]);
    env.advance(Duration::from_secs(60));
    assert!(signals(&env.take()).is_empty());
    env.ended(&b.id, 0);
    assert_eq!(env.states(), ["b FINISHED"]);
    assert!(env.is_destroyed(&holder));
}

#[test]
fn other_groups_of_the_pod_go_on() {
    let mut env = TestEnv::new();
    let (holder, a, b) = env.pod();
    env.run_group(&["c"]);
    let other = env.launch();
    env.launched(&other);
    assert_eq!(env.states(), ["c RUNNING", "c STARTING"]);
    env.kill("a", None);
    env.ended(&a.id, 15);
    env.ended(&b.id, 15);
    assert_eq!(env.states(), ["a KILLED", "b KILLED"]);
    assert!(!env.is_destroyed(&holder) && !env.is_destroyed(&other));
    env.take();
    env.ended(&other, 0);
    assert_eq!(env.states(), ["c FINISHED"]);
    assert!(env.is_destroyed(&holder));
}

#[test]
fn the_end_of_the_pod_is_the_end_of_its_members() {
    let mut env = TestEnv::new();
    let (holder, a, b) = env.pod();
    env.ended(&a.id, 0);
    env.states();
    env.take();
    env.ended(&holder, 9);
    assert!(env.is_destroyed(&b.id));
    assert!(env.updates().is_empty(), "it is told when it is over");
    env.run_group(&["late"]);
    assert_eq!(env.states(), ["late LOST"]);
    env.restart(|id| *id == b.id, false);
    env.register();
    assert!(env.is_destroyed(&b.id));
    env.ended(&b.id, 9);
    let failed = env.expect(TaskState::TaskFailed);
    reason(&failed, Reason::ExecutorTerminated);
    assert!(failed.message.unwrap().contains("the executor ended"));
    env.nothing_is_left();
}

#[test]
fn a_pod_that_does_not_start_fails_its_tasks() {
    let mut env = TestEnv::new();
    env.run_group(&["a", "b"]);
    let holder = env.launch();
    env.handle(Event::LaunchFailed { container: holder, error: "no room".into() });
    let updates = env.updates();
    assert_eq!(updates.len(), 2);
    for update in &updates {
        assert_eq!(update.status.state(), TaskState::TaskFailed);
        assert!(update.status.message.as_ref().unwrap().contains("no room"));
    }
    assert_eq!(env.terminated_with(), Some(-1));
    for update in &updates {
        env.ack(&update.status);
    }
    env.nothing_is_left();
}

#[test]
fn a_member_that_does_not_start_ends_its_group() {
    let mut env = TestEnv::new();
    env.run_group(&["a", "b"]);
    let holder = env.launch();
    env.launched(&holder);
    let members = env.launches();
    env.states();
    let container = members[0].id.clone();
    env.handle(Event::LaunchFailed { container, error: "no such file".into() });
    assert_eq!(env.states(), ["a FAILED"]);
    assert!(env.is_destroyed(&members[1].id), "it has not run yet: at once");
    let container = members[1].id.clone();
    env.handle(Event::LaunchFailed { container, error: "ended".into() });
    reason(&env.expect(TaskState::TaskKilled), Reason::TaskKilledDuringLaunch);
    assert!(env.is_destroyed(&holder));
}

#[test]
fn a_kill_before_the_pod_runs_ends_the_whole_group() {
    let mut env = TestEnv::new();
    env.run_group(&["a", "b"]);
    let holder = env.launch();
    env.kill("a", None);
    assert_eq!(env.states(), ["a KILLED", "b KILLED"]);
    assert!(env.is_destroyed(&holder));
    env.handle(Event::LaunchFailed { container: holder, error: "ended".into() });
    env.nothing_is_left();
}

#[test]
fn shutdown_gives_grace_and_kills_all() {
    let mut env = TestEnv::new();
    let (holder, a, b) = env.pod();
    env.shutdown_executor();
    assert_eq!(signals(&env.take()), [15, 15]);
    env.run_group(&["late"]);
    assert_eq!(env.states(), ["late LOST"]);
    env.ended(&a.id, 15);
    assert_eq!(env.states(), ["a KILLED"]);
    assert!(!env.is_destroyed(&holder), "b needs it");
    env.advance(Duration::from_secs(5));
    assert!(env.is_destroyed(&b.id));
    env.ended(&b.id, 9);
    assert_eq!(env.states(), ["b KILLED"]);
    assert!(env.is_destroyed(&holder));
    env.ended(&holder, 9);
    assert_eq!(env.terminated_with(), Some(0));
    env.nothing_is_left();
}

#[test]
fn a_removed_frameworks_pod_ends_without_a_word() {
    let mut env = TestEnv::new();
    let (holder, a, b) = env.pod();
    let framework_id = v1::FrameworkId { value: "F".into() };
    let shutdown = mezz_proto::mezz::v1::ShutdownFramework { framework_id };
    env.master(master_message::Message::ShutdownFramework(shutdown));
    env.ended(&a.id, 15);
    env.ended(&b.id, 15);
    assert!(env.is_destroyed(&holder));
    env.ended(&holder, 9);
    assert!(env.updates().is_empty());
    assert_eq!(env.terminated_with(), None);
    env.nothing_is_left();
}

#[test]
fn a_group_that_waits_ends_at_once_for_one_cause() {
    let ids: Vec<String> = (0..2_000).map(|id| format!("t{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let max_tasks = ids.len();
    for (drains, why) in [(false, Reason::TaskKilledDuringLaunch), (true, Reason::AgentDraining)] {
        let mut env = TestEnv::unlinked(CoreOptions { max_tasks, ..options() });
        env.register();
        env.run_group(&ids);
        let holder = env.launch();
        match drains {
            true => env.master(master_message::Message::Drain(mezz::Drain::default())),
            false => env.kill("t7", None),
        }
        let told = env.updates();
        assert_eq!(told.len(), ids.len());
        for update in &told {
            let status = &update.status;
            assert_eq!(status.state(), TaskState::TaskKilled);
            reason(status, why);
            assert_eq!(status.message, told[0].status.message, "one cause");
        }
        assert!(env.is_destroyed(&holder), "it has no task any more");
    }
}

#[test]
fn policies_checks_and_times_count_for_members() {
    let mut env = TestEnv::new();
    let mut sick = task("sick");
    sick.health_check = Some(checks::health(1));
    sick.kill_policy = Some(policy(Duration::from_secs(7)));
    let mut slow = task("slow");
    slow.max_completion_time = Some(v1::DurationInfo { nanoseconds: 60_000_000_000 });
    let groups = [vec![sick], vec![slow, task("other")]];
    for group in groups {
        env.run_for(framework("F", &[]), group, Some(default_executor("E")));
    }
    let holder = env.launch();
    env.launched(&holder);
    let members = env.launches();
    for member in &members {
        env.launched(&member.id);
    }
    env.states();
    env.advance(Duration::ZERO);
    let probe = checks::probes(&mut env)[0].0;
    let container = members[0].id.clone();
    env.handle(Event::Probed { container, probe, outcome: checks::BAD });
    assert_eq!(env.states(), ["sick RUNNING"]);
    assert_eq!(signals(&env.take()), [15]);
    env.advance(Duration::from_secs(7));
    assert!(env.is_destroyed(&members[0].id));
    env.ended(&members[0].id, 9);
    assert_eq!(env.expect(TaskState::TaskKilled).healthy, Some(false));
    env.take();
    env.advance(Duration::from_secs(53));
    assert!(env.is_destroyed(&members[1].id));
    env.take();
    env.ended(&members[1].id, 9);
    reason(&env.expect(TaskState::TaskFailed), Reason::MaxCompletionTimeReached);
    assert_eq!(signals(&env.take()), [15], "the other one goes with it");
}

#[test]
fn a_restart_finds_every_state() {
    // Nothing was started yet.
    let mut env = TestEnv::new();
    env.run_group(&["a", "b"]);
    env.restart(|_| false, false);
    env.register();
    assert_eq!(env.states(), ["a FAILED", "b FAILED"]);
    env.nothing_is_left();

    // The pod was there, its members were not.
    let mut env = TestEnv::new();
    env.run_group(&["a", "b"]);
    let holder = env.launch();
    env.launched(&holder);
    env.restart(|id| *id == holder, false);
    env.register();
    assert!(env.is_destroyed(&holder));
    env.ended(&holder, 9);
    assert_eq!(env.states(), ["a FAILED", "a STARTING", "b KILLED", "b STARTING"]);
    env.nothing_is_left();

    // A member ran, and nobody had heard of it.
    let mut env = TestEnv::new();
    env.run_group(&["a"]);
    let holder = env.launch();
    env.launched(&holder);
    let member = env.launch();
    assert_eq!(env.states(), ["a STARTING"]);
    env.restart(|_| true, false);
    env.register();
    assert_eq!(env.states(), ["a RUNNING"]);
    env.kill("a", None);
    env.ended(&member, 15);
    assert_eq!(env.states(), ["a KILLED"]);
    assert!(env.is_destroyed(&holder));

    // All of it ran, in two groups, which are still two.
    let mut env = TestEnv::new();
    let (_, a, b) = env.pod();
    env.run_group(&["c"]);
    let c = env.launch();
    env.launched(&c);
    env.states();
    env.restart(|_| true, false);
    env.register();
    env.ended(&a.id, 1 << 8);
    assert_eq!(env.states(), ["a FAILED"]);
    assert_eq!(signals(&env.take()), [15]);
    env.ended(&b.id, 15);
    assert_eq!(env.states(), ["b KILLED"]);
    env.run_group(&["d"]);
    let d = env.launches().remove(0);
    assert_eq!(d.sandbox.parent(), a.sandbox.parent(), "the same pod");

    // It was being shut down.
    let mut env = TestEnv::new();
    let (holder, a, b) = env.pod();
    env.shutdown_executor();
    env.restart(|_| true, false);
    env.register();
    env.advance(Duration::from_secs(5));
    assert!(env.is_destroyed(&a.id) && env.is_destroyed(&b.id));
    env.ended(&a.id, 9);
    env.ended(&b.id, 9);
    assert_eq!(env.states(), ["a KILLED", "b KILLED"]);
    assert!(env.is_destroyed(&holder));
}

#[test]
fn a_reboot_loses_a_pod() {
    let mut env = TestEnv::new();
    env.pod();
    env.restart(|_| false, true);
    env.register();
    assert_eq!(env.states(), ["a LOST", "b LOST"]);
    env.nothing_is_left();
}

#[test]
fn two_frameworks_may_use_the_same_id() {
    let mut env = TestEnv::new();
    env.run_group(&["a"]);
    env.run_for(framework("G", &[]), vec![task("a")], Some(default_executor("E")));
    let pods = env.launches();
    assert_eq!(pods.len(), 2);
    assert_ne!(pods[0].sandbox.parent(), pods[1].sandbox.parent());
    env.launched(&pods[1].id);
    let member = env.launches().remove(0);
    assert_eq!(member.pod.as_ref(), Some(&pods[1].id));
    assert_eq!(member.environment["MESOS_FRAMEWORK_ID"], "G");
}

#[test]
fn nobody_subscribes_as_a_pod_and_messages_to_it_are_dropped() {
    let mut env = TestEnv::new();
    let (..) = env.pod();
    env.take();
    env.call(1, "", subscribe());
    assert!(matches!(
        env.take().as_slice(),
        [Effect::CloseExecutor { error: Some(crate::core::CallError::Unauthenticated), .. }]
    ));
    let message = mezz_proto::mezz::v1::ExecutorMessage {
        framework_id: v1::FrameworkId { value: "F".into() },
        executor_id: v1::ExecutorId { value: "E".into() },
        data: b"hello".to_vec(),
    };
    env.master(master_message::Message::ExecutorMessage(message));
    assert!(env.take().is_empty());
}

#[test]
fn what_cannot_be_is_refused_as_a_whole() {
    type Break = fn(&mut v1::TaskInfo);
    let broken: [(&str, TaskState, Break); 5] = [
        ("command", TaskState::TaskError, |task| task.command = None),
        ("command.value", TaskState::TaskError, |task| task.command = Some(Default::default())),
        ("health_check.type", TaskState::TaskError, |task| {
            task.health_check = Some(v1::HealthCheck::default());
        }),
        ("container.type", TaskState::TaskError, |task| {
            let r#type = container_info::Type::Docker.into();
            task.container = Some(v1::ContainerInfo { r#type, ..Default::default() });
        }),
        ("container.mesos.image", TaskState::TaskFailed, |task| {
            task.container = Some(v1::ContainerInfo {
                r#type: container_info::Type::Mesos.into(),
                mesos: Some(container_info::MesosInfo { image: Some(Default::default()) }),
                ..Default::default()
            });
        }),
    ];
    for (text, state, break_it) in broken {
        let abilities = Abilities { isolation: true, ..Default::default() };
        let mut env = TestEnv::unlinked(CoreOptions { abilities, ..options() });
        env.register();
        let mut second = task("b");
        break_it(&mut second);
        let tasks = vec![task("a"), second];
        env.run_for(framework("F", &[]), tasks, Some(default_executor("E")));
        assert!(env.launches().is_empty());
        let updates = env.updates();
        assert_eq!(updates.len(), 2);
        for update in updates {
            assert_eq!(update.status.state(), state);
            let message = update.status.message.clone().unwrap();
            assert!(message.contains(text), "{message}");
            env.ack(&update.status);
        }
        env.nothing_is_left();
    }
    let mut env = TestEnv::new();
    let executor = Some(default_executor("E"));
    env.run(vec![v1::TaskInfo { command: None, executor, ..task("a") }]);
    assert!(env.expect(TaskState::TaskError).message.unwrap().contains("LAUNCH_GROUP"));
}
