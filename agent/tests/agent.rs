//! A whole agent, with a master over real sockets and real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;

use std::{path::Path, time::Duration};

use cluster::{FRAMEWORK, FakeMaster, PATIENCE, TestAgent, request, resources, task};
use mezz_agent::{AgentError, options::Containment};
use mezz_proto::{
    mezz::v1::{self as mezz, agent_message, executor_client::ExecutorClient, master_message},
    resources::{Dialect, Resources},
    v1::{
        self, TaskState, TaskStatus,
        executor::{Call, Event, call, event},
        task_status::{Reason, Source},
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

/// Waits until `holds`; a level, looked at again and again.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test_log::test(tokio::test)]
async fn a_command_runs_and_its_output_can_be_read() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    master.run(vec![task("t", "echo out $MESOS_TASK_ID; echo err >&2; exit 0")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    master.expect("t", TaskState::TaskFinished).await;
    assert_eq!(agent.read("t", "stdout").await.unwrap(), "out t\n");
    assert_eq!(agent.read("t", "stderr").await.unwrap(), "err\n");
    let tail = mezz::ReadSandboxRequest { offset: Some(-2), ..request("t") };
    assert_eq!(agent.read_with(tail).await.unwrap(), "t\n");
    let part = mezz::ReadSandboxRequest { offset: Some(1), limit: Some(2), ..request("t") };
    assert_eq!(agent.read_with(part).await.unwrap(), "ut");
    let listed = agent
        .api()
        .await
        .list_sandbox(mezz::ListSandboxRequest {
            framework_id: FRAMEWORK.into(),
            task_id: "t".into(),
            path: None,
        })
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = listed.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(names, ["stderr", "stdout"]);
    let url = format!("/files/download?framework={FRAMEWORK}&task=t&path=stdout&offset=-2");
    assert_eq!(agent.get(&url).await, (200, "t\n".to_owned()));
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn nothing_outside_of_a_sandbox_can_be_read() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    master.run(vec![task("t", "ln -s /etc/passwd link; ln -s / root")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    master.expect("t", TaskState::TaskFinished).await;
    for path in ["/etc/passwd", "../../stdout", "link", "root/etc/passwd"] {
        let error = agent.read("t", path).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{path}: {error}");
        let url = format!("/files/download?framework={FRAMEWORK}&task=t&path={path}");
        assert_eq!(agent.get(&url).await.0, 400, "{path}");
    }
    assert_eq!(agent.read("t", "nothing").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(agent.read("unknown", "stdout").await.unwrap_err().code(), Code::NotFound);
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_followed_file_is_read_to_its_end() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    master.run(vec![task("t", "echo one; until [ -e go ]; do sleep 0.02; done; echo two")]).await;
    let running = master.expect("t", TaskState::TaskRunning).await;
    let follow = mezz::ReadSandboxRequest { follow: Some(true), ..request("t") };
    let mut stream = agent.api().await.read_sandbox(follow).await.unwrap().into_inner();
    let first = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((first.offset, &*first.data), (0, &b"one\n"[..]));
    let container = running.container_status.unwrap().container_id.unwrap().value;
    std::fs::write(sandbox(&agent, "t", &container).join("go"), "").unwrap();
    let second = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((second.offset, &*second.data), (4, &b"two\n"[..]));
    master.expect("t", TaskState::TaskFinished).await;
    let end = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap();
    assert!(end.is_none());
    agent.finish().await;
}

fn sandbox(agent: &TestAgent, executor: &str, container: &str) -> std::path::PathBuf {
    let runs = format!("slaves/S0/frameworks/{FRAMEWORK}/executors/{executor}/runs/{container}");
    agent.options.work_dir.join(runs)
}

#[test_log::test(tokio::test)]
async fn what_fails_says_why() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    master.run(vec![task("status", "exit 3")]).await;
    master.expect("status", TaskState::TaskRunning).await;
    let failed = master.expect("status", TaskState::TaskFailed).await;
    assert_eq!(failed.message.as_deref(), Some("exited with status 3"));
    master.run(vec![task("signal", "kill -SEGV $$")]).await;
    master.expect("signal", TaskState::TaskRunning).await;
    let failed = master.expect("signal", TaskState::TaskFailed).await;
    assert_eq!(failed.message.as_deref(), Some("killed by signal SIGSEGV"));
    let mut missing = task("uri", "true");
    missing.command.as_mut().unwrap().uris =
        vec![v1::command_info::Uri { value: "file:///nothing/there".into(), ..Default::default() }];
    master.run(vec![missing]).await;
    let failed = master.expect("uri", TaskState::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
    assert!(failed.message.as_ref().unwrap().contains("/nothing/there"), "{failed:?}");
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn too_much_memory_is_told_with_the_end_of_stderr() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.containment = Containment::Cgroup;
    agent.start().await;
    master.welcome().await;
    let mut greedy = task("t", "echo last words >&2; exec tail /dev/zero");
    greedy.resources = Resources::cpus_mem(0.1, 48.0).to_proto(Dialect::Refined, Some("*"));
    master.run(vec![greedy]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let failed = master.expect("t", TaskState::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLimitationMemory);
    let message = failed.message.unwrap();
    assert!(message.contains("48.0 MiB") && message.contains("last words"), "{message}");
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_kill_lets_the_task_clean_up_or_ends_it() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let polite = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    master.run(vec![task("polite", polite)]).await;
    master.expect("polite", TaskState::TaskRunning).await;
    let ready = async || agent.read("polite", "stdout").await.unwrap_or_default() == "ready\n";
    until("the trap is set", ready).await;
    master.kill("polite", Some(PATIENCE)).await;
    master.expect("polite", TaskState::TaskKilled).await;
    assert!(agent.read("polite", "stdout").await.unwrap().ends_with("bye\n"));
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    master.run(vec![task("stubborn", stubborn)]).await;
    master.expect("stubborn", TaskState::TaskRunning).await;
    master.kill("stubborn", Some(Duration::from_millis(50))).await;
    master.expect("stubborn", TaskState::TaskKilled).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_restart_harms_no_task_and_misses_no_end() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::joined(&mut master).await;
    let line = |name: &str, status: i32| {
        format!("until [ -e {name} ]; do sleep 0.02; done; exit {status}")
    };
    master.run(vec![task("stays", &line("go", 0)), task("ends", &line("go", 7))]).await;
    let mut containers = std::collections::BTreeMap::new();
    for _ in 0..2 {
        let running = master.update().await;
        assert_eq!(running.state(), TaskState::TaskRunning);
        master.ack(&running).await;
        let container = running.container_status.unwrap().container_id.unwrap().value;
        containers.insert(running.task_id.value, container);
    }
    agent.stop().await;
    let go = |task: &str| {
        std::fs::write(sandbox(&agent, task, &containers[task]).join("go"), "").unwrap();
    };
    go("ends");
    agent.start().await;
    match master.welcome().await {
        agent_message::Message::Reregister(again) => {
            assert_eq!(again.description.agent.id.as_ref().unwrap().value, "S0");
            let live = again.tasks.iter().filter(|task| task.task_id.value == "stays");
            assert_eq!(live.map(|task| task.state()).collect::<Vec<_>>(), [TaskState::TaskRunning]);
        }
        other => panic!("{other:?}"),
    }
    let failed = master.expect("ends", TaskState::TaskFailed).await;
    assert_eq!(failed.message.as_deref(), Some("exited with status 7"));
    std::fs::write(sandbox(&agent, "stays", &containers["stays"]).join("go"), "").unwrap();
    master.expect("stays", TaskState::TaskFinished).await;
    // What ran under the earlier agent can still be read.
    agent.stop().await;
    agent.start().await;
    master.welcome().await;
    assert_eq!(agent.read("ends", "stdout").await.unwrap(), "");
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn an_update_is_sent_again_over_a_broken_link_and_a_restart() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::joined(&mut master).await;
    master.run(vec![task("t", "exit 0")]).await;
    let first = master.update().await;
    master.hang_up();
    master.welcome().await;
    assert_eq!(master.update().await, first);
    agent.stop().await;
    agent.start().await;
    master.welcome().await;
    assert_eq!(master.update().await, first);
    master.ack(&first).await;
    master.expect("t", TaskState::TaskFinished).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn options_that_no_longer_hold_what_runs_are_refused() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::joined(&mut master).await;
    master.run(vec![task("t", "sleep 1000")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    agent.stop().await;
    let enough = agent.options.resources.clone();
    agent.options.resources = Resources::cpus_mem(4.0, 16.0);
    agent.start().await;
    match agent.ended().await {
        Err(AgentError::Options(text)) => {
            assert!(text.contains("resources") && text.contains("meta"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    agent.options.resources = enough;
    agent.options.resources += &Resources::cpus_mem(4.0, 0.0);
    agent.start().await;
    master.welcome().await;
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_master_that_refuses_for_good_ends_the_agent() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.start().await;
    assert!(matches!(master.hear().await, agent_message::Message::Register(_)));
    let refused = |permanent| {
        let reason = "too old".to_owned();
        let refused = mezz::Refused { reason, permanent, ..Default::default() };
        master_message::Message::Refused(refused)
    };
    master.say(refused(false)).await;
    assert!(matches!(master.hear().await, agent_message::Message::Register(_)), "it comes back");
    master.say(refused(true)).await;
    match agent.ended().await {
        Err(AgentError::Refused(reason)) => assert_eq!(reason, "too old"),
        other => panic!("{other:?}"),
    }
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn an_agent_that_was_given_up_ends_what_it_runs_and_then_itself() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.kill_grace = Duration::from_millis(300);
    // Nothing that happens with a master brings its end about.
    let hour = Duration::from_secs(3600);
    agent.options.register_backoff = (hour, hour);
    agent.start().await;
    master.welcome().await;
    let stubborn = "trap '' TERM; echo $$; while :; do sleep 0.01; done";
    master.run(vec![task("a", stubborn), task("b", stubborn)]).await;
    let mut pids = Vec::new();
    for _ in 0..2 {
        let running = master.update().await;
        assert_eq!(running.state(), TaskState::TaskRunning);
        master.ack(&running).await;
        until("it tells its pid", async || {
            let told = agent.read(&running.task_id.value, "stdout").await.unwrap();
            pids.extend(told.trim().parse::<i32>());
            told.ends_with('\n')
        })
        .await;
    }
    assert_eq!(pids.len(), 2);
    let reason = "marked gone".to_owned();
    let refused = mezz::Refused { reason, permanent: true, gone: Some(true), ..Default::default() };
    master.say(master_message::Message::Refused(refused)).await;
    match agent.ended().await {
        Err(AgentError::Gone { reason, left: 0 }) => assert_eq!(reason, "marked gone"),
        other => panic!("{other:?}"),
    }
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives on");
    }
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn old_sandboxes_are_collected() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.sandbox_retention = Duration::from_millis(100);
    agent.start().await;
    master.welcome().await;
    master.run(vec![task("t", "true")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    master.expect("t", TaskState::TaskFinished).await;
    let gone = async || match agent.read("t", "stdout").await {
        Ok(_) => false,
        Err(error) => error.code() == Code::NotFound,
    };
    until("the sandbox is collected", gone).await;
    let frameworks = agent.options.work_dir.join("slaves/S0/frameworks");
    until("its folders are removed", async || !frameworks.join(FRAMEWORK).exists()).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn says_what_it_is_and_what_runs() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    master.run(vec![task("t", "sleep 1000")]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let mut api = agent.api().await;
    let about = api.get_agent(mezz::GetAgentRequest {}).await.unwrap().into_inner();
    assert_eq!(about.agent_id.as_deref(), Some("S0"));
    assert_eq!(about.master, Some(master.address.to_string()));
    assert_eq!(about.containment, "none");
    let listed = api.list_containers(mezz::ListContainersRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.containers.len(), 1);
    let container = &listed.containers[0];
    assert_eq!(container.executor_id, "t");
    assert!(container.pid.is_some());
    assert!(Path::new(&container.sandbox).join("stdout").exists());
    let (status, index) = agent.get("/").await;
    assert_eq!(status, 200);
    assert!(index.contains("id S0\n") && index.contains(&master.address.to_string()), "{index}");
    let named = index.split(|c: char| c.is_whitespace() || ";,".contains(c));
    let mut found = 0;
    for path in named.filter(|word| word.starts_with('/') && *word != "/slave(1)") {
        assert_ne!(agent.get(path).await.0, 404, "{path}");
        found += 1;
    }
    assert_eq!(found, 13, "{index}");
    assert_eq!(agent.get("/health").await.0, 200);
    assert!(agent.get("/version").await.1.contains(env!("CARGO_PKG_VERSION")));
    let (status, metrics) = agent.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("mezz_agent_tasks_live 1"), "{metrics}");
    assert!(metrics.contains("mezz_agent_registered 1"), "{metrics}");
    agent.finish().await;
}

/// The test's end of an executor's connection.
struct Peer {
    calls: mpsc::Sender<Call>,
    events: Streaming<Event>,
}

impl Peer {
    async fn connect(agent: &TestAgent, token: &str) -> Result<Self, Status> {
        let mut client = ExecutorClient::new(agent.channel().await);
        let (calls, outgoing) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if !token.is_empty() {
            request.metadata_mut().insert("mezz-executor-token", token.parse().unwrap());
        }
        let events = client.subscribe(request).await?.into_inner();
        Ok(Self { calls, events })
    }

    async fn say(&self, r#type: call::Type, change: impl FnOnce(&mut Call)) {
        let mut call = Call {
            executor_id: v1::ExecutorId { value: "E".into() },
            framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
            r#type: Some(r#type.into()),
            ..Default::default()
        };
        change(&mut call);
        self.calls.send(call).await.unwrap();
    }

    async fn update(&self, state: TaskState, uuid: u8) {
        let status = TaskStatus {
            task_id: v1::TaskId { value: "t".into() },
            state: state.into(),
            source: Some(Source::Executor.into()),
            uuid: Some(vec![uuid; 16]),
            ..Default::default()
        };
        self.say(call::Type::Update, |call| call.update = Some(call::Update { status })).await;
    }

    async fn event(&mut self) -> Result<Option<Event>, Status> {
        tokio::time::timeout(PATIENCE, self.events.message()).await.expect("an event")
    }

    async fn expect(&mut self, r#type: event::Type) -> Event {
        let event = self.event().await.unwrap().expect("no end");
        assert_eq!(event.r#type(), r#type);
        event
    }
}

#[test_log::test(tokio::test)]
async fn a_custom_executor_over_grpc() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::joined(&mut master).await;
    let mut info = task("t", "");
    info.command = None;
    info.executor = Some(v1::ExecutorInfo {
        executor_id: v1::ExecutorId { value: "E".into() },
        resources: resources(),
        command: Some(v1::CommandInfo {
            value: Some(
                "echo $MEZZ_EXECUTOR_TOKEN > token.new; mv token.new token; sleep 1000".into(),
            ),
            ..Default::default()
        }),
        ..Default::default()
    });
    master.run(vec![info]).await;
    let mut token = String::new();
    until("the executor runs", async || {
        token = agent.read("t", "token").await.unwrap_or_default().trim().to_owned();
        !token.is_empty()
    })
    .await;

    // Before anything else is heard.
    for token in ["", "wrong"] {
        let error = Peer::connect(&agent, token).await.err().expect("no token, no entry");
        assert_eq!(error.code(), Code::Unauthenticated);
    }
    let mut early = Peer::connect(&agent, &token).await.unwrap();
    early.update(TaskState::TaskRunning, 1).await;
    assert_eq!(early.event().await.unwrap_err().code(), Code::FailedPrecondition);

    let mut peer = Peer::connect(&agent, &token).await.unwrap();
    peer.say(call::Type::Subscribe, |_| {}).await;
    peer.expect(event::Type::Subscribed).await;
    peer.expect(event::Type::Launch).await;
    peer.update(TaskState::TaskRunning, 1).await;
    peer.expect(event::Type::Acknowledged).await;
    master.expect("t", TaskState::TaskRunning).await;

    agent.stop().await;
    assert!(!matches!(peer.event().await, Ok(Some(_))), "the stream ends with the agent");
    agent.start().await;
    master.welcome().await;
    let mut peer = Peer::connect(&agent, &token).await.unwrap();
    peer.say(call::Type::Subscribe, |_| {}).await;
    peer.expect(event::Type::Subscribed).await;
    master.kill("t", None).await;
    peer.expect(event::Type::Kill).await;
    peer.update(TaskState::TaskKilled, 2).await;
    peer.expect(event::Type::Acknowledged).await;
    master.expect("t", TaskState::TaskKilled).await;

    master
        .say(master_message::Message::ShutdownExecutor(mezz::ShutdownExecutor {
            framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
            executor_id: v1::ExecutorId { value: "E".into() },
        }))
        .await;
    peer.expect(event::Type::Shutdown).await;
    // This one does not heed it: the agent ends it when the grace is over.
    loop {
        if let agent_message::Message::ExecutorTerminated(ended) = master.hear().await {
            assert_eq!(ended.executor_id.value, "E");
            assert_eq!(ended.status & 0x7f, 9);
            break;
        }
    }
    assert!(peer.event().await.unwrap().is_none());
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn many_tasks_at_once() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.max_tasks = 1000;
    agent.start().await;
    master.welcome().await;
    let count = 100;
    let begun = std::time::Instant::now();
    for n in 0..count {
        master.run(vec![task(&format!("t{n}"), "true")]).await;
    }
    let mut finished = 0;
    while finished < count {
        let status = master.update().await;
        master.ack(&status).await;
        match status.state() {
            TaskState::TaskRunning => {}
            TaskState::TaskFinished => finished += 1,
            other => panic!("{other:?}: {:?}", status.message),
        }
    }
    tracing::info!(tasks_per_second = f64::from(count) / begun.elapsed().as_secs_f64());
    agent.finish().await;
}
