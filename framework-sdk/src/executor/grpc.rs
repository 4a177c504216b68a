//! Links to agents over gRPC (`mezz.v1.Executor`).

use futures_util::StreamExt;
use mezz_proto::{
    mezz::v1::executor_client::ExecutorClient,
    v1::executor::{Call, Event},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::ExecutorOptions;
use crate::drive::{
    CALLS_IN_FLIGHT, Connecting, Link, LinkEnd, MAX_EVENT_BYTES, Transport, endpoint, error_text,
    status_end,
};

/// Metadata key of the executor's proof of who it is.
const TOKEN_KEY: &str = "mezz-executor-token";

pub(super) struct GrpcTransport {
    token: Option<String>,
}

impl GrpcTransport {
    pub fn new(options: &ExecutorOptions) -> Self {
        Self { token: options.token.clone() }
    }
}

impl Transport<Call, Event> for GrpcTransport {
    fn connect(&self, target: &str, _: Option<&str>, first: Call) -> Connecting<Call, Event> {
        let (address, token) = (target.to_owned(), self.token.clone());
        Box::pin(async move { open(address, token, first).await })
    }
}

async fn open(
    address: String,
    token: Option<String>,
    first: Call,
) -> Result<Link<Call, Event>, LinkEnd> {
    let unreachable =
        |e: tonic::transport::Error| LinkEnd::Lost(format!("{address}: {}", error_text(&e)));
    let channel = endpoint(&address).map_err(unreachable)?.connect().await.map_err(unreachable)?;
    let mut client = ExecutorClient::new(channel).max_decoding_message_size(MAX_EVENT_BYTES);
    let (calls, receiver) = mpsc::channel(CALLS_IN_FLIGHT);
    // Cannot fail: the channel is new and its receiver alive.
    let _ = calls.try_send(first);
    let mut request = Request::new(ReceiverStream::new(receiver));
    if let Some(token) = token {
        let token = token.parse().map_err(|_| {
            LinkEnd::Refused("MEZZ_EXECUTOR_TOKEN holds characters that no token has".to_owned())
        })?;
        request.metadata_mut().insert(TOKEN_KEY, token);
    }
    let response = client.subscribe(request).await;
    let stream = response.map_err(|s| status_end(&address, &s))?.into_inner();
    let events = stream.map(move |event| event.map_err(|s| status_end(&address, &s)));
    Ok(Link { calls, events: Box::pin(events) })
}
