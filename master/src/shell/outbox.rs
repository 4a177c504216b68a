//! What waits to be sent to one peer: filled by the core's loop, emptied by the
//! task that encodes and writes. Bounded by an estimate of bytes.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_util::Stream;
use mezz_proto::{mezz::v1 as mezz, v1};
use prost::Message;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tonic::Status;

use super::limits::{OUTBOX_BATCH, OUTBOX_BATCH_BYTES};

/// An estimate of a message's size in memory, in bytes. The core's loop asks it
/// once for each message.
pub trait Weigh {
    /// The estimate.
    fn weight(&self) -> usize;
}

/// The message itself, the entries of its list, and what they point to: ids, texts, labels
/// and data take about as much as their encoding.
fn weight<M: Message>(message: &M, entries: usize) -> usize {
    size_of::<M>() + entries + message.encoded_len()
}

impl Weigh for v1::scheduler::Event {
    fn weight(&self) -> usize {
        let offers = self.offers.as_ref().map_or(0, |offers| offers.offers.len());
        weight(self, offers * size_of::<v1::Offer>())
    }
}

impl Weigh for mezz::MasterMessage {
    fn weight(&self) -> usize {
        let tasks = match &self.message {
            Some(mezz::master_message::Message::RunTasks(run)) => run.tasks.len(),
            _ => 0,
        };
        weight(self, tasks * size_of::<v1::TaskInfo>())
    }
}

/// The peer reads too slowly: its outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// The queue to one peer.
#[derive(Debug)]
pub struct Outbox<M> {
    state: Mutex<State<M>>,
    limit: usize,
    /// No more is taken; the reader of the same connection stops.
    closed: CancellationToken,
    /// The stream has ended or was dropped.
    gone: CancellationToken,
}

#[derive(Debug)]
struct State<M> {
    /// Boxed as the core made them: most outboxes are idle, and an empty place for
    /// the largest message would cost each of them more than all else.
    queue: VecDeque<(usize, Box<M>)>,
    /// The sum of the weights, which stand beside the messages.
    bytes: usize,
    /// Once set nothing more is taken; what is queued still goes out.
    end: Option<Result<(), Status>>,
    writer: Option<Waker>,
}

impl<M: Weigh> Outbox<M> {
    /// Takes up to `limit` bytes by estimate, and any one message when empty.
    pub fn new(limit: usize) -> Arc<Self> {
        let state = State { queue: VecDeque::new(), bytes: 0, end: None, writer: None };
        Arc::new(Self {
            state: Mutex::new(state),
            limit,
            closed: CancellationToken::new(),
            gone: CancellationToken::new(),
        })
    }

    /// Queues a message, without waking the writer: see [`wake`](Self::wake).
    /// After the end it is dropped silently.
    ///
    /// # Errors
    /// [`Overflow`] when the limit is exceeded; the message is dropped.
    pub fn push(&self, message: Box<M>) -> Result<(), Overflow> {
        let weight = message.weight();
        let mut state = self.lock();
        if state.end.is_some() {
            return Ok(());
        }
        if !state.queue.is_empty() && state.bytes + weight > self.limit {
            return Err(Overflow);
        }
        state.bytes += weight;
        state.queue.push_back((weight, message));
        Ok(())
    }

    /// Lets the writer see what was pushed. Apart from `push`, so that a batch
    /// of messages costs one wake-up and goes out in one frame.
    pub fn wake(&self) {
        let writer = self.lock().writer.take();
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Ends the stream after what is queued. The first end counts.
    pub fn close(&self, end: Result<(), Status>) {
        self.lock().end.get_or_insert(end);
        self.closed.cancel();
        self.wake();
    }

    /// Ends the stream at once; what is queued is lost.
    pub fn abort(&self, status: Status) {
        let mut state = self.lock();
        state.end = Some(Err(status));
        let lost = std::mem::take(&mut state.queue);
        state.bytes = 0;
        drop(state);
        drop(lost);
        self.closed.cancel();
        self.wake();
    }

    /// Waits for [`close`](Self::close), [`abort`](Self::abort), or the peer's
    /// leaving.
    pub fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.closed.cancelled()
    }

    /// Waits until all is written, or nobody writes any more.
    pub fn gone(&self) -> WaitForCancellationFuture<'_> {
        self.gone.cancelled()
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream that tonic writes to the socket. One for each [`Outbox`].
#[derive(Debug)]
pub struct OutboxStream<M: Weigh> {
    outbox: Arc<Outbox<M>>,
    batch: VecDeque<Box<M>>,
    ended: bool,
}

impl<M: Weigh> OutboxStream<M> {
    /// Of this outbox.
    pub fn new(outbox: Arc<Outbox<M>>) -> Self {
        Self { outbox, batch: VecDeque::new(), ended: false }
    }
}

impl<M: Weigh + Unpin> Stream for OutboxStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(message) = this.batch.pop_front() {
            return Poll::Ready(Some(Ok(*message)));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let mut guard = this.outbox.lock();
        let state = &mut *guard;
        // What is taken counts no more, and the peer may read nothing of it.
        let mut taken = 0;
        while this.batch.len() < OUTBOX_BATCH && taken < OUTBOX_BATCH_BYTES {
            let Some((weight, message)) = state.queue.pop_front() else { break };
            taken += weight;
            this.batch.push_back(message);
        }
        state.bytes = state.bytes.saturating_sub(taken);
        if let Some(message) = this.batch.pop_front() {
            if state.queue.is_empty() {
                // A burst must not hold its memory for the connection's life.
                state.queue.shrink_to(4);
            }
            return Poll::Ready(Some(Ok(*message)));
        }
        match state.end.take() {
            Some(end) => {
                state.end = Some(Ok(()));
                drop(guard);
                this.ended = true;
                this.outbox.gone.cancel();
                Poll::Ready(end.err().map(Err))
            }
            None => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<M: Weigh> Drop for OutboxStream<M> {
    fn drop(&mut self) {
        let mut state = self.outbox.lock();
        state.end.get_or_insert(Ok(()));
        let lost = std::mem::take(&mut state.queue);
        drop(state);
        drop(lost);
        self.outbox.closed.cancel();
        self.outbox.gone.cancel();
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
