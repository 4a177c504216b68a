//! Peers that break the rules, and those beside them that do not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use mezz_proto::{
    mezz::v1::{
        self as mezz, agent_message::Message as FromAgent, master_message::Message as ToAgent,
    },
    v1::{
        self,
        scheduler::{Call, call},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::common::*;

#[tokio::test]
async fn a_call_before_subscribe_is_refused_by_name() {
    let master = TestMaster::start(memory()).await;
    let call = Call { r#type: Some(call::Type::Revive as i32), ..Default::default() };
    let mut framework = Framework::open(&master, call).await;
    let status = framework.end().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("REVIVE"), "{status:?}");
    assert_eq!(master.metric("mezz_master_connections{peer=\"framework\"}").await, 0.0);
    master.stop().await;
}

#[tokio::test]
async fn a_bad_call_ends_the_stream_with_the_field() {
    let master = TestMaster::start(memory()).await;
    let mut framework = Framework::subscribe(&master, None, 0.0).await;
    framework.send(Call { r#type: Some(call::Type::Kill as i32), ..Default::default() }).await;
    let status = framework.end().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("kill"), "{status:?}");
    master.stop().await;
}

#[tokio::test]
async fn one_framework_too_many_is_refused() {
    let mut options = memory();
    options.core.max_frameworks = 1;
    let master = TestMaster::start(options).await;
    let mut first = Framework::subscribe(&master, None, 0.0).await;
    let mut second = Framework::open(&master, subscribe(None, 0.0)).await;
    let status = second.end().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains('1'), "{status:?}");
    ask_and_hear(&mut first).await;
    master.stop().await;
}

#[tokio::test]
async fn an_agents_first_message_must_be_register() {
    let master = TestMaster::start(memory()).await;
    let mut agent = Agent::open(&master, FromAgent::Pong(mezz::Pong { number: 1 })).await;
    assert!(soon("the link's end", agent.events.message()).await.unwrap().is_none());
    assert_eq!(master.metric("mezz_master_connections{peer=\"agent\"}").await, 0.0);
    assert_eq!(master.metric("mezz_master_invalid_agent_messages_total").await, 1.0);

    let description = mezz::AgentDescription { protocol: 99, ..description("host", None) };
    let mut agent = Agent::open(&master, FromAgent::Register(mezz::Register { description })).await;
    let ToAgent::Refused(refused) = agent.hear().await else { panic!("not refused") };
    assert!(refused.permanent && refused.reason.contains("99"), "{refused:?}");
    master.stop().await;
}

#[tokio::test]
async fn an_oversized_message_closes_only_its_stream() {
    let master = TestMaster::start(memory()).await;
    let agent = Agent::register(&master, "host-1").await;
    let mut good = Framework::subscribe(&master, None, 0.0).await;
    good.offer().await;
    let mut bad = Framework::subscribe(&master, None, 0.0).await;
    bad.send(Call {
        r#type: Some(call::Type::Message as i32),
        message: Some(call::Message {
            agent_id: v1::AgentId { value: agent.id.clone() },
            executor_id: v1::ExecutorId { value: "e".to_owned() },
            data: vec![0; 5 << 20],
        }),
        ..Default::default()
    })
    .await;
    let status = bad.end().await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains("too large"), "{status:?}");
    eventually("the disconnection", || async {
        let open = master.metric("mezz_master_connections{peer=\"framework\"}").await;
        (open == 1.0).then_some(())
    })
    .await;
    ask_and_hear(&mut good).await;
    master.stop().await;
}

/// A question and its answer: this framework is served.
async fn ask_and_hear(framework: &mut Framework) {
    let task_id = v1::TaskId { value: "unknown".to_owned() };
    let tasks = vec![call::reconcile::Task { task_id, agent_id: None }];
    framework
        .send(Call {
            r#type: Some(call::Type::Reconcile as i32),
            reconcile: Some(call::Reconcile { tasks }),
            ..Default::default()
        })
        .await;
    loop {
        let event = framework.hear().await.unwrap().expect("the stream ended");
        if event.update.is_some_and(|u| u.status.task_id.value == "unknown") {
            return;
        }
    }
}

