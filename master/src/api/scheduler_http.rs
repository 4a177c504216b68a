//! The HTTP API of Mesos' frameworks (rules 1 to 10): `POST /api/v1/scheduler`. SUBSCRIBE is
//! answered by a stream of events, other calls come by themselves and are accepted with 202.
//!
//! A subscription is the same to the core as a gRPC stream whose first message it is, and has
//! the same outbox and limits. The other calls are the same calls; see
//! [`lone_call`](crate::shell::lone_call) for who may make them.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::StreamExt;
use mezz_http::{Room, limits::INLINE_JSON_BYTES, post, with_below};
use mezz_proto::{
    media::Format,
    v1::scheduler::{
        self, Call,
        call::Type,
        response::{self, ReconcileOperations},
    },
};
use prost::Message;
use tonic::{Code, Status};

use super::{door, records::records, refusal::Refusal, stream};
use crate::{
    core::{CallError, CallReply, ConnectionId, Event, check_request, claim},
    shell::{
        core_loop::Input,
        dispatch::{Peer, SchedulerOutbox},
        handle::{CoreHandle, Line, Stopped},
        limits::{MAX_CALL_BYTES, SCHEDULER_OUTBOX_BYTES},
        lone_call::{CallRefused, Caller, NotAllowed, StreamId},
        outbox::{Outbox, OutboxStream},
    },
};

/// The header that tells a framework's subscriptions apart.
const STREAM_ID: &str = "mesos-stream-id";

/// Both paths (rule 1), to which [`door`] lets only those who prove who they are.
pub const PATHS: [&str; 2] = ["/api/v1/scheduler", "/master/api/v1/scheduler"];

/// The calls.
pub fn routes(core: CoreHandle) -> Router {
    let all = |routes, path| with_below(routes, path, any(answer));
    PATHS.into_iter().fold(Router::new(), all).with_state(core)
}

