//! Option texts to values, and values to what people read.

use std::{net::SocketAddr, time::Duration};

/// Longest duration that an option takes: ten years. More is a slip of the keys.
const MAX_DURATION_SECS: f64 = 10.0 * 365.0 * 86_400.0;

const DURATION_UNITS: [(&str, f64); 12] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    // As Mesos writes them.
    ("secs", 1.0),
    ("mins", 60.0),
    ("hrs", 3600.0),
    ("days", 86_400.0),
    ("weeks", 604_800.0),
];

const SIZE_UNITS: [(&str, f64); 9] = [
    ("B", 1.0),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
];

/// `15s`, `1.5h`, `250ms`; `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    const HELP: &str = "write a number and one of ms, s, m, h, d, like `15s`";
    let (number, unit) = split_number(text);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no duration; {HELP}"))?;
    if number == 0.0 && unit.is_empty() {
        return Ok(Duration::ZERO);
    }
    let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        let problem = if unit.is_empty() { "has no unit" } else { "has an unknown unit" };
        return Err(format!("`{text}` {problem}; {HELP}"));
    };
    let secs = number * factor;
    if secs > MAX_DURATION_SECS {
        return Err(format!("`{text}` is more than the longest duration, 3650d"));
    }
    Duration::try_from_secs_f64(secs).map_err(|_| format!("`{text}` is no duration; {HELP}"))
}

/// As [`duration`], or `never`.
pub fn duration_or_never(text: &str) -> Result<Option<Duration>, String> {
    if text == "never" { Ok(None) } else { duration(text).map(Some) }
}

/// `100/1m`, `1/10mins`: so many in so long a time, both more than 0; or `none`.
pub fn rate_or_none(text: &str) -> Result<Option<(u32, Duration)>, String> {
    const HELP: &str = "write NUMBER/TIME, like `100/1m`, or `none`";
    if text == "none" {
        return Ok(None);
    }
    let (number, per) =
        text.split_once('/').ok_or_else(|| format!("`{text}` is no rate; {HELP}"))?;
    let wrong = |error| format!("`{text}` is no rate ({error}); {HELP}");
    let number = count_u32(number.trim()).map_err(wrong)?;
    let per = duration(per.trim()).map_err(wrong)?;
    if per.is_zero() {
        return Err(wrong("the time has to be more than 0".to_owned()));
    }
    Ok(Some((number, per)))
}

/// Bytes: `512MiB`, `10GB`, `4096B`.
pub fn size(text: &str) -> Result<u64, String> {
    const HELP: &str = "write a number and one of B, KiB, MiB, GiB, TiB, like `10GiB`";
    let (number, unit) = split_number(text);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no size; {HELP}"))?;
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let problem = if unit.is_empty() { "has no unit" } else { "has an unknown unit" };
        return Err(format!("`{text}` {problem}; {HELP}"));
    };
    let bytes = number * factor;
    // 2^63 and above are no sizes of anything that a machine has.
    if bytes >= 9.2e18 {
        return Err(format!("`{text}` is too large"));
    }
    Ok(bytes as u64)
}

/// The number at the front, and what follows it.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A whole number from 1.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("0 is too few; the least is 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err(format!("`{text}` is no whole number")),
    }
}

/// As [`count`], up to 4294967295.
pub fn count_u32(text: &str) -> Result<u32, String> {
    let n = count(text)?;
    u32::try_from(n).map_err(|_| format!("{n} is more than the most, {}", u32::MAX))
}

/// `true` or `false`.
pub fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is neither `true` nor `false`"))
}

/// An address to listen on: `0.0.0.0:5050`, `[::1]:0`.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address to listen on; write IP:PORT, like `0.0.0.0:5050`")
    })
}

/// host:port of a peer, as text: the name is looked up when it is used.
pub fn peer_address(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is no address; write HOST:PORT, like `localhost:5050`");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let plain =
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if port == 0 || !plain || (host.contains(':') && !bracketed) {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

/// `ROLE=WEIGHT`; the weight is greater than 0.
pub fn weight(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("`{text}` is no weight; write ROLE=NUMBER, like `prod=2`");
    let (role, number) = text.split_once('=').ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    if role.is_empty() {
        return Err(wrong());
    }
    if !(number.is_finite() && number > 0.0) {
        return Err(format!("the weight of `{role}` is {number}; it has to be greater than 0"));
    }
    Ok((role.to_owned(), number))
}

/// `KEY=VALUE`; the value may be empty and may hold `=`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no variable; write NAME=VALUE")),
    }
}

/// A duration as an option would take it: `15s`, `10m`, `2ms`.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let units: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
        ("ns", 1),
    ];
    let (unit, size) =
        units.into_iter().find(|(_, size)| nanos.is_multiple_of(*size)).unwrap_or(("ns", 1));
    format!("{}{unit}", nanos / size)
}

