//! The pages that tools of Mesos read, against what a real Mesos answered.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use mezz_proto::{
    ids::FrameworkId,
    media::Format,
    mezz::v1::master_message::Message as ToAgent,
    v1::{
        self, TaskState,
        scheduler::{Call, call},
    },
};
use serde_json::Value;

use crate::{common::*, http::*};

/// What the captures have and Mezz has not, by the ends of paths; why is in
/// docs/mesos-compatibility.md.
const MISSING: &[&str] = &[
    // What the build was not told.
    "/state.git_sha",
    "/version.git_sha",
    ".version_info.git_sha",
    // There is no log on disk.
    "/state.log_dir",
    // Every agent keeps its tasks.
    ".agent_info.checkpoint",
    // The uuid of an update is known to its agent and its framework; that of one that is not
    // acknowledged is told.
    ".statuses[].uuid",
    "tasks[].status_update_uuid",
    // Command tasks have no executor.
    ".statuses[].executor_id",
    // Sums over agents and frameworks do not tell roles apart; tasks do.
    "_resources[].allocation_info",
    "_full[].allocation_info",
];

/// Mesos' settings that Mezz has; the others are not its own.
const FLAGS: &[&str] = &[
    "agent_ping_timeout",
    "agent_reregister_timeout",
    "allocation_interval",
    "filter_gpu_resources",
    "max_agent_ping_timeouts",
    "max_completed_frameworks",
    "max_completed_tasks_per_framework",
    "max_operator_event_stream_subscribers",
    "min_allocatable_resources",
    "port",
    "registry",
    "registry_max_agent_age",
    "registry_max_agent_count",
];

fn golden() -> Value {
    serde_json::from_str(include_str!("../data/endpoints.json")).unwrap()
}

/// All that the things of a list have, put together.
fn all_of(list: &[Value]) -> Option<Value> {
    fn add(to: &mut Value, from: &Value) {
        match (to, from) {
            (Value::Object(to), Value::Object(from)) => {
                for (key, value) in from {
                    match to.get_mut(key) {
                        Some(known) => add(known, value),
                        None => _ = to.insert(key.clone(), value.clone()),
                    }
                }
            }
            (Value::Array(to), Value::Array(from)) => to.extend(from.iter().cloned()),
            _ => {}
        }
    }
    let mut all = list.first()?.clone();
    list.iter().skip(1).for_each(|one| add(&mut all, one));
    Some(all)
}

/// What ours lacks, or has of another type, or in another order. Where a list of theirs has
/// something, ours must.
fn differences(theirs: &Value, ours: &Value, path: &str, out: &mut BTreeSet<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                let path = format!("{path}.{key}");
                let flag = path.rsplit_once(".flags.").map(|(_, name)| name);
                let other_flag = flag.is_some_and(|name| !FLAGS.contains(&name));
                if other_flag || MISSING.iter().any(|end| path.ends_with(end)) {
                    continue;
                }
                match ours.get(key) {
                    None => _ = out.insert(format!("{path} is missing")),
                    Some(ours) => differences(value, ours, &path, out),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if let Some(wanted) = all_of(theirs) {
                match all_of(ours) {
                    None => _ = out.insert(format!("{path} is empty")),
                    Some(ours) => differences(&wanted, &ours, &format!("{path}[]"), out),
                }
            }
        }
        (Value::Number(theirs), Value::Number(ours)) => {
            if theirs.is_f64() != ours.is_f64() {
                out.insert(format!("{path}: {ours} for {theirs}"));
            }
        }
        (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Null, Value::Null) => {}
        (theirs, ours) => _ = out.insert(format!("{path}: {ours} for {theirs}")),
    }
}

