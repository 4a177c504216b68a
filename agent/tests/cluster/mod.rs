//! An agent in this process, and a master that says what the test says.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use mezz_agent::{
    AgentError, cleanup,
    options::{AgentOptions, Containment, FetcherOptions, LauncherCommand, MonitorOptions},
    serve,
};
use mezz_proto::{
    mezz::v1::{self as mezz, agent_client::AgentClient},
    resources::Resources,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

mod master;

pub use self::master::*;

/// A test that failed leaves no processes either.
impl Drop for TestAgent {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.stop.cancel();
        let options = self.options.clone();
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(cleanup(&options)))
        });
        let _ = cleaned.join();
    }
}

/// An agent with a folder of its own. Its containers end with it.
pub struct TestAgent {
    pub options: AgentOptions,
    pub address: SocketAddr,
    stop: CancellationToken,
    running: Option<JoinHandle<Result<(), AgentError>>>,
    _dir: TempDir,
}

pub fn options(master: &FakeMaster, work_dir: PathBuf) -> AgentOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    AgentOptions {
        masters: vec![master.address.to_string()],
        advertise: None,
        hostname: "test".into(),
        work_dir,
        resources: Resources::cpus_mem(4.0, 4096.0),
        attributes: vec![],
        domain: None,
        containment: Containment::None,
        cgroup_root: format!("mezz-test-agent-{}-{n}", std::process::id()),
        cgroup_cpu_quota: false,
        launcher: LauncherCommand {
            program: env!("CARGO_BIN_EXE_mezz-launcher").into(),
            args: vec![],
        },
        native_library: None,
        kill_grace: Duration::from_secs(3),
        executor_registration_timeout: Duration::from_secs(60),
        executor_reregistration_timeout: Duration::from_secs(10),
        executor_shutdown_grace: Duration::from_millis(300),
        authenticate_http_executors: false,
        update_retry: (Duration::from_secs(10), Duration::from_secs(600)),
        sandbox_retention: Duration::from_secs(600),
        register_backoff: (Duration::from_millis(10), Duration::from_millis(100)),
        max_tasks: 100,
        max_fetch_bytes: 1 << 30,
        isolation: Default::default(),
        fetcher: FetcherOptions::default(),
        monitor: MonitorOptions::default(),
        docker: Default::default(),
    }
}

impl TestAgent {
    /// Not yet started.
    pub fn new(master: &FakeMaster) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = options(master, dir.path().join("work"));
        Self {
            options,
            address: ([127, 0, 0, 1], 0).into(),
            stop: CancellationToken::new(),
            running: None,
            _dir: dir,
        }
    }

    /// Started and taken in.
    pub async fn joined(master: &mut FakeMaster) -> Self {
        let mut agent = Self::new(master);
        agent.start().await;
        master.welcome().await;
        agent
    }

    pub async fn start(&mut self) {
        // The same port again after a stop, as executors expect it.
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        self.stop = CancellationToken::new();
        let serving = serve(self.options.clone(), listener, self.stop.clone());
        self.running = Some(tokio::spawn(serving));
    }

    /// Stops it as a signal would; its containers go on.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        self.ended().await.unwrap();
    }

    pub async fn ended(&mut self) -> Result<(), AgentError> {
        let running = self.running.take().expect("it runs");
        tokio::time::timeout(PATIENCE, running).await.expect("it ends").unwrap()
    }

    /// At the end of a test.
    pub async fn finish(mut self) {
        if self.running.is_some() {
            self.stop().await;
        }
        cleanup(&self.options).await.unwrap();
        // The agent keeps its own cgroup; a test's name never comes again.
        for mount in std::fs::read_to_string("/proc/self/mounts").unwrap().lines() {
            let mut fields = mount.split(' ').skip(1);
            let (path, kind) = (fields.next().unwrap(), fields.next().unwrap());
            let own = PathBuf::from(path).join(&self.options.cgroup_root);
            if kind.starts_with("cgroup") && own.is_dir() {
                std::fs::remove_dir(own).unwrap();
            }
        }
    }

    pub async fn api(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// A whole file of a task's sandbox.
    pub async fn read(&self, task: &str, path: &str) -> Result<String, Status> {
        self.read_with(mezz::ReadSandboxRequest { path: path.into(), ..request(task) }).await
    }

    pub async fn read_with(&self, request: mezz::ReadSandboxRequest) -> Result<String, Status> {
        let mut stream = self.api().await.read_sandbox(request).await?.into_inner();
        let mut text = Vec::new();
        while let Some(chunk) = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap()? {
            text.extend(chunk.data);
        }
        Ok(String::from_utf8(text).unwrap())
    }

    /// Status and body of a GET.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.address);
        // A test's machine may have no certificates, and this needs none.
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let response = client.get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

pub fn request(task: &str) -> mezz::ReadSandboxRequest {
    mezz::ReadSandboxRequest {
        framework_id: FRAMEWORK.into(),
        task_id: task.into(),
        path: "stdout".into(),
        offset: None,
        follow: None,
        limit: None,
    }
}
