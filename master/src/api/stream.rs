//! What both kinds of streams share: a task that reads, a queue that is written.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Response, header},
    response::IntoResponse,
};
use bytes::Bytes;
use mezz_proto::{codec::LeanCodec, weight::TooMany};
use prost::{Message, Name};
use tokio::{pin, time::timeout};
use tonic::{
    Status,
    codec::{Codec, EncodeBody, SingleMessageCompressionOverride},
};
use tracing::debug;

use super::{
    front::Place,
    messages::{Arrived, Messages},
    status_of_call_error,
};
use crate::{
    core::{CallError, ConnectionId, Event},
    shell::{
        core_loop::Input,
        dispatch::Peer,
        handle::{CoreHandle, Line, Stopped},
        limits::{DRAIN_TIMEOUT, FIRST_MESSAGE_TIMEOUT, INLINE_MESSAGE_BYTES},
        outbox::{Outbox, OutboxStream, Weigh},
    },
};

/// One kind of stream.
pub struct Kind<In, Out> {
    /// Largest message of the peer, in bytes.
    pub largest: usize,
    /// What may wait for the peer, in bytes by estimate.
    pub outbox: usize,
    /// What the decoder would make too much memory of.
    pub check: fn(&[u8]) -> Result<(), TooMany>,
    /// Where it waits for its turn to be admitted.
    pub line: Line,
    /// A peer of the outbox.
    pub to_peer: fn(Arc<Outbox<Out>>) -> Peer,
    /// An event of a message.
    pub to_event: fn(ConnectionId, Box<In>) -> Event,
}

/// Begins a stream: its reader runs as a task, and the response is what goes out. A message
/// that `admit` refuses ends the stream.
pub fn open_stream<In, Out, Admit>(
    core: CoreHandle,
    kind: &'static Kind<In, Out>,
    mut request: Request,
    admit: Admit,
) -> Response<Body>
where
    In: Message + Name + Default + 'static,
    Out: Weigh + Message + Unpin + 'static,
    Admit: Fn(&mut In) -> Result<(), CallError> + Send + Sync + 'static,
{
    let outbox = Outbox::new(kind.outbox);
    let outgoing = OutboxStream::new(outbox.clone());
    let room = core.large_messages(kind.line);
    let place = request.extensions_mut().remove::<Place>();
    let incoming = Messages::new(request.into_body(), kind.largest, room);
    tokio::spawn(run(core, kind, incoming, outbox, place, admit));
    let body = EncodeBody::new_server(
        LeanCodec::<Out, In>::default().encoder(),
        outgoing,
        None,
        SingleMessageCompressionOverride::default(),
        None,
    );
    let grpc = HeaderValue::from_static("application/grpc");
    ([(header::CONTENT_TYPE, grpc)], Body::new(body)).into_response()
}

async fn run<In, Out>(
    core: CoreHandle,
    kind: &'static Kind<In, Out>,
    mut incoming: Messages,
    outbox: Arc<Outbox<Out>>,
    place: Option<Place>,
    admit: impl Fn(&mut In) -> Result<(), CallError>,
) where
    In: Message + Default + 'static,
    Out: Weigh,
{
    let connection = core.next_connection();
    let end = read(&core, connection, kind, &mut incoming, &outbox, place, admit).await;
    finish(&core, connection, &outbox, end).await;
}

/// Ends a connection whose reader has ended with `end`.
pub(super) async fn finish<Out: Weigh>(
    core: &CoreHandle,
    connection: ConnectionId,
    outbox: &Outbox<Out>,
    end: Result<(), Status>,
) {
    // The core ignores it when it ended the connection itself, or never heard of
    // it. A stopped core needs no telling.
    let _ = core.send(Input::Ended(connection)).await;
    outbox.close(end);
    if timeout(DRAIN_TIMEOUT, outbox.gone()).await.is_err() {
        outbox.abort(Status::deadline_exceeded("the rest of the stream was not read in time"));
    }
}

/// Reads until either side ends. The result is how the other direction ends,
/// unless that is decided already.
async fn read<In: Message + Default + 'static, Out: Weigh>(
    core: &CoreHandle,
    connection: ConnectionId,
    kind: &Kind<In, Out>,
    incoming: &mut Messages,
    outbox: &Arc<Outbox<Out>>,
    mut place: Option<Place>,
    admit: impl Fn(&mut In) -> Result<(), CallError>,
) -> Result<(), Status> {
    let closed = outbox.closed();
    pin!(closed);
    let first = tokio::select! {
        biased;
        () = &mut closed => return Ok(()),
        first = timeout(FIRST_MESSAGE_TIMEOUT, incoming.next()) => first,
    };
    let Ok(mut next) = first else {
        return Err(Status::deadline_exceeded("no first message came on this stream in time"));
    };
    let mut peer = Some((kind.to_peer)(outbox.clone()));
    loop {
        let Arrived { bytes, room: memory } = match next {
            Ok(Some(arrived)) => arrived,
            Ok(None) => return Ok(()),
            Err(status) => {
                debug!(connection = connection.0, %status, "a stream broke");
                return Err(status);
            }
        };
        // Decoded only once the core has room for it. Who is new waits its turn before.
        let mut turn = None;
        if peer.is_some() {
            turn = tokio::select! {
                biased;
                () = &mut closed => return Ok(()),
                turn = core.turn(kind.line, bytes.len()) => Some(turn.map_err(stopping)?),
            };
        }
        let inputs = 1 + usize::from(peer.is_some());
        let mut room = core.room(inputs).await.map_err(stopping)?;
        let mut message = if bytes.len() <= INLINE_MESSAGE_BYTES {
            decode(kind.check, bytes)?
        } else {
            let check = kind.check;
            let decoded = tokio::task::spawn_blocking(move || decode(check, bytes)).await;
            decoded.map_err(|_| stopping(Stopped))??
        };
        admit(&mut message).map_err(|error| status_of_call_error(&error))?;
        let event = (kind.to_event)(connection, message);
        let opened = peer.take().map(|peer| Input::Open(connection, peer, turn));
        for input in opened.into_iter().chain([Input::Message(connection, event)]) {
            if let Some(place) = room.next() {
                place.send(input);
            }
        }
        drop((room, memory, place.take()));
        next = tokio::select! {
            biased;
            () = &mut closed => return Ok(()),
            next = incoming.next() => next,
        };
    }
}

pub(super) fn stopping(Stopped: Stopped) -> Status {
    Status::unavailable("the master is stopping; find the leader again")
}

fn decode<In: Message + Default>(
    check: fn(&[u8]) -> Result<(), TooMany>,
    bytes: Bytes,
) -> Result<Box<In>, Status> {
    check(&bytes).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let message = In::decode(bytes);
    Ok(Box::new(message.map_err(|error| Status::internal(error.to_string()))?))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
