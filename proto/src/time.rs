//! Time as the cores see it: a number that the caller passes in.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use crate::v1;

/// A moment: nanoseconds since the Unix epoch. The cores never read a clock;
/// they are told what time it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The epoch.
    pub const ZERO: Time = Time(0);
    /// Later than any deadline.
    pub const MAX: Time = Time(u64::MAX);

    /// `nanos` nanoseconds since the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// `secs` seconds since the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the epoch, as Mesos writes times.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The wire form.
    pub fn to_proto(self) -> v1::TimeInfo {
        v1::TimeInfo { nanoseconds: i64::try_from(self.0).unwrap_or(i64::MAX) }
    }

    /// From the wire form; a negative time is the epoch.
    pub fn from_proto(time: &v1::TimeInfo) -> Self {
        Self(u64::try_from(time.nanoseconds).unwrap_or(0))
    }

    /// How long after `earlier` this is; zero if it is not later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    /// Saturates at [`Time::MAX`].
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    /// Saturates at the epoch.
    fn sub(self, d: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
