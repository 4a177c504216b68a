//! A Docker engine that answers some questions and hangs at others: what has nothing to do
//! with it goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use cluster::{FakeMaster, PATIENCE, TestAgent, task};
use mezz_agent::containerizer::EngineAddress;
use mezz_proto::{
    mezz::v1 as mezz,
    resources::Resources,
    v1::{self, TaskState, container_info},
};
use serde_json::{Value, json};

/// Containers that are started at one time.
const SLOTS: usize = 16;

/// Checks that are made at one time.
const ATTEMPTS: usize = 256;

/// What the engine was asked for.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|asked| *asked == what).count()
    }
}

async fn never() -> Response {
    std::future::pending().await
}

/// Makes and runs containers of the images `runs` and `tells` only, of which the second
/// tells what it uses, hangs at that of `there`, and says no more of any. Those of `gone...` are there until one wants to start them, and
/// cannot be fetched.
async fn answer(State(asked): State<Asked>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let call = match path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) {
        Some((_, call)) => call,
        None => path.trim_start_matches('/'),
    };
    // Without its tag.
    let name = |image: &str| image.replace("%3A", ":").split(':').next().unwrap().to_owned();
    let no_image = |image: &str| {
        let message = format!("No such image: {image}");
        (StatusCode::NOT_FOUND, Json(json!({ "message": message }))).into_response()
    };
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or(Bytes::new());
    let answer = match call {
        _ if path.ends_with("/version") => json!({ "Version": "0", "ApiVersion": "1.47" }),
        _ if path.ends_with("/info") => json!({ "ID": "test", "ServerVersion": "0" }),
        "containers/json" => json!([]),
        "containers/create" => {
            let body: Value = serde_json::from_slice(&body).unwrap();
            let image = name(body["Image"].as_str().unwrap());
            asked.note(format!("create {image}"));
            if image == "tells" {
                let own = query.split('&').find_map(|part| part.strip_prefix("name="));
                asked.note(format!("can tell {}", own.unwrap()));
            }
            match &*image {
                "runs" | "tells" => json!({ "Id": image, "Warnings": [] }),
                "there" => return never().await,
                _ => return no_image(&image),
            }
        }
        "images/create" => {
            asked.note(format!("pull {query}"));
            return never().await;
        }
        _ if call.starts_with("images/") => {
            let image = name(call.split('/').nth(1).unwrap_or_default());
            let tried = asked.count(&format!("create {image}")) > 0;
            match image.starts_with("gone") && tried {
                true => return no_image(&image),
                false => json!({ "Id": image }),
            }
        }
        "containers/runs/start" | "containers/tells/start" => {
            return StatusCode::NO_CONTENT.into_response();
        }
        _ if call.ends_with("/json") => {
            json!({ "State": { "Status": "running", "Pid": std::process::id() } })
        }
        _ if call.ends_with("/exec") => {
            asked.note("exec".to_owned());
            return never().await;
        }
        _ if call.ends_with("/stats") => {
            let name = call.split('/').nth(1).unwrap_or_default();
            match asked.count(&format!("can tell {name}")) {
                0 => return never().await,
                _ => json!({ "pids_stats": { "current": 1 } }),
            }
        }
        // How it ends, and what it writes.
        _ => return never().await,
    };
    Json(answer).into_response()
}

async fn engine() -> (EngineAddress, Asked) {
    let asked = Asked::default();
    let app = Router::new().fallback(answer).with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (EngineAddress::parse(&address).unwrap(), asked)
}

