//! The scheduler driver against a master made for the test, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{net::SocketAddr, pin::Pin, time::Duration};

use mezz_proto::mezz::v1::scheduler_server::{Scheduler as Service, SchedulerServer};
use mezz_sdk::{
    build::FrameworkBuilder,
    scheduler::{self, AcknowledgeMode, Closed, Event, Events, Scheduler, SchedulerOptions},
    v1::{
        self,
        scheduler::{Call, call::Type, event},
    },
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

/// Far above what anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// A subscription as the master sees it.
struct Session {
    subscribe: v1::scheduler::call::Subscribe,
    calls: Streaming<Call>,
    events: mpsc::Sender<Result<v1::scheduler::Event, Status>>,
}

impl Session {
    async fn send(&self, event: v1::scheduler::Event) {
        self.events.send(Ok(event)).await.unwrap();
    }

    async fn call(&mut self) -> Call {
        within(self.calls.next()).await.expect("a call, not the end").unwrap()
    }

    /// Nothing but the end.
    async fn no_more_calls(&mut self) {
        let next = within(self.calls.next()).await;
        assert!(!matches!(next, Some(Ok(_))), "unexpected call: {next:?}");
    }

    async fn subscribed(&self) {
        let subscribed = event::Subscribed {
            framework_id: v1::FrameworkId { value: "F1".into() },
            heartbeat_interval_seconds: Some(15.0),
            master_info: None,
        };
        let mut e = of_type(event::Type::Subscribed);
        e.subscribed = Some(subscribed);
        self.send(e).await;
    }

    async fn update(&self, task: &str, uuid: u8) {
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            agent_id: Some(v1::AgentId { value: "S".into() }),
            uuid: Some(vec![uuid; 16]),
            state: v1::TaskState::TaskRunning as i32,
            ..Default::default()
        };
        let mut e = of_type(event::Type::Update);
        e.update = Some(event::Update { status });
        self.send(e).await;
    }
}

