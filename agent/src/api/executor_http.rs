//! The HTTP API that Mesos' own executors speak (behaviour rules 37, 53 and 54):
//! `POST /api/v1/executor`. SUBSCRIBE is answered by a stream of events, the other
//! calls by 202.
//!
//! It feeds the core with the same events as the gRPC service does. A call that the
//! core would end a connection for is refused here, before it: with HTTP the calls
//! come on connections of their own, and a bad one costs only itself.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::any,
};
use mezz_proto::{
    ids::{ContainerId, ExecutorId, FrameworkId},
    media::Format,
    recordio,
    v1::executor::{Call, Event as ExecutorEvent, call, event},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use super::{MAX_MESSAGE, Served, ends::Ends, executor::Peer, refusal::Refusal};
use crate::{
    core::{CallError, ConnectionId, Event, ExecutorKey, Proof, Token, check_update},
    shell::Input,
};

/// Between two HEARTBEAT events (rule 54).
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);

/// Events on their way to the socket; more wait in the executor's own queue.
const ENCODED: usize = 1;

struct Api {
    served: Arc<Served>,
    connections: Arc<AtomicU64>,
    /// Executors that have subscribed over HTTP.
    subscribed: Mutex<HashMap<ExecutorKey, Subscription>>,
}

struct Subscription {
    connection: ConnectionId,
    token: Token,
}

/// `connections` numbers those of gRPC, too.
pub(super) fn routes(served: Arc<Served>, connections: Arc<AtomicU64>) -> Router {
    let api = Api { served, connections, subscribed: Mutex::default() };
    Router::new()
        .route("/api/v1/executor", any(answer))
        // Where Mesos' own client library looks for it.
        .route("/slave(1)/api/v1/executor", any(answer))
        .with_state(Arc::new(api))
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    match handle(&api, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

/// In Mesos' order of checks (rule 2).
async fn handle(api: &Arc<Api>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let proof = proof(&parts)?;
    // Nothing is read, or kept in memory, for those who are nobody here.
    let refused = |error: CallError| Refusal::new(StatusCode::UNAUTHORIZED, error.to_string());
    proof.admitted(api.served.authenticate_executors).map_err(refused)?;
    if proof.given().is_some_and(|token| !api.served.index.is_token(token)) {
        return Err(refused(CallError::Unauthenticated));
    }
    if parts.method != Method::POST {
        return Err(Refusal::method(&parts.method));
    }
    let content = parts.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    let format = Format::of_content(content)?;
    let call: Call = api.served.executor_bodies.message(body, format, MAX_MESSAGE).await?;
    let kind = validate(&call)
        .map_err(|text| Refusal::bad(format!("Failed to validate executor::Call: {text}")))?;
    match kind {
        call::Type::Subscribe => {
            let format = accepted(&parts.headers)?;
            return subscribe(api, proof, call, format).await;
        }
        call::Type::Unknown => return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "")),
        call::Type::Update | call::Type::Message | call::Type::Heartbeat => {}
    }
    let key = key_of(&call);
    let connection = {
        let subscriptions = api.subscriptions();
        match subscriptions.get(&key) {
            Some(subscription) if !proof.shows(&subscription.token) => {
                return Err(refused(CallError::Unauthenticated));
            }
            Some(subscription) => Some(subscription.connection),
            None => None,
        }
    };
    let Some(connection) = connection else { return Err(not_subscribed(api, proof, call).await) };
    let event = Event::ExecutorCall { connection, proof, call: Box::new(call) };
    let sent = api.served.inputs.send(Input::Core(event)).await;
    sent.map(|()| StatusCode::ACCEPTED.into_response()).map_err(|_| Refusal::stopping())
}

/// Who the request shows to come from.
fn proof(request: &Parts) -> Result<Proof, Refusal> {
    // Without the connection's ends nobody is near.
    let ends = request.extensions.get::<ConnectInfo<Ends>>();
    let local = ends.is_some_and(|ConnectInfo(ends)| ends.local);
    let Some(given) = request.headers.get(header::AUTHORIZATION) else {
        return Ok(Proof::http(None, local));
    };
    match given.to_str().ok().and_then(|given| given.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Proof::http(Some(token.trim().to_owned()), local))
        }
        _ => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            CallError::NoToken("no other proof is known here").to_string(),
        )),
    }
}

fn accepted(headers: &HeaderMap) -> Result<Format, Refusal> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    Ok(Format::accepted(values)?)
}

/// What can be said of a call without knowing its executor.
fn validate(call: &Call) -> Result<call::Type, String> {
    use call::Type;
    let kind = match call.r#type {
        None => return Err("Expecting 'type' to be present".to_owned()),
        Some(_) => call.r#type(),
    };
    let needs = |field: &str, there: bool| {
        if there { Ok(()) } else { Err(format!("Expecting '{field}' to be present")) }
    };
    match kind {
        Type::Subscribe => needs("subscribe", call.subscribe.is_some())?,
        Type::Message => needs("message", call.message.is_some())?,
        Type::Update => needs("update", call.update.is_some())?,
        Type::Heartbeat | Type::Unknown => {}
    }
    if let Some(update) = call.update.as_ref().filter(|_| kind == Type::Update) {
        check_update(&update.status)?;
    }
    Ok(kind)
}

fn key_of(call: &Call) -> ExecutorKey {
    ExecutorKey {
        framework: FrameworkId::from(&call.framework_id),
        executor: ExecutorId::from(&call.executor_id),
    }
}

/// The core knows which token is right: it tells what is wrong with a call of one
/// that has not subscribed.
async fn not_subscribed(api: &Api, proof: Proof, call: Call) -> Refusal {
    match open(api, proof, call).await {
        Some((_, mut events)) => match events.recv().await {
            Some(Err(status)) => Refusal::of(&status),
            _ => Refusal::stopping(),
        },
        None => Refusal::stopping(),
    }
}

