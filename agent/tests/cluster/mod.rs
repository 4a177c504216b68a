//! An agent in this process, and a master that says what the test says.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use mezz_agent::{
    AgentError, cleanup,
    options::{AgentOptions, Containment, FetcherOptions, LauncherCommand, MonitorOptions},
    serve,
};
use mezz_proto::{
    mezz::v1::{
        self as mezz, AgentMessage, MasterMessage,
        agent_client::AgentClient,
        agent_link_server::{AgentLink, AgentLinkServer},
        agent_message, master_message,
    },
    resources::{Dialect, Resources},
    v1::{self, TaskState, TaskStatus},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream, wrappers::TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const FRAMEWORK: &str = "F-0";

type Outgoing = mpsc::Sender<Result<MasterMessage, Status>>;

/// A master for one agent.
pub struct FakeMaster {
    pub address: SocketAddr,
    heard: mpsc::UnboundedReceiver<AgentMessage>,
    link: Arc<Mutex<Option<Outgoing>>>,
    acknowledged: Mutex<HashSet<Vec<u8>>>,
    stop: CancellationToken,
}

struct Service {
    hear: mpsc::UnboundedSender<AgentMessage>,
    link: Arc<Mutex<Option<Outgoing>>>,
}

#[tonic::async_trait]
impl AgentLink for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<MasterMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (sender, outgoing) = mpsc::channel(1024);
        *self.link.lock().unwrap() = Some(sender);
        let hear = self.hear.clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                if hear.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

impl FakeMaster {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (hear, heard) = mpsc::unbounded_channel();
        let link = Arc::new(Mutex::new(None));
        let service = Service { hear, link: Arc::clone(&link) };
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(AgentLinkServer::new(service))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped),
        );
        Self { address, heard, link, acknowledged: Mutex::default(), stop }
    }

    pub async fn hear(&mut self) -> agent_message::Message {
        let message = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        message.expect("the agent says something").unwrap().message.unwrap()
    }

    pub async fn say(&self, message: master_message::Message) {
        let link = self.link.lock().unwrap().clone().expect("an agent is linked");
        link.send(Ok(MasterMessage { message: Some(message) })).await.unwrap();
    }

    /// Ends the link; the agent comes back.
    pub fn hang_up(&self) {
        self.link.lock().unwrap().take();
    }

    /// Waits for the agent's greeting and takes it in.
    pub async fn welcome(&mut self) -> agent_message::Message {
        let greeting = loop {
            let message = self.hear().await;
            if matches!(
                message,
                agent_message::Message::Register(_) | agent_message::Message::Reregister(_)
            ) {
                break message;
            }
        };
        self.say(master_message::Message::Registered(mezz::Registered {
            agent_id: v1::AgentId { value: "S0".into() },
            master_id: "M".into(),
            ping_interval_ms: 15_000,
            completed_frameworks: vec![],
            drain: None,
        }))
        .await;
        greeting
    }

    pub async fn run(&self, tasks: Vec<v1::TaskInfo>) {
        let framework = framework();
        let run = mezz::RunTasks { framework, tasks, group_executor: None };
        self.say(master_message::Message::RunTasks(run)).await;
    }

    pub async fn kill(&self, task: &str, grace: Option<Duration>) {
        let kill_policy = grace.map(|grace| v1::KillPolicy {
            grace_period: Some(v1::DurationInfo {
                nanoseconds: i64::try_from(grace.as_nanos()).unwrap(),
            }),
        });
        let kill = mezz::KillTask {
            framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
            task_id: v1::TaskId { value: task.into() },
            kill_policy,
        };
        self.say(master_message::Message::KillTask(kill)).await;
    }

    pub async fn ack(&self, status: &TaskStatus) {
        self.acknowledged.lock().unwrap().insert(status.uuid.clone().unwrap());
        let ack = mezz::StatusUpdateAcknowledgement {
            framework_id: v1::FrameworkId { value: FRAMEWORK.into() },
            task_id: status.task_id.clone(),
            uuid: status.uuid.clone().unwrap(),
        };
        self.say(master_message::Message::Acknowledgement(ack)).await;
    }

    /// The next update, not acknowledged. One whose acknowledgement was lost is
    /// acknowledged again instead.
    pub async fn update(&mut self) -> TaskStatus {
        loop {
            let agent_message::Message::StatusUpdate(update) = self.hear().await else { continue };
            let uuid = update.status.uuid.as_ref().expect("agents set it");
            if !self.acknowledged.lock().unwrap().contains(uuid) {
                return update.status;
            }
            self.ack(&update.status).await;
        }
    }

    /// The next update, which is of this task and state, and is acknowledged.
    #[track_caller]
    pub fn expect(
        &mut self,
        task: &str,
        state: TaskState,
    ) -> impl Future<Output = TaskStatus> + use<'_> {
        let caller = std::panic::Location::caller();
        let task = task.to_owned();
        async move {
            let status = self.update().await;
            assert_eq!(
                (&*status.task_id.value, status.state()),
                (&*task, state),
                "at {caller}: {:?}",
                status.message
            );
            self.ack(&status).await;
            status
        }
    }
}

impl Drop for FakeMaster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

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
        kill_grace: Duration::from_secs(3),
        executor_registration_timeout: Duration::from_secs(60),
        executor_reregistration_timeout: Duration::from_secs(10),
        executor_shutdown_grace: Duration::from_millis(300),
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

pub fn framework() -> v1::FrameworkInfo {
    v1::FrameworkInfo {
        // The agent's own.
        user: String::new(),
        name: "test".into(),
        id: Some(v1::FrameworkId { value: FRAMEWORK.into() }),
        ..Default::default()
    }
}

pub fn resources() -> Vec<v1::Resource> {
    Resources::cpus_mem(0.1, 32.0).to_proto(Dialect::Refined, Some("*"))
}

pub fn task(id: &str, line: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        name: id.into(),
        task_id: v1::TaskId { value: id.into() },
        agent_id: v1::AgentId { value: "S0".into() },
        resources: resources(),
        command: Some(v1::CommandInfo { value: Some(line.into()), ..Default::default() }),
        ..Default::default()
    }
}
