//! Durations as Mesos writes them in flags and queries: `15secs`, `10mins`, `1.5hrs`.

use std::time::Duration;

use thiserror::Error;

const UNITS: [(&str, u128); 8] = [
    ("weeks", 7 * 24 * 3600 * 1_000_000_000),
    ("days", 24 * 3600 * 1_000_000_000),
    ("hrs", 3600 * 1_000_000_000),
    ("mins", 60 * 1_000_000_000),
    ("secs", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
];

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no duration: a number with one of ns, us, ms, secs, mins, hrs, days, weeks")]
pub struct DurationError(String);

/// In the largest unit in which it is whole.
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (name, unit) in UNITS {
        if nanos >= unit && nanos.is_multiple_of(unit) {
            return format!("{}{name}", nanos / unit);
        }
    }
    "0ns".to_owned()
}

/// Reads one.
///
/// # Errors
/// [`DurationError`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    // A peer's text may be long.
    let wrong = || DurationError(text.chars().take(40).collect());
    let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, name) = text.split_at(at);
    let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * (*unit as f64) / 1e9).map_err(|_| wrong())
}
