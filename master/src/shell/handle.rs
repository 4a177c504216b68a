//! How the network side reaches the core.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mezz_http::{Bodies, Room, Settings};
use mezz_proto::v1::scheduler::Call;
use prost::Message as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    core_loop::Input,
    dispatch::Answer,
    limits::{
        ADMISSION_BYTES, AGENT_ADMISSIONS, AGENT_MESSAGES_KIB, CALL_ADMISSIONS, CALL_BODIES_KIB,
        CORE_QUEUE, FRAMEWORK_ADMISSIONS, FRAMEWORK_MESSAGES_KIB, OPERATOR_BODIES_KIB,
        ROOM_TIMEOUT,
    },
    lone_call::{CallAnswer, Caller, LoneCall},
};
use crate::core::{ConnectionId, Counters, OperatorCommand};

/// The core's loop has ended: the master stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The master stops.
    Stopped,
    /// It took too long.
    TooLate,
}

/// The turn of a stream to say its first message, or of a call. Dropped when the core has taken that.
pub type Turn = OwnedSemaphorePermit;

/// Whose turns do not depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Frameworks.
    Frameworks,
    /// Agents.
    Agents,
    /// Calls of frameworks that come by themselves.
    Calls,
}

/// Sends inputs to the core's loop.
#[derive(Clone, Debug)]
pub struct CoreHandle {
    inputs: mpsc::Sender<Input>,
    connections: Arc<AtomicU64>,
    frameworks: Arc<Semaphore>,
    agents: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    framework_messages: Arc<Semaphore>,
    agent_messages: Arc<Semaphore>,
    call_bodies: Bodies,
    operator_bodies: Bodies,
}

fn bodies(kib: usize) -> Bodies {
    Bodies::new(Settings { small_kib: kib, large_kib: kib, patience: ROOM_TIMEOUT })
}

impl CoreHandle {
    /// With the loop's end of the queue.
    pub fn new() -> (Self, mpsc::Receiver<Input>) {
        let (inputs, receiver) = mpsc::channel(CORE_QUEUE);
        let line = |places: u32| Arc::new(Semaphore::new(places as usize));
        let handle = Self {
            inputs,
            connections: Arc::new(AtomicU64::new(0)),
            frameworks: line(FRAMEWORK_ADMISSIONS),
            agents: line(AGENT_ADMISSIONS),
            calls: line(CALL_ADMISSIONS),
            framework_messages: Arc::new(Semaphore::new(FRAMEWORK_MESSAGES_KIB)),
            agent_messages: Arc::new(Semaphore::new(AGENT_MESSAGES_KIB)),
            call_bodies: bodies(CALL_BODIES_KIB),
            operator_bodies: bodies(OPERATOR_BODIES_KIB),
        };
        (handle, receiver)
    }

