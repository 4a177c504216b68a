//! Checks and health checks by a whole agent, of real programs and sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use cluster::{FakeMaster, PATIENCE, TestAgent, task};
use mezz_proto::v1::{
    self, CheckInfo, CommandInfo, ContainerInfo, HealthCheck, NetworkInfo, TaskState, check_info,
    container_info, health_check, task_status::Reason,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// Often, and from the beginning.
fn health(kind: health_check::Type) -> HealthCheck {
    HealthCheck {
        r#type: Some(kind.into()),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.1),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(2),
        ..Default::default()
    }
}

fn by_http(port: u16, scheme: &str) -> HealthCheck {
    HealthCheck {
        http: Some(health_check::HttpCheckInfo {
            port: port.into(),
            path: Some("/health".into()),
            scheme: Some(scheme.into()),
            ..Default::default()
        }),
        ..health(health_check::Type::Http)
    }
}

fn by_command(line: &str) -> HealthCheck {
    HealthCheck { command: Some(command(line)), ..health(health_check::Type::Command) }
}

fn command(line: &str) -> CommandInfo {
    CommandInfo { value: Some(line.into()), ..Default::default() }
}

fn check(kind: check_info::Type) -> CheckInfo {
    CheckInfo {
        r#type: Some(kind.into()),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.1),
        ..Default::default()
    }
}

fn with_health(line: &str, health_check: HealthCheck) -> v1::TaskInfo {
    v1::TaskInfo { health_check: Some(health_check), ..task("t", line) }
}

/// The next update, whatever it is of, acknowledged.
async fn next(master: &mut FakeMaster) -> v1::TaskStatus {
    let status = master.update().await;
    master.ack(&status).await;
    status
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: u16) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        request.push(byte);
    }
    let path = request.split(|byte| *byte == b' ').nth(1);
    let status = if path == Some(b"/health") { status } else { 404 };
    let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Answers with what the second result says, by TLS when there is an acceptor, and
/// counts its answers in the third.
async fn serve_http(tls: Option<TlsAcceptor>) -> (u16, Arc<AtomicU16>, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let status = Arc::new(AtomicU16::new(200));
    let answers = Arc::new(AtomicU16::new(0));
    let (says, answered) = (Arc::clone(&status), Arc::clone(&answers));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let status = says.load(Ordering::SeqCst);
            match &tls {
                None => answer(stream, status).await,
                Some(tls) => answer(tls.accept(stream).await.unwrap(), status).await,
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, status, answers)
}

#[test_log::test(tokio::test)]
async fn http_that_fails_ends_the_task() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let (port, status, answers) = serve_http(None).await;
    master.run(vec![with_health("exec sleep 1000", by_http(port, "http"))]).await;
    assert_eq!(master.expect("t", TaskState::TaskRunning).await.healthy, None);
    let well = master.expect("t", TaskState::TaskRunning).await;
    assert_eq!(well.healthy, Some(true));
    assert_eq!(well.reason(), Reason::TaskHealthCheckStatusUpdated);
    // A redirection is as good (rule 61): the next that is told is the failure.
    status.store(302, Ordering::SeqCst);
    let before = answers.load(Ordering::SeqCst);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while answers.load(Ordering::SeqCst) < before + 2 {
        assert!(tokio::time::Instant::now() < deadline, "it is not asked any more");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    status.store(503, Ordering::SeqCst);
    for _ in 0..2 {
        let sick = master.expect("t", TaskState::TaskRunning).await;
        assert_eq!(sick.healthy, Some(false));
        assert!(sick.message.as_ref().unwrap().contains("503"), "{:?}", sick.message);
    }
    let killed = master.expect("t", TaskState::TaskKilled).await;
    assert_eq!(killed.healthy, Some(false));
    agent.finish().await;
}

/// With a key that nobody trusts, as services have them on the loopback. It is only
/// here, and made for a hundred years by
/// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500`.
fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/key.pem")).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

#[test_log::test(tokio::test)]
async fn https_is_asked_whoever_signed_its_certificate() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let (port, ..) = serve_http(Some(acceptor())).await;
    master.run(vec![with_health("exec sleep 1000", by_http(port, "https"))]).await;
    master.expect("t", TaskState::TaskRunning).await;
    let told = master.expect("t", TaskState::TaskRunning).await;
    assert_eq!(told.healthy, Some(true), "{:?}", told.message);
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_check_tells_whether_somebody_listens() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = Some(check_info::Tcp { port: listener.local_addr().unwrap().port().into() });
    let check = Some(CheckInfo { tcp, ..check(check_info::Type::Tcp) });
    master.run(vec![v1::TaskInfo { check, ..task("t", "exec sleep 1000") }]).await;
    let succeeded = |status: v1::TaskStatus| status.check_status.unwrap().tcp.unwrap().succeeded;
    assert_eq!(succeeded(master.expect("t", TaskState::TaskRunning).await), None);
    let told = master.expect("t", TaskState::TaskRunning).await;
    assert_eq!(told.reason(), Reason::TaskCheckStatusUpdated);
    assert_eq!(succeeded(told), Some(true));
    drop(listener);
    assert_eq!(succeeded(master.expect("t", TaskState::TaskRunning).await), Some(false));
    master.kill("t", Some(Duration::ZERO)).await;
    assert_eq!(succeeded(master.expect("t", TaskState::TaskKilled).await), Some(false));
    agent.finish().await;
}

/// The one sandbox of task `t`.
fn sandbox(agent: &TestAgent) -> PathBuf {
    agent.options.work_dir.join("slaves/S0/frameworks/F-0/executors/t/runs/latest")
}