/// Keys that both have stand in one order; of lists the first things are looked at.
fn orders(theirs: &Value, ours: &Value, path: &str, out: &mut BTreeSet<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let shared: Vec<_> = theirs.keys().filter(|key| ours.contains_key(*key)).collect();
            let same: Vec<_> = ours.keys().filter(|key| theirs.contains_key(*key)).collect();
            if shared != same {
                out.insert(format!("{path}: {same:?} for {shared:?}"));
            }
            for (key, value) in theirs {
                if let Some(ours) = ours.get(key) {
                    orders(value, ours, &format!("{path}.{key}"), out);
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if let (Some(theirs), Some(ours)) = (theirs.first(), ours.first()) {
                orders(theirs, ours, &format!("{path}[]"), out);
            }
        }
        _ => {}
    }
}

/// As in the captures: a framework in role `dev` with a task that runs and one that has
/// ended, and another framework that has ended with a task of its own.
struct Scene {
    master: TestMaster,
    agent: Agent,
    framework: Framework,
    _first: Framework,
}

fn dev() -> Call {
    let mut first = subscribe(None, 3600.0);
    let info = &mut first.subscribe.as_mut().unwrap().framework_info;
    info.roles = vec!["dev".to_owned()];
    info.checkpoint = Some(true);
    use v1::framework_info::capability::Type;
    info.capabilities = [Type::MultiRole, Type::PartitionAware, Type::ReservationRefinement]
        .map(|c| v1::framework_info::Capability { r#type: Some(c as i32) })
        .to_vec();
    first
}

fn task(offer: &v1::Offer, id: &str) -> v1::TaskInfo {
    let labels = vec![v1::Label { key: "k".to_owned(), value: Some("v".to_owned()) }];
    v1::TaskInfo {
        name: id.to_owned(),
        task_id: v1::TaskId { value: id.to_owned() },
        agent_id: offer.agent_id.clone(),
        resources: mezz_proto::resources::Resources::cpus_mem(0.5, 64.0)
            .to_proto(mezz_proto::resources::Dialect::Refined, None),
        command: Some(v1::CommandInfo { value: Some("true".to_owned()), ..Default::default() }),
        labels: Some(v1::Labels { labels }),
        ..Default::default()
    }
}

async fn accept(framework: &Framework, offer: &v1::Offer, tasks: Vec<v1::TaskInfo>) {
    let launch = v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
        ..Default::default()
    };
    framework
        .send(Call {
            r#type: Some(call::Type::Accept as i32),
            accept: Some(call::Accept {
                offer_ids: vec![offer.id.clone()],
                operations: vec![launch],
                filters: Some(v1::Filters { refuse_seconds: Some(0.0) }),
            }),
            ..Default::default()
        })
        .await;
}

async fn run(agent: &mut Agent, framework: &mut Framework, task: &str, last: TaskState, uuid: u8) {
    for (n, state) in [TaskState::TaskStarting, TaskState::TaskRunning, last].iter().enumerate() {
        if n == 2 && last == TaskState::TaskRunning {
            continue;
        }
        let mut status = v1::TaskStatus {
            task_id: v1::TaskId { value: task.to_owned() },
            agent_id: Some(v1::AgentId { value: agent.id.clone() }),
            uuid: Some(vec![uuid + n as u8; 16]),
            timestamp: Some(1.5),
            container_status: Some(v1::ContainerStatus {
                container_id: Some(v1::ContainerId { value: "c".to_owned(), ..Default::default() }),
                network_infos: vec![v1::NetworkInfo {
                    ip_addresses: vec![v1::network_info::IpAddress {
                        ip_address: Some("127.0.0.1".to_owned()),
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                executor_pid: Some(7),
                ..Default::default()
            }),
            ..Default::default()
        };
        status.set_state(*state);
        status.set_source(v1::task_status::Source::Executor);
        agent
            .send(mezz_proto::mezz::v1::agent_message::Message::StatusUpdate(
                mezz_proto::mezz::v1::StatusUpdate {
                    framework_id: (&FrameworkId::new(&*framework.id)).into(),
                    status,
                    latest_state: *state as i32,
                },
            ))
            .await;
        let status = loop {
            let event = framework.hear().await.unwrap().expect("the stream ended");
            if let Some(update) = event.update {
                break update.status;
            }
        };
        framework.acknowledge(&status).await;
        while !matches!(agent.hear().await, ToAgent::Acknowledgement(_)) {}
    }
}

async fn scene() -> Scene {
    let master = TestMaster::start(memory()).await;
    let mut description = description("host-1", None);
    let ports = mezz_proto::resources::Resources::parse("ports:[31000-32000]").unwrap();
    description
        .agent
        .resources
        .extend(ports.to_proto(mezz_proto::resources::Dialect::Refined, None));
    let register = mezz_proto::mezz::v1::Register { description };
    let first = mezz_proto::mezz::v1::agent_message::Message::Register(register);
    let mut agent = Agent::open(&master, first).await;
    let ToAgent::Registered(registered) = agent.hear().await else { panic!("refused") };
    agent.id = registered.agent_id.value;
    let mut call = subscribe(None, 3600.0);
    call.subscribe.as_mut().unwrap().framework_info.capabilities =
        vec![v1::framework_info::Capability {
            r#type: Some(v1::framework_info::capability::Type::GpuResources as i32),
        }];
    call.subscribe.as_mut().unwrap().framework_info.hostname = Some("localhost".to_owned());
    let mut first = Framework::open(&master, call).await;
    let event = first.next(v1::scheduler::event::Type::Subscribed).await;
    first.id = event.subscribed.unwrap().framework_id.value;
    let offer = first.offer().await;
    first.launch(&offer, "old").await;
    run(&mut agent, &mut first, "old", TaskState::TaskFinished, 10).await;
    let torn = request(
        &master,
        "POST",
        "/master/teardown",
        &[],
        format!("frameworkId={}", first.id).as_bytes(),
    )
    .await;
    assert_eq!((torn.status, torn.text()), (200, ""));

    let mut framework = Framework::open(&master, dev()).await;
    let event = framework.next(v1::scheduler::event::Type::Subscribed).await;
    framework.id = event.subscribed.unwrap().framework_id.value;
    let offer = framework.offer().await;
    accept(&framework, &offer, vec![task(&offer, "long"), task(&offer, "short")]).await;
    run(&mut agent, &mut framework, "short", TaskState::TaskFinished, 20).await;
    run(&mut agent, &mut framework, "long", TaskState::TaskRunning, 30).await;
    eventually("the pages to tell of all of it", || async {
        let state = get(&master, "/state").await.json();
        let framework = &state["frameworks"][0];
        let all = framework["tasks"][0]["statuses"].as_array()?.len() == 2
            && framework["completed_tasks"][0]["id"] == "short"
            && state["completed_frameworks"][0]["completed_tasks"][0]["id"] == "old";
        all.then_some(())
    })
    .await;
    Scene { master, agent, framework, _first: first }
}

#[tokio::test]
async fn pages_have_the_keys_types_and_units_of_mesos() {
    let scene = scene().await;
    let master = &scene.master;
    for (path, theirs) in golden().as_object().unwrap() {
        let ours = match path.strip_prefix("v1 ") {
            Some(call) => operate(master, &format!("{{\"type\":\"{call}\"}}")).await.json(),
            None => {
                let page = get(master, path).await;
                assert_eq!(page.header("content-type"), Some("application/json"), "{path}");
                if path != "/metrics/snapshot" {
                    let alias = get(master, &format!("/master{path}")).await;
                    assert_eq!(alias.status, 200, "{path}");
                }
                page.json()
            }
        };
        let mut found = BTreeSet::new();
        differences(theirs, &ours, path, &mut found);
        orders(theirs, &ours, path, &mut found);
        assert!(found.is_empty(), "{found:#?}\nin {ours:#}");
        // Where they have nothing, ours has not either.
        if theirs.as_object().is_some_and(serde_json::Map::is_empty) {
            assert_eq!(&ours, theirs, "{path}");
        }
    }
    // What the page says is what there is.
    let state = get(master, "/state.json").await.json();
    assert_eq!(state["activated_slaves"], 1.0);
    assert_eq!(state["slaves"][0]["id"], *scene.agent.id);
    assert_eq!(state["slaves"][0]["pid"], "slave(1)@host-1:5051");
    assert_eq!(state["slaves"][0]["used_resources"]["cpus"], 0.5);
    assert_eq!(state["frameworks"][0]["id"], *scene.framework.id);
    assert_eq!(state["frameworks"][0]["roles"][0], "dev");
    assert_eq!(state["completed_frameworks"][0]["role"], "*");
    assert_eq!(state["cluster"], "test");
    assert_eq!(state["leader"], format!("master@{}", master.address));
    let summary = get(master, "/state-summary").await.json();
    assert_eq!(summary["frameworks"][0]["TASK_RUNNING"], 1);
    assert_eq!(summary["frameworks"][0]["slave_ids"][0], *scene.agent.id);
    // Of what the framework ran that has ended nothing is told.
    assert_eq!(summary["slaves"][0]["TASK_FINISHED"], 1);
    assert_eq!(summary["slaves"][0]["framework_ids"], serde_json::json!([*scene.framework.id]));
    assert_eq!(summary["cluster"], "test");
    let roles = get(master, "/roles").await.json();
    assert_eq!(roles["roles"][0]["allocated"], serde_json::json!({"cpus": 0.5, "mem": 64.0}));
    // What is below a page is that page.
    for (below, key) in [
        ("/state/", "slaves"),
        ("/master/state/x/y", "slaves"),
        ("/master/roles/dev", "roles"),
        ("/metrics/snapshot/x", "master/elected"),
        ("/version/", "version"),
    ] {
        assert!(!get(master, below).await.json()[key].is_null(), "{below}");
    }
    assert_eq!(get(master, "/quota/dev").await.json(), get(master, "/quota").await.json());
}

/// What is written message by message is what the schema says.
#[tokio::test]
async fn both_forms_of_the_operator_api_say_the_same() {
    use prost::Message;
    type Answer = v1::master::Response;
    let scene = scene().await;
    let master = &scene.master;
    let shown = mezz_proto::json::to_value::<Answer>;
    for kind in [
        v1::master::call::Type::GetState,
        v1::master::call::Type::GetTasks,
        v1::master::call::Type::GetExecutors,
        v1::master::call::Type::GetFrameworks,
        v1::master::call::Type::GetRoles,
        v1::master::call::Type::GetWeights,
    ] {
        // Between the two an offer may be made.
        eventually("both to say the same", || async {
            let call = v1::master::Call { r#type: Some(kind as i32), ..Default::default() };
            let form = "application/x-protobuf";
            let headers = [("content-type", form), ("accept", form)];
            let answer = request(master, "POST", "/api/v1", &headers, &call.encode_to_vec()).await;
            let one = Answer::decode(&*answer.body).unwrap();
            let text = operate(master, &mezz_proto::json::to_string(&call)).await;
            let other: Answer = mezz_proto::json::from_str(text.text()).unwrap();
            (shown(&one) == shown(&other)).then_some(())
        })
        .await;
    }
    let mut firsts = Vec::new();
    for form in [Format::Json, Format::Protobuf] {
        let mut events = Events::subscribe(master, form).await;
        let first = events.next().await.unwrap().subscribed.unwrap();
        assert_eq!(first.heartbeat_interval_seconds, Some(15.0));
        let state = first.get_state.unwrap();
        let tasks = state.get_tasks.unwrap();
        assert_eq!((tasks.tasks.len(), tasks.completed_tasks.len()), (1, 2));
        assert_eq!(state.get_agents.unwrap().agents.len(), 1);
        let frameworks = state.get_frameworks.unwrap();
        assert_eq!((frameworks.frameworks.len(), frameworks.completed_frameworks.len()), (1, 1));
        // Defaults that the one leaves out the other says.
        firsts.push(mezz_proto::json::to_value(&tasks));
    }
    assert_eq!(firsts[0], firsts[1]);
}

/// Neither by pages nor by either API of operators.
#[tokio::test]
async fn nobody_is_told_what_is_secret() {
    let master = TestMaster::start(memory()).await;
    let _agent = Agent::register(&master, "host-1").await;
    let mut framework = Framework::subscribe(&master, None, 3600.0).await;
    let offer = framework.offer().await;
    let value = v1::secret::Value { data: b"hidden".to_vec() };
    let mut secret = v1::Secret { value: Some(value), ..Default::default() };
    secret.set_type(v1::secret::Type::Value);
    let mut source = v1::volume::Source { secret: Some(secret), ..Default::default() };
    source.set_type(v1::volume::source::Type::Secret);
    let mut volume = v1::Volume {
        container_path: "somewhere".to_owned(),
        source: Some(source),
        ..Default::default()
    };
    volume.set_mode(v1::volume::Mode::Ro);
    let mut container = v1::ContainerInfo { volumes: vec![volume], ..Default::default() };
    container.set_type(v1::container_info::Type::Mesos);
    let container = Some(container);
    accept(&framework, &offer, vec![v1::TaskInfo { container, ..task(&offer, "t") }]).await;
    let listed = eventually("the task", || async {
        let request = mezz_proto::mezz::v1::ListTasksRequest::default();
        let listed = master.operator().await.list_tasks(request).await.unwrap().into_inner();
        (!listed.tasks.is_empty()).then_some(listed)
    })
    .await;
    let bytes = format!("{:?}", b"hidden");
    let listed = format!("{listed:?}");
    assert!(listed.contains("somewhere"), "{listed}");
    assert!(!listed.contains(bytes.trim_matches(['[', ']'])), "{listed}");
    for page in [get(&master, "/state").await, operate(&master, r#"{"type":"GET_STATE"}"#).await] {
        // In base64.
        assert!(page.text().contains("somewhere") && !page.text().contains("aGlkZGVu"));
    }
}

#[tokio::test]
async fn lists_are_cut_and_filtered_as_asked() {
    let scene = scene().await;
    let master = &scene.master;
    let ids = |page: Value| -> Vec<String> {
        let tasks = page["tasks"].as_array().unwrap().iter();
        tasks.map(|t| t["id"].as_str().unwrap().to_owned()).collect()
    };
    for (query, wanted) in [
        ("?order=asc&limit=1", vec!["old"]),
        ("?order=asc&offset=1", vec!["long", "short"]),
        ("?limit=1&offset=2", vec!["old"]),
        ("?task_id=long", vec!["long"]),
        (&format!("?framework_id={}&order=asc", scene.framework.id), vec!["long", "short"]),
        ("?framework_id=none", vec![]),
    ] {
        let mut found = ids(get(master, &format!("/tasks{query}")).await.json());
        // Two tasks of one launch have no order.
        found.sort();
        assert_eq!(found, wanted, "{query}");
    }
    assert_eq!(get(master, "/tasks?limit=-1").await.status, 400);
    let slaves = get(master, "/slaves?slave_id=none").await.json();
    assert_eq!(slaves["slaves"], serde_json::json!([]));
    let path = format!("/frameworks?framework_id={}", scene.framework.id);
    let frameworks = get(master, &path).await.json();
    assert_eq!(frameworks["frameworks"].as_array().unwrap().len(), 1);
    assert_eq!(frameworks["completed_frameworks"], serde_json::json!([]));

    let script = get(master, "/version?jsonp=angular.callbacks._0").await;
    assert_eq!(script.header("content-type"), Some("text/javascript"));
    assert!(script.text().starts_with("angular.callbacks._0({"), "{}", script.text());
    assert_eq!(get(master, "/state?jsonp=alert(1);x").await.status, 400);
}

/// That they have every name of Mesos the captures tell.
#[tokio::test]
async fn metrics_say_what_there_is() {
    let scene = scene().await;
    let page = get(&scene.master, "/metrics/snapshot?timeout=5secs").await.json();
    for (name, value) in [
        ("master/elected", 1.0),
        ("master/cpus_total", 4.0),
        ("master/cpus_used", 0.5),
        ("master/cpus_percent", 0.125),
        ("master/mem_used", 64.0),
        ("master/slaves_active", 1.0),
        ("master/slaves_connected", 1.0),
        ("master/frameworks_active", 1.0),
        ("master/tasks_running", 1.0),
        ("master/tasks_finished", 2.0),
        ("master/messages_register_framework", 2.0),
        ("master/messages_status_update_acknowledgement", 8.0),
    ] {
        assert_eq!(page[name], value, "{name}");
    }
    assert!(page["master/uptime_secs"].as_f64().unwrap() > 0.0);
    assert!(page["allocator/mesos/allocation_run_ms/count"].as_f64().unwrap() > 0.0);
    assert!(page["system/mem_total_bytes"].as_f64().unwrap() > 0.0);
    assert_eq!(get(&scene.master, "/metrics/snapshot?timeout=soon").await.status, 400);
}

#[tokio::test]
async fn forms_and_what_there_is_not_answer_as_mesos_does() {
    let master = TestMaster::start(memory()).await;
    let post = |path: &'static str, body: &'static str| {
        let master = &master;
        async move { request(master, "POST", path, &[], body.as_bytes()).await }
    };
    let refused = get(&master, "/teardown").await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    assert_eq!(
        refused.text(),
        "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'."
    );
    let refused = post("/teardown", "nothing=1").await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.text(), "Missing 'frameworkId' query parameter in the request body");
    // A form on another site's page is posted by browsers without asking first.
    for (origin, status) in [("http://evil.example", 403), ("http://x", 400), ("null", 403)] {
        let headers = [("origin", origin)];
        let answer = request(&master, "POST", "/teardown", &headers, b"frameworkId=none").await;
        assert_eq!(answer.status, status, "{origin}");
    }
    let headers = [("sec-fetch-site", "cross-site")];
    let answer = request(&master, "POST", "/teardown", &headers, b"frameworkId=none").await;
    assert_eq!(answer.status, 403);
    assert_eq!(get(&master, "/flags").await.header("x-content-type-options"), Some("nosniff"));
    let refused = post("/master/teardown", "frameworkId=none").await;
    assert_eq!((refused.status, refused.text()), (400, "No framework found with specified ID"));

    let weights = br#"[{"role":"dev","weight":2.5}]"#;
    assert_eq!(request(&master, "PUT", "/weights", &[], weights).await.status, 200);
    let shown = eventually("the weight", || async {
        let shown = get(&master, "/weights").await.json();
        (shown != serde_json::json!([])).then_some(shown)
    })
    .await;
    assert_eq!(shown, serde_json::json!([{"role": "dev", "weight": 2.5}]));
    for bad in ["{}", "[{\"role\":\"dev\"}]", "[{\"role\":\"dev\",\"weight\":0}]", "\u{fffd}"] {
        let refused = request(&master, "PUT", "/weights", &[], bad.as_bytes()).await;
        assert_eq!(refused.status, 400, "{bad}");
    }
    for path in [
        "/reserve",
        "/unreserve",
        "/create-volumes",
        "/destroy-volumes",
        "/machine/up",
        "/machine/down",
        "/quota",
        "/maintenance/schedule",
        "/quota/dev",
    ] {
        let refused = post(path, "").await;
        assert_eq!((refused.status, refused.text()), (501, "501 Not Implemented."), "{path}");
    }
    for path in ["/files/browse", "/files/read", "/files/download"] {
        assert_eq!(get(&master, &format!("{path}?path=/x")).await.status, 404, "{path}");
        assert_eq!(get(&master, path).await.status, 400, "{path}");
    }
    let health = get(&master, "/master/health").await;
    assert_eq!(health.status, 200);
    let long = vec![b'a'; (1 << 20) + 1];
    assert_eq!(request(&master, "POST", "/teardown", &[], &long).await.status, 413);
}
