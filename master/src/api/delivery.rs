//! Made answers on their way to their readers: bounded in memory all together, and cut off
//! when a reader is too slow. TCP's own timer does not see a stream of HTTP/2 whose window
//! stays closed, nor who takes a byte a second.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};

use mezz_http::limits::UNREAD_TIMEOUT;

use crate::shell::limits::{ANSWER_PIECE, SLOWEST_READER};

/// Room for made answers that are not read yet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UnreadRoom {
    free: Arc<Semaphore>,
    /// All of it, in KiB.
    all: u32,
}

/// An answer and its part of the room, which is given back with the last copy of it.
struct Held {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl UnreadRoom {
    /// For so many KiB.
    pub fn of(kib: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(kib as usize)), all: kib }
    }

    /// The answer, shared by all its readers; `None` if there is no room for it. One that is
    /// larger than all the room needs the whole of it.
    pub fn hold(&self, bytes: Vec<u8>) -> Option<Bytes> {
        if bytes.capacity() <= ANSWER_PIECE {
            return Some(bytes.into());
        }
        let kib = u32::try_from(1 + bytes.capacity() / 1024).unwrap_or(u32::MAX);
        let room = self.free.clone().try_acquire_many_owned(kib.min(self.all)).ok()?;
        Some(Bytes::from_owner(Held { bytes, _room: room }))
    }
}

/// The reader was too slow.
#[derive(Clone, Copy, Debug, Error)]
#[error("the answer was not read in time")]
struct Cut;

/// The writing end of a body. What is written is copied in small pieces: a reader that
/// stops holds two of them, and not the answer.
#[derive(Debug)]
pub struct Writer(mpsc::Sender<Bytes>);

impl Writer {
    /// Writes all of it; `false` when the reader has gone or is too slow. It has
    /// [`UNREAD_TIMEOUT`] for each piece, and [`SLOWEST_READER`] for all.
    pub async fn write(&self, part: &[u8]) -> bool {
        self.write_within(part, UNREAD_TIMEOUT).await
    }

    async fn write_within(&self, part: &[u8], unread: Duration) -> bool {
        let all = Instant::now() + unread + Duration::from_secs(part.len() as u64 / SLOWEST_READER);
        for piece in part.chunks(ANSWER_PIECE) {
            let by = all.min(Instant::now() + unread);
            match timeout_at(by, self.0.reserve()).await {
                Ok(Ok(place)) => place.send(Bytes::copy_from_slice(piece)),
                _ => return false,
            }
        }
        true
    }

    /// Until the reader has gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A body without an end of its own.
pub fn open() -> (Writer, Body) {
    let (writer, pieces) = mpsc::channel(1);
    (Writer(writer), body(pieces, 0))
}

/// `left` bytes are to come at least; a body that ends before is an error.
fn body(pieces: mpsc::Receiver<Bytes>, left: usize) -> Body {
    Body::from_stream(stream::unfold((pieces, left), |(mut pieces, left)| async move {
        match pieces.recv().await {
            Some(piece) => {
                let left = left.saturating_sub(piece.len());
                Some((Ok(piece), (pieces, left)))
            }
            None if left > 0 => Some((Err(Cut), (pieces, 0))),
            None => None,
        }
    }))
}

/// A response with these parts, one after the other, as its body.
pub fn response(content_type: &'static str, parts: Vec<Bytes>) -> Response {
    respond(content_type, parts, UNREAD_TIMEOUT)
}

fn respond(content_type: &'static str, parts: Vec<Bytes>, unread: Duration) -> Response {
    let all: usize = parts.iter().map(Bytes::len).sum();
    let whole = if all <= ANSWER_PIECE {
        Body::from(parts.concat())
    } else {
        let (writer, pieces) = mpsc::channel(1);
        let writer = Writer(writer);
        tokio::spawn(async move {
            for part in parts {
                if !writer.write_within(&part, unread).await {
                    break;
                }
            }
        });
        body(pieces, all)
    };
    let mut response = ([(header::CONTENT_TYPE, content_type)], whole).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(all));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::shell::limits::UNREAD_ANSWERS_KIB;

    async fn eventually(what: impl Fn() -> bool) {
        for _ in 0..10_000 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("it did not come to be");
    }

    #[tokio::test]
    async fn a_large_answer_comes_whole() {
        let large = Bytes::from((0..300_000_u32).map(|n| n as u8).collect::<Vec<_>>());
        let parts = vec![Bytes::from_static(b"f("), large.clone(), Bytes::from_static(b");")];
        let response = response("text/javascript", parts);
        assert_eq!(response.headers()["content-length"], "300004");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body, [b"f(", &*large, b");"].concat());
    }

    /// Also when its body is never polled again, as behind a closed window of HTTP/2.
    #[tokio::test]
    async fn who_does_not_read_holds_no_room() {
        let room = UnreadRoom::of(UNREAD_ANSWERS_KIB);
        let free = room.free.available_permits();
        let page = room.hold(vec![b' '; 10 << 20]).unwrap();
        assert!(room.free.available_permits() <= free - 10_240);
        let stalled = respond("text/plain", vec![page], Duration::from_millis(20));
        eventually(|| room.free.available_permits() == free).await;
        // And whoever reads on after all is not told that this was all.
        to_bytes(stalled.into_body(), usize::MAX).await.unwrap_err();
    }

    #[tokio::test]
    async fn there_is_room_for_so_much_and_no_more() {
        let room = UnreadRoom::of(UNREAD_ANSWERS_KIB);
        let all = room.free.clone().try_acquire_many_owned(UNREAD_ANSWERS_KIB - 100).unwrap();
        assert!(room.hold(vec![0; 200 << 10]).is_none());
        assert!(room.hold(vec![0; 1 << 10]).is_some(), "small ones always go");
        let held = room.hold(vec![0; 50 << 10]).unwrap();
        let copy = held.clone();
        drop(held);
        assert!(room.hold(vec![0; 50 << 10]).is_none(), "the copy holds it");
        drop(copy);
        assert!(room.hold(vec![0; 50 << 10]).is_some());
        drop(all);
    }
}
