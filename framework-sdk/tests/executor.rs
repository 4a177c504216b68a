//! The executor driver against an agent made for the test, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{pin::Pin, time::Duration};

use mezz_proto::mezz::v1::executor_server::{Executor as Service, ExecutorServer};
use mezz_sdk::{
    executor::{self, Event, ExecutorOptions},
    v1::{
        self,
        executor::{Call, event},
    },
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

struct Session {
    token: String,
    calls: Streaming<Call>,
    events: mpsc::Sender<Result<v1::executor::Event, Status>>,
}

struct FakeAgent(mpsc::Sender<Session>);

#[tonic::async_trait]
impl Service for FakeAgent {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<v1::executor::Event, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<Call>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let token = request.metadata().get("mezz-executor-token").unwrap();
        let token = token.to_str().unwrap().to_owned();
        let (events, stream) = mpsc::channel(16);
        self.0.send(Session { token, calls: request.into_inner(), events }).await.unwrap();
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}

fn of_type(kind: event::Type) -> v1::executor::Event {
    v1::executor::Event { r#type: Some(kind as i32), ..Default::default() }
}

async fn call(session: &mut Session) -> Call {
    within(session.calls.next()).await.expect("a call, not the end").unwrap()
}

async fn subscribed(session: &Session) {
    let mut e = of_type(event::Type::Subscribed);
    e.subscribed = Some(event::Subscribed::default());
    session.events.send(Ok(e)).await.unwrap();
}

#[tokio::test]
async fn keeps_updates_over_an_agent_restart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sessions, mut queue) = mpsc::channel(4);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(ExecutorServer::new(FakeAgent(sessions)))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let options = ExecutorOptions::from_vars(|name| {
        Some(match name {
            "MESOS_AGENT_ENDPOINT" => address.clone(),
            "MESOS_FRAMEWORK_ID" => "F".to_owned(),
            "MESOS_EXECUTOR_ID" => "E".to_owned(),
            "MEZZ_EXECUTOR_TOKEN" => "hush".to_owned(),
            "MESOS_RECOVERY_TIMEOUT" => "15mins".to_owned(),
            _ => return None,
        })
    });
    let (executor, mut events) = executor::connect(options.unwrap());

    let mut session = within(queue.recv()).await.unwrap();
    assert_eq!(session.token, "hush");
    assert!(call(&mut session).await.subscribe.is_some());
    subscribed(&session).await;
    assert!(matches!(within(events.next()).await, Some(Event::Subscribed { .. })));
    let task_id = v1::TaskId { value: "t".into() };
    executor.state(task_id.clone(), v1::TaskState::TaskFinished).await.unwrap();
    let status = call(&mut session).await.update.unwrap().status;
    drop(session);
    assert!(matches!(within(events.next()).await, Some(Event::Disconnected { .. })));

    let mut session = within(queue.recv()).await.unwrap();
    let subscribe = call(&mut session).await.subscribe.unwrap();
    assert_eq!(subscribe.unacknowledged_updates[0].status, status);
    subscribed(&session).await;
    assert!(matches!(within(events.next()).await, Some(Event::Subscribed { .. })));
    let stopping = tokio::spawn(async move { executor.stop().await });
    let mut e = of_type(event::Type::Acknowledged);
    e.acknowledged = Some(event::Acknowledged { task_id, uuid: status.uuid.unwrap() });
    session.events.send(Ok(e)).await.unwrap();
    // Our side ends only after the acknowledgement.
    assert!(within(session.calls.next()).await.is_none());
    drop(session);
    within(stopping).await.unwrap().unwrap();
    assert_eq!(within(events.next()).await, None);
}
