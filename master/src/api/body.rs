//! Bodies of HTTP calls: bounded in size, in time, and all of them together in memory.

use axum::{body::Body, http::StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use mezz_proto::media::Format;
use prost::{Message, Name};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::shell::{
    handle::{CoreHandle, Room, Stopped},
    limits::{BODY_TIMEOUT, INLINE_JSON_BYTES},
};

/// A message that came as a body, and its place among those in memory, to be kept until the
/// message is taken.
///
/// # Errors
/// 408, 413, 503, and those of [`Format::decode`].
pub async fn read<M>(
    core: &CoreHandle,
    body: Body,
    limit: usize,
    format: Format,
) -> Result<(M, Room), Refusal>
where
    M: Message + Name + Default + 'static,
{
    let (bytes, room) = match timeout(BODY_TIMEOUT, collect(core, body, limit)).await {
        Ok(read) => read?,
        Err(_) => {
            let text = format!("the body did not come within {BODY_TIMEOUT:?}");
            return Err(Refusal(StatusCode::REQUEST_TIMEOUT, text));
        }
    };
    let message = if bytes.len() <= INLINE_JSON_BYTES {
        format.decode(&bytes)?
    } else {
        let decoded = tokio::task::spawn_blocking(move || format.decode(&bytes)).await;
        decoded.map_err(|_| Stopped)??
    };
    Ok((message, room))
}

/// Room is taken as the bytes come: who promises many and sends none keeps nobody out.
async fn collect(core: &CoreHandle, body: Body, limit: usize) -> Result<(Bytes, Room), Refusal> {
    let mut frames = body.into_data_stream();
    let mut room = core.body_room(1).await?;
    let mut bytes = BytesMut::new();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| Refusal::bad("the body is cut off"))?;
        if bytes.len() + frame.len() > limit {
            let text = format!("the body is too large: the limit is {limit} bytes");
            return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        bytes.extend_from_slice(&frame);
        let missing = (1 + bytes.len() / 1024).saturating_sub(room.num_permits());
        if missing > 0 {
            room.merge(core.body_room(u32::try_from(missing).unwrap_or(u32::MAX)).await?);
        }
    }
    Ok((bytes.freeze(), room))
}
