//! Tasks of other users than the agent's, which is root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    sync::{Arc, Mutex},
};

use cluster::{FRAMEWORK, FakeMaster, PATIENCE, TestAgent, task};
use mezz_proto::v1::{TaskState, command_info::Uri};
use tokio::sync::Notify;

/// A tar with `d/x` and the link `d/link` to it.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(1);
    builder.append_data(&mut header, "d/x", &b"1"[..]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "d/link", "x").unwrap();
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn a_sandbox_is_the_agents_until_everything_is_fetched() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let work_dir = agent.options.work_dir.clone();
    // The user must get to its sandbox.
    fs::set_permissions(work_dir.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();

    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let answer = {
        let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
        async move || {
            asked.notify_one();
            go.notified().await;
            archive()
        }
    };
    let app = axum::Router::new().route("/a.tar", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let value = format!("http://{}/a.tar", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut task = task("t", "test -O d/x && test -O . && echo more >> d/x && echo mine");
    let command = task.command.as_mut().unwrap();
    command.user = Some("nobody".into());
    command.uris = vec![Uri { value, ..Default::default() }];
    master.run(vec![task]).await;

    let runs = format!("slaves/S0/frameworks/{FRAMEWORK}/executors/t/runs/latest");
    let sandbox = work_dir.join(runs);
    let owner = |name: &str| fs::symlink_metadata(sandbox.join(name)).unwrap().uid();
    tokio::time::timeout(PATIENCE, asked.notified()).await.expect("it is fetched");
    for name in [".", "stdout", "stderr"] {
        assert_eq!(owner(name), 0, "{name}");
    }
    go.notify_one();
    master.expect("t", TaskState::TaskRunning).await;
    master.expect("t", TaskState::TaskFinished).await;
    assert_eq!(agent.read("t", "stdout").await.unwrap(), "mine\n");
    for name in [".", "stdout", "stderr", "a.tar", "d", "d/x", "d/link"] {
        assert_ne!(owner(name), 0, "{name}");
    }
    agent.finish().await;
}

/// Where this test's log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_agent_of_root_says_who_tasks_run_as() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    agent.finish().await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let told = text.lines().filter(|line| line.contains("WARN") && line.contains("as root"));
    assert_eq!(told.filter(|line| line.contains("command.user")).count(), 1, "{text}");
}