#[tokio::test]
async fn a_slow_framework_is_cut_while_others_go_on() {
    let master = TestMaster::start(memory()).await;
    let agent = Agent::register(&master, "host-1").await;
    let mut slow = Framework::subscribe(&master, None, 3600.0).await;
    let mut good = Framework::subscribe(&master, None, 3600.0).await;
    // Its executor sends more than may wait for it and than the kernel keeps beside that (36 MiB
    // where its bounds are high), and it reads nothing.
    for _ in 0..240 {
        let message = mezz::ExecutorMessage {
            framework_id: v1::FrameworkId { value: slow.id.clone() },
            executor_id: v1::ExecutorId { value: "e".to_owned() },
            data: vec![0; 1 << 20],
        };
        agent.send(FromAgent::ExecutorMessage(message)).await;
    }
    soon("the slow one's end", async {
        while master.metric("mezz_master_slow_peers_total{peer=\"framework\"}").await == 0.0 {
            ask_and_hear(&mut good).await;
        }
    })
    .await;
    let status = slow.end().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    ask_and_hear(&mut good).await;
    let operator = master.operator().await;
    let request = mezz::ListFrameworksRequest::default();
    eventually("its disconnection", || {
        let (mut operator, slow) = (operator.clone(), &slow.id);
        async move {
            let listed = operator.list_frameworks(request).await.unwrap().into_inner().frameworks;
            let is_slow = |f: &&mezz::FrameworkState| {
                f.framework.id.as_ref().is_some_and(|id| id.value == *slow)
            };
            let status = listed.iter().find(is_slow).unwrap().status();
            (status == mezz::framework_state::Status::Disconnected).then_some(())
        }
    })
    .await;
    // It may come back, and is well again.
    let id = slow.id.clone();
    let mut again = Framework::subscribe(&master, Some(&id), 3600.0).await;
    ask_and_hear(&mut again).await;
    master.stop().await;
}

#[tokio::test]
async fn a_slow_agent_is_cut_while_others_go_on() {
    let master = TestMaster::start(memory()).await;
    let mut slow = Agent::register(&master, "host-1").await;
    let mut good = Framework::subscribe(&master, None, 3600.0).await;
    for _ in 0..60 {
        let message = call::Message {
            agent_id: v1::AgentId { value: slow.id.clone() },
            executor_id: v1::ExecutorId { value: "e".to_owned() },
            data: vec![0; 1 << 20],
        };
        let kind = Some(call::Type::Message as i32);
        good.send(Call { r#type: kind, message: Some(message), ..Default::default() }).await;
    }
    eventually("its end", || async {
        let cut = master.metric("mezz_master_slow_peers_total{peer=\"agent\"}").await;
        (cut == 1.0).then_some(())
    })
    .await;
    let end = soon("the link's end", async {
        loop {
            match slow.events.message().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    });
    assert_eq!(end.await.unwrap_err().code(), Code::ResourceExhausted);
    ask_and_hear(&mut good).await;
    master.stop().await;
}

#[tokio::test]
async fn one_port_speaks_both_protocols_and_survives_garbage() {
    let master = TestMaster::start(memory()).await;
    let (head, body) = master.get("/health").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "ok");
    let mut garbage = TcpStream::connect(&master.address).await.unwrap();
    garbage.write_all(&[0xffu8; 4096]).await.unwrap();
    let mut answer = Vec::new();
    // Closed or reset: either will do.
    let _ = soon("the end", garbage.read_to_end(&mut answer)).await;

    let (head, body) = master.get("/no/such/page").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert!(body.contains("no such page"), "{body}");
    let channel = master.channel().await;
    let mut executor = mezz::executor_client::ExecutorClient::new(channel);
    let status = executor.subscribe(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("Mezz master"), "{status:?}");
    let mut operator = master.operator().await;
    operator.get_master(mezz::GetMasterRequest {}).await.unwrap();
    master.stop().await;
}
