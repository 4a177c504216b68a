//! What both kinds of streams share: a task that reads, a queue that is written.

use std::sync::Arc;

use tokio::{pin, time::timeout};
use tonic::{Status, Streaming};
use tracing::debug;

use crate::{
    core::{ConnectionId, Event},
    shell::{
        core_loop::Input,
        dispatch::Peer,
        handle::{CoreHandle, Stopped},
        limits::{DRAIN_TIMEOUT, FIRST_MESSAGE_TIMEOUT},
        outbox::{Outbox, OutboxStream, Weigh},
    },
};

/// Begins a stream: its reader runs as a task, the writer is returned.
/// `to_event` makes an event of a message, `to_peer` a peer of the outbox.
pub fn open_stream<In, Out>(
    core: CoreHandle,
    incoming: Streaming<In>,
    limit: usize,
    to_peer: fn(Arc<Outbox<Out>>) -> Peer,
    to_event: fn(ConnectionId, Box<In>) -> Event,
) -> OutboxStream<Out>
where
    In: Send + 'static,
    Out: Weigh + Send + 'static,
{
    let outbox = Outbox::new(limit);
    let stream = OutboxStream::new(outbox.clone());
    let connection = core.next_connection();
    tokio::spawn(async move {
        let end = read(&core, connection, incoming, &outbox, to_peer, to_event).await;
        // The core ignores it when it ended the connection itself, or never
        // heard of it. A stopped core needs no telling.
        let _ = core.send(Input::Ended(connection)).await;
        outbox.close(end);
        if timeout(DRAIN_TIMEOUT, outbox.gone()).await.is_err() {
            outbox.abort(Status::deadline_exceeded("the rest of the stream was not read in time"));
        }
    });
    stream
}

/// Reads until either side ends. The result is how the other direction ends,
/// unless that is decided already.
async fn read<In, Out: Weigh>(
    core: &CoreHandle,
    connection: ConnectionId,
    mut incoming: Streaming<In>,
    outbox: &Arc<Outbox<Out>>,
    to_peer: fn(Arc<Outbox<Out>>) -> Peer,
    to_event: fn(ConnectionId, Box<In>) -> Event,
) -> Result<(), Status> {
    let closed = outbox.closed();
    pin!(closed);
    let first = tokio::select! {
        biased;
        () = &mut closed => return Ok(()),
        first = timeout(FIRST_MESSAGE_TIMEOUT, incoming.message()) => first,
    };
    let Ok(first) = first else {
        return Err(Status::deadline_exceeded("no first message came on this stream in time"));
    };
    let mut next = first;
    let mut opened = false;
    loop {
        let message = match next {
            Ok(Some(message)) => Box::new(message),
            Ok(None) => return Ok(()),
            Err(status) => {
                debug!(connection = connection.0, %status, "a stream broke");
                return Err(status);
            }
        };
        let sent = async {
            if !opened {
                core.send(Input::Open(connection, to_peer(outbox.clone()))).await?;
            }
            core.send(Input::Message(connection, to_event(connection, message))).await
        };
        if let Err(Stopped) = sent.await {
            return Err(Status::unavailable("the master is stopping; find the leader again"));
        }
        opened = true;
        next = tokio::select! {
            biased;
            () = &mut closed => return Ok(()),
            next = incoming.message() => next,
        };
    }
}
