//! Bodies of requests, while they come: bounded in bytes, number and time, each and
//! all together.
//!
//! Executors wait for room: Mesos' executor library does not send again what is answered
//! by 503, and its task would stay as it is for ever. Operators are told to come back.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, HttpBody as _};
use futures_util::StreamExt as _;
use mezz_proto::media::Format;
use prost::{Message, Name};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusal;

/// An executor's body comes by then, the wait for room included, or not at all.
const OF_EXECUTORS_WITHIN: Duration = Duration::from_secs(60);

/// An operator's, which is small.
const OF_OPERATORS_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of all executors' large bodies that are held, or promised, at the same time.
const OF_EXECUTORS: usize = 64 << 20;

/// And of those that are at most [`LARGE`], as nearly all are: no large one is before them.
const OF_EXECUTORS_SMALL: usize = 16 << 20;

/// And of all operators': these keep no executor out.
const OF_OPERATORS: usize = 8 << 20;

/// What a body counts at least, in bytes. Of operators more counts as it comes: who
/// promises much and sends nothing takes no place from others.
const LEAST: usize = 1 << 10;

/// Messages larger than this are read aside, in bytes.
pub(super) const LARGE: usize = 64 << 10;

/// Room for bodies, which requests share.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
    /// For small ones, of those who wait for room.
    small: Option<Arc<Semaphore>>,
    within: Duration,
}

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
        Self {
            room: Arc::new(Semaphore::new(OF_EXECUTORS)),
            small: Some(Arc::new(Semaphore::new(OF_EXECUTORS_SMALL))),
            within: OF_EXECUTORS_WITHIN,
        }
    }

    pub(crate) fn of_operators() -> Self {
        Self {
            room: Arc::new(Semaphore::new(OF_OPERATORS)),
            small: None,
            within: OF_OPERATORS_WITHIN,
        }
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
        let held = match tokio::time::timeout(self.within, self.read(body, most)).await {
            Ok(held) => held?,
            Err(_) => return Err(self.late()),
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

    fn late(&self) -> Refusal {
        let text = format!("the body did not come within {:?}", self.within);
        if self.small.is_some() { Refusal::cut(text) } else { Refusal::late(text) }
    }

    async fn read(&self, body: Body, most: usize) -> Result<Held, Refusal> {
        let room = match &self.small {
            Some(small) => {
                // All at once: nobody waits for more while others wait for what it has.
                let promised = body.size_hint().exact().and_then(|n| usize::try_from(n).ok());
                let bytes = promised.unwrap_or(most).clamp(LEAST, most);
                let room = if bytes <= LARGE { small } else { &self.room };
                let count = u32::try_from(bytes).map_err(|_| full())?;
                let room = Arc::clone(room).acquire_many_owned(count).await;
                room.map_err(|_| Refusal::stopping())?
            }
            None => self.room(LEAST)?,
        };
        let mut held = Held { bytes: Vec::new(), room };
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
        Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| full())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    const MOST: usize = 16 << 20;

    async fn four_large(bodies: &Bodies) -> Vec<Held> {
        let mut held = Vec::new();
        for _ in 0..OF_EXECUTORS / MOST {
            held.push(bodies.read(Body::from(vec![0; MOST]), MOST).await.unwrap());
        }
        held
    }

    #[tokio::test]
    async fn executors_wait_for_room() {
        let bodies = Bodies::of_executors();
        let mut held = four_large(&bodies).await;
        let mut more = Box::pin(bodies.read(Body::from(vec![0; MOST]), MOST));
        assert!(futures_util::poll!(&mut more).is_pending());
        let small = bodies.read(Body::from(vec![0; LARGE]), MOST).await.unwrap();
        assert_eq!(small.bytes.len(), LARGE, "a small one is not behind it");
        held.pop();
        assert_eq!(more.await.unwrap().bytes.len(), MOST);
        let large = bodies.read(Body::from(vec![0; MOST + 1]), MOST).await.unwrap_err();
        assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn an_executor_is_cut_off_rather_than_told_that_there_is_no_room() {
        use mezz_proto::v1::executor::Call;
        let within = Duration::from_millis(100);
        let bodies = Bodies { within, ..Bodies::of_executors() };
        let _held = four_large(&bodies).await;
        let late = bodies.message::<Call>(Body::from(vec![0; MOST]), Format::Json, MOST).await;
        assert!(late.unwrap_err().is_cut());
    }

    #[tokio::test]
    async fn operators_are_told_that_there_is_no_room() {
        let bodies = Bodies::of_operators();
        let body = || Body::from(vec![0; OF_OPERATORS]);
        let held = bodies.read(body(), MOST).await.unwrap();
        let refused = bodies.read(body(), MOST).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(!refused.is_cut());
        drop(held);
        assert_eq!(bodies.read(body(), MOST).await.unwrap().bytes.len(), OF_OPERATORS);
    }
}