/// How long ago, roughly, in one unit: `42s`, `3m`, `5h`, `2d`. Times are
/// seconds since the epoch; one in the future is `0s`.
pub fn age(now: f64, then: f64) -> String {
    let secs = (now - then).max(0.0) as u64;
    match secs {
        0..120 => format!("{secs}s"),
        120..7200 => format!("{}m", secs / 60),
        7200..172_800 => format!("{}h", secs / 3600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// Mebibytes with the unit that suits them: `64 MiB`, `1.5 GiB`.
pub fn mebibytes(mib: f64) -> String {
    let (value, unit) = if mib < 1024.0 {
        (mib, "MiB")
    } else if mib < 1_048_576.0 {
        (mib / 1024.0, "GiB")
    } else {
        (mib / 1_048_576.0, "TiB")
    };
    format!("{} {unit}", number(value))
}

/// At most one decimal below 100, none above; no trailing zero.
pub fn number(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    match text.strip_suffix(".0") {
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// A share between 0 and 1 as percent.
pub fn percent(share: f64) -> String {
    format!("{}%", number(share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("2 ms"), Ok(Duration::from_millis(2)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_never("never"), Ok(None));
        for (text, part) in [
            ("15", "has no unit"),
            ("15 parsecs", "unknown unit"),
            ("", "is no duration"),
            ("-3s", "is no duration"),
            ("1.2.3s", "is no duration"),
            ("99999d", "more than the longest"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(error.contains(part) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn rates() {
        let minute = Duration::from_secs(60);
        assert_eq!(rate_or_none("100/1m"), Ok(Some((100, minute))));
        assert_eq!(rate_or_none("1/10mins"), Ok(Some((1, minute * 10))));
        assert_eq!(rate_or_none("2 / 1hrs"), Ok(Some((2, minute * 60))));
        assert_eq!(rate_or_none("none"), Ok(None));
        for bad in ["1", "0/1m", "1/0", "x/1m", "1/m", "-1/1m", "never"] {
            let error = rate_or_none(bad).unwrap_err();
            assert!(error.contains(bad) && error.contains("NUMBER/TIME"), "{bad}: {error}");
        }
    }

    #[test]
    fn shown_durations_parse_to_themselves() {
        for text in ["0s", "2ms", "15s", "10m", "1h", "7d", "1500ms", "90s", "250us"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("10GB"), Ok(10_000_000_000));
        assert_eq!(size("1 B"), Ok(1));
        for text in ["10", "10 G", "x", "99999999999TiB"] {
            assert!(size(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn numbers_and_truths() {
        assert_eq!(count("12"), Ok(12));
        assert!(count("0").unwrap_err().contains("least is 1"));
        assert!(count("-1").unwrap_err().contains("`-1`"));
        assert!(count_u32("4294967296").unwrap_err().contains("4294967295"));
        assert_eq!(boolean("true"), Ok(true));
        assert!(boolean("yes").unwrap_err().contains("`yes`"));
    }

    #[test]
    fn addresses() {
        assert!(listen_address("0.0.0.0:5050").is_ok());
        assert!(listen_address("[::1]:0").is_ok());
        assert!(listen_address("localhost:5050").unwrap_err().contains("IP:PORT"));
        for good in ["localhost:5050", "10.0.0.1:1", "[::1]:5050"] {
            assert_eq!(peer_address(good), Ok(good.to_owned()));
        }
        for bad in ["localhost", "h:0", "h:99999", ":5050", "http://h:5050", "::1:5050", "a b:1"] {
            assert!(peer_address(bad).unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn pairs() {
        assert_eq!(weight("prod=2.5"), Ok(("prod".to_owned(), 2.5)));
        for bad in ["prod", "=2", "prod=x"] {
            assert!(weight(bad).unwrap_err().contains(bad), "{bad}");
        }
        for bad in ["prod=0", "prod=-1", "prod=NaN", "prod=inf"] {
            assert!(weight(bad).unwrap_err().contains("greater than 0"), "{bad}");
        }
        assert_eq!(key_value("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("A="), Ok(("A".to_owned(), String::new())));
        assert!(key_value("=x").is_err() && key_value("A").is_err());
    }

    #[test]
    fn for_people() {
        assert_eq!(age(100.0, 58.0), "42s");
        assert_eq!(age(1000.0, 800.0), "3m");
        assert_eq!(age(20_000.0, 2000.0), "5h");
        assert_eq!(age(200_000.0, 0.0), "2d");
        assert_eq!(age(5.0, 9.0), "0s");
        assert_eq!(mebibytes(64.0), "64 MiB");
        assert_eq!(mebibytes(1536.0), "1.5 GiB");
        assert_eq!(mebibytes(2_097_152.0), "2 TiB");
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(123.4), "123");
        assert_eq!(percent(0.333), "33.3%");
    }
}
