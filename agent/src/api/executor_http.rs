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
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::any,
};
use mezz_http::{Ends, Room, limits::INLINE_JSON_BYTES, post};
use mezz_proto::{
    ids::{ContainerId, ExecutorId, FrameworkId},
    media::Format,
    recordio,
    v1::executor::{Call, Event as ExecutorEvent, call, event},
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    MAX_MESSAGE, Served,
    executor::{Peer, Waiting},
    gate::{Gate, Shut},
    refusal::{Refusal, stopping, told},
    rooms::not_read,
};
use crate::{
    core::{CallError, ConnectionId, Event, ExecutorKey, Proof, Token, check_update},
    shell::Input,
};

/// Between two HEARTBEAT events (rule 54).
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);

/// Events on their way to the socket; more wait in the executor's own queue.
const ENCODED: usize = 1;

/// A stream whose executor takes nothing for so long ends.
const SLOW: Duration = Duration::from_secs(60);

struct Api {
    served: Arc<Served>,
    connections: Arc<AtomicU64>,
    /// Held while a connection gets its number and its place before the core: both have
    /// the same order.
    opening: Mutex<()>,
    subscribed: Subscriptions,
}

/// Executors that have subscribed over HTTP.
#[derive(Default)]
struct Subscriptions(Mutex<HashMap<ExecutorKey, Subscription>>);

#[derive(Clone)]
struct Subscription {
    connection: ConnectionId,
    token: Token,
    /// It was shown, and has to be from now on.
    proven: bool,
    gate: Gate,
}

impl Subscriptions {
    fn all(&self) -> MutexGuard<'_, HashMap<ExecutorKey, Subscription>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, key: &ExecutorKey) -> Option<Subscription> {
        self.all().get(key).cloned()
    }

    /// The latest counts, in whatever order their tasks hear of it.
    fn start(&self, key: &ExecutorKey, new: Subscription) {
        let mut all = self.all();
        if all.get(key).is_none_or(|known| known.connection.0 < new.connection.0) {
            all.insert(key.clone(), new);
        }
    }

    /// Unless there is a later one.
    fn end(&self, key: &ExecutorKey, connection: ConnectionId) {
        let mut all = self.all();
        if all.get(key).is_some_and(|known| known.connection == connection) {
            all.remove(key);
        }
    }
}

/// `connections` numbers those of gRPC, too.
pub(super) fn routes(served: Arc<Served>, connections: Arc<AtomicU64>) -> Router {
    let subscribed = Subscriptions::default();
    let api = Api { served, connections, opening: Mutex::default(), subscribed };
    Router::new()
        .route("/api/v1/executor", any(answer))
        // Where Mesos' own client library looks for it.
        .route("/slave(1)/api/v1/executor", any(answer))
        .route("/slave%281%29/api/v1/executor", any(answer))
        .with_state(Arc::new(api))
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    match handle(&api, request).await {
        Ok(response) => response,
        Err(refusal) => {
            let mut response = refusal.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                let asked = HeaderValue::from_static("Bearer realm=\"mesos-agent-executor\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, asked);
            }
            response
        }
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
    let (parts, body, format) = post(Request::from_parts(parts, body)).await?;
    let rooms = &api.served.rooms;
    let bodies = if proof.given().is_some() { &rooms.executors } else { &rooms.strangers };
    let read = bodies.read::<Call>(body, format, MAX_MESSAGE).await;
    let (call, room) = read.map_err(not_read)?;
    let kind = validate(&call)
        .map_err(|text| Refusal::bad(format!("Failed to validate Executor::Call: {text}")))?;
    match kind {
        call::Type::Subscribe => {
            let format = accepted(&parts.headers)?;
            return subscribe(api, proof, call, room, format).await;
        }
        // As Mesos, before anybody is looked for: its executor library sends it each half hour
        // with ids that are `unused`, and takes a refusal for a reason to end.
        call::Type::Heartbeat => return Ok(StatusCode::ACCEPTED.into_response()),
        call::Type::Update | call::Type::Message | call::Type::Unknown => {}
    }
    let Some(subscription) = api.subscribed.of(&key_of(&call)) else {
        return alone(api, proof, kind, call, room).await;
    };
    let Subscription { connection, token, proven, gate } = subscription;
    proof.shows(&token, proven).map_err(refused)?;
    if kind == call::Type::Unknown {
        return Err(unknown());
    }
    // An update may wait for long, and what waits has a bound of its own: the bodies of other
    // executors are not held up by it.
    let room = (kind != call::Type::Update).then_some(room);
    // Nothing that the executor would end for: it sends the update again with its next
    // subscription.
    let turn = gate.pass(&call).await.map_err(|shut| match shut {
        Shut::Left => Refusal::busy("the subscription has ended; subscribe again"),
        Shut::Full => Refusal::busy(
            "updates of this executor wait for its framework to acknowledge earlier ones, and \
             more may not wait",
        ),
    })?;
    let event = Event::ExecutorCall { connection, proof, call: Box::new(call) };
    let sent = api.served.inputs.send(Input::Call { event, room, turn }).await;
    sent.map(|()| StatusCode::ACCEPTED.into_response()).map_err(|_| stopping())
}

/// A call of a later version, of an executor that may call.
fn unknown() -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "")
}

