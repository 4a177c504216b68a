//! A machine's clock: a time of its own, and a speed of its own.

use mezz_proto::time::Time;

/// True time passes for a clock that is exact.
const EXACT: u128 = 1_000_000;

/// What a process reads for as long as it lives.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Read at `start`.
    base: Time,
    /// True time.
    start: Time,
    /// Of a million true nanoseconds, so many pass here.
    speed: u64,
}

impl Clock {
    /// Shows `base` at the true time `start`, and goes at `speed` millionths.
    pub fn new(base: Time, start: Time, speed: u64) -> Self {
        Self { base, start, speed }
    }

    /// What it shows at a true time.
    pub fn local(&self, truth: Time) -> Time {
        let passed = u128::from(truth.as_nanos().saturating_sub(self.start.as_nanos()));
        let here = passed * u128::from(self.speed) / EXACT;
        Time::from_nanos(self.base.as_nanos().saturating_add(narrow(here)))
    }

    /// The first true time at which it shows at least this.
    pub fn truth(&self, local: Time) -> Time {
        let here = u128::from(local.as_nanos().saturating_sub(self.base.as_nanos()));
        let passed = (here * EXACT).div_ceil(u128::from(self.speed));
        Time::from_nanos(self.start.as_nanos().saturating_add(narrow(passed)))
    }
}

fn narrow(nanos: u128) -> u64 {
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

#[test]
fn a_deadline_is_reached_when_it_is_said_to_be() {
    for speed in [920_000, 1_000_000, 1_080_000] {
        let clock = Clock::new(Time::from_secs(1_000), Time::from_secs(7), speed);
        assert_eq!(clock.local(Time::from_secs(7)), Time::from_secs(1_000));
        for nanos in [1, 999, 1_000_001, 77_777_777_777] {
            let local = Time::from_nanos(Time::from_secs(1_000).as_nanos() + nanos);
            let truth = clock.truth(local);
            assert!(clock.local(truth) >= local);
            assert!(clock.local(Time::from_nanos(truth.as_nanos() - 1)) < local);
        }
    }
}
