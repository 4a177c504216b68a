//! A custom executor in Python, over HTTP with JSON, run by a real agent; and what
//! that API refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod cluster;

use std::{collections::BTreeSet, time::Duration};

use cluster::{FRAMEWORK, FakeMaster, PATIENCE, TestAgent, resources, task};
use mezz_proto::{
    json::from_str,
    mezz::v1::{self as mezz, agent_message, master_message},
    recordio,
    v1::{
        self, TaskState,
        executor::{Call, Event, call, event},
    },
};
use prost::Message as _;
use reqwest::{Method, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Who waits for a body says nothing for so long; a busy machine may need more to answer one
/// who is refused.
const HESITATION: Duration = Duration::from_millis(500);

const EXECUTOR: &str = include_str!("fixtures/executor.py");

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let all = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// A task of the executor `E`, which runs `line`.
fn executor_task(id: &str, line: &str, command: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        command: None,
        data: Some(line.as_bytes().to_vec()),
        executor: Some(v1::ExecutorInfo {
            executor_id: v1::ExecutorId { value: "E".into() },
            framework_id: Some(v1::FrameworkId { value: FRAMEWORK.into() }),
            resources: resources(),
            command: Some(v1::CommandInfo { value: Some(command.into()), ..Default::default() }),
            ..Default::default()
        }),
        ..task(id, "")
    }
}

/// With a token, or as one that was written for an agent that asks for none.
fn python(id: &str, line: &str, token: bool) -> v1::TaskInfo {
    let forget = if token { "" } else { "unset MESOS_EXECUTOR_AUTHENTICATION_TOKEN\n" };
    let command =
        format!("{forget}cat > executor.py <<'END'\n{EXECUTOR}\nEND\nexec python3 executor.py");
    executor_task(id, line, &command)
}

/// The next update of each of these tasks and states, in whatever order.
async fn expect_all(master: &mut FakeMaster, mut wanted: Vec<(&str, TaskState)>) {
    while !wanted.is_empty() {
        let status = master.update().await;
        let got = (&*status.task_id.value, status.state());
        let at = wanted.iter().position(|w| *w == got);
        wanted.swap_remove(at.unwrap_or_else(|| panic!("{got:?} {status:?}")));
        master.ack(&status).await;
    }
}

#[test_log::test(tokio::test)]
async fn an_executor_in_python_runs_tasks_over_http() {
    python_runs_tasks(true).await;
}

#[test_log::test(tokio::test)]
async fn an_executor_that_knows_of_no_token_runs_tasks_over_http() {
    python_runs_tasks(false).await;
}

async fn python_runs_tasks(token: bool) {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    // It ends by itself, however busy the machine is.
    agent.options.executor_shutdown_grace = PATIENCE;
    agent.start().await;
    master.welcome().await;
    let tasks = [("good", "exit 0"), ("bad", "exit 7"), ("long", "sleep 1000")];
    for (id, line) in tasks {
        master.run(vec![python(id, line, token)]).await;
    }
    use TaskState::{TaskFailed, TaskFinished, TaskKilled, TaskRunning};
    let wanted = [
        ("good", TaskRunning),
        ("bad", TaskRunning),
        ("long", TaskRunning),
        ("good", TaskFinished),
        ("bad", TaskFailed),
    ];
    expect_all(&mut master, wanted.to_vec()).await;

    let message = mezz::ExecutorMessage {
        framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
        executor_id: v1::ExecutorId { value: "E".into() },
        data: vec![0, 159, 255],
    };
    master.say(master_message::Message::ExecutorMessage(message.clone())).await;
    loop {
        if let agent_message::Message::ExecutorMessage(back) = master.hear().await {
            assert_eq!(back, message);
            break;
        }
    }

    // It finds the agent again, and its task was not lost.
    agent.stop().await;
    agent.start().await;
    master.welcome().await;
    let subscribed = "SUBSCRIBED\n";
    until("the executor is back", async || {
        agent.read("long", "stdout").await.unwrap_or_default().matches(subscribed).count() == 2
    })
    .await;
    master.kill("long", None).await;
    master.expect("long", TaskKilled).await;

    let shutdown = mezz::ShutdownExecutor {
        framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
        executor_id: v1::ExecutorId { value: "E".into() },
    };
    master.say(master_message::Message::ShutdownExecutor(shutdown)).await;
    loop {
        if let agent_message::Message::ExecutorTerminated(ended) = master.hear().await {
            assert_eq!((&*ended.executor_id.value, ended.status), ("E", 0));
            break;
        }
    }
    let said = agent.read("long", "stdout").await.unwrap();
    assert!(said.contains("SUBSCRIBE 200 application/json"), "{said}");
    assert!(!said.contains("UPDATE 4") && said.contains("UPDATE 202"), "{said}");
    agent.finish().await;
}