/// Who the request shows to come from.
fn proof(request: &Parts) -> Result<Proof, Refusal> {
    // Without the connection's ends nobody is near.
    let local = request.extensions.get::<Ends>().is_some_and(|ends| ends.local);
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
    Ok(Format::accepted(headers.get_all(header::ACCEPT).iter().map(header::HeaderValue::as_bytes))?)
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
        check_update(&key_of(call), &update.status)?;
    }
    Ok(kind)
}

fn key_of(call: &Call) -> ExecutorKey {
    ExecutorKey {
        framework: FrameworkId::from(&call.framework_id),
        executor: ExecutorId::from(&call.executor_id),
    }
}

/// A call of one that hears nothing here. The core knows which token is right, and whether it
/// has ever subscribed.
async fn alone(
    api: &Api,
    proof: Proof,
    kind: call::Type,
    call: Call,
    room: Room,
) -> Result<Response, Refusal> {
    let opened = open(api, proof, call, room).await;
    let Opened { mut events, .. } = opened.ok_or_else(stopping)?;
    match events.recv().await.map(|waiting| waiting.event) {
        Some(Err(status))
            if kind == call::Type::Unknown && status.code() == Code::InvalidArgument =>
        {
            Err(unknown())
        }
        Some(Err(status)) => Err(told(&status)),
        // What it is told of the call, or nothing: the core has taken it.
        _ if !api.served.stop.is_cancelled() => Ok(StatusCode::ACCEPTED.into_response()),
        _ => Err(stopping()),
    }
}

type Events = mpsc::Receiver<Waiting>;

/// A connection to the core.
struct Opened {
    connection: ConnectionId,
    events: Events,
    gate: Gate,
    /// Cancelled when the core has left it.
    open: CancellationToken,
}

/// Makes a connection to the core, with its first call.
async fn open(api: &Api, proof: Proof, call: Call, room: Room) -> Option<Opened> {
    let (sender, events) = mpsc::channel(api.served.executor_queue);
    let open = api.served.stop.child_token();
    let (peer, gate) = Peer::new(sender, &open);
    let mut places = api.served.inputs.reserve_many(2).await.ok()?;
    let _in_order = api.opening.lock().unwrap_or_else(PoisonError::into_inner);
    let connection = ConnectionId(api.connections.fetch_add(1, Ordering::Relaxed));
    let event = Event::ExecutorCall { connection, proof, call: Box::new(call) };
    places.next()?.send(Input::ExecutorOpened { connection, peer });
    places.next()?.send(Input::Call { event, room: Some(room), turn: None });
    Some(Opened { connection, events, gate, open })
}

type Started = Result<mpsc::Receiver<Bytes>, Status>;

async fn subscribe(
    api: &Arc<Api>,
    proof: Proof,
    call: Call,
    room: Room,
    format: Format,
) -> Result<Response, Refusal> {
    let (reply, started) = oneshot::channel();
    // By itself, for the caller may go before there is an answer.
    tokio::spawn(connection(Arc::clone(api), proof, call, room, format, reply));
    let records = match started.await {
        Ok(Ok(records)) => records,
        Ok(Err(status)) => return Err(told(&status)),
        Err(_) => return Err(stopping()),
    };
    let body = Body::from_stream(ReceiverStream::new(records).map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, format.name())], body).into_response())
}

