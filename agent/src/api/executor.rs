//! The gRPC service that custom executors speak with (behaviour rule 54).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mezz_proto::{mezz::v1::executor_server, v1::executor as wire};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Served,
    gate::{Gate, Turn},
};
use crate::{
    core::{CallError, ConnectionId, Event, Intake, Proof},
    shell::Input,
};

/// The metadata key of an executor's proof.
const TOKEN: &str = "mezz-executor-token";

/// A connection that says nothing for so long after its start is cut.
const FIRST_CALL: Duration = Duration::from_secs(10);

/// The way to one executor. The connection ends when it is dropped, after what
/// was sent.
pub(crate) struct Peer {
    events: mpsc::Sender<Result<wire::Event, Status>>,
    intake: watch::Sender<Intake>,
    _open: DropGuard,
}

impl Peer {
    /// With the gate of what comes from it. The peer's end cancels `open`, and nothing else
    /// may be meant by that.
    pub(super) fn new(
        events: mpsc::Sender<Result<wire::Event, Status>>,
        open: &CancellationToken,
    ) -> (Self, Gate) {
        let (intake, gate) = Gate::new();
        (Self { events, intake, _open: open.clone().drop_guard() }, gate)
    }

    /// Says what may come from it.
    pub(crate) fn take_in(&self, intake: Intake) {
        self.intake.send_replace(intake);
    }

    /// False when the executor is gone, or reads so slowly that its queue is full.
    pub(crate) fn send(&self, event: Result<wire::Event, Status>) -> bool {
        self.events.try_send(event).is_ok()
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
    type SubscribeStream = ReceiverStream<Result<wire::Event, Status>>;

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
        if !self.served.index.is_token(&token) {
            return Err(Status::unauthenticated(CallError::Unauthenticated.to_string()));
        }
        let connection = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = mpsc::channel(self.served.executor_queue);
        let inputs = self.served.inputs.clone();
        let stop = self.served.stop.clone();
        let calls = request.into_inner();
        tokio::spawn(async move {
            let open = stop.child_token();
            let (peer, gate) = Peer::new(sender, &open);
            if inputs.send(Input::ExecutorOpened { connection, peer }).await.is_err() {
                return;
            }
            open.run_until_cancelled(read(connection, token, calls, &gate, &inputs)).await;
            let ended = Event::ExecutorDisconnected { connection };
            let _ = inputs.send(Input::Core(ended)).await;
        });
        Ok(Response::new(ReceiverStream::new(events)))
    }
}

/// Passes calls on until the executor goes.
async fn read(
    connection: ConnectionId,
    token: String,
    mut calls: Streaming<wire::Call>,
    gate: &Gate,
    inputs: &mpsc::Sender<Input>,
) {
    let mut next = match tokio::time::timeout(FIRST_CALL, calls.message()).await {
        Ok(first) => first,
        Err(_) => return,
    };
    while let Ok(Some(call)) = next {
        // What comes behind it waits, too: in the socket, and so at the executor.
        let Ok(turn) = gate.pass(&call).await else { return };
        let proof = Proof::token(&token);
        let event = Event::ExecutorCall { connection, proof, call: Box::new(call) };
        if inputs.send(input(event, turn)).await.is_err() {
            return;
        }
        next = calls.message().await;
    }
}

/// A call that may come to the core, and a turn if it is an update.
pub(super) fn input(event: Event, turn: Option<Turn>) -> Input {
    match turn {
        Some(turn) => Input::Update { event, turn },
        None => Input::Core(event),
    }
}