fn of_type(kind: event::Type) -> v1::scheduler::Event {
    v1::scheduler::Event { r#type: Some(kind as i32), ..Default::default() }
}

struct FakeMaster {
    /// Sends them elsewhere instead of taking them.
    leader: Option<String>,
    sessions: mpsc::Sender<Session>,
}

#[tonic::async_trait]
impl Service for FakeMaster {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<v1::scheduler::Event, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<Call>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        if let Some(leader) = &self.leader {
            let mut status = Status::unavailable("this master does not lead");
            status.metadata_mut().insert("mezz-leader", leader.parse().unwrap());
            return Err(status);
        }
        let mut calls = request.into_inner();
        let first = calls.message().await?.ok_or_else(|| Status::invalid_argument("no call"))?;
        let subscribe = first.subscribe.ok_or_else(|| Status::invalid_argument("no SUBSCRIBE"))?;
        let (events, stream) = mpsc::channel(16);
        self.sessions.send(Session { subscribe, calls, events }).await.unwrap();
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

async fn master(leader: Option<String>) -> (SocketAddr, mpsc::Receiver<Session>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sessions, queue) = mpsc::channel(16);
    let service = SchedulerServer::new(FakeMaster { leader, sessions });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (address, queue)
}

fn options(masters: &[SocketAddr]) -> SchedulerOptions {
    let framework = FrameworkBuilder::new("test").build();
    let mut options = SchedulerOptions::new(masters.iter().map(ToString::to_string), framework);
    options.reconnect_backoff = (Duration::from_millis(1), Duration::from_millis(20));
    options
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

async fn next(events: &mut Events) -> Event {
    within(events.next()).await.expect("an event, not the end")
}

/// A subscribed framework and the master's side of it.
async fn subscribed(
    options: SchedulerOptions,
    sessions: &mut mpsc::Receiver<Session>,
) -> (Scheduler, Events, Session) {
    let (scheduler, mut events) = scheduler::connect(options).unwrap();
    let session = within(sessions.recv()).await.unwrap();
    session.subscribed().await;
    assert!(matches!(next(&mut events).await, Event::Subscribed { .. }));
    (scheduler, events, session)
}

#[tokio::test]
async fn reconnects_under_its_id() {
    let (address, mut sessions) = master(None).await;
    let (_scheduler, mut events, session) = subscribed(options(&[address]), &mut sessions).await;
    assert_eq!(session.subscribe.framework_info.id, None);
    drop(session);
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    let mut again = within(sessions.recv()).await.unwrap();
    assert_eq!(again.subscribe.framework_info.id, Some(v1::FrameworkId { value: "F1".into() }));
    again.subscribed().await;
    assert!(matches!(next(&mut events).await, Event::Subscribed { .. }));
    assert_eq!(again.call().await.r#type(), Type::Reconcile);
}

#[tokio::test]
async fn finds_the_leader() {
    let (leader, mut sessions) = master(None).await;
    let (standby, _) = master(Some(leader.to_string())).await;
    // Nobody listens on the first one.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_scheduler, mut events) = scheduler::connect(options(&[dead, standby])).unwrap();
    let session = within(sessions.recv()).await.unwrap();
    session.subscribed().await;
    match next(&mut events).await {
        Event::Disconnected { reason } => assert!(reason.contains(&dead.to_string()), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(&mut events).await, Event::Subscribed { .. }));
}

#[tokio::test]
async fn acknowledges_when_the_next_event_is_asked_for() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, mut events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    session.update("t1", 1).await;
    assert!(matches!(next(&mut events).await, Event::Update(_)));
    // A call made now overtakes the acknowledgement, which is not due yet.
    scheduler.reconcile([]).await.unwrap();
    assert_eq!(session.call().await.r#type(), Type::Reconcile);
    let asking = tokio::spawn(async move { events.next().await });
    let acknowledge = session.call().await.acknowledge.unwrap();
    assert_eq!(acknowledge.task_id.value, "t1");
    assert_eq!(acknowledge.uuid, [1; 16]);
    session.send(of_type(event::Type::Offers)).await;
    assert_eq!(within(asking).await.unwrap(), Some(Event::Offers(vec![])));
}

#[tokio::test]
async fn leaves_acknowledgements_to_the_application_when_told_to() {
    let (address, mut sessions) = master(None).await;
    let explicit =
        SchedulerOptions { acknowledge: AcknowledgeMode::Explicit, ..options(&[address]) };
    let (scheduler, mut events, mut session) = subscribed(explicit, &mut sessions).await;
    session.update("t1", 1).await;
    session.update("t2", 2).await;
    let Event::Update(_) = next(&mut events).await else { panic!() };
    let Event::Update(second) = next(&mut events).await else { panic!() };
    scheduler.acknowledge(&second).await.unwrap();
    assert_eq!(session.call().await.acknowledge.unwrap().uuid, [2; 16]);
}

#[tokio::test]
async fn a_refusal_is_the_last_event() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, mut events, session) = subscribed(options(&[address]), &mut sessions).await;
    let refusal = Status::invalid_argument("call.kill is not set");
    session.events.send(Err(refusal)).await.unwrap();
    assert_eq!(next(&mut events).await, Event::Error("call.kill is not set".into()));
    assert_eq!(within(events.next()).await, None);
    assert_eq!(scheduler.suppress(&[]).await, Err(Closed));
    assert_eq!(scheduler.stop().await, Err(Closed));
}

#[tokio::test]
async fn stop_sends_everything_first() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, mut events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    for i in 0..500 {
        let task = v1::TaskId { value: format!("t{i}") };
        scheduler.kill(task, None, None).await.unwrap();
    }
    let stopping = tokio::spawn(async move { scheduler.stop().await });
    for i in 0..500 {
        assert_eq!(session.call().await.kill.unwrap().task_id.value, format!("t{i}"));
    }
    session.no_more_calls().await;
    drop(session);
    assert_eq!(within(stopping).await.unwrap(), Ok(()));
    assert_eq!(within(events.next()).await, None);
}

