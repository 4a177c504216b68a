//! The scheduler API over HTTP (behaviour rules 1 to 15), against what a real Mesos said.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use mezz_proto::{
    media::Format,
    mezz::v1::master_message::Message as ToAgent,
    resources::{Dialect, Resources},
    v1::{
        self,
        TaskState::{TaskFinished, TaskRunning},
        scheduler::{Call, call, event},
    },
};
use serde_json::Value;

use crate::{common::*, scheduler_client::*};

const FORMATS: [Format; 2] = [Format::Json, Format::Protobuf];

fn captured() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/scheduler_errors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The master says what Mesos said: status, text and headers.
fn is_captured(answer: &Answer, name: &str) {
    let captured = captured();
    let Value::Array(parts) = &captured[name] else { panic!("no {name}") };
    assert_eq!(answer.status, parts[0].as_u64().unwrap() as u16, "{name}: {}", answer.text());
    assert_eq!(answer.text(), parts[2].as_str().unwrap(), "{name}");
    for pair in parts[1].as_array().unwrap() {
        let (header, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let got = answer.headers.get(&header.to_lowercase());
        let got = got.unwrap_or_else(|| panic!("{name}: no {header} in {:?}", answer.headers));
        if header != "Date" {
            assert_eq!(got, value, "{name}");
        }
    }
}

fn accept(offer: &v1::Offer, task: &str, dialect: Dialect) -> Call {
    let info = v1::TaskInfo {
        name: task.to_owned(),
        task_id: v1::TaskId { value: task.to_owned() },
        agent_id: offer.agent_id.clone(),
        resources: Resources::cpus_mem(1.0, 64.0).to_proto(dialect, None),
        command: Some(v1::CommandInfo { value: Some("true".to_owned()), ..Default::default() }),
        ..Default::default()
    };
    let operation = v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        launch: Some(v1::offer::operation::Launch { task_infos: vec![info] }),
        ..Default::default()
    };
    Call {
        accept: Some(call::Accept {
            offer_ids: vec![offer.id.clone()],
            operations: vec![operation],
            filters: Some(v1::Filters { refuse_seconds: Some(3600.0) }),
        }),
        ..of(call::Type::Accept)
    }
}

