//! A master that ends and comes back.

use mezz_master::{MasterError, options::MasterOptions, options::RegistryOptions, serve};
use mezz_proto::{
    mezz::v1::{
        self as mezz, agent_message::Message as FromAgent, master_message::Message as ToAgent,
    },
    v1::{self, TaskState::*},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::common::*;

fn with_file(path: &std::path::Path) -> MasterOptions {
    MasterOptions { registry: RegistryOptions::File(path.to_owned()), ..memory() }
}

#[tokio::test]
async fn a_restart_keeps_agents_frameworks_and_running_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    let master = TestMaster::start(with_file(&path)).await;
    let mut agent = Agent::register(&master, "host-1").await;
    let mut framework = Framework::subscribe(&master, None, 3600.0).await;
    let offer = framework.offer().await;
    framework.launch(&offer, "t1").await;
    let ToAgent::RunTasks(run) = agent.hear().await else { panic!("not told to run") };
    agent.update(&framework.id, "t1", TaskRunning, 1).await;
    let status = framework.status().await;
    framework.acknowledge(&status).await;
    assert!(matches!(agent.hear().await, ToAgent::Acknowledgement(_)));
    master.stop().await;

    let master = TestMaster::start(with_file(&path)).await;
    let mut operator = master.operator().await;
    let agents =
        operator.list_agents(mezz::ListAgentsRequest {}).await.unwrap().into_inner().agents;
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0].status(), mezz::agent_state::Status::Recovering);

    let mut task = v1::Task {
        name: "t1".to_owned(),
        task_id: v1::TaskId { value: "t1".to_owned() },
        framework_id: v1::FrameworkId { value: framework.id.clone() },
        agent_id: v1::AgentId { value: agent.id.clone() },
        resources: run.tasks[0].resources.clone(),
        ..Default::default()
    };
    task.set_state(TaskRunning);
    let reregister = mezz::Reregister {
        description: description("host-1", Some(&agent.id)),
        tasks: vec![task],
        frameworks: vec![run.framework.clone()],
        ..Default::default()
    };
    let mut back = Agent::open(&master, FromAgent::Reregister(reregister)).await;
    let ToAgent::Registered(registered) = back.hear().await else { panic!("not let in") };
    assert_eq!(registered.agent_id.value, agent.id);
    back.id.clone_from(&agent.id);

    let mut again = Framework::subscribe(&master, Some(&framework.id), 3600.0).await;
    assert_eq!(again.id, framework.id);
    let tasks = eventually("the task", || {
        let mut operator = operator.clone();
        async move {
            let request = mezz::ListTasksRequest::default();
            let tasks = operator.list_tasks(request).await.unwrap().into_inner().tasks;
            (!tasks.is_empty()).then_some(tasks)
        }
    })
    .await;
    assert_eq!(tasks[0].task.task_id.value, "t1");
    assert_eq!(tasks[0].task.state(), TaskRunning);
    assert_eq!(tasks[0].agent_hostname.as_deref(), Some("host-1"));

    back.update(&framework.id, "t1", TaskFinished, 2).await;
    loop {
        let event = again.hear().await.unwrap().expect("the stream ended");
        if let Some(update) = event.update {
            assert_eq!(update.status.state(), TaskFinished);
            break;
        }
    }
    master.stop().await;
}

#[tokio::test]
async fn a_second_master_on_the_same_registry_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    let first = TestMaster::start(with_file(&path)).await;
    first.get("/health").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = soon("a refusal", serve(with_file(&path), listener, CancellationToken::new()))
        .await
        .unwrap_err();
    assert!(matches!(error, MasterError::Registry(_)), "{error:?}");
    assert!(error.to_string().contains("another master"), "{error}");
    first.stop().await;
}

#[tokio::test]
async fn two_masters_live_in_one_process() {
    let (a, b) = tokio::join!(TestMaster::start(memory()), TestMaster::start(memory()));
    let _agent = Agent::register(&a, "host-1").await;
    assert_eq!(a.metric("mezz_master_agents{status=\"active\"}").await, 1.0);
    assert_eq!(b.metric("mezz_master_agents{status=\"active\"}").await, 0.0);
    a.stop().await;
    assert_eq!(b.get("/health").await.1, "ok");
    b.stop().await;
}
