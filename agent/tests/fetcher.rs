//! Fetching as a whole agent does it, for real tasks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use cluster::{FakeMaster, PATIENCE, TestAgent, framework, task};
use mezz_agent::fetcher::Fetcher;
use mezz_proto::{
    mezz::v1::{self as mezz, master_message},
    v1::{self, TaskState, command_info::Uri, task_status::Reason},
};

fn uri(value: impl ToString) -> Uri {
    Uri { value: value.to_string(), ..Default::default() }
}

fn with_uris(id: &str, line: &str, uris: Vec<Uri>) -> v1::TaskInfo {
    let mut task = task(id, line);
    task.command.as_mut().unwrap().uris = uris;
    task
}

fn script(path: &std::path::Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test_log::test(tokio::test)]
async fn tasks_get_their_files_by_every_way() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let answer = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { "served" }
    };
    let app = Router::new().route("/served", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/served", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let brings = dir.path().join("brings");
    script(&brings, r#"printf 'by a command: %s' "$1" >"$2""#);
    // By the programs that people use.
    fs::write(dir.path().join("inner"), "packed").unwrap();
    for (name, flag) in [("a.tar.xz", "-J"), ("b.tar.bz2", "-j"), ("c.tar.gz", "-z")] {
        let packed = name.replace('.', "-");
        fs::rename(dir.path().join("inner"), dir.path().join(&packed)).unwrap();
        let mut tar = Command::new("tar");
        tar.current_dir(dir.path()).args(["-c", flag, "-f", name, &packed]);
        let status = tar.status().expect("these tests need tar, xz and bzip2");
        assert!(status.success(), "tar {flag}");
        fs::rename(dir.path().join(&packed), dir.path().join("inner")).unwrap();
    }

    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    let command = format!("{} {{uri}} {{path}}", brings.display());
    agent.options.fetcher.commands.insert("hdfs".into(), command);
    agent.start().await;
    master.welcome().await;
    let mut uris: Vec<Uri> = ["a.tar.xz", "b.tar.bz2", "c.tar.gz"]
        .map(|name| uri(dir.path().join(name).display()))
        .into();
    uris.push(uri("hdfs://name/node/file"));
    uris.push(Uri {
        executable: Some(true),
        output_file: Some("bin/run".into()),
        ..uri(brings.display())
    });
    uris.push(Uri { cache: Some(true), ..uri(&url) });
    let line = "cat a-tar-xz b-tar-bz2 c-tar-gz file served; bin/run x out; cat out";
    for id in ["one", "two"] {
        master.run(vec![with_uris(id, line, uris.clone())]).await;
        master.expect(id, TaskState::TaskRunning).await;
        master.expect(id, TaskState::TaskFinished).await;
        assert_eq!(
            agent.read(id, "stdout").await.unwrap(),
            "packedpackedpackedby a command: hdfs://name/node/fileservedby a command: x"
        );
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "the second had it from the cache");

    let wrong = format!("{url}#sha256={}", "0".repeat(64));
    master.run(vec![with_uris("three", "true", vec![uri(&wrong)])]).await;
    let failed = master.expect("three", TaskState::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
    let message = failed.message.unwrap();
    assert!(message.contains(&url) && message.contains("its SHA-256 is"), "{message}");

    master.run(vec![with_uris("four", "true", vec![uri("s3://bucket/x")])]).await;
    let failed = master.expect("four", TaskState::TaskFailed).await;
    assert!(failed.message.unwrap().contains("--fetcher-command"));
    agent.finish().await;
}

/// Waits until `holds`; a level, looked at again and again.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The address of a server that takes connections and never answers, and how many it has
/// taken.
async fn silent_server() -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (url, taken)
}

/// One that answers everything.
async fn good_server() -> String {
    let app = Router::new().fallback(async || "served");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// Runs a task of another framework than the tests' own, to its end.
async fn run_as_another(master: &mut FakeMaster, task: v1::TaskInfo) {
    let id = v1::FrameworkId { value: "F-1".into() };
    let framework = v1::FrameworkInfo { id: Some(id.clone()), ..framework() };
    let run =
        mezz::RunTasks { framework, tasks: vec![task], group_executor: None, ..Default::default() };
    master.say(master_message::Message::RunTasks(run)).await;
    for state in [TaskState::TaskRunning, TaskState::TaskFinished] {
        let status = master.update().await;
        assert_eq!(status.state(), state, "{status:?}");
        let ack = mezz::StatusUpdateAcknowledgement {
            framework_id: id.clone(),
            task_id: status.task_id,
            uuid: status.uuid.unwrap(),
        };
        master.say(master_message::Message::Acknowledgement(ack)).await;
    }
}

#[test_log::test(tokio::test)]
async fn slow_servers_of_one_framework_hold_up_no_other_and_nothing_that_is_there() {
    let ((silent, taken), good) = (silent_server().await, good_server().await);
    let kept = Uri { cache: Some(true), ..uri(format!("{good}/kept")) };
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    master.run(vec![with_uris("first", "true", vec![kept.clone()])]).await;
    master.expect("first", TaskState::TaskRunning).await;
    master.expect("first", TaskState::TaskFinished).await;

    // Half of them for a file that they share: one download for all, and one turn.
    for n in 0..40 {
        let cache = n % 2 == 0;
        let slow = Uri { cache: Some(cache), ..uri(format!("{silent}/slow")) };
        master.run(vec![with_uris(&format!("slow{n}"), "true", vec![slow])]).await;
    }
    until("all turns are taken", || taken.load(Ordering::SeqCst) >= 16).await;
    let other = vec![uri(format!("{good}/other")), kept.clone()];
    run_as_another(&mut master, with_uris("other", "cat other kept", other)).await;
    // What its servers say, and nothing else, is what the first one waits for.
    let local = vec![kept, uri("/etc/hostname")];
    master.run(vec![with_uris("local", "cat kept hostname", local)]).await;
    master.expect("local", TaskState::TaskRunning).await;
    master.expect("local", TaskState::TaskFinished).await;
    assert_eq!(taken.load(Ordering::SeqCst), 16);
    for waiting in ["slow0", "slow39"] {
        master.kill(waiting, None).await;
        master.expect(waiting, TaskState::TaskKilled).await;
    }
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn what_is_not_fetched_in_time_fails_its_task() {
    let (silent, _) = silent_server().await;
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    agent.options.fetcher.timeout = Duration::from_millis(300);
    agent.start().await;
    master.welcome().await;
    for (id, cache) in [("plain", false), ("cached", true)] {
        let late = Uri { cache: Some(cache), ..uri(format!("{silent}/late")) };
        master.run(vec![with_uris(id, "true", vec![late])]).await;
        let failed = master.expect(id, TaskState::TaskFailed).await;
        assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
        let message = failed.message.unwrap();
        let told = ["fetching", "/late: it was not there 300ms after", "--fetch-timeout"];
        assert!(told.iter().all(|part| message.contains(part)), "{message}");
    }
    let fetch = agent.options.work_dir.join("fetch");
    until("no partial file is left", || fs::read_dir(fetch.join("cache")).unwrap().count() == 0)
        .await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn what_an_agent_that_died_had_half_fetched_is_gone() {
    let url = format!("{}/kept", good_server().await);
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::new(&master);
    // As a killed agent leaves it: nobody could tell that these are not whole.
    let fetch = agent.options.work_dir.join("fetch");
    for (folder, file) in [("cache", "1"), ("command-0", "file"), ("command-7", "part")] {
        fs::create_dir_all(fetch.join(folder)).unwrap();
        fs::write(fetch.join(folder).join(file), "half of it").unwrap();
    }
    agent.start().await;
    master.welcome().await;
    let left: Vec<_> = fs::read_dir(&fetch).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["cache"]);
    assert_eq!(fs::read_dir(fetch.join("cache")).unwrap().count(), 0);
    let kept = Uri { cache: Some(true), ..uri(url) };
    master.run(vec![with_uris("t", "cat kept", vec![kept])]).await;
    master.expect("t", TaskState::TaskRunning).await;
    master.expect("t", TaskState::TaskFinished).await;
    assert_eq!(agent.read("t", "stdout").await.unwrap(), "served");
    agent.finish().await;
}

/// Set for the process that the test below starts of itself.
const ALONE: &str = "MEZZ_TEST_WITHOUT_CERTIFICATES";

#[tokio::test]
async fn without_certificates_only_https_fails() {
    if std::env::var_os(ALONE).is_none() {
        // Certificates are found by the environment, which belongs to the whole process.
        let name = "without_certificates_only_https_fails";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .env("SSL_CERT_FILE", "/no/such/file")
            .env("SSL_CERT_DIR", "/no/such/folder")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
        assert_eq!(said.matches("https URIs cannot be fetched by this agent").count(), 1, "{said}");
        return;
    }
    let log = tracing_subscriber::fmt().with_writer(|| std::io::stdout().lock()).finish();
    let _log = tracing::subscriber::set_default(log);
    let app = Router::new().route("/file", get(|| async { "served" })).route(
        "/to-https",
        get(|| async { axum::response::Redirect::temporary("https://localhost:1/") }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let dir = tempfile::tempdir().unwrap();
    let master = FakeMaster::start().await;
    let options = cluster::options(&master, dir.path().join("work"));
    let fetcher = Fetcher::new(&options).unwrap();
    let fetch = async |uri_: String| {
        let result = fetcher.fetch(&[uri(uri_)], &"F".into(), dir.path(), None).await;
        result.map_err(|error| error.to_string())
    };
    fetch(format!("{server}/file")).await.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "served");
    let error = fetch("https://localhost:1/x".into()).await.unwrap_err();
    assert!(error.contains("install its CA certificates (package ca-certificates)"), "{error}");
    let error = fetch(format!("{server}/to-https")).await.unwrap_err();
    assert!(error.contains("has no CA certificates"), "{error}");
    std::io::stdout().flush().unwrap();
}