#[tokio::test]
async fn bad_requests_are_refused_in_the_words_of_mesos() {
    let master = TestMaster::start(memory()).await;
    let json = ("content-type", "application/json");
    let post = async |headers: &[(&str, &str)], body: &str| {
        request(&master.address, "POST", SCHEDULER, headers, body.as_bytes()).await
    };
    let get = request(&master.address, "GET", SCHEDULER, &[], b"").await;
    is_captured(&get, "GET");
    is_captured(&post(&[], "{}").await, "no content type");
    is_captured(&post(&[("content-type", "text/plain")], "{}").await, "text/plain");
    let charset = ("content-type", "application/json; charset=utf-8");
    is_captured(&post(&[charset], "{}").await, "charset");
    is_captured(&post(&[json], "{}").await, "empty object");
    // The parser is another one, and so is its text.
    let garbage = post(&[json], "x").await;
    assert_eq!(garbage.status, 400);
    assert!(garbage.text().starts_with("Failed to parse body into JSON: "), "{}", garbage.text());
    let subscribe = Format::Json.encode(&subscribe(None, 0.0));
    let subscribe = std::str::from_utf8(&subscribe).unwrap();
    is_captured(&post(&[json, ("accept", "foo")], subscribe).await, "accept foo");
    let with_id = post(&[json, ("mesos-stream-id", "x")], subscribe).await;
    assert_eq!(with_id.status, 400);
    assert_eq!(with_id.text(), "Subscribe calls should not include the 'Mesos-Stream-Id' header");
    let revive = r#"{"type":"REVIVE","framework_id":{"value":"nobody"}}"#;
    is_captured(&post(&[json], revive).await, "unknown framework");
    // Also where the other path is used, and where nothing else is asked for.
    let path = "/master/api/v1/scheduler";
    let headers = [json, ("accept", "foo")];
    let other = request(&master.address, "POST", path, &headers, revive.as_bytes()).await;
    is_captured(&other, "unknown framework");
    let nameless = post(&[json], r#"{"type":"REVIVE"}"#).await;
    assert_eq!(
        (nameless.status, nameless.text()),
        (400, "Failed to validate scheduler::Call: Expecting 'framework_id' to be present")
    );
    let required = post(&[json], r#"{"type":"KILL","kill":{}}"#).await;
    assert_eq!(required.status, 400);
    assert!(required.text().contains("kill.task_id"), "{}", required.text());
    let protobuf = ("content-type", "application/x-protobuf");
    let broken = request(&master.address, "POST", SCHEDULER, &[protobuf], b"\xff").await;
    assert_eq!(broken.status, 400);
    assert!(broken.text().starts_with("Failed to parse body into Call protobuf"));
    master.stop().await;
}

#[tokio::test]
async fn calls_need_the_id_of_their_stream() {
    let master = TestMaster::start(memory()).await;
    let address = &master.address;
    let mut call = subscribe(None, 3600.0);
    let framework = HttpFramework::subscribe(address, Format::Json, &call).await;
    assert_eq!(framework.call(of(call::Type::Revive)).await.status, 202);
    is_captured(&framework.call_with(of(call::Type::Revive), &[]).await, "no stream id");
    let other = "00000000-0000-0000-0000-000000000000";
    let wrong = framework.call_with(of(call::Type::Revive), &[("mesos-stream-id", other)]).await;
    let text = format!(
        "The stream ID '{other}' included in this request didn't match the stream ID currently associated with framework ID {}",
        framework.id
    );
    assert_eq!((wrong.status, wrong.text()), (400, text.as_str()));
    // Who it is, is asked before what it asks for.
    let unknown = framework.call(of(call::Type::Unknown)).await;
    assert_eq!((unknown.status, unknown.text()), (501, "501 Not Implemented."));
    let unknown = framework.call_with(of(call::Type::Unknown), &[]).await;
    assert_eq!(unknown.status, 400);

    // Another subscription takes over: the id of the first is worth nothing.
    let id = Some(v1::FrameworkId { value: framework.id.clone() });
    call.framework_id.clone_from(&id);
    call.subscribe.as_mut().unwrap().framework_info.id = id;
    let second = HttpFramework::subscribe(address, Format::Protobuf, &call).await;
    assert_eq!(second.id, framework.id);
    assert_ne!(second.stream_id, framework.stream_id);
    assert_eq!(framework.call(of(call::Type::Revive)).await.status, 400);
    assert_eq!(second.call(of(call::Type::Revive)).await.status, 202);
    let mut first = framework;
    let error = first.next(event::Type::Error).await.error.unwrap();
    assert_eq!(error.message, "Framework failed over");
    assert!(first.hear().await.is_none());

    // While it is away nobody may call for it.
    let last = second.stream_id.clone();
    drop(second);
    let away = eventually("its disconnection", || async {
        let answer = first.call_with(of(call::Type::Revive), &[("mesos-stream-id", &last)]).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!((away.status, away.text()), (403, "Framework is not subscribed"));

    // Nor over HTTP while it is subscribed over gRPC.
    let grpc = Framework::subscribe(&master, Some(&first.id), 3600.0).await;
    let answer = first.call_with(of(call::Type::Revive), &[("mesos-stream-id", &last)]).await;
    assert_eq!((answer.status, answer.text()), (403, "Framework is not connected via HTTP"));
    drop(grpc);
    master.stop().await;
}

#[tokio::test]
async fn a_task_lives_over_http() {
    for format in FORMATS {
        let master = TestMaster::start(memory()).await;
        let mut agent = Agent::register(&master, "host-1").await;
        let call = subscribe(None, 0.0);
        let mut framework = HttpFramework::open(&master.address, format, &call).await;
        assert_eq!(framework.head.status, 200);
        assert_eq!(framework.head.headers["content-type"], format.name());
        assert_eq!(framework.head.headers["transfer-encoding"], "chunked");
        assert_eq!(framework.stream_id.len(), 36);
        // Rule 11.
        let subscribed = framework.hear().await.unwrap();
        assert_eq!(subscribed.r#type(), event::Type::Subscribed);
        let subscribed = subscribed.subscribed.unwrap();
        assert_eq!(subscribed.heartbeat_interval_seconds, Some(15.0));
        assert_eq!(framework.hear().await.unwrap().r#type(), event::Type::Heartbeat);
        framework.id = subscribed.framework_id.value;

        let offers = framework.next(event::Type::Offers).await.offers.unwrap().offers;
        let [offer] = &offers[..] else { panic!("{offers:?}") };
        // Rule 21: without MULTI_ROLE nothing is said of the role.
        assert!(offer.allocation_info.is_none());
        assert!(offer.resources.iter().all(|r| r.allocation_info.is_none()));
        let accept = accept(offer, "t1", Dialect::Plain);
        assert_eq!(framework.call(accept).await.status, 202);
        let ToAgent::RunTasks(run) = agent.hear().await else { panic!("not told to run") };
        assert_eq!(run.tasks[0].task_id.value, "t1");
        for (uuid, state) in [(1, TaskRunning), (2, TaskFinished)] {
            agent.update(&framework.id, "t1", state, uuid).await;
            let status = framework.next(event::Type::Update).await.update.unwrap().status;
            assert_eq!((status.state(), status.uuid()), (state, &[uuid; 16][..]));
            let acknowledge = call::Acknowledge {
                agent_id: status.agent_id.clone().unwrap(),
                task_id: status.task_id.clone(),
                uuid: status.uuid.clone().unwrap(),
            };
            let call = Call { acknowledge: Some(acknowledge), ..of(call::Type::Acknowledge) };
            let accepted = framework.call(call).await;
            assert_eq!((accepted.status, accepted.text()), (202, ""));
            let ToAgent::Acknowledgement(ack) = agent.hear().await else { panic!("no ack") };
            assert_eq!(ack.uuid, vec![uuid; 16]);
        }
        framework.next(event::Type::Offers).await;
        let torn_down = framework.call(of(call::Type::Teardown)).await;
        assert_eq!(torn_down.status, 202);
        while framework.hear().await.is_some() {}
        let after = framework.call(of(call::Type::Revive)).await;
        assert_eq!((after.status, after.text()), (400, "Framework cannot be found"));
        master.stop().await;
    }
}

/// Rule 7.
#[tokio::test]
async fn what_is_refused_late_is_an_event() {
    let master = TestMaster::start(memory()).await;
    let bad = multi_role(subscribe(None, 0.0), &["/a"]);
    let mut framework = HttpFramework::open(&master.address, Format::Json, &bad).await;
    assert_eq!(framework.head.status, 200);
    let record = String::from_utf8(framework.record().await.unwrap()).unwrap();
    let captured = captured();
    let whole = captured["bad role"][2].as_str().unwrap();
    assert_eq!(format!("{}\n{record}", record.len()), whole);
    assert!(framework.record().await.is_none());
    // So is an id that is burnt.
    let framework = HttpFramework::subscribe(
        &master.address,
        Format::Json,
        &multi_role(subscribe(None, 0.0), &["a"]),
    )
    .await;
    framework.call(of(call::Type::Teardown)).await;
    let again = subscribe(Some(&framework.id), 0.0);
    let mut again = HttpFramework::open(&master.address, Format::Protobuf, &again).await;
    let error = again.next(event::Type::Error).await.error.unwrap();
    assert_eq!(error.message, "Framework has been removed");
    assert!(again.hear().await.is_none());
    master.stop().await;
}

/// On gRPC it would end the stream; here it costs itself.
#[tokio::test]
async fn a_bad_call_costs_only_itself() {
    let master = TestMaster::start(memory()).await;
    let call = subscribe(None, 0.0);
    let mut framework = HttpFramework::subscribe(&master.address, Format::Json, &call).await;
    let operation = v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        ..Default::default()
    };
    let accept = call::Accept { operations: vec![operation], ..Default::default() };
    let bad = Call { accept: Some(accept), ..of(call::Type::Accept) };
    let answer = framework.call(bad).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("accept.operations[0].launch"), "{}", answer.text());

    let mut info = call.subscribe.unwrap().framework_info;
    info.id = Some(v1::FrameworkId { value: framework.id.clone() });
    let update = async |info: v1::FrameworkInfo| {
        let update = call::UpdateFramework { framework_info: info, ..Default::default() };
        let kind = of(call::Type::UpdateFramework);
        framework.call(Call { update_framework: Some(update), ..kind }).await
    };
    let renamed = v1::FrameworkInfo { name: "renamed".to_owned(), ..info.clone() };
    let updated = update(renamed).await;
    assert_eq!((updated.status, updated.text()), (200, ""));
    let changed = update(v1::FrameworkInfo { user: "root".to_owned(), ..info.clone() }).await;
    assert_eq!(
        (changed.status, changed.text()),
        (
            400,
            "FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported; attempted to update from 'nobody' to 'root'"
        )
    );
    let bad = v1::FrameworkInfo { failover_timeout: Some(-1.0), ..info.clone() };
    let bad = update(bad).await;
    assert_eq!(bad.status, 400);
    assert!(bad.text().starts_with("Supplied FrameworkInfo is not valid: "), "{}", bad.text());
    let other = update(v1::FrameworkInfo { id: None, ..info }).await;
    assert_eq!(
        (other.status, other.text()),
        (
            400,
            "Failed to validate scheduler::Call: 'framework_id' differs from 'update_framework.framework_info.id'"
        )
    );

    // It is still served.
    let task_id = v1::TaskId { value: "t".to_owned() };
    let tasks = vec![call::reconcile::Task { task_id, agent_id: None }];
    let reconcile =
        Call { reconcile: Some(call::Reconcile { tasks }), ..of(call::Type::Reconcile) };
    assert_eq!(framework.call(reconcile).await.status, 202);
    let status = framework.next(event::Type::Update).await.update.unwrap().status;
    assert_eq!(status.task_id.value, "t");
    master.stop().await;
}

#[tokio::test]
async fn what_mezz_has_not_is_answered_all_the_same() {
    let master = TestMaster::start(memory()).await;
    let _agent = Agent::register(&master, "host-1").await;
    let call = subscribe(None, 0.0);
    let mut framework = HttpFramework::subscribe(&master.address, Format::Json, &call).await;
    let offers = framework.next(event::Type::Offers).await.offers.unwrap().offers;
    let reserve = |id: Option<&str>| v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Reserve as i32),
        id: id.map(|id| v1::OperationId { value: id.to_owned() }),
        reserve: Some(Default::default()),
        ..Default::default()
    };
    let accept = Call {
        accept: Some(call::Accept {
            offer_ids: vec![offers[0].id.clone()],
            operations: vec![reserve(None), reserve(Some("o"))],
            filters: None,
        }),
        ..of(call::Type::Accept)
    };
    assert_eq!(framework.call(accept).await.status, 202);
    let status = async |framework: &mut HttpFramework| {
        let event = framework.next(event::Type::UpdateOperationStatus).await;
        event.update_operation_status.unwrap().status
    };
    let refused = status(&mut framework).await;
    assert_eq!(refused.state(), v1::OperationState::OperationError);
    assert_eq!(refused.operation_id.unwrap().value, "o");

    let asked = call::reconcile_operations::Operation {
        operation_id: v1::OperationId { value: "o".to_owned() },
        ..Default::default()
    };
    let reconcile = || Call {
        reconcile_operations: Some(call::ReconcileOperations { operations: vec![asked.clone()] }),
        ..of(call::Type::ReconcileOperations)
    };
    // Where we leave Mesos since 1.10, which answers 202 (ADR 0009).
    let answer = framework.call(reconcile()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["type"], "RECONCILE_OPERATIONS");
    let states = &body["reconcile_operations"]["operation_statuses"];
    assert_eq!(states[0]["state"], "OPERATION_UNKNOWN");
    assert_eq!(status(&mut framework).await.state(), v1::OperationState::OperationUnknown);
    let id = framework.stream_id.clone();
    let headers = [("accept", "text/html"), ("mesos-stream-id", id.as_str())];
    assert_eq!(framework.call_with(reconcile(), &headers).await.status, 406);

    for call in [
        Call { request: Some(Default::default()), ..of(call::Type::Request) },
        Call {
            accept_inverse_offers: Some(Default::default()),
            ..of(call::Type::AcceptInverseOffers)
        },
        Call {
            decline_inverse_offers: Some(Default::default()),
            ..of(call::Type::DeclineInverseOffers)
        },
        Call {
            acknowledge_operation_status: Some(call::AcknowledgeOperationStatus {
                agent_id: Some(offers[0].agent_id.clone()),
                uuid: vec![0; 16],
                ..Default::default()
            }),
            ..of(call::Type::AcknowledgeOperationStatus)
        },
        of(call::Type::Suppress),
        Call {
            decline: Some(call::Decline { offer_ids: vec![], filters: None }),
            ..of(call::Type::Decline)
        },
        Call {
            shutdown: Some(call::Shutdown {
                agent_id: offers[0].agent_id.clone(),
                executor_id: v1::ExecutorId { value: "e".to_owned() },
            }),
            ..of(call::Type::Shutdown)
        },
    ] {
        let answer = framework.call(call.clone()).await;
        assert_eq!((answer.status, answer.text()), (202, ""), "{call:?}");
    }
    master.stop().await;
}

#[tokio::test]
async fn one_framework_too_many_is_told_to_wait() {
    let mut options = memory();
    options.core.max_frameworks = 1;
    let master = TestMaster::start(options).await;
    let call = subscribe(None, 0.0);
    let first = HttpFramework::subscribe(&master.address, Format::Json, &call).await;
    let second = HttpFramework::open(&master.address, Format::Json, &call).await;
    assert_eq!(second.head.status, 503);
    drop(first);
    master.stop().await;
}

#[tokio::test]
async fn the_leader_says_where_it_is() {
    let master = TestMaster::start(memory()).await;
    let get = async |path: &str| request(&master.address, "GET", path, &[], b"").await;
    for path in ["/redirect", "/master/redirect"] {
        let answer = get(path).await;
        assert_eq!(answer.status, 307);
        assert_eq!(answer.headers["location"], format!("//{}", master.address));
    }
    assert_eq!(get("/redirect/x").await.status, 404);
    master.stop().await;
}