/// An executor that does nothing but show its token.
struct Idle {
    master: FakeMaster,
    agent: TestAgent,
    token: String,
}

impl Idle {
    async fn start() -> Self {
        Self::start_with(false).await
    }

    async fn start_with(authenticate: bool) -> Self {
        let mut master = FakeMaster::start().await;
        let mut agent = TestAgent::new(&master);
        agent.options.authenticate_http_executors = authenticate;
        agent.start().await;
        master.welcome().await;
        let show = "echo $MESOS_EXECUTOR_AUTHENTICATION_TOKEN > new; mv new token; sleep 1000";
        master.run(vec![executor_task("t", "", show)]).await;
        let mut token = String::new();
        until("the executor runs", async || {
            token = agent.read("t", "token").await.unwrap_or_default().trim().to_owned();
            !token.is_empty()
        })
        .await;
        Self { master, agent, token }
    }

    async fn send(&self, method: Method, headers: &[(&str, &str)], body: Vec<u8>) -> Response {
        let url = format!("http://{}/api/v1/executor", self.agent.address);
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let mut request = client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// With all that is right, but what is said. An empty token is none.
    async fn post(&self, token: &str, format: &str, accept: &str, body: Vec<u8>) -> Response {
        let bearer = format!("Bearer {token}");
        let headers = [("content-type", format), ("accept", accept), ("authorization", &*bearer)];
        let some = if token.is_empty() { &headers[..2] } else { &headers[..] };
        self.send(Method::POST, some, body).await
    }

    async fn json(&self, token: &str, call: &str) -> Response {
        self.post(token, "application/json", "*/*", call.into()).await
    }
}

fn with_ids(rest: &str) -> String {
    format!(r#"{{"framework_id":{{"value":"{FRAMEWORK}"}},"executor_id":{{"value":"E"}},{rest}}}"#)
}

fn subscribe() -> String {
    with_ids(r#""type":"SUBSCRIBE","subscribe":{}"#)
}

fn update(state: &str, byte: u8) -> String {
    let uuid = ["AAAAAAAAAAAAAAAAAAAAAA==", "AQAAAAAAAAAAAAAAAAAAAA=="][usize::from(byte)];
    let status = format!(
        r#"{{"task_id":{{"value":"t"}},"state":"{state}","source":"SOURCE_EXECUTOR","uuid":"{uuid}"}}"#
    );
    with_ids(&format!(r#""type":"UPDATE","update":{{"status":{status}}}"#))
}

async fn refused(response: Response, code: u16, text: &str) {
    let got = response.status().as_u16();
    let body = response.text().await.unwrap();
    assert!(got == code && body.contains(text), "{got} {body} instead of {code} {text}");
}

#[test_log::test(tokio::test)]
async fn what_is_wrong_is_refused_in_mesos_order() {
    let idle = Idle::start_with(true).await;
    let token = idle.token.clone();
    let bearer = format!("Bearer {token}");
    let json = "application/json";

    let bare = idle.send(Method::GET, &[], Vec::new()).await;
    assert!(bare.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer realm="));
    refused(bare, 401, "MESOS_EXECUTOR_AUTHENTICATION_TOKEN").await;
    let get = idle.send(Method::GET, &[("authorization", &bearer)], Vec::new()).await;
    assert_eq!(get.headers()["allow"], "POST");
    refused(get, 405, "Expecting one of { 'POST' }, but received 'GET'.").await;
    let untyped = idle.send(Method::POST, &[("authorization", &bearer)], b"x".to_vec()).await;
    refused(untyped, 400, "Expecting 'Content-Type' to be present").await;
    let typed = "Expecting 'Content-Type' of application/json or application/x-protobuf";
    for format in ["text/plain", "application/json; charset=utf-8"] {
        refused(idle.post(&token, format, "*/*", b"x".to_vec()).await, 415, typed).await;
    }
    refused(idle.json(&token, "x").await, 400, "Failed to parse body into JSON: ").await;
    let empty = "Failed to convert JSON into Call protobuf: executor_id: is required";
    refused(idle.json(&token, "{}").await, 400, empty).await;
    let protobuf = "application/x-protobuf";
    let broken = idle.post(&token, protobuf, "*/*", vec![0xff]).await;
    refused(broken, 400, "Failed to parse body into Call protobuf: ").await;
    let untyped = with_ids(r#""subscribe":{}"#);
    let invalid = "Failed to validate Executor::Call: Expecting 'type' to be present";
    refused(idle.json(&token, &untyped).await, 400, invalid).await;
    // Before it is known whether there is such an executor.
    let deaf = idle.post(&token, json, "text/html", subscribe().into()).await;
    refused(deaf, 406, "Expecting 'Accept' to allow").await;
    for call in [subscribe(), update("TASK_RUNNING", 0)] {
        refused(idle.json("wrong", &call).await, 401, "no executor with this id and token").await;
        let stranger = call.replace(r#""E""#, r#""F""#);
        refused(idle.json(&token, &stranger).await, 401, "no executor with this id").await;
    }
    let early = idle.json(&token, &update("TASK_RUNNING", 0)).await;
    refused(early, 403, "Executor is not subscribed").await;
    let large = idle.post(&token, json, "*/*", vec![b' '; (16 << 20) + 1]).await;
    refused(large, 413, "the limit is 16777216 bytes").await;
    idle.agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn nobody_is_listened_to_without_a_token_that_is_known() {
    let mut idle = Idle::start().await;
    // Bodies that are announced, and come only when nobody answers before.
    let answer = async |idle: &Idle, token: &str, hesitation: Duration| {
        let mut connection = tokio::net::TcpStream::connect(idle.agent.address).await.unwrap();
        let head = format!(
            "POST /api/v1/executor HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{{"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        let early = tokio::time::timeout(hesitation, connection.read_exact(&mut start)).await;
        let waited = early.is_err();
        if waited {
            connection.write_all(&vec![b' '; 999_999]).await.unwrap();
            let read = tokio::time::timeout(PATIENCE, connection.read_exact(&mut start)).await;
            read.expect("an answer").unwrap();
        }
        (waited, String::from_utf8(start.to_vec()).unwrap())
    };
    let unknown = (false, "HTTP/1.1 401".to_owned());
    // It is no JSON.
    let known = (true, "HTTP/1.1 400".to_owned());
    assert_eq!(answer(&idle, "wrong", PATIENCE).await, unknown);
    assert_eq!(answer(&idle, &idle.token, HESITATION).await, known);
    // The agent knows its executors again before it listens.
    idle.agent.stop().await;
    idle.agent.start().await;
    assert_eq!(answer(&idle, &idle.token, HESITATION).await, known);
    idle.master.welcome().await;
    let mut events = Events::of(idle.json(&idle.token, &subscribe()).await);
    events.expect(event::Type::Subscribed).await;
    let shutdown = mezz::ShutdownExecutor {
        framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
        executor_id: v1::ExecutorId { value: "E".into() },
    };
    idle.master.say(master_message::Message::ShutdownExecutor(shutdown)).await;
    let gone = async || answer(&idle, &idle.token, HESITATION).await == unknown;
    until("its token ends with it", gone).await;
    idle.agent.finish().await;
}

/// Reads a stream of events.
struct Events {
    response: Response,
    decoder: recordio::Decoder,
    json: bool,
}

impl Events {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        let json = response.headers()["content-type"] == "application/json";
        Self { response, decoder: recordio::Decoder::new(1 << 20), json }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(record) = self.decoder.next_record().unwrap() {
                return Some(if self.json {
                    from_str(std::str::from_utf8(&record).unwrap()).unwrap()
                } else {
                    Event::decode(record).unwrap()
                });
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.unwrap();
            self.decoder.feed(&chunk.ok()??);
        }
    }

    async fn expect(&mut self, kind: event::Type) -> Event {
        let event = self.next().await.unwrap();
        assert_eq!(event.r#type(), kind, "{event:?}");
        event
    }
}

#[test_log::test(tokio::test)]
async fn without_a_token_an_executor_of_this_machine_is_who_it_says() {
    let idle = Idle::start().await;
    let get = idle.send(Method::GET, &[], Vec::new()).await;
    refused(get, 405, "but received 'GET'.").await;
    for call in [subscribe(), update("TASK_RUNNING", 0)] {
        let stranger = call.replace(r#""E""#, r#""F""#);
        refused(idle.json("", &stranger).await, 400, "Executor cannot be found").await;
        let foreign = call.replace(FRAMEWORK, "nobody");
        refused(idle.json("", &foreign).await, 400, "Framework cannot be found").await;
        // One that is shown must be right all the same, and tells nothing.
        refused(idle.json("wrong", &stranger).await, 401, "no executor with this id").await;
    }
    let basic = [("authorization", "Basic eDp5"), ("content-type", "application/json")];
    let basic = idle.send(Method::POST, &basic, subscribe().into()).await;
    refused(basic, 401, "must be `Bearer TOKEN`").await;
    // As Mesos' executor library sends it, before it has subscribed or after.
    let unused = r#"{"framework_id":{"value":"unused"},"executor_id":{"value":"unused"},"type":"HEARTBEAT"}"#;
    for token in ["", &*idle.token] {
        assert_eq!(idle.json(token, unused).await.status(), 202);
    }
    let early = idle.json("", &update("TASK_RUNNING", 0)).await;
    refused(early, 403, "Executor is not subscribed").await;
    let unknown = with_ids(r#""type":"UNKNOWN""#);
    refused(idle.json("", &unknown).await, 403, "Executor is not subscribed").await;
    let mut events = Events::of(idle.json("", &subscribe()).await);
    events.expect(event::Type::Subscribed).await;
    refused(idle.json("", &unknown).await, 501, "").await;
    refused(idle.json("wrong", &update("TASK_RUNNING", 0)).await, 401, "no executor").await;
    assert_eq!(idle.json(&idle.token, &update("TASK_RUNNING", 0)).await.status(), 202);
    idle.agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn nobody_is_without_a_token_who_has_shown_it() {
    let idle = Idle::start().await;
    let mut events = Events::of(idle.json(&idle.token, &subscribe()).await);
    events.expect(event::Type::Subscribed).await;
    events.expect(event::Type::Launch).await;
    for call in [subscribe(), update("TASK_FAILED", 1)] {
        refused(idle.json("", &call).await, 401, "has shown one before").await;
    }
    // It was not disturbed.
    assert_eq!(idle.json(&idle.token, &update("TASK_RUNNING", 0)).await.status(), 202);
    events.expect(event::Type::Acknowledged).await;
    idle.agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn both_formats_take_over_from_each_other() {
    both_formats(true).await;
}

#[test_log::test(tokio::test)]
async fn both_formats_go_without_a_token() {
    both_formats(false).await;
}

async fn both_formats(with_token: bool) {
    let mut idle = Idle::start().await;
    let token = if with_token { idle.token.clone() } else { String::new() };
    let protobuf = "application/x-protobuf";
    let call = Call {
        executor_id: v1::ExecutorId { value: "E".into() },
        framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
        r#type: Some(call::Type::Subscribe.into()),
        subscribe: Some(call::Subscribe::default()),
        ..Default::default()
    };
    let first = idle.post(&token, protobuf, protobuf, call.encode_to_vec()).await;
    let mut first = Events::of(first);
    assert!(!first.json);
    let subscribed = first.expect(event::Type::Subscribed).await.subscribed.unwrap();
    assert_eq!(subscribed.agent_info.id.unwrap().value, "S0");
    first.expect(event::Type::Launch).await;
    assert_eq!(idle.json(&token, &update("TASK_RUNNING", 0)).await.status(), 202);
    idle.master.expect("t", TaskState::TaskRunning).await;
    first.expect(event::Type::Acknowledged).await;

    let mut second = Events::of(idle.json(&token, &subscribe()).await);
    assert!(second.json);
    second.expect(event::Type::Subscribed).await;
    assert_eq!(first.next().await, None, "the former stream ends");

    // A bad call or another's costs only itself.
    let staging = idle.json(&token, &update("TASK_STAGING", 1)).await;
    refused(staging, 400, "Received TASK_STAGING from executor E of framework").await;
    let stolen = idle.json("wrong", &update("TASK_FAILED", 1)).await;
    refused(stolen, 401, "no executor with this id and token").await;
    idle.master.kill("t", None).await;
    second.expect(event::Type::Kill).await;
    assert_eq!(idle.json(&token, &update("TASK_KILLED", 1)).await.status(), 202);
    idle.master.expect("t", TaskState::TaskKilled).await;
    second.expect(event::Type::Acknowledged).await;

    // It has subscribed, so it is heard while it hears nothing.
    drop(second);
    idle.agent.stop().await;
    idle.agent.start().await;
    idle.master.welcome().await;
    assert_eq!(idle.json(&token, &update("TASK_KILLED", 1)).await.status(), 202);
    refused(idle.json(&token, &with_ids(r#""type":"UNKNOWN""#)).await, 501, "").await;
    let stolen = idle.json("wrong", &update("TASK_FAILED", 1)).await;
    refused(stolen, 401, "no executor with this id and token").await;
    idle.agent.finish().await;
}

/// It holds what its framework does not acknowledge, up to a bound, and then the executor
/// waits; nothing is refused, and nothing ends.
#[test_log::test(tokio::test)]
async fn a_framework_that_does_not_acknowledge_slows_its_executor() {
    let mut idle = Idle::start().await;
    let protobuf = "application/x-protobuf";
    let mut events = Events::of(idle.json(&idle.token, &subscribe()).await);
    events.expect(event::Type::Subscribed).await;
    events.expect(event::Type::Launch).await;
    let call = |state: TaskState, uuid: u8, bytes: usize| {
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: "t".into() },
            state: state.into(),
            source: Some(v1::task_status::Source::Executor.into()),
            uuid: Some(vec![uuid; 16]),
            data: Some(vec![0; bytes]),
            ..Default::default()
        };
        let call = Call {
            executor_id: v1::ExecutorId { value: "E".into() },
            framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
            r#type: Some(call::Type::Update.into()),
            update: Some(call::Update { status }),
            ..Default::default()
        };
        call.encode_to_vec()
    };
    // As large as a call may be: with what the agent adds, it is as much as may wait.
    let room = (16 << 20) - call(TaskState::TaskRunning, 1, 0).len() - 16;
    let large = call(TaskState::TaskRunning, 1, room);
    assert_eq!(idle.post(&idle.token, protobuf, protobuf, large).await.status(), 202);
    events.expect(event::Type::Acknowledged).await;
    let held = idle.master.update().await;
    {
        // With a stream of events, and without.
        let soon = Duration::from_millis(300);
        let next = call(TaskState::TaskRunning, 2, 0);
        let mut next = std::pin::pin!(idle.post(&idle.token, protobuf, protobuf, next));
        assert!(tokio::time::timeout(soon, &mut next).await.is_err(), "it waits");
        drop(events);
        let last = call(TaskState::TaskRunning, 3, 0);
        let mut last = std::pin::pin!(idle.post(&idle.token, protobuf, protobuf, last));
        assert!(tokio::time::timeout(soon, &mut last).await.is_err(), "it waits");
        idle.master.ack(&held).await;
        for waiting in [next, last] {
            let taken = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
            assert_eq!(taken.status(), 202);
        }
    }
    let mut told = BTreeSet::new();
    for _ in 0..2 {
        let status = idle.master.update().await;
        idle.master.ack(&status).await;
        told.insert(status.uuid()[0]);
    }
    assert_eq!(told, BTreeSet::from([2, 3]));
    idle.agent.finish().await;
}
