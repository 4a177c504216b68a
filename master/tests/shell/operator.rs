//! What operators see and do.

use mezz_proto::{
    mezz::v1::{self as mezz, master_message::Message as ToAgent},
    resources::Resources,
    v1::{TaskState::*, scheduler::event},
};
use tonic::Code;

use crate::common::*;

#[tokio::test]
async fn lists_show_what_there_is_and_orders_are_carried_out() {
    let master = TestMaster::start(memory()).await;
    let mut operator = master.operator().await;
    let mut agent = Agent::register(&master, "host-1").await;
    let mut framework = Framework::subscribe(&master, None, 3600.0).await;
    let offer = framework.offer().await;

    let offers = eventually("the offer", || {
        let mut operator = operator.clone();
        async move {
            let offers = operator.list_offers(mezz::ListOffersRequest {}).await.unwrap();
            let offers = offers.into_inner().offers;
            (!offers.is_empty()).then_some(offers)
        }
    })
    .await;
    assert_eq!(offers[0].offer.id, offer.id);
    framework.launch(&offer, "t1").await;
    assert!(matches!(agent.hear().await, ToAgent::RunTasks(_)));
    agent.update(&framework.id, "t1", TaskRunning, 1).await;
    framework.status().await;

    let agents = eventually("the task's sums", || {
        let mut operator = operator.clone();
        async move {
            let agents = operator.list_agents(mezz::ListAgentsRequest {}).await.unwrap();
            let agents = agents.into_inner().agents;
            (agents[0].tasks == 1 && agents[0].offered.is_empty()).then_some(agents)
        }
    })
    .await;
    assert_eq!(agents[0].agent.hostname, "host-1");
    assert_eq!(agents[0].status(), mezz::agent_state::Status::Active);
    let allocated = Resources::from_proto(&agents[0].allocated).unwrap();
    assert_eq!(allocated.to_string(), "cpus:1; mem:64");

    let frameworks = operator
        .list_frameworks(mezz::ListFrameworksRequest::default())
        .await
        .unwrap()
        .into_inner()
        .frameworks;
    assert_eq!(frameworks[0].framework.id.as_ref().unwrap().value, framework.id);
    assert_eq!((frameworks[0].tasks, frameworks[0].dominant_share), (1, 0.25));
    let tasks = operator.list_tasks(mezz::ListTasksRequest::default()).await.unwrap().into_inner();
    assert_eq!(tasks.tasks[0].task.task_id.value, "t1");
    assert_eq!(tasks.tasks[0].agent_api_address.as_deref(), Some("host-1:5051"));
    let roles = operator.list_roles(mezz::ListRolesRequest {}).await.unwrap().into_inner().roles;
    assert_eq!(roles[0].name, "*");
    let info = operator.get_master(mezz::GetMasterRequest {}).await.unwrap().into_inner();
    assert_eq!((info.agents_active, info.frameworks_active, info.tasks_live), (1, 1, 1));
    assert_eq!(info.address, master.address);
    assert_eq!(info.leader.as_deref(), Some(master.address.as_str()));

    // Why no more offers? Because the rest of the agent was refused.
    let subject = Some(mezz::explain_request::Subject::FrameworkId(framework.id.clone()));
    let why = operator.explain(mezz::ExplainRequest { subject }).await.unwrap().into_inner();
    assert!(!why.summary.is_empty());
    assert!(why.reasons.iter().any(|r| r.code == "filtered"), "{why:?}");

    let weights = vec![mezz::RoleWeight { role: "*".to_owned(), weight: 2.5 }];
    operator.update_weights(mezz::UpdateWeightsRequest { weights }).await.unwrap();
    let roles = operator.list_roles(mezz::ListRolesRequest {}).await.unwrap().into_inner().roles;
    assert_eq!(roles[0].weight, 2.5);

    let kill = mezz::OperatorKillTaskRequest { task_id: "t1".to_owned(), framework_id: None };
    operator.kill_task(kill).await.unwrap();
    let ToAgent::KillTask(kill) = agent.hear().await else { panic!("not told to kill") };
    assert_eq!(kill.task_id.value, "t1");

    let teardown = mezz::TeardownRequest { framework_id: framework.id.clone() };
    operator.teardown(teardown).await.unwrap();
    let ToAgent::ShutdownFramework(shutdown) = agent.hear().await else { panic!("no shutdown") };
    assert_eq!(shutdown.framework_id.value, framework.id);
    // An ERROR or not; the stream ends.
    while let Ok(Some(event)) = framework.hear().await {
        assert_ne!(event.r#type(), event::Type::Offers);
    }
    let request = mezz::ListFrameworksRequest { completed: Some(true) };
    let ended = eventually("the framework's end", || {
        let mut operator = operator.clone();
        async move {
            let frameworks = operator.list_frameworks(request).await.unwrap().into_inner();
            let framework = frameworks.frameworks.into_iter().next().unwrap();
            (framework.status() == mezz::framework_state::Status::Completed).then_some(framework)
        }
    })
    .await;
    assert_eq!(ended.framework.id.unwrap().value, framework.id);
    master.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let master = TestMaster::start(memory()).await;
    let mut operator = master.operator().await;
    let subject = Some(mezz::explain_request::Subject::FrameworkId("none".to_owned()));
    let status = operator.explain(mezz::ExplainRequest { subject }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert!(status.message().contains("none"), "{status:?}");
    let kill = mezz::OperatorKillTaskRequest { task_id: "t1".to_owned(), framework_id: None };
    assert_eq!(operator.kill_task(kill).await.unwrap_err().code(), Code::NotFound);
    let teardown = mezz::TeardownRequest { framework_id: "none".to_owned() };
    assert_eq!(operator.teardown(teardown).await.unwrap_err().code(), Code::NotFound);
    let weights = vec![mezz::RoleWeight { role: "a".to_owned(), weight: -1.0 }];
    let status = operator.update_weights(mezz::UpdateWeightsRequest { weights }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(operator.explain(mezz::ExplainRequest { subject: None }).await.is_err());
    master.stop().await;
}

#[tokio::test]
async fn an_agent_is_given_up() {
    let master = TestMaster::start(memory()).await;
    let mut operator = master.operator().await;
    let mut agent = Agent::register(&master, "host-1").await;
    let gone = mezz::MarkAgentGoneRequest { agent_id: agent.id.clone() };
    operator.mark_agent_gone(gone.clone()).await.unwrap();
    assert!(matches!(agent.hear().await, ToAgent::Refused(refused) if refused.gone()));
    operator.mark_agent_gone(gone).await.unwrap();
    let nobody = mezz::MarkAgentGoneRequest { agent_id: "nobody".to_owned() };
    let status = operator.mark_agent_gone(nobody).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    master.stop().await;
}

#[tokio::test]
async fn pages_tell_of_the_master() {
    let master = TestMaster::start(memory()).await;
    let (_, body) = master.get("/").await;
    assert!(body.contains("Mezz master") && body.contains(&master.address), "{body}");
    assert!(body.contains("cluster `test`"), "{body}");
    // All that it names is there.
    let named: Vec<&str> = body
        .split(|c: char| c.is_whitespace() || ";,".contains(c))
        .filter(|word| word.starts_with('/') && *word != "/master")
        .collect();
    assert!(named.contains(&"/api/v1/scheduler") && named.contains(&"/state"), "{body}");
    for path in named {
        let both = [path.to_owned(), format!("/master{path}")];
        for path in &both[..if path.starts_with("/metrics") { 1 } else { 2 }] {
            let (head, _) = master.get(path).await;
            assert!(!head.contains(" 404 "), "{path}: {head}");
        }
    }
    let (head, body) = master.get("/version").await;
    assert!(head.contains("application/json"), "{head}");
    let version: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(version["version"], mezz_proto::pages::MESOS_VERSION);
    assert_eq!(version["mezz_version"], env!("CARGO_PKG_VERSION"));
    let (head, body) = master.get("/metrics").await;
    assert!(head.contains("text/plain"), "{head}");
    assert!(body.contains("# TYPE mezz_master_event_seconds histogram"), "{body}");
    assert!(master.metric("mezz_master_uptime_seconds").await > 0.0);
    master.stop().await;
}
