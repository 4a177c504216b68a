//! What agents speak.

use mezz_proto::mezz::v1::{AgentMessage, MasterMessage, agent_link_server::AgentLink};
use tonic::{Request, Response, Status, Streaming};

use super::stream::open_stream;
use crate::{
    core::Event,
    shell::{dispatch::Peer, handle::CoreHandle, limits::AGENT_OUTBOX_BYTES, outbox::OutboxStream},
};

/// The gRPC service.
#[derive(Debug)]
pub struct AgentLinkService {
    /// Where messages go.
    pub core: CoreHandle,
}

#[tonic::async_trait]
impl AgentLink for AgentLinkService {
    type ConnectStream = OutboxStream<MasterMessage>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let stream = open_stream(
            self.core.clone(),
            request.into_inner(),
            AGENT_OUTBOX_BYTES,
            Peer::Agent,
            |connection, message| Event::AgentMessage { connection, message },
        );
        Ok(Response::new(stream))
    }
}
