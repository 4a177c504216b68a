//! A task from offer to end.

use mezz_proto::{
    mezz::v1::{
        self as mezz, agent_message::Message as FromAgent, master_message::Message as ToAgent,
    },
    v1::{TaskState::*, scheduler::event},
};

use crate::common::*;

#[tokio::test]
async fn a_task_is_launched_updated_and_acknowledged() {
    let master = TestMaster::start(memory()).await;
    let mut agent = Agent::register(&master, "host-1").await;
    let mut framework = Framework::subscribe(&master, None, 0.0).await;

    let offer = framework.offer().await;
    assert_eq!(offer.agent_id.value, agent.id);
    assert_eq!(offer.hostname, "host-1");
    framework.launch(&offer, "t1").await;
    let ToAgent::RunTasks(run) = agent.hear().await else { panic!("not told to run") };
    assert_eq!(run.framework.id.unwrap().value, framework.id);
    assert_eq!(run.tasks[0].task_id.value, "t1");

    for (uuid, state) in [(1, TaskRunning), (2, TaskFinished)] {
        agent.update(&framework.id, "t1", state, uuid).await;
        let status = framework.status().await;
        assert_eq!(status.state(), state);
        framework.acknowledge(&status).await;
        let ToAgent::Acknowledgement(ack) = agent.hear().await else { panic!("no ack") };
        assert_eq!((ack.task_id.value.as_str(), ack.uuid), ("t1", vec![uuid; 16]));
    }
    // What the task held is offered again, though the rest was refused.
    let again = framework.offer().await;
    assert_eq!(again.agent_id.value, agent.id);
    assert_ne!(again.id, offer.id);
    assert_eq!(master.metric("mezz_master_tasks_launched_total").await, 1.0);
    let ended = "mezz_master_tasks_ended_total{state=\"TASK_FINISHED\"}";
    assert_eq!(master.metric(ended).await, 1.0);
    master.stop().await;
}

#[tokio::test]
async fn many_tasks_run_on_many_agents() {
    const AGENTS: usize = 20;
    let master = TestMaster::start(memory()).await;
    let mut agents = Vec::new();
    for i in 0..AGENTS {
        let mut agent = Agent::register(&master, &format!("host-{i}")).await;
        // A fake agent: runs what it is told to, in no time.
        agents.push(tokio::spawn(async move {
            while let Ok(Some(message)) = agent.events.message().await {
                let Some(ToAgent::RunTasks(run)) = message.message else { continue };
                let framework = run.framework.id.unwrap().value;
                for task in run.tasks {
                    agent.update(&framework, &task.task_id.value, TaskFinished, 9).await;
                }
            }
        }));
    }
    let mut framework = Framework::subscribe(&master, None, 0.0).await;
    let mut finished = std::collections::BTreeSet::new();
    let mut launched = 0;
    while finished.len() < 200 {
        let Some(event) = framework.hear().await.unwrap() else { panic!("the stream ended") };
        match event.r#type() {
            event::Type::Offers => {
                for offer in event.offers.unwrap().offers {
                    framework.launch(&offer, &format!("t{launched}")).await;
                    launched += 1;
                }
            }
            event::Type::Update => {
                let status = event.update.unwrap().status;
                assert_eq!(status.state(), TaskFinished, "{status:?}");
                framework.acknowledge(&status).await;
                finished.insert(status.task_id.value);
            }
            _ => {}
        }
    }
    master.stop().await;
    for agent in agents {
        soon("the agents' end", agent).await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_says_goodbye_is_gone_and_its_link_ends() {
    let master = TestMaster::start(memory()).await;
    let mut agent = Agent::register(&master, "host-1").await;
    agent.send(FromAgent::Unregister(mezz::Unregister::default())).await;
    drop(agent.calls);
    while let Ok(Some(_)) = soon("the link's end", agent.events.message()).await {}
    let mut operator = master.operator().await;
    eventually("the agent's removal", || {
        let mut operator = operator.clone();
        async move {
            let agents = operator.list_agents(mezz::ListAgentsRequest {}).await.unwrap();
            agents.into_inner().agents.is_empty().then_some(())
        }
    })
    .await;
    let info = operator.get_master(mezz::GetMasterRequest {}).await.unwrap().into_inner();
    assert_eq!(info.agents_active, 0);
    master.stop().await;
}

#[tokio::test]
async fn the_end_of_a_stream_disconnects_its_framework() {
    let master = TestMaster::start(memory()).await;
    let _agent = Agent::register(&master, "host-1").await;
    let mut first = Framework::subscribe(&master, None, 3600.0).await;
    first.offer().await;
    let id = first.id.clone();
    // Only the calls' direction is closed; the master ends the other.
    drop(first.calls);
    while let Ok(Some(_)) = soon("the events' end", first.events.message()).await {}

    // It may come back under its id, and the offer is made again.
    let mut second = Framework::subscribe(&master, Some(&id), 3600.0).await;
    assert_eq!(second.id, id);
    second.offer().await;

    // A second subscription takes over; the first is told so.
    let mut third = Framework::subscribe(&master, Some(&id), 3600.0).await;
    let error = loop {
        let event = second.hear().await.unwrap().expect("an ERROR before the end");
        if event.r#type() == event::Type::Error {
            break event.error.unwrap().message;
        }
    };
    assert!(error.contains("failed over"), "{error}");
    second.end().await.unwrap();
    third.offer().await;
    assert_eq!(master.metric("mezz_master_connections{peer=\"framework\"}").await, 1.0);
    master.stop().await;
}

#[tokio::test]
async fn stopping_tells_the_peers_and_takes_no_time() {
    let master = TestMaster::start(memory()).await;
    let mut agent = Agent::register(&master, "host-1").await;
    let mut framework = Framework::subscribe(&master, None, 0.0).await;
    let idle = master.channel().await;
    let started = std::time::Instant::now();
    master.stop().await;
    // To wait for the idle connection would take five seconds (`SHUTDOWN_GRACE`).
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    assert_eq!(framework.end().await.unwrap_err().code(), tonic::Code::Unavailable);
    let end = soon("the link's end", async {
        loop {
            match agent.events.message().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    });
    assert_eq!(end.await.unwrap_err().code(), tonic::Code::Unavailable);
    drop(idle);
}
