//! What happened, for people.

use std::{fmt::Write as _, time::Duration};

use mezz_proto::time::Time;

use crate::world::BEGIN;

/// Lines, if anybody wants them.
#[derive(Debug, Default)]
pub struct Log(Option<String>);

impl Log {
    /// Keeps nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// Keeps everything.
    pub fn kept() -> Self {
        Self(Some(String::new()))
    }

    pub fn say(&mut self, now: Time, line: impl FnOnce() -> String) {
        let Some(text) = &mut self.0 else { return };
        let since: Duration = now.since(BEGIN);
        let _ = writeln!(text, "{:>11.6}  {}", since.as_secs_f64(), line());
    }

    /// All lines.
    pub fn into_text(self) -> String {
        self.0.unwrap_or_default()
    }
}
