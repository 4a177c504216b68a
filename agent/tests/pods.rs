//! Groups on the default executor, by a whole agent with real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;

use std::{os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use cluster::{FRAMEWORK, FakeMaster, PATIENCE, TestAgent, framework, resources, task};
use mezz_agent::options::Containment;
use mezz_proto::{
    mezz::v1::{self as mezz, agent_message, master_message},
    resources::{Dialect, Resources},
    v1::{
        self, ContainerInfo, NetworkInfo, TaskInfo, TaskState, container_info, executor_info,
        task_status::Reason,
    },
};

fn executor() -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        executor_id: v1::ExecutorId { value: "pod".into() },
        r#type: Some(executor_info::Type::Default.into()),
        resources: resources(),
        ..Default::default()
    }
}

async fn run_group(master: &FakeMaster, executor: v1::ExecutorInfo, tasks: Vec<TaskInfo>) {
    let run = mezz::RunTasks {
        framework: framework(),
        tasks,
        group_executor: Some(executor),
        ..Default::default()
    };
    master.say(master_message::Message::RunTasks(run)).await;
}

/// Updates until `count` tasks have ended, acknowledged, as `task STATE` in the order of
/// the tasks' ids.
async fn until_ended(master: &mut FakeMaster, count: usize) -> Vec<v1::TaskStatus> {
    let mut ends = Vec::new();
    while ends.len() < count {
        let status = master.update().await;
        master.ack(&status).await;
        if status.state().is_terminal() {
            ends.push(status);
        }
    }
    ends.sort_by(|a, b| a.task_id.value.cmp(&b.task_id.value));
    ends
}

async fn until_running(master: &mut FakeMaster, count: usize) {
    let mut seen = Vec::new();
    while seen.iter().filter(|state| **state == TaskState::TaskRunning).count() < count {
        let status = master.update().await;
        master.ack(&status).await;
        assert!(!status.state().is_terminal(), "{status:?}");
        assert_eq!(status.executor_id.as_ref().unwrap().value, "pod");
        seen.push(status.state());
    }
    assert_eq!(seen.iter().filter(|state| **state == TaskState::TaskStarting).count(), count);
}

async fn terminated(master: &mut FakeMaster) -> i32 {
    loop {
        if let agent_message::Message::ExecutorTerminated(told) = master.hear().await {
            assert_eq!(told.executor_id.value, "pod");
            return told.status;
        }
    }
}

/// The sandbox of the pod.
fn sandbox(agent: &TestAgent) -> PathBuf {
    let executor = format!("slaves/S0/frameworks/{FRAMEWORK}/executors/pod/runs/latest");
    agent.options.work_dir.join(executor)
}

async fn containers(agent: &TestAgent) -> Vec<mezz::Container> {
    let request = mezz::ListContainersRequest::default();
    agent.api().await.list_containers(request).await.unwrap().into_inner().containers
}

#[test_log::test(tokio::test)]
async fn members_run_side_by_side_and_the_pod_ends_with_the_last() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let tasks = vec![task("a", "echo $MESOS_TASK_ID $MESOS_EXECUTOR_ID"), task("b/1", "pwd")];
    run_group(&master, executor(), tasks).await;
    let ends = until_ended(&mut master, 2).await;
    for end in &ends {
        assert_eq!(end.state(), TaskState::TaskFinished, "{:?}", end.message);
    }
    assert_eq!(terminated(&mut master).await, 0);
    assert_eq!(agent.read("a", "stdout").await.unwrap(), "a pod\n");
    let of_b = agent.read("b/1", "stdout").await.unwrap();
    let linked = sandbox(&agent).join("tasks/b%2F1").canonicalize().unwrap();
    assert_eq!(PathBuf::from(of_b.trim_end()), linked);
    assert_eq!(
        linked.parent().unwrap(),
        sandbox(&agent).canonicalize().unwrap().join("containers")
    );
    assert!(containers(&agent).await.is_empty());
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn one_that_fails_takes_its_group_and_no_other() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    run_group(&master, executor(), vec![task("other", "exec sleep 1000")]).await;
    until_running(&mut master, 1).await;
    let tasks = vec![task("a", "exit 3"), task("b", "exec sleep 1000")];
    run_group(&master, executor(), tasks).await;
    let ends = until_ended(&mut master, 2).await;
    assert_eq!((ends[0].state(), ends[1].state()), (TaskState::TaskFailed, TaskState::TaskKilled));
    assert!(ends[0].message.as_ref().unwrap().contains("status 3"));
    assert_eq!(containers(&agent).await.len(), 2, "the pod and the other one");
    master.kill("other", None).await;
    master.expect("other", TaskState::TaskKilled).await;
    terminated(&mut master).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_pod_outlives_its_agent() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::joined(&mut master).await;
    let tasks = vec![task("a", "exec sleep 1000"), task("b", "exec sleep 1000")];
    run_group(&master, executor(), tasks).await;
    until_running(&mut master, 2).await;
    agent.stop().await;
    agent.start().await;
    let agent_message::Message::Reregister(again) = master.welcome().await else {
        panic!("it has an id")
    };
    assert_eq!(again.executors.len(), 1);
    assert!(again.tasks.iter().all(|task| task.executor_id.as_ref().unwrap().value == "pod"));
    // One more joins the pod that was found again.
    run_group(&master, executor(), vec![task("c", "stat -L -c %i /proc/self/ns/net")]).await;
    let ends = until_ended(&mut master, 1).await;
    assert_eq!(ends[0].state(), TaskState::TaskFinished, "{:?}", ends[0].message);
    master.kill("a", Some(Duration::from_secs(1))).await;
    let ends = until_ended(&mut master, 2).await;
    assert!(ends.iter().all(|end| end.state() == TaskState::TaskKilled), "{ends:?}");
    assert_eq!(terminated(&mut master).await, 0);
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn when_its_holder_dies_so_do_its_members() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let tasks = vec![task("a", "exec sleep 1000"), task("b", "exec sleep 1000")];
    run_group(&master, executor(), tasks).await;
    until_running(&mut master, 2).await;
    let running = containers(&agent).await;
    let of_members: Vec<_> = running
        .iter()
        .filter(|container| {
            let sandbox = sandbox(&agent).canonicalize().unwrap();
            !sandbox.ends_with(&container.container_id)
        })
        .map(|container| container.pid.unwrap())
        .collect();
    let holder = running.iter().find(|found| !of_members.contains(&found.pid.unwrap())).unwrap();
    kill(holder.pid.unwrap());
    let ends = until_ended(&mut master, 2).await;
    for end in ends {
        assert_eq!(end.state(), TaskState::TaskFailed);
        assert_eq!(end.reason(), Reason::ExecutorTerminated);
    }
    assert_eq!(terminated(&mut master).await, 9);
    for pid in of_members {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
    agent.finish().await;
}

