//! Room in memory for bodies of HTTP requests.
//!
//! A body takes its room at once, before it is read: nobody waits for room that others keep
//! who wait, too. Small ones have room of their own: however many large ones are announced
//! and do not come, a framework's usual calls pass.

use std::sync::Arc;

use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::limits::{LEAST_BODY_KIB, ROOM_TIMEOUT, SMALL_BODY_BYTES};

/// A body's place among those in memory, in KiB. Dropped when its message was taken.
pub type Room = OwnedSemaphorePermit;

/// There was no room within [`ROOM_TIMEOUT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many requests are being read; try again in a moment")]
pub struct NoRoom;

/// Room that requests of one kind share.
#[derive(Clone, Debug)]
pub struct Bodies {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Bodies {
    /// So many KiB for bodies up to [`SMALL_BODY_BYTES`], and so many for larger ones.
    pub fn new(small_kib: usize, large_kib: usize) -> Self {
        Self {
            small: Arc::new(Semaphore::new(small_kib)),
            large: Arc::new(Semaphore::new(large_kib)),
        }
    }

    /// Waits for room for a body of up to so many bytes. First come, first served.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub async fn room(&self, bytes: usize) -> Result<Room, NoRoom> {
        let pool = if bytes <= SMALL_BODY_BYTES { &self.small } else { &self.large };
        let room = pool.clone().acquire_many_owned(kib(bytes));
        timeout(ROOM_TIMEOUT, room).await.ok().and_then(Result::ok).ok_or(NoRoom)
    }
}

/// Gives back what a body of so many bytes does not need of its room.
pub fn shrink(room: &mut Room, bytes: usize) {
    let surplus = room.num_permits().saturating_sub(kib(bytes) as usize);
    drop(room.split(surplus));
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(LEAST_BODY_KIB)
}
