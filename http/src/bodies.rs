//! Bodies of requests: bounded in size, in time, and all of them together in memory.
//!
//! A large body takes its room at once, before it is read, and who waits for room holds
//! none: nobody waits for what others keep who wait, too. A small one takes room for what has
//! come of it: who announces one and sends nothing takes next to nothing from others. Each
//! kind has room of its own, so that usual calls pass however many large ones are announced
//! and do not come.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    extract::Request,
    http::{HeaderValue, Method, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use mezz_proto::media::{Format, MediaError};
use prost::{Message, Name};
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Refusal,
    limits::{
        BODY_PACE, BODY_TIMEOUT, DISCARD_BYTES, DISCARD_TIMEOUT, INLINE_JSON_BYTES, LEAST_BODY_KIB,
        SMALL_BODY_BYTES,
    },
};

/// A body's place among those in memory, in KiB. To be kept until its message was taken.
pub type Room = OwnedSemaphorePermit;

/// What bodies of one kind may have.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// KiB for those of up to [`SMALL_BODY_BYTES`].
    pub small_kib: usize,
    /// KiB for larger ones.
    pub large_kib: usize,
    /// How long a body waits for room, at most.
    pub patience: Duration,
}

/// Why a body was not read.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It has more bytes than these.
    #[error("the body is too large: the limit is {0} bytes")]
    TooLarge(usize),
    /// It was too slow.
    #[error(
        "the body did not come in time: {} KiB within {BODY_PACE:?} are the least, and all of \
         it within {BODY_TIMEOUT:?}",
        SMALL_BODY_BYTES / 1024
    )]
    Late,
    /// There was no room for it in time.
    #[error("too many requests are being read; try again in a moment")]
    NoRoom,
    /// The client has gone.
    #[error("the body is cut off")]
    CutOff,
    /// It is no message.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The process ends.
    #[error("this server is stopping; try again in a moment")]
    Stopped,
}

/// Room that requests of one kind share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bodies {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    patience: Duration,
}

impl Bodies {
    /// Room as it says.
    pub fn new(settings: Settings) -> Self {
        let Settings { small_kib, large_kib, patience } = settings;
        Self {
            small: Arc::new(Semaphore::new(small_kib)),
            large: Arc::new(Semaphore::new(large_kib)),
            patience,
        }
    }

    /// A message that came as a body of at most so many bytes, and its room.
    ///
    /// # Errors
    /// [`BodyError`].
    pub async fn read<M>(
        &self,
        body: Body,
        format: Format,
        most: usize,
    ) -> Result<(M, Room), BodyError>
    where
        M: Message + Name + Default + 'static,
    {
        let (bytes, room) = self.collect(body, most).await?;
        if bytes.len() <= INLINE_JSON_BYTES {
            return Ok((format.decode(&bytes)?, room));
        }
        // With its room, which a client that goes must not free before.
        let decoding = tokio::task::spawn_blocking(move || (format.decode(&bytes), room));
        let (message, room) = decoding.await.map_err(|_| BodyError::Stopped)?;
        Ok((message?, room))
    }

    /// A whole body of at most so many bytes, and its room.
    ///
    /// # Errors
    /// [`BodyError`], but for those of messages.
    pub async fn collect(&self, body: Body, most: usize) -> Result<(Bytes, Room), BodyError> {
        let told = body.size_hint();
        let mut frames = body.into_data_stream();
        let gathered = if told.lower() > most as u64 {
            Err(BodyError::TooLarge(most))
        } else {
            let told = told.upper().and_then(|told| usize::try_from(told).ok());
            self.gather(&mut frames, told, most).await
        };
        if let Err(BodyError::TooLarge(_) | BodyError::NoRoom) = gathered {
            discard_frames(frames).await;
        }
        gathered
    }

    async fn gather(
        &self,
        frames: &mut BodyDataStream,
        told: Option<usize>,
        most: usize,
    ) -> Result<(Bytes, Room), BodyError> {
        let mut room = match told {
            Some(told) if told > SMALL_BODY_BYTES => self.room(told).await?,
            _ => self.room(0).await?,
        };
        let mut bytes = BytesMut::new();
        let mut clock = Pace::begin();
        while let Some(frame) = clock.next(frames).await? {
            let length = bytes.len() + frame.len();
            if length > most {
                return Err(BodyError::TooLarge(most));
            }
            if kib(length) as usize > room.num_permits() {
                let asked = Instant::now();
                room = self.more(room, length, most).await?;
                clock.not_the_clients(asked.elapsed());
            }
            bytes.extend_from_slice(&frame);
        }
        let surplus = room.num_permits().saturating_sub(kib(bytes.len()) as usize);
        drop(room.split(surplus));
        Ok((bytes.freeze(), room))
    }

    /// Room for a body of so many bytes: first come, first served.
    ///
    /// # Errors
    /// [`BodyError::NoRoom`], and [`BodyError::Stopped`].
    pub async fn room(&self, bytes: usize) -> Result<Room, BodyError> {
        let pool = if bytes <= SMALL_BODY_BYTES { &self.small } else { &self.large };
        let room = Arc::clone(pool).acquire_many_owned(kib(bytes));
        match timeout(self.patience, room).await {
            Ok(room) => room.map_err(|_| BodyError::Stopped),
            Err(_) => Err(BodyError::NoRoom),
        }
    }

    /// For a body that has grown to so many bytes. While it waits, what has come of it is not
    /// counted: that is little more than [`SMALL_BODY_BYTES`].
    async fn more(&self, mut room: Room, length: usize, most: usize) -> Result<Room, BodyError> {
        if length > SMALL_BODY_BYTES {
            drop(room);
            // At once for all that may come.
            return self.room(most).await;
        }
        let missing = kib(length).saturating_sub(u32::try_from(room.num_permits()).unwrap_or(0));
        if let Ok(more) = Arc::clone(&self.small).try_acquire_many_owned(missing) {
            room.merge(more);
            return Ok(room);
        }
        drop(room);
        self.room(length).await
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(LEAST_BODY_KIB)
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

/// A body's time.
struct Pace {
    began: Instant,
    /// When the bytes began that are to come in [`BODY_PACE`].
    step: Instant,
    /// What came of them.
    came: usize,
}

impl Pace {
    fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, step: now, came: 0 }
    }

    fn not_the_clients(&mut self, time: Duration) {
        self.began += time;
        self.step += time;
    }

    async fn next(&mut self, frames: &mut BodyDataStream) -> Result<Option<Bytes>, BodyError> {
        let end = (self.began + BODY_TIMEOUT).min(self.step + BODY_PACE);
        let frame = timeout_at(end, frames.next()).await.map_err(|_| BodyError::Late)?;
        let frame = frame.transpose().map_err(|_| BodyError::CutOff)?;
        self.came += frame.as_ref().map_or(0, Bytes::len);
        if self.came >= SMALL_BODY_BYTES {
            self.came = 0;
            self.step = Instant::now();
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests;