type Events = mpsc::Receiver<Result<ExecutorEvent, Status>>;

/// Makes a connection to the core, with its first call.
async fn open(api: &Api, proof: Proof, call: Call) -> Option<(ConnectionId, Events)> {
    let connection = ConnectionId(api.connections.fetch_add(1, Ordering::Relaxed));
    let (sender, events) = mpsc::channel(api.served.executor_queue);
    let peer = Peer::new(sender, &api.served.stop.child_token());
    let opened = Input::ExecutorOpened { connection, peer };
    api.served.inputs.send(opened).await.ok()?;
    let event = Event::ExecutorCall { connection, proof, call: Box::new(call) };
    api.served.inputs.send(Input::Core(event)).await.ok()?;
    Some((connection, events))
}

type Started = Result<mpsc::Receiver<Bytes>, Status>;

async fn subscribe(
    api: &Arc<Api>,
    proof: Proof,
    call: Call,
    format: Format,
) -> Result<Response, Refusal> {
    let (reply, started) = oneshot::channel();
    // By itself, for the caller may go before there is an answer.
    tokio::spawn(connection(Arc::clone(api), proof, call, format, reply));
    let records = match started.await {
        Ok(Ok(records)) => records,
        Ok(Err(status)) => return Err(Refusal::of(&status)),
        Err(_) => return Err(Refusal::stopping()),
    };
    let body = Body::from_stream(ReceiverStream::new(records).map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, format.name())], body).into_response())
}

/// From the first call to the end.
async fn connection(
    api: Arc<Api>,
    proof: Proof,
    call: Call,
    format: Format,
    reply: oneshot::Sender<Started>,
) {
    let key = key_of(&call);
    let Some((connection, mut events)) = open(&api, proof, call).await else { return };
    let first = tokio::select! {
        first = events.recv() => first,
        () = api.served.stop.cancelled() => None,
    };
    match first {
        Some(Ok(event)) => {
            // Before it hears that it is subscribed, for then it calls.
            if let Some(token) = api.token_of(&event) {
                let subscription = Subscription { connection, token };
                api.subscriptions().insert(key.clone(), subscription);
            }
            let (records, receiver) = mpsc::channel(ENCODED);
            if reply.send(Ok(receiver)).is_ok() {
                pass(&api, event, events, format, records).await;
            }
            let mut subscriptions = api.subscriptions();
            if subscriptions.get(&key).is_some_and(|s| s.connection == connection) {
                subscriptions.remove(&key);
            }
        }
        Some(Err(status)) => {
            let _ = reply.send(Err(status));
        }
        None => {}
    }
    let ended = Event::ExecutorDisconnected { connection };
    let _ = api.served.inputs.send(Input::Core(ended)).await;
}

impl Api {
    /// That of the executor that is told of its subscription; none when it has ended
    /// meanwhile.
    fn token_of(&self, event: &ExecutorEvent) -> Option<Token> {
        let container = event.subscribed.as_ref()?.container_id.as_ref()?;
        self.served.index.token(&ContainerId::from(container))
    }

    fn subscriptions(&self) -> std::sync::MutexGuard<'_, HashMap<ExecutorKey, Subscription>> {
        self.subscribed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until either side ends it. Of an error there is nothing to read: a stream that
/// ends tells the executor to subscribe again, and the answer to that tells why not.
async fn pass(
    api: &Api,
    first: ExecutorEvent,
    mut events: Events,
    format: Format,
    records: mpsc::Sender<Bytes>,
) {
    let mut next = first;
    loop {
        if records.send(recordio::encode(&format.encode(&next))).await.is_err() {
            return;
        }
        next = tokio::select! {
            event = events.recv() => match event {
                Some(Ok(event)) => event,
                Some(Err(_)) | None => return,
            },
            () = tokio::time::sleep(HEARTBEAT) => ExecutorEvent {
                r#type: Some(event::Type::Heartbeat.into()),
                ..ExecutorEvent::default()
            },
            () = records.closed() => return,
            () = api.served.stop.cancelled() => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_checked_before_the_core_sees_them() {
        let check = |text: &str| {
            validate(&Format::Json.decode(text.as_bytes()).map_err(|error| error.to_string())?)
        };
        let with = |rest: &str| {
            format!(r#"{{"executor_id":{{"value":"e"}},"framework_id":{{"value":"f"}}{rest}}}"#)
        };
        let status = |rest: &str| {
            let status = format!(r#""task_id":{{"value":"t"}},"state":"TASK_RUNNING"{rest}"#);
            with(&format!(r#","type":"UPDATE","update":{{"status":{{{status}}}}}"#))
        };
        for (text, tells) in [
            (with(""), "Expecting 'type' to be present"),
            (with(r#","type":"NOTHING""#), "Expecting 'type' to be present"),
            (with(r#","type":"SUBSCRIBE""#), "Expecting 'subscribe' to be present"),
            (with(r#","type":"UPDATE""#), "Expecting 'update' to be present"),
            (with(r#","type":"MESSAGE""#), "Expecting 'message' to be present"),
            (status(""), "update.status.uuid is not set"),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(tells), "{text}: {error}");
        }
        let whole = status(r#","source":"SOURCE_EXECUTOR","uuid":"AAAAAAAAAAAAAAAAAAAAAA==""#);
        assert_eq!(check(&whole), Ok(call::Type::Update));
        assert_eq!(check(&with(r#","type":"HEARTBEAT""#)), Ok(call::Type::Heartbeat));
    }
}
