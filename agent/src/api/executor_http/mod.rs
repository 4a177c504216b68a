//! The HTTP API that Mesos' own executors speak (behaviour rules 37, 53 and 54):
//! `POST /api/v1/executor`. SUBSCRIBE is answered by a stream of events, the other
//! calls by 202.
//!
//! It feeds the core with the same events as the gRPC service does. Each call comes to the
//! core on a connection of its own, so a bad one costs only itself; whether its executor
//! hears events meanwhile the core knows.

mod checks;
mod stream;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use mezz_http::{Room, post, with_below};
use mezz_proto::v1::executor::{Call, call};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use self::{
    checks::{accepted, key_of, proof, validate},
    stream::subscribe,
};
use super::{
    MAX_MESSAGE, PREFIXES, Served,
    executor::{Peer, Waiting},
    gate::{Shut, Turn},
    refusal::{Refusal, stopping, told},
    rooms::not_read,
};
use crate::{
    core::{CallError, ConnectionId, Event, Proof},
    shell::Input,
};

struct Api {
    served: Arc<Served>,
    connections: Arc<AtomicU64>,
}

/// `connections` numbers those of gRPC, too.
pub(super) fn routes(served: Arc<Served>, connections: Arc<AtomicU64>) -> Router {
    let api = Api { served, connections };
    let mut routes = Router::new();
    for prefix in PREFIXES {
        routes = with_below(routes, &format!("{prefix}/api/v1/executor"), any(answer));
    }
    routes.with_state(Arc::new(api))
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
    if proof.given().is_some_and(|token| !api.served.executors.is_token(token)) {
        return Err(refused(CallError::Unauthenticated));
    }
    let (parts, body, format) = post(Request::from_parts(parts, body)).await?;
    let rooms = &api.served.rooms;
    let bodies = if proof.given().is_some() { &rooms.executors } else { &rooms.strangers };
    let read = bodies.read::<Call>(body, format, MAX_MESSAGE).await;
    let (call, room) = read.map_err(not_read)?;
    let kind = validate(&call)
        .map_err(|text| Refusal::bad(format!("Failed to validate Executor::Call: {text}")))?;
    let (room, turn) = match kind {
        call::Type::Subscribe => {
            let format = accepted(&parts.headers)?;
            return subscribe(api, proof, call, room, format).await;
        }
        // As Mesos, before anybody is looked for: its executor library sends it each half hour
        // with ids that are `unused`, and takes a refusal for a reason to end.
        call::Type::Heartbeat => return Ok(StatusCode::ACCEPTED.into_response()),
        call::Type::Message | call::Type::Unknown => (Some(room), None),
        call::Type::Update => match api.served.executors.gate(&key_of(&call), &proof) {
            None => (Some(room), None),
            Some(gate) => {
                // It may wait for long, and what waits has a bound of its own: the bodies of
                // other executors are not held up by it.
                drop(room);
                (None, gate.pass(&call).await.map_err(kept_out)?)
            }
        },
    };
    alone(api, proof, kind, call, room, turn).await
}

/// Nothing that the executor would end for: it sends the update again with its next
/// subscription.
fn kept_out(shut: Shut) -> Refusal {
    Refusal::busy(match shut {
        Shut::Left => "the executor has ended",
        Shut::Full => {
            "updates of this executor wait for its framework to acknowledge earlier ones, and \
             more may not wait"
        }
    })
}

/// A call of a later version, of an executor that may call.
fn unknown() -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "")
}

/// A call that is answered by its status. The core knows which token is right, and whether its
/// executor has ever subscribed.
async fn alone(
    api: &Api,
    proof: Proof,
    kind: call::Type,
    call: Call,
    room: Option<Room>,
    turn: Option<Turn>,
) -> Result<Response, Refusal> {
    let opened = api.open(proof, call, room, turn).await;
    let Opened { mut events, .. } = opened.ok_or_else(stopping)?;
    match events.recv().await.map(|waiting| waiting.event) {
        Some(Err(status))
            if kind == call::Type::Unknown && status.code() == Code::InvalidArgument =>
        {
            Err(unknown())
        }
        Some(Err(status)) => Err(told(&status)),
        // The core has taken it.
        _ if !api.served.stop.is_cancelled() => Ok(StatusCode::ACCEPTED.into_response()),
        _ => Err(stopping()),
    }
}

type Events = mpsc::Receiver<Waiting>;

/// A connection to the core.
struct Opened {
    connection: ConnectionId,
    events: Events,
    /// Cancelled when the core has left it.
    open: CancellationToken,
}

impl Api {
    /// Makes a connection to the core, with its first call.
    async fn open(
        &self,
        proof: Proof,
        call: Call,
        room: Option<Room>,
        turn: Option<Turn>,
    ) -> Option<Opened> {
        let (sender, events) = mpsc::channel(self.served.executor_queue);
        let open = self.served.stop.child_token();
        let peer = Peer::new(sender, &open);
        // Both or neither: a connection without a call would stay.
        let mut places = self.served.inputs.reserve_many(2).await.ok()?;
        let connection = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        let event = Event::ExecutorCall { connection, proof, call: Box::new(call) };
        places.next()?.send(Input::ExecutorOpened { connection, peer });
        places.next()?.send(Input::Call { event, room, turn });
        Some(Opened { connection, events, open })
    }
}
