//! What a seed decides before anything happens: how large the cluster is and how it
//! is set up.

use std::{fmt, time::Duration};

use mezz_master::options::{CoreOptions, RemovalRate};
use rand::{RngExt as _, rngs::StdRng};

#[derive(Clone, Debug)]
pub struct Plan {
    pub masters: usize,
    pub agents: usize,
    pub frameworks: usize,
    /// The leader's.
    pub lease: Duration,
    /// The masters' settings.
    pub master: CoreOptions,
    /// How long faults happen.
    pub faults: Duration,
    /// Between two faults, at most.
    pub pause: Duration,
    /// Of a thousand requests to etcd, and answers, so many are lost.
    pub lost: u32,
    /// And so many are slow, up to 15 s.
    pub slow: u32,
    /// Clocks are so many millionths too fast or too slow at most. The lease allows for
    /// an eighth.
    pub drift: u64,
}

impl Plan {
    pub fn draw(rng: &mut StdRng) -> Self {
        let secs =
            |rng: &mut StdRng, from: u64, to| Duration::from_secs(rng.random_range(from..to));
        let master = CoreOptions {
            ping_interval: secs(rng, 4, 16),
            max_missed_pings: rng.random_range(2..6),
            agent_reregister_timeout: secs(rng, 20, 120),
            unreachable_retention: secs(rng, 600, 7_200),
            offer_timeout: rng.random_bool(0.5).then_some(Duration::from_secs(20)),
            heartbeat_interval: secs(rng, 5, 16),
            agent_removal_rate_limit: rng.random_bool(0.7).then_some(RemovalRate {
                agents: rng.random_range(1..4),
                per: Duration::from_secs(60),
            }),
            reconciliation_page: rng.random_range(1..5),
            ..CoreOptions::default()
        };
        Self {
            masters: rng.random_range(2..4),
            agents: rng.random_range(1..5),
            frameworks: rng.random_range(1..4),
            lease: secs(rng, 2, 11),
            master,
            faults: secs(rng, 200, 700),
            pause: secs(rng, 2, 25),
            lost: if rng.random_bool(0.5) { 0 } else { rng.random_range(1..40) },
            slow: [1, 5, 60][rng.random_range(0..3)],
            drift: if rng.random_bool(0.5) { 1_000 } else { 80_000 },
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
