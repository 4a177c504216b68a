//! How far the engine's copy of a container's output was written into its sandbox, on
//! disk, so that an agent that comes back neither loses nor repeats any.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// One write of this size cannot be seen half.
const RECORD_BYTES: usize = 512;

/// Of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The time of the newest message that was written: nanoseconds since 1970.
    pub(super) time: i64,
    /// How many messages were from the first one of that time on. Later ones are older if
    /// the clock was set back.
    pub(super) count: u32,
    /// How long the sandbox's file was after it.
    pub(super) size: u64,
}

/// What is on disk for a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The version of this record.
    v: u32,
    /// Whether it was started.
    pub(super) started: bool,
    /// Its GPUs, as bits.
    pub(super) gpus: u64,
    /// The newest message of both streams, and the oldest that came after it:
    /// nanoseconds since 1970.
    newest: i64,
    oldest_since: i64,
    pub(super) stdout: Position,
    pub(super) stderr: Position,
}

impl Position {
    /// One more message is written.
    pub(super) fn advance(&mut self, time: i64) {
        if time > self.time {
            (self.time, self.count) = (time, 1);
        } else {
            self.count = self.count.saturating_add(1);
        }
    }
}

impl Record {
    pub(super) fn new(stdout_size: u64, stderr_size: u64) -> Self {
        let of = |size| Position { size, ..Position::default() };
        let (stdout, stderr) = (of(stdout_size), of(stderr_size));
        Self { v: 1, started: false, gpus: 0, newest: 0, oldest_since: 0, stdout, stderr }
    }

    /// A message of either stream is written.
    pub(super) fn hear(&mut self, time: i64) {
        if time > self.newest {
            (self.newest, self.oldest_since) = (time, time);
        } else {
            self.oldest_since = self.oldest_since.min(time);
        }
    }

    /// The time from which on messages are not all written: nanoseconds since 1970.
    pub(super) fn since(&self, now: i64) -> i64 {
        // With a clock that was set back, what is new may bear any time.
        if now < self.newest { 0 } else { self.oldest_since }
    }

    /// Makes the file, or opens it.
    pub(super) fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    }

    /// None when there is none that makes sense: the agent died while it was made.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [b' '; RECORD_BYTES];
        let mut length = 0;
        while length < RECORD_BYTES {
            match file.read_at(&mut bytes[length..], length as u64)? {
                0 => break,
                n => length += n,
            }
        }
        Ok(serde_json::from_slice(&bytes[..length]).ok().filter(|record: &Self| record.v == 1))
    }

    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.resize(RECORD_BYTES, b' ');
        file.write_all_at(&text, 0)
    }
}

/// Nanoseconds since 1970 of the time that the engine puts before a message, and the
/// message: `2026-11-21T11:41:21.123456789Z text`, or with `+01:00`.
pub(super) fn split_time(line: &[u8]) -> Option<(i64, &[u8])> {
    let space = line.iter().take(48).position(|b| *b == b' ')?;
    let stamp = std::str::from_utf8(&line[..space]).ok()?;
    let (date, rest) = stamp.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let offset = match zone {
        "Z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let offset = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            if zone.starts_with('-') { -offset } else { offset }
        }
    };
    let plausible = (1970..2262).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..=24).contains(&hour)
        && (0..=59).contains(&minute)
        && (0..=60).contains(&second);
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let time = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    plausible.then_some((time, &line[space + 1..]))
}

/// Days from 1970 to a date of the Gregorian calendar. Years begin in March, so that the
/// day that comes and goes is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_any_zone() {
        let nanos = |text: &str| split_time(format!("{text} x").as_bytes()).map(|(time, _)| time);
        assert_eq!(nanos("1970-01-01T00:00:00.000000001Z"), Some(1));
        assert_eq!(nanos("2000-02-29T00:00:00Z"), Some(951_782_400_000_000_000));
        assert_eq!(nanos("2026-11-21T11:41:21.120000000Z"), Some(1_795_261_281_120_000_000));
        assert_eq!(nanos("2026-11-21T12:41:21.12+01:00"), Some(1_795_261_281_120_000_000));
        assert_eq!(nanos("2026-11-21T06:11:21.12-05:30"), Some(1_795_261_281_120_000_000));
        for wrong in ["", "yesterday", "2026-11-21", "2026-13-21T11:41:21Z", "2026-11-21T11:41:21"]
        {
            assert_eq!(nanos(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_message_is_left_as_it_is() {
        let line = b"2026-11-21T11:41:21.123456789Z  a \xff\n";
        assert_eq!(split_time(line).unwrap().1, b" a \xff\n");
    }

    #[test]
    fn a_record_comes_back_and_half_a_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = Record::open(&dir.path().join("r")).unwrap();
        assert_eq!(Record::read(&file).unwrap(), None);
        let most = Position { time: i64::MIN, count: u32::MAX, size: u64::MAX };
        let record = Record {
            v: 1,
            started: false,
            gpus: u64::MAX,
            newest: i64::MIN,
            oldest_since: i64::MIN,
            stdout: most,
            stderr: most,
        };
        record.write(&file).unwrap();
        assert_eq!(Record::read(&file).unwrap(), Some(record));
        assert_eq!(file.metadata().unwrap().len(), RECORD_BYTES as u64, "it fits");
        file.set_len(20).unwrap();
        assert_eq!(Record::read(&file).unwrap(), None);
    }
}
