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
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use mezz_proto::{
    ids::{ExecutorId, FrameworkId},
    media::{Format, MediaError},
    recordio,
    v1::executor::{Call, Event as ExecutorEvent, call, event},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status};

use super::{MAX_MESSAGE, Served, executor::Peer};
use crate::{
    core::{CallError, ConnectionId, Event, ExecutorKey, check_update, same_secret},
    shell::Input,
};

/// Between two HEARTBEAT events (rule 54).
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);

/// A call's body comes by then, or not at all.
const BODY: Duration = Duration::from_secs(60);

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
    token: String,
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

/// An answer that is an error: the text is for people.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    fn of(status: &Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::FailedPrecondition => StatusCode::FORBIDDEN,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(code, status.message().to_owned())
    }

    fn stopping() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping".to_owned())
    }
}

impl From<MediaError> for Refusal {
    fn from(error: MediaError) -> Self {
        let code = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self(code, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(code, text) = self;
        let mut response = (code, text).into_response();
        let header = match code {
            StatusCode::UNAUTHORIZED => {
                (header::WWW_AUTHENTICATE, "Bearer realm=\"mesos-agent-executor\"")
            }
            StatusCode::METHOD_NOT_ALLOWED => (header::ALLOW, "POST"),
            _ => return response,
        };
        response.headers_mut().insert(header.0, header::HeaderValue::from_static(header.1));
        response
    }
}

/// In Mesos' order of checks (rule 2).
async fn handle(api: &Arc<Api>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let token = bearer(&parts.headers)?;
    // Nothing is read, or kept in memory, for those who are nobody here.
    if !api.served.index.is_token(&token) {
        return Err(unknown());
    }
    if parts.method != Method::POST {
        let text = format!(
            "405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{}'.",
            parts.method
        );
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let content = parts.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    let format = Format::of_content(content)?;
    let body = tokio::time::timeout(BODY, axum::body::to_bytes(body, MAX_MESSAGE));
    let body = match body.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let text = format!("the body is cut off, or longer than {MAX_MESSAGE} bytes");
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Err(_) => {
            let text = format!("the body did not come within {BODY:?}");
            return Err(Refusal(StatusCode::REQUEST_TIMEOUT, text));
        }
    };
    let call = format.decode(&body)?;
    let kind = validate(&call)
        .map_err(|text| Refusal::bad(format!("Failed to validate executor::Call: {text}")))?;
    if kind == call::Type::Subscribe {
        let format = accepted(&parts.headers)?;
        return subscribe(api, token, call, format).await;
    }
    let key = key_of(&call);
    let connection = {
        let subscriptions = api.subscriptions();
        match subscriptions.get(&key) {
            Some(subscription) if !same_secret(&subscription.token, &token) => {
                return Err(unknown());
            }
            Some(subscription) => Some(subscription.connection),
            None => None,
        }
    };
    let Some(connection) = connection else { return Err(not_subscribed(api, token, call).await) };
    let event = Event::ExecutorCall { connection, token, call: Box::new(call) };
    let sent = api.served.inputs.send(Input::Core(event)).await;
    sent.map(|()| StatusCode::ACCEPTED.into_response()).map_err(|_| Refusal::stopping())
}

fn bearer(headers: &HeaderMap) -> Result<String, Refusal> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(token.trim().to_owned())
        }
        _ => Err(Refusal(
            StatusCode::UNAUTHORIZED,
            "Authorization: must be `Bearer TOKEN`; an executor finds its token in \
             MESOS_EXECUTOR_AUTHENTICATION_TOKEN"
                .to_owned(),
        )),
    }
}

fn unknown() -> Refusal {
    Refusal(StatusCode::UNAUTHORIZED, CallError::Unauthenticated.to_string())
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
        Type::Unknown => {
            return Err("'type' must be SUBSCRIBE, UPDATE, MESSAGE or HEARTBEAT".to_owned());
        }
        Type::Subscribe => needs("subscribe", call.subscribe.is_some())?,
        Type::Message => needs("message", call.message.is_some())?,
        Type::Update => needs("update", call.update.is_some())?,
        Type::Heartbeat => {}
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
async fn not_subscribed(api: &Api, token: String, call: Call) -> Refusal {
    match open(api, token, call).await {
        Some((_, mut events)) => match events.recv().await {
            Some(Err(status)) => Refusal::of(&status),
            _ => Refusal::stopping(),
        },
        None => Refusal::stopping(),
    }
}

type Events = mpsc::Receiver<Result<ExecutorEvent, Status>>;

/// Makes a connection to the core, with its first call.
async fn open(api: &Api, token: String, call: Call) -> Option<(ConnectionId, Events)> {
    let connection = ConnectionId(api.connections.fetch_add(1, Ordering::Relaxed));
    let (sender, events) = mpsc::channel(api.served.executor_queue);
    let peer = Peer::new(sender, &api.served.stop.child_token());
    let opened = Input::ExecutorOpened { connection, peer };
    api.served.inputs.send(opened).await.ok()?;
    let event = Event::ExecutorCall { connection, token, call: Box::new(call) };
    api.served.inputs.send(Input::Core(event)).await.ok()?;
    Some((connection, events))
}

type Started = Result<mpsc::Receiver<Bytes>, Status>;

async fn subscribe(
    api: &Arc<Api>,
    token: String,
    call: Call,
    format: Format,
) -> Result<Response, Refusal> {
    let (reply, started) = oneshot::channel();
    // By itself, for the caller may go before there is an answer.
    tokio::spawn(connection(Arc::clone(api), token, call, format, reply));
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
    token: String,
    call: Call,
    format: Format,
    reply: oneshot::Sender<Started>,
) {
    let key = key_of(&call);
    let Some((connection, mut events)) = open(&api, token.clone(), call).await else { return };
    let first = tokio::select! {
        first = events.recv() => first,
        () = api.served.stop.cancelled() => None,
    };
    match first {
        Some(Ok(event)) => {
            // Before it hears that it is subscribed, for then it calls.
            let subscription = Subscription { connection, token };
            api.subscriptions().insert(key.clone(), subscription);
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
            (with(r#","type":"UNKNOWN""#), "'type' must be SUBSCRIBE"),
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