fn in_docker(id: &str, image: &str) -> v1::TaskInfo {
    let docker = container_info::DockerInfo { image: image.to_owned(), ..Default::default() };
    let container = v1::ContainerInfo {
        r#type: container_info::Type::Docker.into(),
        docker: Some(docker),
        ..Default::default()
    };
    v1::TaskInfo { container: Some(container), ..task(id, "true") }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn joined(master: &mut FakeMaster, engine: EngineAddress) -> TestAgent {
    let mut agent = TestAgent::new(master);
    agent.options.docker.engine = Some(engine);
    agent.start().await;
    master.welcome().await;
    agent
}

#[test_log::test(tokio::test)]
async fn an_engine_that_hangs_holds_up_its_own_containers_only() {
    let (engine, asked) = engine().await;
    let mut master = FakeMaster::start().await;
    let mut agent = joined(&mut master, engine).await;
    for n in 0..SLOTS + 4 {
        master.run(vec![in_docker(&format!("docker{n}"), "there")]).await;
    }
    until("all places are taken", || asked.count("create there") == SLOTS).await;
    master.run(vec![task("t", "true")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    master.expect("t", TaskState::TaskFinished).await;
    assert_eq!(asked.count("create there"), SLOTS);
    // Nor does the agent's end wait for it.
    let begun = std::time::Instant::now();
    agent.stop().await;
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn an_image_that_goes_before_the_start_is_fetched_again_without_a_place() {
    let (engine, asked) = engine().await;
    let mut master = FakeMaster::start().await;
    let agent = joined(&mut master, engine).await;
    for n in 0..SLOTS {
        master.run(vec![in_docker(&format!("gone{n}"), &format!("gone{n}"))]).await;
    }
    let pulls = || (0..SLOTS).filter(|n| asked.count(&format!("create gone{n}")) == 1).count();
    until("all are to be fetched", || pulls() == SLOTS).await;
    master.run(vec![in_docker("t", "there")]).await;
    until("there is a place for another", || asked.count("create there") == 1).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn what_processes_use_is_known_while_an_engine_hangs() {
    let (engine, _) = engine().await;
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.docker.engine = Some(engine);
    agent.options.monitor.container_disk_interval = Duration::from_millis(50);
    agent.start().await;
    master.welcome().await;
    for n in 0..8 {
        let id = format!("docker{n}");
        master.run(vec![in_docker(&id, "runs")]).await;
        master.expect(&id, TaskState::TaskRunning).await;
    }
    master.run(vec![task("t", "exec sleep 1000")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let ask = mezz::ListContainersRequest {};
    let mut api = agent.api().await;
    let listed = api.list_containers(ask);
    let listed = tokio::time::timeout(PATIENCE, listed).await.expect("an answer").unwrap();
    let listed = listed.into_inner().containers;
    let known: Vec<_> = listed.iter().filter(|container| container.statistics.is_some()).collect();
    assert_eq!((listed.len(), known.len()), (9, 1));
    let metrics = [
        "mezz_agent_containers_running{containerizer=\"process\"} 1",
        "mezz_agent_containers_running{containerizer=\"docker\"} 8",
    ];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (_, text) = agent.get("/metrics").await;
        if metrics.iter().all(|metric| text.contains(metric)) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn what_others_of_an_engine_use_is_known_while_some_hang() {
    const HUNG: usize = 30;
    const TELL: usize = 100;
    let (engine, _) = engine().await;
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.docker.engine = Some(engine);
    agent.options.resources = Resources::cpus_mem(1000.0, 100_000.0);
    agent.options.max_tasks = 1000;
    agent.start().await;
    master.welcome().await;
    let of = |image, count| (0..count).map(move |n| in_docker(&format!("{image}{n}"), image));
    master.run(of("runs", HUNG).chain(of("tells", TELL)).collect()).await;
    for _ in 0..HUNG + TELL {
        let running = master.update().await;
        assert_eq!(running.state(), TaskState::TaskRunning, "{running:?}");
        master.ack(&running).await;
    }
    master.run(vec![task("t", "exec sleep 1000")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let mut api = agent.api().await;
    let listed = api.list_containers(mezz::ListContainersRequest {}).await.unwrap();
    let listed = listed.into_inner().containers;
    let known = listed.iter().filter(|container| container.statistics.is_some()).count();
    assert_eq!((listed.len(), known), (HUNG + TELL + 1, TELL + 1));
    assert!(listed.is_sorted_by_key(|container| &container.container_id), "in their order");
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn processes_are_checked_while_an_engine_hangs() {
    let (engine, asked) = engine().await;
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.docker.engine = Some(engine);
    agent.options.resources = Resources::cpus_mem(100.0, 100_000.0);
    agent.options.max_tasks = 1000;
    agent.start().await;
    master.welcome().await;
    let check = v1::HealthCheck {
        r#type: Some(v1::health_check::Type::Command.into()),
        command: Some(v1::CommandInfo { value: Some("true".into()), ..Default::default() }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(1000.0),
        timeout_seconds: Some(1000.0),
        ..Default::default()
    };
    let checked = |n| {
        let task = in_docker(&format!("docker{n}"), "runs");
        v1::TaskInfo { health_check: Some(check.clone()), ..task }
    };
    master.run((0..ATTEMPTS + 1).map(checked).collect()).await;
    for _ in 0..ATTEMPTS + 1 {
        let running = master.update().await;
        assert_eq!(running.state(), TaskState::TaskRunning, "{running:?}");
        master.ack(&running).await;
    }
    until("all are being checked", || asked.count("exec") == ATTEMPTS).await;
    let task = task("t", "exec sleep 1000");
    master.run(vec![v1::TaskInfo { health_check: Some(check), ..task }]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let healthy = master.expect("t", TaskState::TaskRunning).await;
    assert_eq!(healthy.healthy, Some(true));
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    assert_eq!(asked.count("exec"), ATTEMPTS);
    agent.finish().await;
}