/// From the first call to the end.
async fn connection(
    api: Arc<Api>,
    proof: Proof,
    call: Call,
    room: Room,
    format: Format,
    reply: oneshot::Sender<Started>,
) {
    let key = key_of(&call);
    let proven = proof.given().is_some();
    let opened = self::open(&api, proof, call, room).await;
    let Some(Opened { connection, mut events, gate, open }) = opened else { return };
    let first = tokio::select! {
        first = events.recv() => first.map(|waiting| waiting.event),
        () = api.served.stop.cancelled() => None,
    };
    match first {
        Some(Ok(event)) => {
            // Before it hears that it is subscribed, for then it calls.
            if let Some(token) = api.token_of(&event) {
                api.subscribed.start(&key, Subscription { connection, token, proven, gate });
            }
            let (records, receiver) = mpsc::channel(ENCODED);
            if reply.send(Ok(receiver)).is_ok() {
                let passing = pass(&api.served.stop, SLOW, event, events, format, records);
                let mut passing = std::pin::pin!(passing);
                let left = tokio::select! {
                    () = &mut passing => false,
                    () = open.cancelled() => true,
                };
                // No call goes to a connection that the core does not know.
                api.subscribed.end(&key, connection);
                if left {
                    // What it was sent before may still reach it.
                    let _ = tokio::time::timeout(SLOW, passing).await;
                }
            }
            api.subscribed.end(&key, connection);
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
}

/// Large ones aside.
async fn encode(format: Format, event: ExecutorEvent) -> Option<Bytes> {
    if event.encoded_len() <= INLINE_JSON_BYTES {
        return Some(recordio::encode(&format.encode(&event)));
    }
    tokio::task::spawn_blocking(move || recordio::encode(&format.encode(&event))).await.ok()
}

/// Until either side ends it, or `slow` passes and nothing is taken. Of an error there is nothing to read: a stream that
/// ends tells the executor to subscribe again, and the answer to that tells why not.
async fn pass(
    stop: &CancellationToken,
    slow: Duration,
    first: ExecutorEvent,
    mut events: Events,
    format: Format,
    records: mpsc::Sender<Bytes>,
) {
    let mut next = first;
    // Of what is handed over, until it is.
    let mut room = None;
    loop {
        let Some(record) = encode(format, next).await else { return };
        tokio::select! {
            sent = tokio::time::timeout(slow, records.send(record)) => {
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            () = stop.cancelled() => return,
        }
        drop(room.take());
        next = tokio::select! {
            waiting = events.recv() => match waiting {
                Some(Waiting { event: Ok(event), room: held }) => {
                    room = Some(held);
                    event
                }
                Some(Waiting { event: Err(_), .. }) | None => return,
            },
            () = tokio::time::sleep(HEARTBEAT) => ExecutorEvent {
                r#type: Some(event::Type::Heartbeat.into()),
                ..ExecutorEvent::default()
            },
            () = records.closed() => return,
            () = stop.cancelled() => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two calls to subscribe, close together: their tasks may hear of it in either order.
    #[test]
    fn the_latest_subscription_stands() {
        let key = ExecutorKey { framework: "F".into(), executor: "E".into() };
        let subscription = |n: u64| Subscription {
            connection: ConnectionId(n),
            token: Token("t".into()),
            proven: false,
            gate: Gate::new().1,
        };
        for order in [[1, 2], [2, 1]] {
            let all = Subscriptions::default();
            for n in order {
                all.start(&key, subscription(n));
            }
            all.end(&key, ConnectionId(1));
            assert_eq!(all.of(&key).map(|one| one.connection), Some(ConnectionId(2)), "{order:?}");
            all.end(&key, ConnectionId(2));
            assert!(all.of(&key).is_none());
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_ends() {
        let (sender, queue) = mpsc::channel(8);
        let closed = sender.clone();
        let (events, _gate) = Peer::new(sender, &CancellationToken::new());
        let (records, _unread) = mpsc::channel(ENCODED);
        for _ in 0..8 {
            assert!(events.send(Ok(ExecutorEvent::default())));
        }
        let (stop, slow) = (CancellationToken::new(), Duration::from_millis(50));
        let passing = pass(&stop, slow, ExecutorEvent::default(), queue, Format::Json, records);
        tokio::time::timeout(Duration::from_secs(30), passing).await.expect("it ends");
        assert!(closed.is_closed(), "and nothing is kept for it");
    }

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
            (status(""), "Expecting 'uuid' to be present"),
            (status(r#","uuid":"AAAA""#), "Not a valid UUID"),
            (
                status(r#","uuid":"AAAAAAAAAAAAAAAAAAAAAA==","executor_id":{"value":"x"}"#),
                "ExecutorID in Call: e does not match ExecutorID in TaskStatus: x",
            ),
            (
                status(r#","uuid":"AAAAAAAAAAAAAAAAAAAAAA==""#),
                "Received Call from executor e of framework f with invalid source, expecting 'S",
            ),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(tells), "{text}: {error}");
        }
        let whole = status(r#","source":"SOURCE_EXECUTOR","uuid":"AAAAAAAAAAAAAAAAAAAAAA==""#);
        assert_eq!(check(&whole), Ok(call::Type::Update));
        assert_eq!(check(&with(r#","type":"HEARTBEAT""#)), Ok(call::Type::Heartbeat));
    }
}