#[tokio::test]
async fn teardown_waits_for_the_master() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, _events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    let tearing = tokio::spawn(async move { scheduler.teardown().await });
    assert_eq!(session.call().await.r#type(), Type::Teardown);
    assert!(!tearing.is_finished());
    drop(session);
    assert_eq!(within(tearing).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn dropping_the_events_ends_the_subscription() {
    let (address, mut sessions) = master(None).await;
    let (_scheduler, events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    drop(events);
    session.no_more_calls().await;
}

/// The framework is torn down over this subscription.
async fn is_torn_down(mut session: Session) {
    session.subscribed().await;
    while session.call().await.r#type() != Type::Teardown {}
}

#[tokio::test]
async fn teardown_without_the_events_reaches_the_master() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    // Both are there when the driver looks.
    let tearing = tokio::spawn(async move { scheduler.teardown().await });
    drop(events);
    let first = within(session.calls.next()).await;
    if first.is_some_and(|c| c.unwrap().r#type() == Type::Teardown) {
        drop(session);
    } else {
        // The driver saw the loss of the events first, and subscribes once more.
        is_torn_down(within(sessions.recv()).await.unwrap()).await;
    }
    assert_eq!(within(tearing).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn teardown_while_stopping_reaches_the_master() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, _events, session) = subscribed(options(&[address]), &mut sessions).await;
    let ends = async { tokio::join!(scheduler.stop(), scheduler.teardown()) };
    let masters = async {
        is_torn_down(within(sessions.recv()).await.unwrap()).await;
    };
    let (ends, ()) = within(async { tokio::join!(ends, masters) }).await;
    assert_eq!(ends, (Ok(()), Ok(())));
    drop(session);
}

/// The framework lives on with somebody else.
#[tokio::test]
async fn a_teardown_of_what_was_taken_over_fails() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, mut events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    let tearing = tokio::spawn(async move { scheduler.teardown().await });
    assert_eq!(session.call().await.r#type(), Type::Teardown);
    let message = "Framework failed over".to_owned();
    let mut error = of_type(event::Type::Error);
    error.error = Some(event::Error { message: message.clone() });
    session.send(error).await;
    drop(session);
    assert_eq!(within(tearing).await.unwrap(), Err(Closed));
    assert_eq!(next(&mut events).await, Event::Error(message));
}

#[tokio::test]
async fn a_teardown_that_is_given_up_fails() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, _events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    let tearing = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.teardown().await }
    });
    assert_eq!(session.call().await.r#type(), Type::Teardown);
    let stopping = tokio::spawn(async move { scheduler.stop().await });
    session.no_more_calls().await;
    drop(session);
    assert_eq!(within(stopping).await.unwrap(), Ok(()));
    assert_eq!(within(tearing).await.unwrap(), Err(Closed));
}

#[tokio::test]
async fn stop_sends_everything_although_the_events_are_dropped() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    for i in 0..500 {
        let task = v1::TaskId { value: format!("t{i}") };
        // Too much for the buffers on the way, so that much of it is still ours.
        let agent = v1::AgentId { value: "S".repeat(10_000) };
        scheduler.kill(task, Some(agent), None).await.unwrap();
    }
    let stopping = tokio::spawn(async move { scheduler.stop().await });
    tokio::task::yield_now().await;
    drop(events);
    for i in 0..500 {
        assert_eq!(session.call().await.kill.unwrap().task_id.value, format!("t{i}"));
    }
    session.no_more_calls().await;
    drop(session);
    assert_eq!(within(stopping).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn teardown_ends_although_the_application_does_not_read() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, _events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    // Far more than the driver keeps.
    for _ in 0..3000 {
        session.send(of_type(event::Type::Offers)).await;
    }
    let tearing = tokio::spawn(async move { scheduler.teardown().await });
    assert_eq!(session.call().await.r#type(), Type::Teardown);
    drop(session);
    assert_eq!(within(tearing).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn what_was_asked_before_the_events_were_dropped_is_sent() {
    let (address, mut sessions) = master(None).await;
    let (scheduler, events, mut session) = subscribed(options(&[address]), &mut sessions).await;
    // Few enough for all of them to wait for the driver.
    for i in 0..100 {
        scheduler.kill(v1::TaskId { value: format!("t{i}") }, None, None).await.unwrap();
    }
    drop(events);
    for i in 0..100 {
        assert_eq!(session.call().await.kill.unwrap().task_id.value, format!("t{i}"));
    }
    session.no_more_calls().await;
}

#[tokio::test]
async fn a_slow_application_holds_the_master_back_and_loses_nothing() {
    let (address, mut sessions) = master(None).await;
    let (_scheduler, mut events, session) = subscribed(options(&[address]), &mut sessions).await;
    let sending = tokio::spawn(async move {
        for i in 0..3000 {
            let mut e = of_type(event::Type::Rescind);
            e.rescind = Some(event::Rescind { offer_id: v1::OfferId { value: i.to_string() } });
            session.send(e).await;
        }
        session
    });
    for i in 0..3000 {
        let wanted = Event::Rescind(v1::OfferId { value: i.to_string() });
        assert_eq!(next(&mut events).await, wanted);
    }
    drop(within(sending).await.unwrap());
}
