//! What tools of Mesos read of an agent: the older pages, the operator API and files,
//! against what a real Mesos answered (`fixtures/mesos_agent.json`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod cluster;

use std::{path::PathBuf, time::Duration};

use cluster::{FRAMEWORK, FakeMaster, PATIENCE, TestAgent, task};
use mezz_agent::options::Containment;
use mezz_proto::{
    json,
    resources::{Dialect, Resources},
    v1::{self, TaskState, agent},
};
use prost::Message as _;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
const SECRET: &str = "open-sesame";

/// How the paths end of what ours leaves out on purpose: docs/mesos-compatibility.md says why.
const LEFT_OUT: [&str; 9] = [
    "/state/log_dir",
    "/git_sha",
    // The test's framework has none.
    "/framework_info/roles",
    "/frameworks/0/roles",
    "/framework_info/capabilities",
    // Command tasks have no executor that runs.
    "/executor_info/command",
    "/executor_info/resources",
    "/statuses/0/executor_id",
    "/statuses/0/container_status/executor_pid",
];

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("fixtures/mesos_agent.json")).unwrap()
}

/// The same keys in the same order, with values of the same kinds; there may be more.
fn same_shape(path: &str, golden: &Value, ours: &Value) {
    match (golden, ours) {
        (Value::Object(golden), Value::Object(ours)) => {
            for (key, value) in golden {
                let path = format!("{path}/{key}");
                match ours.get(key) {
                    Some(ours) => same_shape(&path, value, ours),
                    None => {
                        let left_out = LEFT_OUT.iter().any(|end| path.ends_with(end));
                        assert!(left_out, "{path} is missing");
                    }
                }
            }
            let wanted: Vec<_> = golden.keys().filter(|key| ours.contains_key(*key)).collect();
            let order: Vec<_> = ours.keys().filter(|key| golden.contains_key(*key)).collect();
            assert_eq!(order, wanted, "{path}");
        }
        (Value::Array(golden), Value::Array(ours)) => {
            if let (Some(golden), Some(ours)) = (golden.first(), ours.first()) {
                same_shape(&format!("{path}/0"), golden, ours);
            }
        }
        (Value::Number(a), Value::Number(b)) => assert_eq!(a.is_f64(), b.is_f64(), "{path}"),
        _ => assert_eq!(
            std::mem::discriminant(golden),
            std::mem::discriminant(ours),
            "{path}: {ours}"
        ),
    }
}

struct World {
    master: FakeMaster,
    agent: TestAgent,
}

impl World {
    async fn start(containment: Containment) -> Self {
        let mut master = FakeMaster::start().await;
        let mut agent = TestAgent::new(&master);
        agent.options.containment = containment;
        agent.options.resources =
            Resources::parse("cpus:4;mem:4096;disk:1000;ports:[31000-31010]").unwrap();
        agent.start().await;
        master.welcome().await;
        Self { master, agent }
    }

