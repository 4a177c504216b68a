//! Until when this master may decide, for all who need to know.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mezz_proto::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// Cheap to ask and to clone. That of a master without election never ends.
#[derive(Clone, Debug, Default)]
pub struct Tenure(Option<Arc<AtomicU64>>);

impl Tenure {
    /// Never ends.
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// Ends at this time of the election's clock, unless it is extended.
    pub fn until(end: Time) -> Self {
        Self(Some(Arc::new(AtomicU64::new(end.as_nanos()))))
    }

    /// Ends later.
    pub fn extend(&self, end: Time) {
        if let Some(until) = &self.0 {
            until.fetch_max(end.as_nanos(), Ordering::AcqRel);
        }
    }

    /// Ends now.
    pub fn end(&self) {
        if let Some(until) = &self.0 {
            until.store(0, Ordering::Release);
        }
    }

    /// Whether this master may decide.
    pub fn holds(&self) -> bool {
        self.0.as_ref().is_none_or(|until| now().as_nanos() < until.load(Ordering::Acquire))
    }
}

/// The clock of the election: since the machine was started, times at which it slept
/// included, which `Instant` leaves out.
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    Time::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_tenure_ends_by_the_clock_or_at_once() {
        assert!(Tenure::unlimited().holds());
        let tenure = Tenure::until(now());
        assert!(!tenure.holds());
        tenure.extend(now() + Duration::from_secs(60));
        assert!(tenure.holds() && tenure.clone().holds());
        tenure.extend(now());
        assert!(tenure.holds());
        tenure.end();
        assert!(!tenure.holds());
        tenure.extend(Time::ZERO);
        assert!(!tenure.holds());
    }
}
