//! The core's time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mezz_proto::time::Time;

/// Wall time at the start, and from then on the monotonic clock: a jump of the
/// machine's clock moves no deadline.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    epoch: Time,
}

impl Clock {
    /// Reads the machine's clock once.
    pub fn start() -> Self {
        // A clock before 1970 counts as 1970.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: Instant::now(), epoch: Time::ZERO + since_epoch }
    }

    /// When it was started.
    pub fn start_time(&self) -> Time {
        self.epoch
    }

    /// Now; never less than before.
    pub fn now(&self) -> Time {
        self.epoch + self.started.elapsed()
    }
}
