//! Answers of the HTTP APIs that are errors.

pub use mezz_http::Refusal;

use crate::shell::handle::Stopped;

impl From<Stopped> for Refusal {
    fn from(Stopped: Stopped) -> Self {
        Self::busy("the master is stopping; find the leader again")
    }
}
