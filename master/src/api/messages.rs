//! The messages of a stream as they come from the socket: cut apart, but not yet
//! decoded. A decoded message is several times as large as its bytes, and when all
//! agents come back at once most of them wait for the core.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use tonic::Status;

/// gRPC's prefix of each message: whether it is compressed (one byte), and its
/// length (four).
const PREFIX: usize = 5;

/// Reads a request's messages. It holds nothing between two of them, where tonic's
/// own reader keeps the room of the largest.
#[derive(Debug)]
pub struct Messages {
    frames: axum::body::BodyDataStream,
    /// What came and was not taken, while that is one frame or the rest of one.
    rest: Bytes,
    /// The same, once it is more than one frame; else empty.
    joined: BytesMut,
    limit: usize,
}

impl Messages {
    /// Of this request body; none may be longer than `limit` bytes.
    pub fn new(body: axum::body::Body, limit: usize) -> Self {
        Self { frames: body.into_data_stream(), rest: Bytes::new(), joined: BytesMut::new(), limit }
    }

    /// The next one; `None` when the peer has sent its last. May be dropped and
    /// called again.
    ///
    /// # Errors
    /// The stream broke, or is no gRPC stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.frames.next().await {
                Some(Ok(frame)) => self.append(frame),
                Some(Err(error)) => return Err(Status::from_error(error.into_inner())),
                None if self.waiting().is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ended within a message")),
            }
        }
    }

    fn waiting(&self) -> &[u8] {
        if self.joined.is_empty() { &self.rest } else { &self.joined }
    }

    fn append(&mut self, frame: Bytes) {
        if self.waiting().is_empty() {
            self.rest = frame;
            return;
        }
        if self.joined.is_empty() {
            self.joined = BytesMut::from(&*std::mem::take(&mut self.rest));
        }
        self.joined.extend_from_slice(&frame);
    }

    /// The first message, if all of it is there.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let waiting = self.waiting();
        let Some((&[compressed, a, b, c, d], rest)) = waiting.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err(Status::unimplemented("compressed messages are not taken here"));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.limit {
            return Err(Status::out_of_range(format!(
                "a message of {length} bytes is too large: the limit is {} bytes",
                self.limit
            )));
        }
        if rest.len() < length {
            return Ok(None);
        }
        if !self.joined.is_empty() {
            self.rest = std::mem::take(&mut self.joined).freeze();
        }
        self.rest.advance(PREFIX);
        let message = self.rest.split_to(length);
        if self.rest.is_empty() {
            // An empty end of a frame would keep all of it.
            self.rest = Bytes::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut out = vec![0];
        out.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        out.extend(message);
        out
    }

    fn reader(bytes: &[u8], frame: usize, limit: usize) -> Messages {
        let frames: Vec<_> =
            bytes.chunks(frame).map(|f| Ok::<_, Status>(Bytes::copy_from_slice(f))).collect();
        let stream = futures_util::stream::iter(frames);
        Messages::new(axum::body::Body::from_stream(stream), limit)
    }

    #[tokio::test]
    async fn messages_are_found_however_they_are_cut() {
        let texts = ["one", "", "a somewhat longer message", "x"];
        let bytes: Vec<u8> = texts.iter().flat_map(|t| framed(t.as_bytes())).collect();
        for frame in 1..=bytes.len() {
            let mut messages = reader(&bytes, frame, 100);
            for text in texts {
                assert_eq!(messages.next().await.unwrap().unwrap(), text.as_bytes(), "{frame}");
            }
            assert_eq!(messages.next().await.unwrap(), None);
            assert_eq!(messages.rest.len() + messages.joined.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn what_is_no_grpc_is_refused() {
        let long = reader(&framed(b"eleven bytes"), 100, 11).next().await.unwrap_err();
        assert_eq!(long.code(), Code::OutOfRange, "{long:?}");
        let mut compressed = framed(b"message");
        compressed[0] = 1;
        let compressed = reader(&compressed, 100, 100).next().await.unwrap_err();
        assert_eq!(compressed.code(), Code::Unimplemented, "{compressed:?}");
        let whole = framed(b"message");
        for cut in 1..whole.len() {
            let error = reader(&whole[..cut], 100, 100).next().await.unwrap_err();
            assert_eq!(error.code(), Code::Internal, "{cut}: {error:?}");
        }
    }
}
