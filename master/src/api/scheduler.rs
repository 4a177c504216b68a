//! What frameworks speak.

use mezz_proto::{mezz::v1::scheduler_server::Scheduler, v1::scheduler};
use tonic::{Request, Response, Status, Streaming};

use super::stream::open_stream;
use crate::{
    core::Event,
    shell::{
        dispatch::Peer, handle::CoreHandle, limits::SCHEDULER_OUTBOX_BYTES, outbox::OutboxStream,
    },
};

/// The gRPC service.
#[derive(Debug)]
pub struct SchedulerService {
    /// Where calls go.
    pub core: CoreHandle,
}

#[tonic::async_trait]
impl Scheduler for SchedulerService {
    type SubscribeStream = OutboxStream<scheduler::Event>;

    async fn subscribe(
        &self,
        request: Request<Streaming<scheduler::Call>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let stream = open_stream(
            self.core.clone(),
            request.into_inner(),
            SCHEDULER_OUTBOX_BYTES,
            Peer::Scheduler,
            |connection, call| Event::SchedulerCall { connection, call },
        );
        Ok(Response::new(stream))
    }
}
