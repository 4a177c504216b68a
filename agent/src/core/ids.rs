//! New ids, drawn from a seed that the shell provides.

use mezz_proto::ids::ContainerId;
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Builder;

/// Deterministic for a seed, and unpredictable without it: executors' tokens
/// come from here too.
#[derive(Debug)]
pub(super) struct IdSource(StdRng);

impl IdSource {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// Sixteen bytes that are a version 4 UUID.
    pub(super) fn uuid(&mut self) -> Vec<u8> {
        self.draw().into_bytes().to_vec()
    }

    pub(super) fn container(&mut self) -> ContainerId {
        ContainerId::from(self.draw().hyphenated().to_string())
    }

    /// 256 random bits, as 64 hexadecimal digits.
    pub(super) fn token(&mut self) -> String {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn draw(&mut self) -> uuid::Uuid {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// Compares in a time that tells nothing of where two texts differ.
pub(crate) fn same_secret(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}