async fn answer(State(core): State<CoreHandle>, request: Request) -> Response {
    match handle(core, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

/// In Mesos' order of checks (rule 2).
async fn handle(core: CoreHandle, request: Request) -> Result<Response, Refusal> {
    let principal = door::principal(&request);
    let (parts, body, format) = post(request).await?;
    let (mut call, room) = core.call_bodies().read::<Call>(body, format, MAX_CALL_BYTES).await?;
    let kind = check_request(&call)
        .and_then(|kind| claim(&mut call, principal.as_deref()).map(|()| kind))
        .map_err(|text| Refusal::bad(format!("Failed to validate scheduler::Call: {text}")))?;
    // Rule 4: the others have nothing to say in a form.
    let accepted = match kind {
        Type::Subscribe | Type::ReconcileOperations => accepted(&parts.headers)?,
        _ => format,
    };
    let stream = parts.headers.get(STREAM_ID);
    let stream = stream.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    if kind != Type::Subscribe {
        let caller = Caller { principal, stream };
        let answer = core.call(Box::new(call), caller, room).await?;
        return answered(kind, accepted, answer).await;
    }
    if stream.is_some() {
        return Err(Refusal::bad(
            "Subscribe calls should not include the 'Mesos-Stream-Id' header",
        ));
    }
    subscribe(core, call, room, accepted).await
}

fn accepted(headers: &HeaderMap) -> Result<Format, Refusal> {
    Ok(Format::accepted(headers.get_all(header::ACCEPT).iter().map(header::HeaderValue::as_bytes))?)
}

/// Rule 5.
async fn answered(
    kind: Type,
    format: Format,
    answer: Result<CallReply, CallRefused>,
) -> Result<Response, Refusal> {
    match answer {
        Ok(CallReply::Operations(operation_statuses)) => {
            #[allow(deprecated)]
            let response = scheduler::Response {
                r#type: Some(response::Type::ReconcileOperations as i32),
                reconcile_operations: Some(ReconcileOperations { operation_statuses }),
            };
            let body = if response.encoded_len() <= INLINE_JSON_BYTES {
                format.encode(&response)
            } else {
                let encode = move || format.encode(&response);
                tokio::task::spawn_blocking(encode).await.map_err(|_| Stopped)?
            };
            Ok(([(header::CONTENT_TYPE, format.name())], body).into_response())
        }
        // It is done when it is answered.
        Ok(CallReply::Done) if kind == Type::UpdateFramework => Ok(StatusCode::OK.into_response()),
        Ok(CallReply::Done) => Ok(StatusCode::ACCEPTED.into_response()),
        Err(CallRefused::NotAllowed(why)) => {
            let code = match why {
                NotAllowed::Away | NotAllowed::NotHttp => StatusCode::FORBIDDEN,
                NotAllowed::Unknown
                | NotAllowed::Ended
                | NotAllowed::OtherPrincipal { .. }
                | NotAllowed::NoStreamId
                | NotAllowed::OtherStream { .. } => StatusCode::BAD_REQUEST,
            };
            Err(Refusal::new(code, why.to_string()))
        }
        Err(CallRefused::Refused(_)) if kind == Type::Unknown => Err(Refusal::not_implemented()),
        Err(CallRefused::Refused(why)) => {
            let code = match why {
                CallError::Invalid(_) => StatusCode::BAD_REQUEST,
                CallError::NotAllowed(_) => StatusCode::FORBIDDEN,
                CallError::LimitReached(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            Err(Refusal::new(code, why.to_string()))
        }
    }
}

/// The answer is that of the core: its first event, or why it has none.
async fn subscribe(
    core: CoreHandle,
    call: Call,
    room: Room,
    format: Format,
) -> Result<Response, Refusal> {
    let id = StreamId::new_v4();
    let outbox = Outbox::new(SCHEDULER_OUTBOX_BYTES);
    let mut events = OutboxStream::new(outbox.clone());
    // By itself, for the client may go before there is an answer.
    tokio::spawn(run(core, call, room, outbox, id));
    let first = match events.next().await {
        Some(Ok(first)) => first,
        Some(Err(status)) => return Err(of_status(&status)),
        None => return Err(of_status(&stream::stopping(Stopped))),
    };
    let body = Body::from_stream(records(first, events, format));
    let headers = [(header::CONTENT_TYPE.as_str(), format.name()), (STREAM_ID, &id.to_string())];
    Ok((headers, body).into_response())
}

fn of_status(status: &Status) -> Refusal {
    let code = match status.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::FailedPrecondition => StatusCode::FORBIDDEN,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(code, status.message())
}

/// A subscription, from its call to its end.
async fn run(core: CoreHandle, call: Call, room: Room, outbox: SchedulerOutbox, id: StreamId) {
    let connection = core.next_connection();
    let end = hold(&core, connection, call, room, &outbox, id).await;
    stream::finish(&core, connection, &outbox, end).await;
}

/// Opens the connection and waits for its end; there is nothing more to read from it.
async fn hold(
    core: &CoreHandle,
    connection: ConnectionId,
    call: Call,
    room: Room,
    outbox: &SchedulerOutbox,
    id: StreamId,
) -> Result<(), Status> {
    let turn = tokio::select! {
        biased;
        () = outbox.closed() => return Ok(()),
        turn = core.turn(Line::Frameworks, call.encoded_len()) => turn.map_err(stream::stopping)?,
    };
    let mut places = core.room(2).await.map_err(stream::stopping)?;
    let opened = Input::Open(connection, Peer::HttpScheduler(Arc::clone(outbox), id), Some(turn));
    let event = Event::SchedulerCall { connection, call: Box::new(call) };
    for input in [opened, Input::Message(connection, event)] {
        if let Some(place) = places.next() {
            place.send(input);
        }
    }
    drop((places, room));
    tokio::select! {
        biased;
        () = outbox.closed() => Ok(()),
        // It may have taken neither, and nobody else would close the outbox then.
        () = core.stopped() => Err(stream::stopping(Stopped)),
    }
}
