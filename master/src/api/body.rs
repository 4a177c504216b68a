//! Bodies of HTTP calls: bounded in size, in time, and all of them together in memory.

use std::time::Duration;

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
    let (bytes, room) = within(BODY_TIMEOUT, collect(core, body, limit)).await?;
    let message = if bytes.len() <= INLINE_JSON_BYTES {
        format.decode(&bytes)?
    } else {
        let decoded = tokio::task::spawn_blocking(move || format.decode(&bytes)).await;
        decoded.map_err(|_| Stopped)??
    };
    Ok((message, room))
}

async fn within<T>(
    time: Duration,
    body: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    timeout(time, body).await.unwrap_or_else(|_| {
        let text = format!("the body did not come within {time:?}");
        Err(Refusal(StatusCode::REQUEST_TIMEOUT, text))
    })
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

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use mezz_proto::v1::scheduler::Call;

    use super::*;
    use crate::shell::limits::CALL_BODIES_KIB;

    const LIMIT: usize = 4 << 20;

    /// A body that brings so many bytes and then nothing more.
    fn unfinished(bytes: usize) -> Body {
        let begun = stream::iter([Ok::<_, std::io::Error>(vec![b' '; bytes])]);
        Body::from_stream(begun.chain(stream::pending()))
    }

    async fn settle() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn bodies_wait_for_room_and_only_for_what_came() {
        let (core, _inputs) = CoreHandle::new();
        let begin = |body: Body| {
            let core = core.clone();
            tokio::spawn(async move { read::<Call>(&core, body, LIMIT, Format::Json).await })
        };
        // As many as there is room for, were they whole; these only promise to be.
        let idle: Vec<_> = (0..2 * CALL_BODIES_KIB / 4096).map(|_| begin(unfinished(10))).collect();
        settle().await;
        let call = || Body::from(r#"{"type":"REVIVE"}"#);
        let (_, room) = read::<Call>(&core, call(), LIMIT, Format::Json).await.unwrap();
        assert_eq!(room.num_permits(), 1);
        // Large ones fill it.
        let full: Vec<_> =
            (0..CALL_BODIES_KIB / 4096).map(|_| begin(unfinished(LIMIT - 1))).collect();
        settle().await;
        let mut waits = Box::pin(read::<Call>(&core, call(), LIMIT, Format::Json));
        assert!((&mut waits).now_or_never().is_none());
        for task in full.iter().chain(&idle) {
            task.abort();
        }
        let (call, _room) = waits.await.unwrap();
        assert_eq!(call.r#type(), mezz_proto::v1::scheduler::call::Type::Revive);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let (core, _inputs) = CoreHandle::new();
        let read = collect(&core, unfinished(10), LIMIT);
        let error = within(Duration::from_millis(10), read).await.map(|_| ()).unwrap_err();
        assert_eq!(error.0, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(error.1, "the body did not come within 10ms");
    }
}