fn kill(pid: u32) {
    let pid = pid.to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
}

#[test_log::test(tokio::test)]
async fn a_shutdown_gives_grace() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.executor_shutdown_grace = Duration::from_secs(10);
    agent.start().await;
    master.welcome().await;
    let line = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    run_group(&master, executor(), vec![task("a", line)]).await;
    until_running(&mut master, 1).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while agent.read("a", "stdout").await.unwrap_or_default() != "ready\n" {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let shutdown = mezz::ShutdownExecutor {
        framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
        executor_id: v1::ExecutorId { value: "pod".into() },
    };
    master.say(master_message::Message::ShutdownExecutor(shutdown)).await;
    master.expect("a", TaskState::TaskKilled).await;
    assert_eq!(terminated(&mut master).await, 0);
    assert_eq!(agent.read("a", "stdout").await.unwrap(), "ready\nbye\n");
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_network_is_shared_and_is_the_pods_own() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let mut pod = executor();
    pod.container = Some(ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        network_infos: vec![NetworkInfo { name: Some("none".into()), ..Default::default() }],
        ..Default::default()
    });
    let line = "stat -L -c %i /proc/self/ns/net";
    run_group(&master, pod, vec![task("a", line), task("b", line)]).await;
    for end in until_ended(&mut master, 2).await {
        assert_eq!(end.state(), TaskState::TaskFinished, "{:?}", end.message);
    }
    let (a, b) =
        (agent.read("a", "stdout").await.unwrap(), agent.read("b", "stdout").await.unwrap());
    assert_eq!(a, b);
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_ne!(a.trim_end(), own.to_string());
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn each_member_is_held_to_its_own_memory() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.containment = Containment::Cgroup;
    agent.start().await;
    master.welcome().await;
    let greedy = TaskInfo {
        resources: Resources::cpus_mem(0.1, 64.0).to_proto(Dialect::Refined, Some("*")),
        ..task("greedy", "exec tail /dev/zero")
    };
    run_group(&master, executor(), vec![greedy, task("modest", "exec sleep 1000")]).await;
    let ends = until_ended(&mut master, 2).await;
    assert_eq!(ends[0].state(), TaskState::TaskFailed);
    assert_eq!(ends[0].reason(), Reason::ContainerLimitationMemory);
    assert!(ends[0].message.as_ref().unwrap().contains("64.0 MiB"), "{:?}", ends[0].message);
    assert_eq!(ends[1].state(), TaskState::TaskKilled);
    terminated(&mut master).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn members_of_another_user_share_a_folder_of_the_pod() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let source = v1::volume::Source {
        r#type: Some(v1::volume::source::Type::SandboxPath.into()),
        sandbox_path: Some(v1::volume::source::SandboxPath {
            r#type: Some(v1::volume::source::sandbox_path::Type::Parent.into()),
            path: "common".into(),
        }),
        ..Default::default()
    };
    let container = ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        volumes: vec![v1::Volume {
            mode: v1::volume::Mode::Rw.into(),
            container_path: "shared".into(),
            source: Some(source),
            ..Default::default()
        }],
        ..Default::default()
    };
    let member = |id: &str, line: &str| {
        let mut task = TaskInfo { container: Some(container.clone()), ..task(id, line) };
        task.command.as_mut().unwrap().user = Some("nobody".into());
        task
    };
    let wait = "while ! test -s shared/file; do sleep 0.05; done; cat shared/file; id -un";
    let tasks = vec![member("a", wait), member("b", "echo hello > shared/file")];
    run_group(&master, executor(), tasks).await;
    for end in until_ended(&mut master, 2).await {
        assert_eq!(end.state(), TaskState::TaskFinished, "{:?}", end.message);
    }
    assert_eq!(agent.read("a", "stdout").await.unwrap(), "hello\nnobody\n");
    assert_eq!(agent.read("b", "stderr").await.unwrap(), "");
    agent.finish().await;
}
