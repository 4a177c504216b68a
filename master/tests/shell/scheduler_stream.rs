//! The event stream over HTTP (behaviour rules 10 and 11) and its limits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use mezz_proto::{
    media::Format,
    v1::{
        self,
        scheduler::{Call, call, event},
    },
};
use serde_json::Value;

use crate::{common::*, scheduler_client::*};

/// The same keys, and under them values of the same type and lists of the same length, as in
/// what was captured.
fn has_shape_of(ours: &Value, theirs: &Value, at: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let keys =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(ours), keys(theirs), "{at}");
            for key in keys(ours) {
                has_shape_of(&ours[&key], &theirs[&key], &format!("{at}.{key}"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{at}: {ours:?}");
            for (i, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                has_shape_of(ours, theirs, &format!("{at}[{i}]"));
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(theirs),
            "{at}: {ours} and {theirs}"
        ),
    }
}

#[tokio::test]
async fn events_have_the_keys_types_and_order_of_those_of_mesos() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/scheduler_events.json");
    let captured: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let events = captured["events"].as_array().unwrap();
    let master = TestMaster::start(memory()).await;
    let mut call = multi_role(subscribe(None, 0.0), &["dev"]);
    let kind = v1::framework_info::capability::Type::ReservationRefinement as i32;
    let capabilities = &mut call.subscribe.as_mut().unwrap().framework_info.capabilities;
    capabilities.push(v1::framework_info::Capability { r#type: Some(kind) });
    let kind = v1::framework_info::capability::Type::PartitionAware as i32;
    capabilities.push(v1::framework_info::Capability { r#type: Some(kind) });
    let mut framework = HttpFramework::open(&master.address, Format::Json, &call).await;
    let agent = Agent::register(&master, "127.0.0.1").await;
    let mut record =
        async || -> Value { serde_json::from_slice(&framework.record().await.unwrap()).unwrap() };
    let subscribed = record().await;
    // All but the last, QUOTA_V2.
    let mut theirs = events[0].clone();
    let can = theirs["subscribed"]["master_info"]["capabilities"].as_array_mut().unwrap();
    assert_eq!(can.pop().unwrap()["type"], "QUOTA_V2");
    has_shape_of(&subscribed, &theirs, "");
    let theirs = &theirs["subscribed"]["master_info"]["capabilities"];
    assert_eq!(subscribed["subscribed"]["master_info"]["capabilities"], *theirs);
    let info = &subscribed["subscribed"]["master_info"];
    assert_eq!(info["ip"], events[0]["subscribed"]["master_info"]["ip"]);
    assert_eq!(info["pid"], format!("master@{}", master.address));
    assert_eq!(record().await, events[1]);
    let offers = record().await;
    // Of cpus and mem, which is what the agent has.
    let mut theirs = events[2].clone();
    let resources = theirs["offers"]["offers"][0]["resources"].as_array_mut().unwrap();
    resources.retain(|resource| resource["name"] == "cpus" || resource["name"] == "mem");
    assert_eq!(resources.len(), 2);
    has_shape_of(&offers, &theirs, "");
    assert_eq!(offers["offers"]["offers"][0]["url"]["path"], "/slave(1)");
    let id = &subscribed["subscribed"]["framework_id"]["value"];
    framework.id = id.as_str().unwrap().to_owned();
    let tasks = vec![call::reconcile::Task {
        task_id: v1::TaskId { value: "nope".to_owned() },
        agent_id: Some(v1::AgentId { value: agent.id.clone() }),
    }];
    let reconcile =
        Call { reconcile: Some(call::Reconcile { tasks }), ..of(call::Type::Reconcile) };
    assert_eq!(framework.call(reconcile).await.status, 202);
    let ours: Value = serde_json::from_slice(&framework.record().await.unwrap()).unwrap();
    let nope = |event: &&Value| event["update"]["status"]["task_id"]["value"] == "nope";
    let mut theirs = events.iter().find(nope).unwrap().clone();
    has_shape_of(&ours, &theirs, "");
    let status = &mut theirs["update"]["status"];
    for key in ["agent_id", "timestamp"] {
        status[key] = ours["update"]["status"][key].clone();
    }
    assert_eq!(ours, theirs);
    master.stop().await;
}

#[tokio::test]
async fn heartbeats_come_at_the_interval() {
    let mut options = memory();
    options.core.heartbeat_interval = std::time::Duration::from_millis(50);
    let master = TestMaster::start(options).await;
    for format in [Format::Json, Format::Protobuf] {
        let call = subscribe(None, 0.0);
        let mut framework = HttpFramework::subscribe(&master.address, format, &call).await;
        for _ in 0..4 {
            assert_eq!(framework.hear().await.unwrap().r#type(), event::Type::Heartbeat);
        }
    }
    master.stop().await;
}

#[tokio::test]
async fn bodies_are_bounded() {
    let master = TestMaster::start(memory()).await;
    let json = ("content-type", "application/json");
    let post = async |headers: &[(&str, &str)], body: &[u8]| {
        request(&master.address, "POST", SCHEDULER, headers, body).await
    };
    let large = format!(r#"{{"type":"REVIVE","x":"{}"}}"#, "x".repeat(4 << 20));
    let large = post(&[json], large.as_bytes()).await;
    assert_eq!(large.status, 413, "{}", large.text());
    // Less than that is read, on a thread of its own.
    let id = r#""framework_id":{"value":"f"}"#;
    let long = format!(r#"{{"type":"REVIVE",{id},"x":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(post(&[json], long.as_bytes()).await.text(), "Framework cannot be found");
    // What is not known is passed over, however deep it is.
    let deep =
        format!(r#"{{"type":"REVIVE",{id},"x":{}1{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert_eq!(post(&[json], deep.as_bytes()).await.text(), "Framework cannot be found");
    // Groups within groups, of a field that is not known.
    let deep = vec![0xfb; 1000];
    let deep = post(&[("content-type", "application/x-protobuf")], &deep).await;
    assert_eq!(deep.status, 400, "{}", deep.text());
    master.stop().await;
}

#[tokio::test]
async fn a_slow_reader_is_cut_while_others_go_on() {
    let master = TestMaster::start(memory()).await;
    let agent = Agent::register(&master, "host-1").await;
    let mut slow =
        HttpFramework::subscribe(&master.address, Format::Json, &subscribe(None, 3600.0)).await;
    // Its executor sends more than may wait for it and than the kernel keeps beside that (36 MiB
    // where its bounds are high), and it reads nothing.
    for _ in 0..240 {
        let message = mezz_proto::mezz::v1::ExecutorMessage {
            framework_id: v1::FrameworkId { value: slow.id.clone() },
            executor_id: v1::ExecutorId { value: "e".to_owned() },
            data: vec![0; 1 << 20],
        };
        let message = mezz_proto::mezz::v1::agent_message::Message::ExecutorMessage(message);
        agent.send(message).await;
    }
    eventually("its end", || async {
        let cut = master.metric("mezz_master_slow_peers_total{peer=\"framework\"}").await;
        (cut == 1.0).then_some(())
    })
    .await;
    let answer = slow.call(of(call::Type::Revive)).await;
    assert_eq!((answer.status, answer.text()), (403, "Framework is not subscribed"));
    // What had left before is still whole; then the stream ends as it should.
    while slow.record().await.is_some() {}
    let again = subscribe(Some(&slow.id), 3600.0);
    HttpFramework::subscribe(&master.address, Format::Protobuf, &again).await;
    master.stop().await;
}
