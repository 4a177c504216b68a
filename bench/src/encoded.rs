//! Messages that are encoded before they are measured: what the load generator does
//! beside the master should be little of the two cores' work.

use mezz_proto::{
    TRIED_KEY,
    codec::LeanCodec,
    mezz::v1::{AgentMessage, MasterMessage, agent_message},
};
use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{DecodeContext, WireType, skip_field},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery,
    transport::Channel,
};

/// An agent's message as bytes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Of this message.
    pub fn new(message: agent_message::Message) -> Self {
        Self(AgentMessage { message: Some(message) }.encode_to_vec().into())
    }
}

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    /// Nothing is ever read as this.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Opens an agent's link; `tried` is the master at which it has just failed.
pub async fn connect(
    channel: Channel,
    outgoing: ReceiverStream<Encoded>,
    tried: Option<&str>,
) -> Result<Streaming<MasterMessage>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(outgoing);
    if let Some(Ok(tried)) = tried.map(str::parse) {
        request.metadata_mut().insert(TRIED_KEY, tried);
    }
    let path = PathAndQuery::from_static("/mezz.v1.AgentLink/Connect");
    let codec = LeanCodec::<Encoded, MasterMessage>::default();
    grpc.streaming(request, path, codec).await.map(Response::into_inner)
}
