//! A master on a loopback port, and hand-written peers of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{future::Future, time::Duration};

use mezz_master::{
    MasterError,
    options::{MasterOptions, RegistryOptions},
    serve,
};
use mezz_proto::{
    mezz::v1::{
        self as mezz, agent_link_client::AgentLinkClient, agent_message::Message as FromAgent,
        master_message::Message as ToAgent, operator_client::OperatorClient,
        scheduler_client::SchedulerClient,
    },
    resources::{Dialect, Resources},
    v1::{
        self,
        scheduler::{Call, Event, call, event},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

/// Nothing takes longer, or the test fails.
pub const LIMIT: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

/// Repeats until `probe` gives a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    soon(what, async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

pub fn memory() -> MasterOptions {
    MasterOptions {
        advertise: None,
        cluster: Some("test".to_owned()),
        registry: RegistryOptions::Memory,
        core: Default::default(),
    }
}

pub struct TestMaster {
    pub address: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), MasterError>>,
}

impl TestMaster {
    pub async fn start(options: MasterOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(options, listener, shutdown.clone()));
        Self { address, shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        soon("the master's end", self.task).await.unwrap().unwrap();
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        soon("a connection", endpoint.connect()).await.unwrap()
    }

    pub async fn operator(&self) -> OperatorClient<Channel> {
        OperatorClient::new(self.channel().await)
    }

    /// GET over HTTP/1.1: the status line and headers, and the body.
    pub async fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        soon("a page", stream.read_to_string(&mut text)).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// The value of one line of `/metrics`.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

pub struct Agent {
    pub id: String,
    pub calls: mpsc::Sender<mezz::AgentMessage>,
    pub events: Streaming<mezz::MasterMessage>,
}

pub fn description(hostname: &str, id: Option<&str>) -> mezz::AgentDescription {
    mezz::AgentDescription {
        agent: v1::AgentInfo {
            hostname: hostname.to_owned(),
            id: id.map(|value| v1::AgentId { value: value.to_owned() }),
            resources: Resources::cpus_mem(4.0, 1024.0).to_proto(Dialect::Refined, None),
            ..Default::default()
        },
        version: "0.1.0".to_owned(),
        protocol: mezz_proto::LINK_PROTOCOL,
        api_address: format!("{hostname}:5051"),
        ..Default::default()
    }
}

impl Agent {
    pub async fn open(master: &TestMaster, first: FromAgent) -> Self {
        let (calls, receiver) = mpsc::channel(1000);
        calls.send(mezz::AgentMessage { message: Some(first) }).await.unwrap();
        let mut client = AgentLinkClient::new(master.channel().await);
        let connected = client.connect(ReceiverStream::new(receiver));
        let events = soon("the link", connected).await.unwrap().into_inner();
        Self { id: String::new(), calls, events }
    }

    pub async fn register(master: &TestMaster, hostname: &str) -> Self {
        let description = description(hostname, None);
        let mut agent =
            Self::open(master, FromAgent::Register(mezz::Register { description })).await;
        match agent.hear().await {
            ToAgent::Registered(registered) => agent.id = registered.agent_id.value,
            other => panic!("{other:?}"),
        }
        agent
    }

    pub async fn send(&self, message: FromAgent) {
        self.calls.send(mezz::AgentMessage { message: Some(message) }).await.unwrap();
    }

    /// The next message but pings, which are answered.
    pub async fn hear(&mut self) -> ToAgent {
        loop {
            let message = soon("a message to the agent", self.events.message()).await.unwrap();
            match message.expect("the link ended").message.unwrap() {
                ToAgent::Ping(ping) => {
                    let pong = FromAgent::Pong(mezz::Pong { number: ping.number });
                    // The master may have ended the link; what it said before is still to come.
                    let _ = self.calls.send(mezz::AgentMessage { message: Some(pong) }).await;
                }
                other => return other,
            }
        }
    }

    pub async fn update(&self, framework: &str, task: &str, state: v1::TaskState, uuid: u8) {
        let mut status = v1::TaskStatus {
            task_id: v1::TaskId { value: task.to_owned() },
            agent_id: Some(v1::AgentId { value: self.id.clone() }),
            uuid: Some(vec![uuid; 16]),
            timestamp: Some(1.0),
            ..Default::default()
        };
        status.set_state(state);
        status.set_source(v1::task_status::Source::Executor);
        self.send(FromAgent::StatusUpdate(mezz::StatusUpdate {
            framework_id: v1::FrameworkId { value: framework.to_owned() },
            status,
            latest_state: state as i32,
        }))
        .await;
    }
}

pub struct Framework {
    pub id: String,
    pub calls: mpsc::Sender<Call>,
    pub events: Streaming<Event>,
}

pub fn subscribe(id: Option<&str>, failover_timeout: f64) -> Call {
    let id = id.map(|value| v1::FrameworkId { value: value.to_owned() });
    Call {
        framework_id: id.clone(),
        r#type: Some(call::Type::Subscribe as i32),
        subscribe: Some(call::Subscribe {
            framework_info: v1::FrameworkInfo {
                user: "nobody".to_owned(),
                name: "test".to_owned(),
                id,
                failover_timeout: Some(failover_timeout),
                ..Default::default()
            },
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Framework {
    pub async fn open(master: &TestMaster, first: Call) -> Self {
        let (calls, receiver) = mpsc::channel(1000);
        calls.send(first).await.unwrap();
        let mut client =
            SchedulerClient::new(master.channel().await).max_decoding_message_size(64 << 20);
        let subscribed = client.subscribe(ReceiverStream::new(receiver));
        let events = soon("the stream", subscribed).await.unwrap().into_inner();
        Self { id: String::new(), calls, events }
    }

    pub async fn subscribe(master: &TestMaster, id: Option<&str>, failover_timeout: f64) -> Self {
        let mut framework = Self::open(master, subscribe(id, failover_timeout)).await;
        let event = framework.next(event::Type::Subscribed).await;
        framework.id = event.subscribed.unwrap().framework_id.value;
        framework
    }

    pub async fn send(&self, call: Call) {
        let framework_id = Some(v1::FrameworkId { value: self.id.clone() });
        self.calls.send(Call { framework_id, ..call }).await.unwrap();
    }

    pub async fn hear(&mut self) -> Result<Option<Event>, Status> {
        soon("an event for the framework", self.events.message()).await
    }

    /// The next event but heartbeats, which must be of this type.
    pub async fn next(&mut self, kind: event::Type) -> Event {
        loop {
            let event = self.hear().await.unwrap().expect("the stream ended");
            match event.r#type() {
                event::Type::Heartbeat => {}
                other if other == kind => return event,
                _ => panic!("wanted {kind:?}, got {event:?}"),
            }
        }
    }

    pub async fn offer(&mut self) -> v1::Offer {
        self.next(event::Type::Offers).await.offers.unwrap().offers.remove(0)
    }

    pub async fn status(&mut self) -> v1::TaskStatus {
        self.next(event::Type::Update).await.update.unwrap().status
    }

    /// How the stream ends, whatever comes before.
    pub async fn end(&mut self) -> Result<(), Status> {
        loop {
            match self.hear().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }

    pub async fn launch(&self, offer: &v1::Offer, task: &str) {
        let info = v1::TaskInfo {
            name: task.to_owned(),
            task_id: v1::TaskId { value: task.to_owned() },
            agent_id: offer.agent_id.clone(),
            resources: Resources::cpus_mem(1.0, 64.0).to_proto(Dialect::Plain, None),
            command: Some(v1::CommandInfo { value: Some("true".to_owned()), ..Default::default() }),
            ..Default::default()
        };
        let launch = v1::offer::operation::Launch { task_infos: vec![info] };
        let operation = v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch as i32),
            launch: Some(launch),
            ..Default::default()
        };
        self.send(Call {
            r#type: Some(call::Type::Accept as i32),
            accept: Some(call::Accept {
                offer_ids: vec![offer.id.clone()],
                operations: vec![operation],
                filters: Some(v1::Filters { refuse_seconds: Some(3600.0) }),
            }),
            ..Default::default()
        })
        .await;
    }

    pub async fn acknowledge(&self, status: &v1::TaskStatus) {
        self.send(Call {
            r#type: Some(call::Type::Acknowledge as i32),
            acknowledge: Some(call::Acknowledge {
                agent_id: status.agent_id.clone().unwrap(),
                task_id: status.task_id.clone(),
                uuid: status.uuid.clone().unwrap(),
            }),
            ..Default::default()
        })
        .await;
    }
}
