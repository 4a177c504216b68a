//! How gRPC messages become bytes: protobuf, with small buffers.

use std::marker::PhantomData;

use prost::{Message, Name, bytes::Buf};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::weight;

/// What a stream's buffers hold at first, in bytes. They grow with a message that
/// needs more. tonic's own 8 KiB, one each way, would be most of what an idle
/// agent costs a master.
const BUFFER: usize = 256;

/// Bytes of messages that wait at the same time and become one frame.
const COALESCE: usize = 32 << 10;

/// tonic's protobuf codec for many long and mostly idle streams. The generated
/// services and clients use it.
#[derive(Clone, Copy, Debug)]
pub struct LeanCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for LeanCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LeanCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = LeanDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, COALESCE))
    }

    fn decoder(&mut self) -> Self::Decoder {
        LeanDecoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER, COALESCE)))
    }
}

/// Weighs each message before it is decoded, whoever sends it: no service can forget to.
#[derive(Clone, Debug)]
pub struct LeanDecoder<U>(ProstDecoder<U>);

impl<U: Message + Name + Default> Decoder for LeanDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = from.chunk();
        if bytes.len() < from.remaining() {
            // tonic keeps a message in one piece.
            return Err(Status::internal("a message in pieces"));
        }
        weight::check::<U>(bytes).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.0.decode(from)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use tonic::{Code, Streaming, codec::EncodeBody, codegen::tokio_stream};

    use super::*;
    use crate::v1::{TaskInfo, executor::Call};

    /// A call with so many tasks that say nothing, as an executor sends it.
    fn sent(tasks: usize) -> Result<Option<Call>, Status> {
        let mut call = Call { subscribe: Some(Default::default()), ..Default::default() };
        if let Some(subscribe) = &mut call.subscribe {
            subscribe.unacknowledged_tasks = vec![TaskInfo::default(); tasks];
        }
        let mut codec = LeanCodec::<Call, Call>::default();
        let call = tokio_stream::once(Ok(call));
        let body = EncodeBody::new_client(codec.encoder(), call, None, None);
        let mut stream = Streaming::new_request(codec.decoder(), body, None, Some(64 << 20));
        // All of it is there, so nothing is waited for.
        match pin!(stream.message()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => read,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn a_message_is_weighed_before_it_is_decoded() {
        let read = sent(2).unwrap().unwrap();
        assert_eq!(read.subscribe.unwrap().unacknowledged_tasks.len(), 2);
        let refused = sent(10_000).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("too many parts"), "{refused}");
    }
}
