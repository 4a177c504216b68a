//! Mesos' operator API.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use mezz_proto::{
    media::Format,
    mezz::v1::{
        self as mezz, agent_message::Message as FromAgent, master_message::Message as ToAgent,
    },
    v1::{
        self, TaskState,
        master::{self, call, event::Type as Told},
    },
};
use prost::Message;

use crate::{common::*, http::*};

/// In the order of rule 2.
#[tokio::test]
async fn each_mistake_has_the_status_and_words_of_mesos() {
    let master = TestMaster::start(memory()).await;
    let json = ("content-type", "application/json");
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);
    let cases: &[Case<'_>] = &[
        (
            "GET",
            &[],
            "",
            405,
            "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.",
        ),
        ("POST", &[], "{", 400, "Expecting 'Content-Type' to be present"),
        (
            "POST",
            &[("content-type", "application/json; charset=utf-8")],
            "{",
            415,
            "Expecting 'Content-Type' of application/json or application/x-protobuf",
        ),
        ("POST", &[json], "xyz", 400, "Failed to parse body into JSON"),
        (
            "POST",
            &[json],
            "{}",
            400,
            "Failed to validate master::Call: Expecting 'type' to be present",
        ),
        ("POST", &[json], "{\"type\":\"FLY\"}", 400, "Expecting 'type' to be present"),
        ("POST", &[json], "{\"type\":\"TEARDOWN\"}", 400, "Expecting 'teardown' to be present"),
        ("POST", &[json], "{\"type\":\"SET_QUOTA\"}", 400, "Expecting 'set_quota' to be present"),
        (
            "POST",
            &[json],
            "{\"type\":\"REMOVE_QUOTA\"}",
            400,
            "Expecting 'remove_quota' to be present",
        ),
        (
            "POST",
            &[json, ("accept", "foo")],
            "{\"type\":\"GET_HEALTH\"}",
            406,
            "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'",
        ),
        ("POST", &[json], "{\"type\":\"UNKNOWN\"}", 501, "501 Not Implemented."),
        (
            "POST",
            &[json],
            r#"{"type":"START_MAINTENANCE","start_maintenance":{}}"#,
            501,
            "501 Not Implemented.",
        ),
        (
            "POST",
            &[json],
            r#"{"type":"TEARDOWN","teardown":{"framework_id":{"value":"f"}}}"#,
            400,
            "No framework found with specified ID",
        ),
        (
            "POST",
            &[json],
            r#"{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"a"}}}"#,
            400,
            "there is no agent `a`",
        ),
        (
            "POST",
            &[json],
            r#"{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"a"}}}"#,
            404,
            "there is no agent `a`",
        ),
        ("POST", &[json], r#"{"type":"LIST_FILES","list_files":{"path":"/x"}}"#, 404, "404"),
        (
            "POST",
            &[json],
            r#"{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":0}}}"#,
            400,
            "set_logging_level.duration",
        ),
    ];
    for path in ["/api/v1", "/master/api/v1", "/api/v1/operator"] {
        for (method, headers, body, status, words) in cases {
            let answer = request(&master, method, path, headers, body.as_bytes()).await;
            assert_eq!(answer.status, *status, "{body}: {}", answer.text());
            assert!(answer.text().contains(words), "{body}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn protobuf_says_the_same_as_json() {
    let master = TestMaster::start(memory()).await;
    let agent = Agent::register(&master, "host-1").await;
    let wants = |kind: call::Type| master::Call { r#type: Some(kind as i32), ..Default::default() };
    let answer = eventually("the agent", || async {
        let headers =
            [("content-type", "application/x-protobuf"), ("accept", "application/x-protobuf")];
        let body = wants(call::Type::GetAgents).encode_to_vec();
        let answer = request(&master, "POST", "/api/v1", &headers, &body).await;
        assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
        let answer = master::Response::decode(&*answer.body).unwrap();
        (!answer.get_agents.as_ref().unwrap().agents.is_empty()).then_some(answer)
    })
    .await;
    let text = operate(&master, r#"{"type":"GET_AGENTS"}"#).await;
    let same: master::Response = mezz_proto::json::from_str(text.text()).unwrap();
    // Defaults that the one leaves out the other says.
    let shown = mezz_proto::json::to_value::<master::Response>;
    assert_eq!(shown(&same), shown(&answer));
    let agents = answer.get_agents.unwrap().agents;
    assert_eq!(agents[0].agent_info.id.as_ref().unwrap().value, agent.id);
    assert!(agents[0].active);
    // Asked in one form, answered in the other.
    let headers = [("content-type", "application/json"), ("accept", "application/x-protobuf")];
    let body = br#"{"type":"GET_VERSION"}"#;
    let answer = request(&master, "POST", "/api/v1", &headers, body).await;
    let answer = master::Response::decode(&*answer.body).unwrap();
    assert_eq!(answer.get_version.unwrap().version_info.version, mezz_proto::pages::MESOS_VERSION);
}

#[tokio::test]
async fn agents_are_deactivated_drained_and_given_up() {
    let master = TestMaster::start(memory()).await;
    let mut agent = Agent::register(&master, "host-1").await;
    let order = |kind: &str| {
        let field = kind.to_lowercase();
        format!(r#"{{"type":"{kind}","{field}":{{"agent_id":{{"value":"{}"}}}}}}"#, agent.id)
    };
    let (deactivate, drain) = (order("DEACTIVATE_AGENT"), order("DRAIN_AGENT"));
    let (reactivate, gone) = (order("REACTIVATE_AGENT"), order("MARK_AGENT_GONE"));
    assert_eq!(operate(&master, &deactivate).await.status, 200);
    let agents = || async { get(&master, "/slaves").await.json()["slaves"].clone() };
    eventually("it to be deactivated", || async {
        let agents = agents().await;
        (agents[0]["deactivated"] == true && agents[0]["active"] == false).then_some(())
    })
    .await;
    assert_eq!(operate(&master, &drain).await.status, 200);
    let drained = eventually("the drain", || async {
        let agents = agents().await;
        agents[0].get("drain_info").cloned()
    })
    .await;
    assert_eq!(drained["state"], "DRAINING");
    let seconds = agents().await[0]["estimated_drain_start_time_seconds"].as_u64().unwrap();
    assert!(seconds > 1_700_000_000, "{seconds}");
    let listed = operate(&master, r#"{"type":"GET_AGENTS"}"#).await.json();
    let start = &listed["get_agents"]["agents"][0]["estimated_drain_start_time"];
    assert_eq!(start["nanoseconds"], seconds * 1_000_000_000);
    assert!(matches!(agent.hear().await, ToAgent::Drain(_)));
    assert_eq!(operate(&master, &reactivate).await.status, 400, "it drains");

    assert_eq!(operate(&master, &gone).await.status, 200);
    assert_eq!(operate(&master, &gone).await.status, 200, "again");
    assert!(matches!(agent.hear().await, ToAgent::Refused(refused) if refused.gone()));
    eventually("it to be forgotten", || async {
        (agents().await == serde_json::json!([])).then_some(())
    })
    .await;
    assert_eq!(operate(&master, &drain).await.status, 409, "it is gone");
}

/// Whatever happens while it joins, a listener has all tasks: those of the snapshot and
/// those that are told of, each once.
#[tokio::test]
async fn the_stream_follows_the_snapshot_without_a_gap() {
    let master = TestMaster::start(memory()).await;
    let mut agents = Vec::new();
    for form in [Format::Json, Format::Protobuf].repeat(8) {
        let busy = {
            let name = format!("host-{}", agents.len());
            let master = &master;
            async move { Agent::register(master, &name).await }
        };
        // The agent comes at any moment of it.
        let (agent, events) = tokio::join!(busy, async {
            let mut events = Events::subscribe(&master, form).await;
            let first = events.next().await.unwrap();
            assert_eq!(first.r#type(), Told::Subscribed);
            let beat = events.next().await.unwrap();
            assert_eq!(beat.r#type(), Told::Heartbeat);
            let subscribed = first.subscribed.unwrap();
            assert_eq!(subscribed.heartbeat_interval_seconds, Some(15.0));
            (events, subscribed.get_state.unwrap())
        });
        agents.push(agent);
        let (mut events, state) = events;
        let id = |agent: &master::response::get_agents::Agent| {
            agent.agent_info.id.as_ref().unwrap().value.clone()
        };
        let mut known: Vec<String> =
            state.get_agents.unwrap_or_default().agents.iter().map(id).collect();
        while known.len() < agents.len() {
            known.push(id(&events.news().await.agent_added.unwrap().agent));
        }
        let mut wanted: Vec<_> = agents.iter().map(|a| a.id.clone()).collect();
        known.sort();
        wanted.sort();
        assert_eq!(known, wanted);
        // And nothing was told twice: the next that comes is new.
        let next = Agent::register(&master, &format!("next-{}", agents.len())).await;
        assert_eq!(id(&events.news().await.agent_added.unwrap().agent), next.id);
        agents.push(next);
    }
}

#[tokio::test]
async fn the_stream_tells_of_frameworks_tasks_and_agents() {
    let master = TestMaster::start(memory()).await;
    let mut events = Events::subscribe(&master, Format::Json).await;
    assert_eq!(events.next().await.unwrap().r#type(), Told::Subscribed);
    let mut agent = Agent::register(&master, "host-1").await;
    let added = events.news().await.agent_added.unwrap().agent;
    assert_eq!(added.pid.as_deref(), Some("slave(1)@host-1:5051"));
    let mut framework = Framework::subscribe(&master, None, 3600.0).await;
    let added = events.news().await.framework_added.unwrap().framework;
    assert_eq!(added.framework_info.id.unwrap().value, framework.id);
    let offer = framework.offer().await;
    framework.launch(&offer, "t1").await;
    let mut added = events.news().await;
    while added.r#type() == Told::FrameworkUpdated {
        added = events.news().await;
    }
    assert_eq!(added.task_added.unwrap().task.state(), TaskState::TaskStaging);
    assert!(matches!(agent.hear().await, ToAgent::RunTasks(_)));
    agent.update(&framework.id, "t1", TaskState::TaskRunning, 1).await;
    let updated = events.news().await.task_updated.unwrap();
    assert_eq!(
        (updated.state(), updated.status.state()),
        (TaskState::TaskRunning, TaskState::TaskRunning)
    );
    framework.status().await;
    // It runs as before, and its check has another result.
    let check = v1::CheckStatusInfo {
        http: Some(v1::check_status_info::Http { status_code: Some(503) }),
        ..Default::default()
    };
    let status = v1::TaskStatus {
        uuid: Some(vec![2; 16]),
        reason: Some(v1::task_status::Reason::TaskCheckStatusUpdated as i32),
        check_status: Some(check),
        ..updated.status
    };
    let update = mezz::StatusUpdate {
        framework_id: v1::FrameworkId { value: framework.id.clone() },
        latest_state: status.state,
        status,
    };
    agent.send(FromAgent::StatusUpdate(update)).await;
    let updated = events.news().await.task_updated.unwrap();
    assert_eq!(updated.status.check_status, Some(check));
    framework.status().await;
    let metric = eventually("the metric", || async {
        let page = get(&master, "/metrics/snapshot").await.json();
        page["master/operator_event_stream_subscribers"].as_f64()
    })
    .await;
    assert_eq!(metric, 1.0);

    let teardown = format!(
        r#"{{"type":"TEARDOWN","teardown":{{"framework_id":{{"value":"{}"}}}}}}"#,
        framework.id
    );
    assert_eq!(operate(&master, &teardown).await.status, 200);
    let mut ended = (false, false);
    while ended != (true, true) {
        let event = events.news().await;
        if let Some(updated) = event.task_updated {
            assert_eq!(updated.state(), TaskState::TaskKilled);
            assert_eq!(updated.status.state(), TaskState::TaskKilled);
            assert_eq!(updated.status.source(), v1::task_status::Source::Master);
            ended.0 = true;
        } else if let Some(removed) = event.framework_removed {
            assert_eq!(removed.framework_info.id.unwrap().value, framework.id);
            ended.1 = true;
        }
    }
    let gone = v1::AgentId { value: agent.id.clone() };
    agent.send(FromAgent::Unregister(Default::default())).await;
    loop {
        let event = events.news().await;
        if let Some(removed) = event.agent_removed {
            assert_eq!(removed.agent_id, gone);
            break;
        }
    }
    master.stop().await;
    while events.next().await.is_some() {}
}
