//! The stream of events that answers SUBSCRIBE.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use mezz_http::{Room, limits::INLINE_JSON_BYTES};
use mezz_proto::{
    media::Format,
    recordio,
    v1::executor::{Call, Event as ExecutorEvent, event},
};
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Api, Events, Opened};
use crate::{
    api::{
        executor::Waiting,
        pages::Pace,
        refusal::{Refusal, stopping, told},
    },
    core::{Event, Proof},
    shell::Input,
};

/// Between two HEARTBEAT events (rule 54).
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);

/// Parts on their way to the socket; more wait in the executor's own queue.
const ENCODED: usize = 1;

/// A record, or what is handed over of a large one at a time, in bytes.
const PART: usize = 64 << 10;

/// While events wait, an executor that takes no part for a minute is cut off, and one that
/// after the first minute takes fewer than one in a second.
const PACE: Pace = Pace { slow: SLOW, part: Duration::from_secs(1) };

/// What was sent before the core left the stream has so long to be taken.
const SLOW: Duration = Duration::from_secs(60);

type Started = Result<mpsc::Receiver<Bytes>, Status>;

pub(super) async fn subscribe(
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
    let opened = api.open(proof, call, Some(room), None).await;
    let Some(Opened { connection, mut events, open }) = opened else { return };
    let stop = &api.served.stop;
    let first = tokio::select! {
        first = events.recv() => first.map(|waiting| waiting.event),
        () = stop.cancelled() => None,
    };
    match first {
        Some(Ok(event)) => {
            let (records, receiver) = mpsc::channel(ENCODED);
            if reply.send(Ok(receiver)).is_ok() {
                let passing = pass(stop, event, events, format, Hand::new(records));
                let mut passing = std::pin::pin!(passing);
                let left = tokio::select! {
                    () = &mut passing => false,
                    () = open.cancelled() => true,
                };
                if left {
                    // What it was sent before may still reach it.
                    let _ = timeout(SLOW, passing).await;
                }
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

/// Large ones aside.
async fn encode(format: Format, event: ExecutorEvent) -> Option<Bytes> {
    if event.encoded_len() <= INLINE_JSON_BYTES {
        return Some(recordio::encode(&format.encode(&event)));
    }
    tokio::task::spawn_blocking(move || recordio::encode(&format.encode(&event))).await.ok()
}

/// Hands records to a connection, at the pace of its reader but no slower than [`PACE`].
struct Hand {
    records: mpsc::Sender<Bytes>,
    /// Since when something waits all the time.
    begun: Instant,
    /// Parts that were taken since then.
    taken: u32,
}

impl Hand {
    fn new(records: mpsc::Sender<Bytes>) -> Self {
        Self { records, begun: Instant::now(), taken: 0 }
    }

    /// Nothing waits any more.
    fn caught_up(&mut self) {
        (self.begun, self.taken) = (Instant::now(), 0);
    }

    /// False when the reader has gone, or is too slow.
    async fn over(&mut self, record: Bytes) -> bool {
        if record.len() <= PART {
            return self.part(record).await;
        }
        for part in record.chunks(PART) {
            // A copy, for a piece of the record would keep all of it.
            if !self.part(Bytes::copy_from_slice(part)).await {
                return false;
            }
        }
        true
    }

    async fn part(&mut self, part: Bytes) -> bool {
        let deadline = PACE.deadline(self.begun, self.taken);
        let taken = timeout_at(deadline, self.records.send(part)).await;
        self.taken = self.taken.saturating_add(1);
        matches!(taken, Ok(Ok(())))
    }
}

/// Until either side ends it, or the reader is too slow. Of an error there is nothing to read:
/// a stream that ends tells the executor to subscribe again, and the answer to that tells why
/// not.
async fn pass(
    stop: &CancellationToken,
    first: ExecutorEvent,
    mut events: Events,
    format: Format,
    mut hand: Hand,
) {
    let mut next = first;
    // Of what is handed over, until it is.
    let mut room = None;
    loop {
        let Some(record) = encode(format, next).await else { return };
        let over = stop.run_until_cancelled(hand.over(record)).await;
        if over != Some(true) {
            return;
        }
        drop(room.take());
        if events.is_empty() {
            hand.caught_up();
        }
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
            () = hand.records.closed() => return,
            () = stop.cancelled() => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::executor::Peer;

    fn message(bytes: usize) -> ExecutorEvent {
        let message = Some(event::Message { data: vec![0; bytes] });
        ExecutorEvent { message, ..Default::default() }
    }

    /// What a reader gets of these events who takes a part each `wait`, in bytes, and when the
    /// last was handed over.
    async fn read(sent: Vec<ExecutorEvent>, wait: Duration) -> (usize, Duration) {
        let begun = Instant::now();
        let (sender, queue) = mpsc::channel(sent.len());
        let events = Peer::new(sender, &CancellationToken::new());
        for event in sent {
            assert!(events.send(Ok(event)));
        }
        // After these it ends.
        drop(events);
        let (records, mut parts) = mpsc::channel(ENCODED);
        let reading = async {
            let mut bytes = 0;
            loop {
                tokio::time::sleep(wait).await;
                match parts.recv().await {
                    Some(part) => bytes += Bytes::len(&part),
                    None => return bytes,
                }
            }
        };
        let stop = CancellationToken::new();
        let passing = async {
            let hand = Hand::new(records);
            pass(&stop, ExecutorEvent::default(), queue, Format::Protobuf, hand).await;
            begun.elapsed()
        };
        tokio::join!(reading, passing)
    }

    fn large() -> Vec<ExecutorEvent> {
        vec![message(200 * PART)]
    }

    fn small() -> Vec<ExecutorEvent> {
        (0..200).map(|_| message(1000)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_now_and_then_is_cut_off() {
        let now_and_then = SLOW - Duration::from_secs(1);
        for sent in [large(), small()] {
            let (bytes, lasted) = read(sent, now_and_then).await;
            assert!(bytes < 10 * PART && lasted < SLOW * 2, "{bytes} {lasted:?}");
        }
        // Nobody reads.
        let (_, lasted) = read(large(), 100 * SLOW).await;
        assert_eq!(lasted.as_secs(), SLOW.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_and_goes_on_gets_all() {
        for (sent, least) in [(large(), 200 * PART), (small(), 200 * 1000)] {
            let (bytes, lasted) = read(sent, Duration::from_millis(900)).await;
            assert!(bytes > least && lasted > SLOW * 2, "{bytes} {lasted:?}");
        }
    }
}
