//! `/version`, and the same fields in `/state` and GET_VERSION.

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::v1;

/// The version of Mesos whose APIs these are. What clients of Mesos are told as `version`,
/// of masters and agents alike: some refuse a master that is older than they need, Marathon
/// one below 1.5.
pub const MESOS_VERSION: &str = "1.12.0";

/// What a program was built from. What the build did not tell is left out or empty: a
/// build says `SOURCE_DATE_EPOCH` and `MEZZ_GIT_SHA`, or nothing, so that the same source
/// gives the same bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Version {
    /// Of Mezz.
    pub mezz_version: &'static str,
    /// The commit, if the build told.
    pub git_sha: Option<&'static str>,
    /// Seconds since the epoch; 0 if the build did not tell.
    pub build_time: f64,
}

impl Version {
    /// Of this build.
    pub fn of_build() -> Self {
        Self {
            mezz_version: env!("CARGO_PKG_VERSION"),
            git_sha: option_env!("MEZZ_GIT_SHA").filter(|sha| !sha.is_empty()),
            build_time: option_env!("SOURCE_DATE_EPOCH")
                .and_then(|secs| secs.parse().ok())
                .unwrap_or_default(),
        }
    }

    /// As Mesos writes it: `2026-11-21 05:00:00 UTC`.
    pub fn build_date(&self) -> String {
        utc(self.build_time as u64)
    }

    /// Writes the fields in the order of `/state`; `/version` sorts them.
    ///
    /// # Errors
    /// The map's.
    pub fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("version", MESOS_VERSION)?;
        if let Some(sha) = self.git_sha {
            map.serialize_entry("git_sha", sha)?;
        }
        map.serialize_entry("build_date", &self.build_date())?;
        map.serialize_entry("build_time", &self.build_time)?;
        map.serialize_entry("build_user", "")
    }

    /// For GET_VERSION.
    pub fn to_proto(&self) -> v1::VersionInfo {
        v1::VersionInfo {
            version: MESOS_VERSION.to_owned(),
            build_date: Some(self.build_date()),
            build_time: Some(self.build_time),
            build_user: Some(String::new()),
            git_sha: self.git_sha.map(str::to_owned),
            ..Default::default()
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("build_date", &self.build_date())?;
        map.serialize_entry("build_time", &self.build_time)?;
        map.serialize_entry("build_user", "")?;
        if let Some(sha) = self.git_sha {
            map.serialize_entry("git_sha", sha)?;
        }
        map.serialize_entry("mezz_version", self.mezz_version)?;
        map.serialize_entry("version", MESOS_VERSION)?;
        map.end()
    }
}

/// A moment as a date, by the civil calendar (days since 1970 to year, month, day).
fn utc(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let days = days.min(3_000_000) + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    #[test]
    fn moments_are_dates() {
        assert_eq!(super::utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(super::utc(1_795_238_400), "2026-11-21 05:20:00 UTC");
        assert_eq!(super::utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(super::utc(951_782_400), "2000-02-29 00:00:00 UTC");
    }
}
