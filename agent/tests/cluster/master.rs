//! A master for one agent, which says what the test says.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mezz_proto::{
    mezz::v1::{
        self as mezz, AgentMessage, MasterMessage,
        agent_link_server::{AgentLink, AgentLinkServer},
        agent_message, master_message,
    },
    resources::{Dialect, Resources},
    v1::{self, TaskState, TaskStatus},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream, wrappers::TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const FRAMEWORK: &str = "F-0";

type Outgoing = mpsc::Sender<Result<MasterMessage, Status>>;

/// A master for one agent.
pub struct FakeMaster {
    pub address: SocketAddr,
    /// With the number of the link that it came on.
    heard: mpsc::UnboundedReceiver<(u64, AgentMessage)>,
    links: Arc<AtomicU64>,
    /// Links of lower numbers are not listened to.
    deaf_below: u64,
    link: Arc<Mutex<Option<Outgoing>>>,
    acknowledged: Mutex<HashSet<Vec<u8>>>,
    stop: CancellationToken,
}

struct Service {
    hear: mpsc::UnboundedSender<(u64, AgentMessage)>,
    links: Arc<AtomicU64>,
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
        let number = self.links.fetch_add(1, Ordering::SeqCst);
        let hear = self.hear.clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                if hear.send((number, message)).is_err() {
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
        let links = Arc::new(AtomicU64::new(0));
        let service = Service { hear, links: Arc::clone(&links), link: Arc::clone(&link) };
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        // As the real one.
        let service = AgentLinkServer::new(service).max_decoding_message_size(64 << 20);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped),
        );
        let acknowledged = Mutex::default();
        Self { address, heard, links, deaf_below: 0, link, acknowledged, stop }
    }

    pub async fn hear(&mut self) -> agent_message::Message {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
            let (link, message) = message.expect("the agent says something").unwrap();
            if link >= self.deaf_below {
                return message.message.unwrap();
            }
        }
    }

    /// Nothing more is heard of the links so far: their agent is dead.
    pub fn forget_links(&mut self) {
        self.deaf_below = self.links.load(Ordering::SeqCst);
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
        self.take_in().await;
        greeting
    }

    /// The answer to the agent's greeting.
    pub async fn take_in(&self) {
        self.say(master_message::Message::Registered(mezz::Registered {
            agent_id: v1::AgentId { value: "S0".into() },
            master_id: "M".into(),
            ping_interval_ms: 15_000,
            completed_frameworks: vec![],
            drain: None,
            ..Default::default()
        }))
        .await;
    }

    pub async fn run(&self, tasks: Vec<v1::TaskInfo>) {
        let framework = framework();
        let run = mezz::RunTasks { framework, tasks, group_executor: None, ..Default::default() };
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