    /// A task with labels and a secret.
    async fn run(&mut self, id: &str, line: &str) {
        let resources = Resources::cpus_mem(0.5, 64.0).to_proto(Dialect::Refined, Some("dev"));
        let mut info = v1::TaskInfo { resources, ..task(id, line) };
        let label = v1::Label { key: "k".into(), value: Some("v".into()) };
        info.labels = Some(v1::Labels { labels: vec![label] });
        let secret = v1::environment::Variable {
            name: "PASSWORD".into(),
            r#type: Some(v1::environment::variable::Type::Secret.into()),
            secret: Some(v1::Secret {
                r#type: Some(v1::secret::Type::Value.into()),
                value: Some(v1::secret::Value { data: SECRET.as_bytes().to_vec() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        info.command.as_mut().unwrap().environment =
            Some(v1::Environment { variables: vec![secret] });
        info.data = Some(SECRET.as_bytes().to_vec());
        self.master.run(vec![info]).await;
        self.master.expect(id, TaskState::TaskRunning).await;
    }

    async fn page(&self, path: &str) -> Value {
        let (status, text) = self.agent.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    async fn send(&self, path: &str, content: &str, accept: &str, body: Vec<u8>) -> Response {
        self.try_send(path, content, accept, body).await.unwrap()
    }

    async fn try_send(
        &self,
        path: &str,
        content: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> reqwest::Result<Response> {
        let url = format!("http://{}{path}", self.agent.address);
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let request = client.request(Method::POST, url).body(body);
        request.header("content-type", content).header("accept", accept).send().await
    }

    /// In both forms, which say the same.
    async fn call(&self, call: Value) -> Value {
        let text = call.to_string();
        let response = self.send("/api/v1", JSON, JSON, text.clone().into_bytes()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &JSON.parse().unwrap())
        );
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let call: agent::Call = json::from_str(&text).unwrap();
        let bytes = call.encode_to_vec();
        let response = self.send("/slave(1)/api/v1", PROTOBUF, PROTOBUF, bytes).await;
        assert_eq!(response.status(), 200);
        let bytes = response.bytes().await.unwrap();
        let other = agent::Response::decode(bytes).unwrap();
        let kind = json::from_value::<agent::Response>(&answer).unwrap().r#type;
        assert_eq!(other.r#type, kind);
        answer
    }
}

#[test_log::test(tokio::test)]
async fn pages_have_what_those_of_mesos_have() {
    let mut world = World::start(Containment::Cgroup).await;
    world.run("long", "exec sleep 1000").await;
    world.run("ok", "while [ ! -e go ]; do sleep 0.02; done").await;
    let sandbox = world.page("/state").await["frameworks"][0]["executors"][1]["directory"].clone();
    std::fs::write(PathBuf::from(sandbox.as_str().unwrap()).join("go"), "").unwrap();
    world.master.expect("ok", TaskState::TaskFinished).await;
    let golden = golden();

    until("the end is on the page", async || {
        let state = world.page("/state").await;
        state["frameworks"][0]["completed_executors"][0]["id"] == "ok"
    })
    .await;
    until("it is measured", async || {
        world.page("/monitor/statistics").await[0]["statistics"]["cpus_user_time_secs"].is_f64()
    })
    .await;
    for (page, wanted) in golden.as_object().unwrap() {
        let ours = match page.strip_prefix("v1 ") {
            Some(call) => world.call(json!({ "type": call })).await,
            None => {
                let other = world.page(&format!("/slave(1){page}")).await;
                let ours = world.page(page).await;
                same_shape(&format!("slave(1){page}"), &ours, &other);
                ours
            }
        };
        same_shape(page, wanted, &ours);
        assert!(!ours.to_string().contains(SECRET), "{page}: {ours}");
        // Base64 of it.
        assert!(!ours.to_string().contains("b3Blbi1zZXNhbWU"), "{page}: {ours}");
    }

    let state = world.page("/state.json").await;
    let executor = &state["frameworks"][0]["executors"][0];
    assert_eq!((&executor["id"], &executor["source"]), (&json!("long"), &json!("long")));
    let name = "Command Executor (Task: long) (Command: sh -c 'exec sleep 1000')";
    assert_eq!(executor["name"], name);
    assert_eq!(executor["role"], "dev");
    assert_eq!(executor["resources"], json!({"disk": 0.0, "mem": 64.0, "gpus": 0.0, "cpus": 0.5}));
    assert_eq!(executor["tasks"][0]["state"], "TASK_RUNNING");
    let directory = executor["directory"].as_str().unwrap();
    assert!(PathBuf::from(directory).join("stdout").exists(), "{directory}");
    assert_eq!(state["pid"], json!(format!("slave(1)@{}", world.agent.address)));
    assert_eq!(state["unreserved_resources_allocated"]["cpus"], 0.5);
    let done = &state["frameworks"][0]["completed_executors"][0]["completed_tasks"][0];
    assert_eq!((&done["id"], &done["state"]), (&json!("ok"), &json!("TASK_FINISHED")));
    let container = &done["statuses"][0]["container_status"];
    let address = &container["network_infos"][0]["ip_addresses"][0];
    assert_eq!(address, &json!({"protocol": "IPv4", "ip_address": "127.0.0.1"}));

    let used = world.page("/monitor/statistics").await;
    assert_eq!((&used[0]["executor_id"], used.as_array().unwrap().len()), (&json!("long"), 1));
    assert_eq!(used[0]["statistics"]["cpus_limit"], 0.5);
    assert!(used[0]["statistics"]["mem_rss_bytes"].as_u64() > Some(0), "{used}");
    let metrics = world.page("/metrics/snapshot").await;
    assert_eq!(
        (&metrics["slave/tasks_running"], &metrics["slave/tasks_finished"]),
        (&json!(1.0), &json!(1.0))
    );
    assert_eq!(
        (&metrics["slave/cpus_used"], &metrics["slave/registered"]),
        (&json!(0.5), &json!(1.0))
    );
    let flags = world.page("/flags").await;
    assert_eq!(flags["flags"]["executor_registration_timeout"], "1mins");

    let (status, script) = world.agent.get("/state?jsonp=angular.callbacks._0").await;
    assert_eq!(status, 200);
    assert!(script.starts_with("angular.callbacks._0({") && script.ends_with("});"), "{script}");
    assert_eq!(world.agent.get("/state?jsonp=alert(1)//").await.0, 400);
    assert_eq!(world.agent.get("/slave(1)/health").await.0, 200);
    for path in ["/slave%281%29/health", "/slave%281%29/state", "/metrics/snapshot?timeout=2secs"] {
        assert_eq!(world.agent.get(path).await.0, 200, "{path}");
    }
    assert_eq!(world.agent.get("/metrics/snapshot?timeout=x").await.0, 400);
    // What is below a page is that page.
    for (below, key) in [
        ("/state/", "frameworks"),
        ("/slave(1)/state/x/y", "frameworks"),
        ("/slave%281%29/flags/", "flags"),
        ("/metrics/snapshot/x?timeout=2secs", "slave/registered"),
        ("/version/", "version"),
    ] {
        assert!(!world.page(below).await[key].is_null(), "{below}");
    }
    for nothing in ["/version/x", "/metrics/x", "/monitor", "/slave(1)", "/statex"] {
        assert_eq!(world.agent.get(nothing).await.0, 404, "{nothing}");
    }

    // The next agent knows what goes on.
    world.agent.stop().await;
    world.agent.start().await;
    world.master.welcome().await;
    until("the task is on the page again", async || {
        let state = world.page("/state").await;
        state["frameworks"][0]["executors"][0]["tasks"][0]["id"] == "long"
    })
    .await;
    world.agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn operator_calls_are_checked_in_mesos_order() {
    let world = World::start(Containment::None).await;
    let (status, text) = world.agent.get("/api/v1").await;
    let expected = "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.";
    assert_eq!((status, &*text), (405, expected));
    let typed = "Expecting 'Content-Type' of application/json or application/x-protobuf";
    for (content, accept, body, status, tells) in [
        ("text/plain", JSON, "x", 415, typed),
        (JSON, JSON, "x", 400, "Failed to parse body into JSON: "),
        (JSON, JSON, "{}", 400, "Failed to validate agent::Call: Expecting 'type' to be present"),
        (
            JSON,
            JSON,
            r#"{"type":"READ_FILE"}"#,
            400,
            "Failed to validate agent::Call: Expecting 'read_file' to be present",
        ),
        (JSON, "text/html", r#"{"type":"GET_HEALTH"}"#, 406, "Expecting 'Accept' to allow"),
        (JSON, JSON, r#"{"type":"PRUNE_IMAGES"}"#, 501, "PRUNE_IMAGES is not supported"),
        (JSON, JSON, r#"{"type":"LIST_FILES","list_files":{"path":"/etc"}}"#, 404, ""),
    ] {
        for path in ["/api/v1", "/api/v1/operator"] {
            let response = world.send(path, content, accept, body.into()).await;
            let got = response.status().as_u16();
            let text = response.text().await.unwrap();
            assert!(got == status && text.contains(tells), "{body}: {got} {text}");
        }
    }
    let large = world.send("/api/v1", JSON, JSON, vec![b' '; (1 << 20) + 1]).await;
    assert_eq!(large.status(), 413);
    let level = world.call(json!({ "type": "GET_LOGGING_LEVEL" })).await;
    assert_eq!(level["get_logging_level"], json!({ "level": 0 }));
    let flags = world.call(json!({ "type": "GET_FLAGS" })).await;
    let flags = flags["get_flags"]["flags"].as_array().unwrap().clone();
    assert!(flags.contains(&json!({ "name": "hostname", "value": "test" })), "{flags:?}");
    let metrics = world.call(json!({ "type": "GET_METRICS", "get_metrics": {} })).await;
    let metrics = metrics["get_metrics"]["metrics"].as_array().unwrap().clone();
    assert!(metrics.contains(&json!({ "name": "slave/cpus_total", "value": 4.0 })), "{metrics:?}");
    let version = world.call(json!({ "type": "GET_VERSION" })).await;
    let version = &version["get_version"]["version_info"]["version"];
    assert_eq!(version, mezz_proto::pages::MESOS_VERSION);
    world.agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn files_are_found_by_mesos_paths_and_no_others_are() {
    let mut world = World::start(Containment::None).await;
    let secret = world.agent.options.work_dir.parent().unwrap().join("secret");
    std::fs::write(&secret, "s").unwrap();
    let line = format!(
        "printf 0123456789; mkdir sub; printf x > sub/a; ln -s {} out; ln -s /etc/passwd absolute; \
         touch done; exec sleep 1000",
        secret.display()
    );
    world.run("t", &line).await;
    let state = world.page("/state").await;
    let executor = &state["frameworks"][0]["executors"][0];
    let real = executor["directory"].as_str().unwrap().to_owned();
    until("the task has written", async || PathBuf::from(&real).join("done").exists()).await;
    let runs = format!("/frameworks/{FRAMEWORK}/executors/t/runs");
    let container = executor["container"].as_str().unwrap();
    for root in [real.clone(), format!("{runs}/latest"), format!("{runs}/{container}")] {
        let files = world.page(&format!("/files/browse?path={root}")).await;
        let paths: Vec<&str> =
            files.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
        for name in ["stdout", "stderr", "sub"] {
            assert!(paths.contains(&&*format!("{root}/{name}")), "{paths:?}");
        }
        let sub = world.page(&format!("/slave(1)/files/browse.json?path={root}/sub/")).await;
        assert_eq!(sub[0]["path"], json!(format!("{root}/sub/a")));
        assert_eq!((&sub[0]["size"], &sub[0]["mode"]), (&json!(1), &json!("-rw-r--r--")));
        assert!(sub[0]["uid"].is_string() && sub[0]["mtime"].is_f64(), "{sub}");

        let read =
            async |query: &str| world.page(&format!("/files/read?path={root}/stdout{query}")).await;
        assert_eq!(read("").await, json!({ "data": "", "offset": 10 }));
        assert_eq!(read("&offset=-1").await, json!({ "data": "", "offset": 10 }));
        assert_eq!(read("&offset=2&length=3").await, json!({ "data": "234", "offset": 2 }));
        assert_eq!(read("&offset=99").await, json!({ "data": "", "offset": 10 }));
        let (status, text) = world.agent.get(&format!("/files/download?path={root}/stdout")).await;
        assert_eq!((status, &*text), (200, "0123456789"));

        let listed =
            json!({ "type": "LIST_FILES", "list_files": { "path": format!("{root}/sub") } });
        let listed = world.call(listed).await;
        assert_eq!(listed["list_files"]["file_infos"][0]["path"], json!(format!("{root}/sub/a")));
        let path = format!("{root}/stdout");
        let part = json!({ "type": "READ_FILE", "read_file": { "path": path, "offset": 8 } });
        let part = world.call(part).await;
        assert_eq!(part["read_file"], json!({ "size": 10, "data": "ODk=" }));

        for bad in ["out", "absolute", "../x", "sub/../../x", "sub", "nothing"] {
            for page in ["read?offset=0&", "download?"] {
                let (status, text) =
                    world.agent.get(&format!("/files/{page}path={root}/{bad}")).await;
                assert!((400..=404).contains(&status), "{page} {bad}: {status} {text}");
            }
        }
    }
    // Our own way goes on.
    let own = format!("/files/download?framework={FRAMEWORK}&task=t&path=stdout");
    assert_eq!(world.agent.get(&own).await, (200, "0123456789".to_owned()));
    let store = world.agent.options.work_dir.join("meta/agent.redb");
    for (path, wanted) in [
        (secret.display().to_string(), 404),
        (store.display().to_string(), 404),
        (format!("{real}/../../../../../../../../meta/agent.redb"), 400),
        ("/etc/passwd".to_owned(), 404),
        (String::new(), 400),
    ] {
        for page in ["browse", "read", "download"] {
            let (status, text) = world.agent.get(&format!("/files/{page}?path={path}")).await;
            assert_eq!(status, wanted, "{page} {path}: {text}");
        }
    }
    let (status, text) = world.agent.get("/files/read").await;
    assert_eq!((status, &*text), (400, "Expecting 'path=value' in query.\n"));
    for (query, tells) in [("offset=x", "Failed to parse offset"), ("offset=-2", "Negative offset")]
    {
        let (status, text) =
            world.agent.get(&format!("/files/read?path={runs}/latest/stdout&{query}")).await;
        assert!(status == 400 && text.contains(tells), "{status} {text}");
    }
    world.agent.finish().await;
}

/// What is awaited takes a place of few, and gives it back.
#[test_log::test(tokio::test)]
async fn bodies_that_do_not_come_keep_nobody_out() {
    let world = World::start(Containment::None).await;
    let announce = async || {
        let mut stream = tokio::net::TcpStream::connect(world.agent.address).await.unwrap();
        let head = "POST /api/v1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                    Content-Length: 1000000\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let mut waiting = Vec::new();
    for _ in 0..300 {
        waiting.push(announce().await);
    }
    let health = world.call(json!({ "type": "GET_HEALTH" })).await;
    assert_eq!(health["get_health"]["healthy"], true);
    let status = async || {
        let call = format!("{}{}", " ".repeat(500_000), r#"{"type":"GET_HEALTH"}"#);
        // Who is refused while it sends may find the connection closed.
        let response = world.try_send("/api/v1", JSON, JSON, call.into_bytes()).await;
        response.map_or(0, |response| response.status().as_u16())
    };
    // Who sends nearly all of it takes the others' room, and gives it back.
    until("there is no room left", async || {
        let mut stream = announce().await;
        // One that finds no room is refused, and then nobody reads.
        let _ = stream.write_all(&vec![b' '; 999_000]).await;
        waiting.push(stream);
        status().await == 503
    })
    .await;
    drop(waiting);
    until("there is room again", async || status().await == 200).await;
    assert_eq!(world.page("/state").await["hostname"], "test");
    world.agent.finish().await;
}