#[test_log::test(tokio::test)]
async fn a_command_is_run_where_the_task_is() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let line = "test \"$MESOS_TASK_ID$MORE\" = tx || exit 9; test -e ready || exit 7";
    let mut asked = command(line);
    asked.environment = Some(v1::Environment {
        variables: vec![v1::environment::Variable {
            name: "MORE".into(),
            value: Some("x".into()),
            ..Default::default()
        }],
    });
    let asked = Some(check_info::Command { command: asked });
    let check = Some(CheckInfo { command: asked, ..check(check_info::Type::Command) });
    master.run(vec![v1::TaskInfo { check, ..task("t", "exec sleep 1000") }]).await;
    let exit_code =
        |status: v1::TaskStatus| status.check_status.unwrap().command.unwrap().exit_code;
    assert_eq!(exit_code(next(&mut master).await), None);
    assert_eq!(exit_code(next(&mut master).await), Some(7));
    std::fs::write(sandbox(&agent).join("ready"), "").unwrap();
    assert_eq!(exit_code(next(&mut master).await), Some(0));
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn a_program_that_is_not_there_fails_its_check() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let nothing = v1::CommandInfo {
        shell: Some(false),
        value: Some("/no/such/check".into()),
        ..Default::default()
    };
    let health = HealthCheck {
        r#type: Some(health_check::Type::Command.into()),
        command: Some(nothing),
        http: None,
        ..by_http(1, "http")
    };
    master.run(vec![with_health("exec sleep 1000", health)]).await;
    assert_eq!(master.expect("t", TaskState::TaskRunning).await.healthy, None);
    assert_eq!(master.expect("t", TaskState::TaskRunning).await.healthy, Some(false));
    master.kill("t", Some(Duration::ZERO)).await;
    // It may have failed once more before it was killed.
    let end = loop {
        let status = master.update().await;
        master.ack(&status).await;
        if status.state() != TaskState::TaskRunning {
            break status;
        }
    };
    assert_eq!(end.state(), TaskState::TaskKilled, "{end:?}");
    agent.finish().await;
}

/// Processes with `text` in their command line.
fn processes(text: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

#[test_log::test(tokio::test)]
async fn a_command_that_takes_too_long_fails_and_is_ended() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    let long = "7061.25";
    let health = HealthCheck { timeout_seconds: Some(0.3), ..by_command(&format!("sleep {long}")) };
    master.run(vec![with_health("exec sleep 1000", health)]).await;
    master.expect("t", TaskState::TaskRunning).await;
    for _ in 0..2 {
        let sick = master.expect("t", TaskState::TaskRunning).await;
        assert!(sick.message.as_ref().unwrap().contains("within 300ms"), "{:?}", sick.message);
    }
    master.expect("t", TaskState::TaskKilled).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while processes(long) > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the checks' programs run on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    agent.finish().await;
}

#[test_log::test(tokio::test)]
async fn checks_go_on_with_the_next_agent() {
    let mut master = FakeMaster::start().await;
    let mut agent = TestAgent::joined(&mut master).await;
    // The first waits until the task has begun, however long that takes.
    let line = "until test -e begun; do sleep 0.05; done; test -e well";
    let health = HealthCheck { consecutive_failures: Some(5), ..by_command(line) };
    master.run(vec![with_health("touch well; touch begun; exec sleep 1000", health)]).await;
    master.expect("t", TaskState::TaskRunning).await;
    assert_eq!(master.expect("t", TaskState::TaskRunning).await.healthy, Some(true));
    agent.stop().await;
    std::fs::remove_file(sandbox(&agent).join("well")).unwrap();
    agent.start().await;
    master.welcome().await;
    for _ in 0..5 {
        assert_eq!(master.expect("t", TaskState::TaskRunning).await.healthy, Some(false));
    }
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;
}

/// Not a test: what the task of the next one runs, which is this program.
#[test]
fn serves_for_the_test_below() {
    let Ok(port) = std::env::var("MEZZ_TEST_SERVE") else { return };
    let address = (std::net::Ipv4Addr::LOCALHOST, port.parse().unwrap());
    let listener = std::net::TcpListener::bind(address).unwrap();
    while let Ok((mut stream, _)) = listener.accept() {
        use std::io::{Read as _, Write as _};
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 204 X\r\n\r\n");
    }
}

#[test_log::test(tokio::test)]
async fn a_network_of_its_own_is_asked_from_inside() {
    let mut master = FakeMaster::start().await;
    let agent = TestAgent::joined(&mut master).await;
    // Somebody has this port outside, and says something else.
    let (port, status, _) = serve_http(None).await;
    status.store(500, Ordering::SeqCst);
    let program = std::env::current_exe().unwrap();
    let line = format!(
        "MEZZ_TEST_SERVE={port} exec {} --exact serves_for_the_test_below",
        program.display()
    );
    let http = Some(check_info::Http { port: port.into(), path: None });
    let asked = CheckInfo { http, ..check(check_info::Type::Http) };
    let network_infos = vec![NetworkInfo { name: Some("none".into()), ..Default::default() }];
    let container = Some(ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        network_infos,
        ..Default::default()
    });
    master.run(vec![v1::TaskInfo { check: Some(asked), container, ..task("t", &line) }]).await;
    let code = |status: v1::TaskStatus| status.check_status.unwrap().http.unwrap().status_code;
    assert_eq!(code(master.expect("t", TaskState::TaskRunning).await), None);
    // Nothing is told while it does not listen yet: that is no answer.
    assert_eq!(code(master.expect("t", TaskState::TaskRunning).await), Some(204));
    master.kill("t", Some(Duration::ZERO)).await;
    master.expect("t", TaskState::TaskKilled).await;
    agent.finish().await;
}
