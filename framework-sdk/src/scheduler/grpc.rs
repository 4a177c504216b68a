//! Links to masters over gRPC (`mezz.v1.Scheduler`).

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use mezz_proto::{
    LEADER_KEY, TRIED_KEY,
    mezz::v1::scheduler_client::SchedulerClient,
    v1::scheduler::{Call, Event},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use crate::drive::{
    CALLS_IN_FLIGHT, Connecting, Link, LinkEnd, MAX_EVENT_BYTES, Transport, endpoint, error_text,
    status_end,
};

/// Remembers where it failed last, so that a standby waits for another leader.
#[derive(Default)]
pub(crate) struct GrpcTransport {
    tried: Tried,
}

impl Transport<Call, Event> for GrpcTransport {
    fn connect(&self, target: &str, first: Call) -> Connecting<Call, Event> {
        let (address, tried) = (target.to_owned(), self.tried.clone());
        Box::pin(async move { open(address, first, tried).await })
    }
}

/// The master at which the last link failed.
#[derive(Clone, Default)]
struct Tried(Arc<Mutex<Option<String>>>);

impl Tried {
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, address: &str) {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *tried = Some(address.trim_start_matches("http://").to_owned());
    }

    /// What a status means, noted.
    fn link_end(&self, address: &str, status: &Status) -> LinkEnd {
        let end = link_end(address, status);
        if matches!(end, LinkEnd::Lost(_)) {
            self.set(address);
        }
        end
    }
}

async fn open(address: String, first: Call, tried: Tried) -> Result<Link<Call, Event>, LinkEnd> {
    let unreachable = |e: tonic::transport::Error| {
        tried.set(&address);
        LinkEnd::Lost(format!("{address}: {}", error_text(&e)))
    };
    let channel = endpoint(&address).map_err(unreachable)?.connect().await.map_err(unreachable)?;
    let mut client = SchedulerClient::new(channel).max_decoding_message_size(MAX_EVENT_BYTES);
    let (calls, receiver) = mpsc::channel(CALLS_IN_FLIGHT);
    // Cannot fail: the channel is new and its receiver alive.
    let _ = calls.try_send(first);
    let mut request = Request::new(ReceiverStream::new(receiver));
    if let Some(Ok(tried)) = tried.get().as_deref().map(str::parse) {
        request.metadata_mut().insert(TRIED_KEY, tried);
    }
    let response = client.subscribe(request).await;
    let stream = response.map_err(|s| tried.link_end(&address, &s))?.into_inner();
    let events = stream.map(move |event| event.map_err(|s| tried.link_end(&address, &s)));
    Ok(Link { calls, events: Box::pin(events) })
}

fn link_end(address: &str, status: &Status) -> LinkEnd {
    match status.metadata().get(LEADER_KEY) {
        Some(leader) if status.code() == Code::Unavailable => LinkEnd::NotLeading {
            leader: leader.to_str().ok().filter(|l| !l.is_empty()).map(str::to_owned),
        },
        _ => status_end(address, status),
    }
}
