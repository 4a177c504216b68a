//! Links to masters over gRPC (`mezz.v1.Scheduler`).

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use mezz_proto::{
    LEADER_KEY, TRIED_KEY,
    credential::Credential,
    mezz::v1::scheduler_client::SchedulerClient,
    v1::scheduler::{Call, Event},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};

use crate::drive::{
    CALLS_IN_FLIGHT, Connecting, Link, LinkEnd, MAX_EVENT_BYTES, Transport, endpoint, error_text,
    status_end,
};

/// Metadata key of the framework's proof of who it is: HTTP's own header.
const PROOF_KEY: &str = "authorization";

pub(crate) struct GrpcTransport {
    proof: Option<AsciiMetadataValue>,
}

impl GrpcTransport {
    pub fn new(credential: Option<&Credential>) -> Self {
        // Base64 is always a value.
        let proof = credential.and_then(|known| known.header().parse().ok());
        Self {
            proof: proof.map(|mut proof: AsciiMetadataValue| {
                proof.set_sensitive(true);
                proof
            }),
        }
    }
}

impl Transport<Call, Event> for GrpcTransport {
    fn connect(&self, target: &str, tried: Option<&str>, first: Call) -> Connecting<Call, Event> {
        let (address, tried) = (target.to_owned(), tried.map(str::to_owned));
        let proof = self.proof.clone();
        Box::pin(async move { open(address, tried, proof, first).await })
    }
}

async fn open(
    address: String,
    tried: Option<String>,
    proof: Option<AsciiMetadataValue>,
    first: Call,
) -> Result<Link<Call, Event>, LinkEnd> {
    let unreachable =
        |e: tonic::transport::Error| LinkEnd::Lost(format!("{address}: {}", error_text(&e)));
    let channel = endpoint(&address).map_err(unreachable)?.connect().await.map_err(unreachable)?;
    let mut client = SchedulerClient::new(channel).max_decoding_message_size(MAX_EVENT_BYTES);
    let (calls, receiver) = mpsc::channel(CALLS_IN_FLIGHT);
    // Cannot fail: the channel is new and its receiver alive.
    let _ = calls.try_send(first);
    let mut request = Request::new(ReceiverStream::new(receiver));
    if let Some(Ok(tried)) = tried.as_deref().map(str::parse) {
        request.metadata_mut().insert(TRIED_KEY, tried);
    }
    if let Some(proof) = proof {
        request.metadata_mut().insert(PROOF_KEY, proof);
    }
    let asked = Instant::now();
    let response = client.subscribe(request).await;
    let stream = response.map_err(|s| link_end(&address, &s, asked.elapsed()))?.into_inner();
    let events = stream.map(move |event| event.map_err(|s| link_end(&address, &s, Duration::ZERO)));
    Ok(Link { calls, events: Box::pin(events) })
}

fn link_end(address: &str, status: &Status, after: Duration) -> LinkEnd {
    match status.metadata().get(LEADER_KEY) {
        Some(leader) if status.code() == Code::Unavailable => LinkEnd::NotLeading {
            leader: leader.to_str().ok().filter(|l| !l.is_empty()).map(str::to_owned),
            after,
        },
        _ => status_end(address, status),
    }
}
