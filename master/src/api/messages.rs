//! The messages of a stream as they come from the socket: cut apart, but not yet
//! decoded. A decoded message is several times as large as its bytes, and when all
//! agents come back at once most of them wait for the core. What is in memory of large ones
//! is bounded for all streams together.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tonic::Status;

use crate::shell::limits::{LARGE_MESSAGE_BYTES, LARGE_MESSAGE_TIMEOUT};

/// gRPC's prefix of each message: whether it is compressed (one byte), and its
/// length (four).
const PREFIX: usize = 5;

/// A message as it came.
#[derive(Debug)]
pub struct Arrived {
    /// Not decoded.
    pub bytes: Bytes,
    /// The room of a large one, to be dropped when the core has it.
    pub room: Option<OwnedSemaphorePermit>,
}

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
    /// For what has come of large messages, in KiB.
    pool: Arc<Semaphore>,
    /// What of it this stream has, for the message that is coming.
    room: Option<OwnedSemaphorePermit>,
    /// When that message must be there.
    due: Option<Instant>,
}

impl Messages {
    /// Of this request body; none may be longer than `limit` bytes. Large ones share the
    /// KiB of `pool`, which must have room for one.
    pub fn new(body: axum::body::Body, limit: usize, pool: Arc<Semaphore>) -> Self {
        Self {
            frames: body.into_data_stream(),
            rest: Bytes::new(),
            joined: BytesMut::new(),
            limit,
            pool,
            room: None,
            due: None,
        }
    }

    /// The next one; `None` when the peer has sent its last. May be dropped and
    /// called again.
    ///
    /// # Errors
    /// The stream broke, is no gRPC stream, or has not brought all of a large message in time.
    pub async fn next(&mut self) -> Result<Option<Arrived>, Status> {
        loop {
            if let Some(bytes) = self.take()? {
                self.due = None;
                return Ok(Some(Arrived { bytes, room: self.room.take() }));
            }
            self.make_room().await?;
            let frame = match self.due {
                Some(due) => timeout_at(due, self.frames.next()).await.map_err(|_| {
                    Status::deadline_exceeded("the rest of a large message did not come in time")
                })?,
                None => self.frames.next().await,
            };
            match frame {
                Some(Ok(frame)) => self.append(frame),
                Some(Err(error)) => return Err(Status::from_error(error.into_inner())),
                None if self.waiting().is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ended within a message")),
            }
        }
    }

    /// What has come of a large message takes room before more of it is read: who only
    /// announces one takes none.
    async fn make_room(&mut self) -> Result<(), Status> {
        let bytes = self.waiting().len();
        if bytes <= LARGE_MESSAGE_BYTES {
            return Ok(());
        }
        let due = *self.due.get_or_insert_with(|| Instant::now() + LARGE_MESSAGE_TIMEOUT);
        let has = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(1024).saturating_sub(has);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        let room = timeout_at(due, self.pool.clone().acquire_many_owned(missing)).await;
        let Ok(Ok(room)) = room else {
            return Err(Status::resource_exhausted(
                "too many large messages are being read; connect again in a moment",
            ));
        };
        match &mut self.room {
            Some(held) => held.merge(room),
            None => self.room = Some(room),
        }
        Ok(())
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
        Messages::new(axum::body::Body::from_stream(stream), limit, Arc::new(Semaphore::new(64)))
    }

    #[tokio::test]
    async fn messages_are_found_however_they_are_cut() {
        let texts = ["one", "", "a somewhat longer message", "x"];
        let bytes: Vec<u8> = texts.iter().flat_map(|t| framed(t.as_bytes())).collect();
        for frame in 1..=bytes.len() {
            let mut messages = reader(&bytes, frame, 100);
            for text in texts {
                let arrived = messages.next().await.unwrap().unwrap();
                assert_eq!(arrived.bytes, text.as_bytes(), "{frame}");
                assert!(arrived.room.is_none());
            }
            assert!(messages.next().await.unwrap().is_none());
            assert_eq!(messages.rest.len() + messages.joined.capacity(), 0);
        }
    }

    /// What came of it, and nothing more.
    fn stalled(message: &[u8], pool: &Arc<Semaphore>) -> Messages {
        let frames = framed(message);
        let frames: Vec<_> = frames
            .chunks(1 << 14)
            .take(6)
            .map(|frame| Ok::<_, Status>(Bytes::copy_from_slice(frame)))
            .collect();
        let stream = futures_util::stream::iter(frames).chain(futures_util::stream::pending());
        Messages::new(axum::body::Body::from_stream(stream), 1 << 20, pool.clone())
    }

    #[tokio::test]
    async fn large_messages_share_room_and_must_come_in_time() {
        let pool = Arc::new(Semaphore::new(150));
        let message = vec![7; 96_000];
        let mut first = stalled(&message, &pool);
        let first = first.next().await.unwrap().unwrap();
        assert_eq!(first.bytes, message);
        assert!(pool.available_permits() < 90, "{}", pool.available_permits());
        // The second waits for the rest of its room, and time goes on.
        let mut second = stalled(&message, &pool);
        {
            let waiting = second.next();
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
            drop(first);
            assert_eq!(waiting.await.unwrap().unwrap().bytes, message);
        }
        drop(second);
        assert_eq!(pool.available_permits(), 150);
        // One that does not come to its end.
        tokio::time::pause();
        let mut never = stalled(&[7; 200_000], &pool);
        let error = never.next().await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
        drop(never);
        // One that finds no room.
        let all = pool.clone().acquire_many_owned(150).await.unwrap();
        let error = stalled(&message, &pool).next().await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
        drop(all);
        assert_eq!(pool.available_permits(), 150);
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
