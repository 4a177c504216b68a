//! Bodies of HTTP requests: bounded in size, in time, and all of them together in memory.

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use mezz_proto::media::Format;
use prost::{Message, Name};
use tokio::time::{Instant, timeout, timeout_at};

use super::refusal::Refusal;
use crate::shell::{
    bodies::{Bodies, Room, shrink},
    handle::Stopped,
    limits::{
        BODY_PACE, BODY_TIMEOUT, DISCARD_BYTES, DISCARD_TIMEOUT, INLINE_JSON_BYTES,
        SMALL_BODY_BYTES,
    },
};

/// A message that came as a body, and its place among those in memory, to be kept until the
/// message is taken.
///
/// # Errors
/// 503, and those of [`collect`] and [`Format::decode`].
pub async fn read<M>(
    bodies: &Bodies,
    body: Body,
    limit: usize,
    format: Format,
) -> Result<(M, Room), Refusal>
where
    M: Message + Name + Default + 'static,
{
    let (bytes, room) = collect(bodies, body, limit).await?;
    let message = if bytes.len() <= INLINE_JSON_BYTES {
        format.decode(&bytes)?
    } else {
        let decoded = tokio::task::spawn_blocking(move || format.decode(&bytes)).await;
        decoded.map_err(|_| Stopped)??
    };
    Ok((message, room))
}

/// The head of a POST, its body, and the form that it has.
///
/// # Errors
/// 400, 405, 415, in Mesos' order (rule 2).
pub async fn post(request: Request) -> Result<(Parts, Body, Format), Refusal> {
    let (head, body) = request.into_parts();
    let content = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let refusal = match Format::of_content(content) {
        _ if head.method != Method::POST => Refusal::not_post(&head.method),
        Ok(format) => return Ok((head, body, format)),
        Err(error) => error.into(),
    };
    discard(body).await;
    Err(refusal)
}

/// A whole body, and its place among those in memory.
///
/// # Errors
/// 400, 408, 413, and 503 when there is no room.
pub async fn collect(bodies: &Bodies, body: Body, limit: usize) -> Result<(Bytes, Room), Refusal> {
    let told = body.size_hint();
    if told.lower() > limit as u64 {
        discard(body).await;
        return Err(too_large(limit));
    }
    // Of one that does not tell its size this is most likely enough.
    let most = told.upper().and_then(|upper| usize::try_from(upper).ok());
    let mut most = most.unwrap_or(SMALL_BODY_BYTES).min(limit);
    let mut room = bodies.room(most).await?;
    let mut frames = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let mut clock = Pace::begin();
    while let Some(frame) = clock.next(&mut frames).await? {
        let length = bytes.len() + frame.len();
        if length > limit {
            drop((bytes, room));
            discard_frames(frames).await;
            return Err(too_large(limit));
        }
        if length > most {
            // At once for all that may come. Who waits for a large place holds none of those.
            most = limit;
            let asked = Instant::now();
            room = bodies.room(most).await?;
            // That was not the client's time.
            clock.late += asked.elapsed();
        }
        bytes.extend_from_slice(&frame);
    }
    shrink(&mut room, bytes.len());
    Ok((bytes.freeze(), room))
}

/// Reads what a client still sends of a body that is refused, for a while: with a connection
/// that is closed before, the answer may be lost.
pub async fn discard(body: Body) {
    if !body.is_end_stream() {
        discard_frames(body.into_data_stream()).await;
    }
}

async fn discard_frames(mut frames: BodyDataStream) {
    let discarding = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = frames.next().await {
            left = left.saturating_sub(frame.len());
            if left == 0 {
                break;
            }
        }
    };
    // It had its time.
    let _ = timeout(DISCARD_TIMEOUT, discarding).await;
}

fn too_large(limit: usize) -> Refusal {
    let text = format!("the body is too large: the limit is {limit} bytes");
    Refusal(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// A body's time.
struct Pace {
    began: Instant,
    /// When the bytes began that are to come in [`BODY_PACE`].
    step: Instant,
    /// What came of them.
    came: usize,
    /// Time that was not the client's.
    late: std::time::Duration,
}

impl Pace {
    fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, step: now, came: 0, late: Default::default() }
    }

    async fn next(&mut self, frames: &mut BodyDataStream) -> Result<Option<Bytes>, Refusal> {
        let end = (self.began + BODY_TIMEOUT).min(self.step + BODY_PACE) + self.late;
        let frame = timeout_at(end, frames.next()).await.map_err(|_| {
            let text = format!(
                "the body did not come in time: {} KiB within {BODY_PACE:?} are the least, \
                 and all of it within {BODY_TIMEOUT:?}",
                SMALL_BODY_BYTES / 1024
            );
            Refusal(StatusCode::REQUEST_TIMEOUT, text)
        })?;
        let frame = frame.transpose().map_err(|_| Refusal::bad("the body is cut off"))?;
        self.came += frame.as_ref().map_or(0, Bytes::len);
        if self.came >= SMALL_BODY_BYTES {
            self.came = 0;
            self.step = Instant::now();
        }
        Ok(frame)
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
