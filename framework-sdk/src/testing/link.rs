//! A framework's link to the master, through memory.

use futures_util::StreamExt;
use mezz_proto::v1::scheduler::{Call, Event};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::world::Input;
use crate::drive::{CALLS_IN_FLIGHT, Connecting, Link, LinkEnd, Transport};

#[derive(Debug)]
pub(super) struct MemoryTransport {
    pub inputs: mpsc::WeakUnboundedSender<Input>,
}

impl Transport<Call, Event> for MemoryTransport {
    fn connect(&self, _: &str, _: Option<&str>, first: Call) -> Connecting<Call, Event> {
        let inputs = self.inputs.clone();
        Box::pin(async move { open(inputs, first).await })
    }
}

async fn open(
    weak: mpsc::WeakUnboundedSender<Input>,
    first: Call,
) -> Result<Link<Call, Event>, LinkEnd> {
    // Trying again would go on for ever, at no cost of time.
    let stopped = || LinkEnd::Refused("the test cluster has stopped".to_owned());
    let inputs = weak.upgrade().ok_or_else(stopped)?;
    let (calls, mut queue) = mpsc::channel(CALLS_IN_FLIGHT);
    let (events, stream) = mpsc::unbounded_channel();
    let (reply, connected) = oneshot::channel();
    let first = Box::new(first);
    inputs.send(Input::Connect { first, events, reply }).map_err(|_| stopped())?;
    drop(inputs);
    let connection = connected.await.map_err(|_| stopped())??;
    tokio::spawn(async move {
        while let Some(call) = queue.recv().await {
            let Some(inputs) = weak.upgrade() else { return };
            let _ = inputs.send(Input::Call { connection, call: Box::new(call) });
        }
        if let Some(inputs) = weak.upgrade() {
            let _ = inputs.send(Input::CallsEnded(connection));
        }
    });
    Ok(Link { calls, events: UnboundedReceiverStream::new(stream).boxed() })
}
