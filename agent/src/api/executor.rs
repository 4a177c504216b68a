//! The gRPC service that custom executors speak with (behaviour rule 54).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::Map};
use mezz_proto::{
    ids::{ExecutorId, FrameworkId},
    mezz::v1::executor_server,
    v1::executor as wire,
};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use super::{Served, executors::Executors};
use crate::{
    core::{CallError, ConnectionId, Event, ExecutorKey, Proof},
    shell::Input,
};

/// The metadata key of an executor's proof.
const TOKEN: &str = "mezz-executor-token";

/// A connection that says nothing for so long after its start is cut.
const FIRST_CALL: Duration = Duration::from_secs(10);

/// What may wait for one executor, encoded, in KiB. A single event may have all of it.
const WAITING_KIB: u32 = 64 << 10;

/// An event on its way to an executor, and its part of what may wait.
pub(super) struct Waiting {
    pub(super) event: Result<wire::Event, Status>,
    pub(super) room: OwnedSemaphorePermit,
}

/// The way to one executor. The connection ends when it is dropped, after what
/// was sent.
pub(crate) struct Peer {
    events: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    _open: DropGuard,
}

impl Peer {
    /// The peer's end cancels `open`, and nothing else may be meant by that.
    pub(super) fn new(events: mpsc::Sender<Waiting>, open: &CancellationToken) -> Self {
        let room = Arc::new(Semaphore::new(WAITING_KIB as usize));
        Self { events, room, _open: open.clone().drop_guard() }
    }

    /// False when the executor is gone, or reads so slowly that too many events or bytes
    /// wait for it.
    pub(crate) fn send(&self, event: Result<wire::Event, Status>) -> bool {
        let bytes = event.as_ref().map_or(0, Message::encoded_len);
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(WAITING_KIB).clamp(1, WAITING_KIB);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(kib) else { return false };
        self.events.try_send(Waiting { event, room }).is_ok()
    }
}

pub(super) struct Service {
    served: Arc<Served>,
    connections: Arc<AtomicU64>,
}

impl Service {
    /// `connections` numbers those of HTTP, too.
    pub(super) fn new(served: Arc<Served>, connections: Arc<AtomicU64>) -> Self {
        Self { served, connections }
    }
}

#[tonic::async_trait]
impl executor_server::Executor for Service {
    type SubscribeStream = Map<ReceiverStream<Waiting>, fn(Waiting) -> Result<wire::Event, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<wire::Call>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let token = request
            .metadata()
            .get(TOKEN)
            .and_then(|token| token.to_str().ok())
            .ok_or_else(|| {
                Status::unauthenticated(format!(
                    "metadata {TOKEN} is missing; an executor finds its value in \
                     MEZZ_EXECUTOR_TOKEN"
                ))
            })?
            .to_owned();
        // Before anything of it is read.
        if !self.served.executors.is_token(&token) {
            return Err(Status::unauthenticated(CallError::Unauthenticated.to_string()));
        }
        let connection = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = mpsc::channel(self.served.executor_queue);
        let (inputs, stop) = (self.served.inputs.clone(), self.served.stop.clone());
        let executors = Arc::clone(&self.served.executors);
        let calls = request.into_inner();
        tokio::spawn(async move {
            let open = stop.child_token();
            let peer = Peer::new(sender, &open);
            if inputs.send(Input::ExecutorOpened { connection, peer }).await.is_err() {
                return;
            }
            open.run_until_cancelled(read(connection, token, calls, &executors, &inputs)).await;
            let ended = Event::ExecutorDisconnected { connection };
            let _ = inputs.send(Input::Core(ended)).await;
        });
        Ok(Response::new(ReceiverStream::new(events).map(|waiting| waiting.event)))
    }
}

/// Passes calls on until the executor goes.
async fn read(
    connection: ConnectionId,
    token: String,
    mut calls: Streaming<wire::Call>,
    executors: &Executors,
    inputs: &mpsc::Sender<Input>,
) {
    let mut next = match tokio::time::timeout(FIRST_CALL, calls.message()).await {
        Ok(first) => first,
        Err(_) => return,
    };
    while let Ok(Some(call)) = next {
        let proof = Proof::token(&token);
        let key = ExecutorKey {
            framework: FrameworkId::from(&call.framework_id),
            executor: ExecutorId::from(&call.executor_id),
        };
        // What comes behind it waits, too: in the socket, and so at the executor.
        let turn = match executors.gate(&key, &proof) {
            Some(gate) => match gate.pass(&call).await {
                Ok(turn) => turn,
                Err(_) => return,
            },
            None => None,
        };
        let event = Event::ExecutorCall { connection, proof, call: Box::new(call) };
        if inputs.send(Input::Call { event, room: None, turn }).await.is_err() {
            return;
        }
        next = calls.message().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_an_executor_is_bounded_in_bytes() {
        let (sender, mut events) = mpsc::channel(1_000);
        let peer = Peer::new(sender, &CancellationToken::new());
        let message = |bytes: usize| {
            let message = Some(wire::event::Message { data: vec![0; bytes] });
            Ok(wire::Event { message, ..Default::default() })
        };
        let mut sent = 0;
        while peer.send(message(4 << 20)) {
            sent += 1;
        }
        assert_eq!(sent, 15, "of a little more than 4 MiB");
        drop(events.try_recv().unwrap());
        assert!(peer.send(message(4 << 20)), "there is room again");
        while events.try_recv().is_ok() {}
        assert!(peer.send(message(100 << 20)), "one alone may be larger");
        assert!(!peer.send(message(0)));
    }
}
