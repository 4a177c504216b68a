//! Bodies of requests, while they come: bounded in bytes, number and time, each and
//! all together.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::StreamExt as _;
use mezz_proto::media::Format;
use prost::{Message, Name};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusal;

/// A body comes by then, or not at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of all executors' bodies that are held at the same time.
const OF_EXECUTORS: usize = 64 << 20;

/// And of all operators': these keep no executor out.
const OF_OPERATORS: usize = 8 << 20;

/// What a body counts at least, in bytes. More of it counts as it comes: who promises
/// much and sends nothing takes no place from others.
const LEAST: usize = 1 << 10;

/// Messages larger than this are read aside, in bytes.
const LARGE: usize = 64 << 10;

/// Room for bodies, which requests share.
pub(crate) struct Bodies(Arc<Semaphore>);

/// One that is there, and the room that it takes.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    room: OwnedSemaphorePermit,
}

fn full() -> Refusal {
    Refusal::busy("the agent is reading as many requests as it may; try again in a moment")
}

impl Bodies {
    pub(crate) fn of_executors() -> Self {
        Self(Arc::new(Semaphore::new(OF_EXECUTORS)))
    }

    pub(crate) fn of_operators() -> Self {
        Self(Arc::new(Semaphore::new(OF_OPERATORS)))
    }

    /// The message in a body of `most` bytes at most.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) async fn message<M>(
        &self,
        body: Body,
        format: Format,
        most: usize,
    ) -> Result<M, Refusal>
    where
        M: Message + Name + Default + Send + 'static,
    {
        let held = match tokio::time::timeout(PATIENCE, self.read(body, most)).await {
            Ok(held) => held?,
            Err(_) => {
                return Err(Refusal::late(format!("the body did not come within {PATIENCE:?}")));
            }
        };
        if held.bytes.len() <= LARGE {
            return Ok(format.decode(&held.bytes)?);
        }
        let decode = tokio::task::spawn_blocking(move || format.decode(&held.bytes));
        match decode.await {
            Ok(message) => Ok(message?),
            Err(_) => Err(Refusal::stopping()),
        }
    }

    async fn read(&self, body: Body, most: usize) -> Result<Held, Refusal> {
        let mut held = Held { bytes: Vec::new(), room: self.room(LEAST)? };
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| Refusal::bad("the body is cut off"))?;
            let length = held.bytes.len() + part.len();
            if length > most {
                return Err(Refusal::large(format!("the body is longer than {most} bytes")));
            }
            if length > held.room.num_permits() {
                held.room.merge(self.room(length - held.room.num_permits())?);
            }
            held.bytes.extend_from_slice(&part);
        }
        Ok(held)
    }

    fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = u32::try_from(bytes).map_err(|_| full())?;
        Arc::clone(&self.0).try_acquire_many_owned(bytes).map_err(|_| full())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    const MOST: usize = 16 << 20;

    #[tokio::test]
    async fn bodies_share_their_room() {
        let bodies = Bodies::of_executors();
        let body = || Body::from(vec![0; MOST]);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(bodies.read(body(), MOST).await.unwrap());
        }
        let refused = bodies.read(body(), MOST).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        held.pop();
        assert_eq!(bodies.read(body(), MOST).await.unwrap().bytes.len(), MOST);
        let large = bodies.read(Body::from(vec![0; MOST + 1]), MOST).await.unwrap_err();
        assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