    /// Waits for one's turn to say a message of so many bytes. First come, first served.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn turn(&self, line: Line, bytes: usize) -> Result<Turn, Stopped> {
        let (line, most) = match line {
            Line::Frameworks => (&self.frameworks, FRAMEWORK_ADMISSIONS),
            Line::Agents => (&self.agents, AGENT_ADMISSIONS),
            Line::Calls => (&self.calls, CALL_ADMISSIONS),
        };
        let places = u32::try_from(1 + bytes / ADMISSION_BYTES).unwrap_or(most).min(most);
        line.clone().acquire_many_owned(places).await.map_err(|_| Stopped)
    }

    /// Room for large messages on streams, in KiB.
    pub fn large_messages(&self, line: Line) -> Arc<Semaphore> {
        match line {
            Line::Agents => Arc::clone(&self.agent_messages),
            Line::Frameworks | Line::Calls => Arc::clone(&self.framework_messages),
        }
    }

    /// Room for the bodies of frameworks' calls.
    pub fn call_bodies(&self) -> &Bodies {
        &self.call_bodies
    }

    /// Room for those of operators' requests, which keep no framework out.
    pub fn operator_bodies(&self) -> &Bodies {
        &self.operator_bodies
    }

    /// Makes a framework's call that came by itself, and waits for its answer.
    ///
    /// # Errors
    /// [`Stopped`]; the call may have been done nevertheless.
    pub async fn call(
        &self,
        call: Box<Call>,
        caller: Caller,
        room: Room,
    ) -> Result<CallAnswer, Stopped> {
        let (reply, answer) = oneshot::channel();
        let turn = self.turn(Line::Calls, call.encoded_len()).await?;
        self.send(Input::Call(LoneCall { call, caller, room, turn, reply })).await?;
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| Stopped),
            // The call may lie in the queue that nobody reads any more, and that lasts as long
            // as this handle.
            () = self.stopped() => Err(Stopped),
        }
    }

    /// Resolves when the core's loop has ended.
    pub async fn stopped(&self) {
        self.inputs.closed().await;
    }

    /// A number that no connection had before.
    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Queues an input; waits while the queue is full.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.inputs.send(input).await.map_err(|_| Stopped)
    }

    /// Waits until so many inputs can be queued, and keeps the places for them.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn room(&self, inputs: usize) -> Result<mpsc::PermitIterator<'_, Input>, Stopped> {
        self.inputs.reserve_many(inputs).await.map_err(|_| Stopped)
    }

    /// Asks the core on behalf of an operator.
    ///
    /// # Errors
    /// [`NoAnswer`]; the request may have been done nevertheless.
    pub async fn operate(
        &self,
        command: OperatorCommand,
        limit: Duration,
    ) -> Result<Answer, NoAnswer> {
        self.ask(limit, |reply| Input::Operator(command, reply)).await
    }

    /// The core's counters, from a loop that is alive.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn probe(&self, limit: Duration) -> Result<Counters, NoAnswer> {
        self.ask(limit, Input::Probe).await
    }

    async fn ask<T>(
        &self,
        limit: Duration,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.send(input(reply)).await.map_err(|Stopped| NoAnswer::Stopped)?;
            answer.await.map_err(|_| NoAnswer::Stopped)
        };
        timeout(limit, asking).await.unwrap_or(Err(NoAnswer::TooLate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_the_core_does_not_take_is_answered() {
        let (core, mut inputs) = CoreHandle::new();
        let room = core.call_bodies().collect(axum::body::Body::empty(), 1).await.unwrap().1;
        let asking = tokio::spawn({
            let core = core.clone();
            async move { core.call(Box::default(), Caller::default(), room).await }
        });
        while inputs.is_empty() {
            tokio::task::yield_now().await;
        }
        // As when the loop ends with the call in its queue.
        inputs.close();
        let answer = timeout(Duration::from_secs(10), asking).await.expect("it waits for ever");
        assert!(matches!(answer.unwrap(), Err(Stopped)));
    }

    /// However many calls there are, and however long they are, others find a place.
    #[tokio::test]
    async fn calls_do_not_fill_the_queue() {
        let (core, mut inputs) = CoreHandle::new();
        let call = |bytes| {
            let core = core.clone();
            tokio::spawn(async move {
                let room = core.call_bodies().room(1).await.unwrap();
                let id = mezz_proto::v1::FrameworkId { value: "x".repeat(bytes) };
                let call = Call { framework_id: Some(id), ..Default::default() };
                core.call(Box::new(call), Caller::default(), room).await.is_ok()
            })
        };
        let calls: Vec<_> = (0..2 * CORE_QUEUE).map(|_| call(1)).collect();
        let settle = async || {
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
        };
        settle().await;
        assert_eq!(inputs.len(), CALL_ADMISSIONS as usize);
        core.send(Input::Ended(ConnectionId(1))).await.unwrap();
        // One that is taken makes place for the next.
        assert!(matches!(inputs.recv().await, Some(Input::Call(_))));
        settle().await;
        assert_eq!(inputs.len(), CALL_ADMISSIONS as usize + 1);
        for call in calls {
            call.abort();
        }
        settle().await;
        while inputs.try_recv().is_ok() {}
        let calls: Vec<_> = (0..100).map(|_| call(1 << 20)).collect();
        settle().await;
        let long = 1 + (1 << 20) / ADMISSION_BYTES;
        assert_eq!(inputs.len(), CALL_ADMISSIONS as usize / long);
        drop(calls);
    }
}
