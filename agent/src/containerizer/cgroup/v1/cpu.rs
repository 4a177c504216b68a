//! `cpu`: shares and quota.

use std::path::Path;

use super::super::{
    bounds::{Bounds, CPU_PERIOD_MICROS},
    file::{self, CgroupError},
};
use crate::containerizer::Statistics;

const SHARES: &str = "cpu.shares";
const PERIOD: &str = "cpu.cfs_period_us";
const QUOTA: &str = "cpu.cfs_quota_us";
const STAT: &str = "cpu.stat";

const SHARES_PER_CPU: f64 = 1024.0;

const NANOS: f64 = 1e9;

/// The kernel's own least.
const LEAST_SHARES: u64 = 2;

/// `before` is in force, if it is known.
pub(super) fn set(
    directory: &Path,
    bounds: &Bounds,
    before: Option<&Bounds>,
) -> Result<(), CgroupError> {
    let shares = ((bounds.cpus * SHARES_PER_CPU) as u64).max(LEAST_SHARES);
    file::write(directory, SHARES, shares)?;
    match bounds.cpu_quota_micros {
        Some(quota) => {
            file::write(directory, PERIOD, CPU_PERIOD_MICROS)?;
            file::write(directory, QUOTA, quota)
        }
        None if before.is_some_and(|before| before.cpu_quota_micros.is_none()) => Ok(()),
        None if bounded(directory) => file::write(directory, QUOTA, -1),
        None => Ok(()),
    }
}

/// A kernel without CFS bandwidth has no quota to lift.
fn bounded(directory: &Path) -> bool {
    file::number(directory, QUOTA).is_some()
}

pub(super) fn statistics(directory: &Path, into: &mut Statistics) {
    into.cpus_nr_periods = file::keyed(directory, STAT, "nr_periods");
    into.cpus_nr_throttled = file::keyed(directory, STAT, "nr_throttled");
    let nanos = file::keyed(directory, STAT, "throttled_time");
    into.cpus_throttled_secs = nanos.map(|nanos| nanos as f64 / NANOS);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn bounds(cpus: f64, cpu_quota_micros: Option<u64>) -> Bounds {
        Bounds { cpus, cpu_quota_micros, memory_soft: 0, memory_hard: None, gpus: 0 }
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in [(SHARES, ""), (PERIOD, ""), (QUOTA, "-1")] {
            fs::write(dir.path().join(name), value).unwrap();
        }
        dir
    }

    #[test]
    fn shares_are_1024_a_cpu_and_at_least_two() {
        let dir = folder();
        set(dir.path(), &bounds(1.5, None), None).unwrap();
        assert_eq!(file::number(dir.path(), SHARES), Some(1536));
        let dir = folder();
        set(dir.path(), &bounds(0.001, None), None).unwrap();
        assert_eq!(file::number(dir.path(), SHARES), Some(2));
    }

    #[test]
    fn a_quota_is_written_with_its_period_and_lifted_again() {
        let dir = folder();
        set(dir.path(), &bounds(1.0, Some(50_000)), None).unwrap();
        assert_eq!(file::number(dir.path(), PERIOD), Some(100_000));
        // A plain file keeps what a shorter write leaves; control files do not.
        assert!(file::read(dir.path(), QUOTA).unwrap().starts_with("50000"));
        set(dir.path(), &bounds(1.0, None), Some(&bounds(1.0, Some(50_000)))).unwrap();
        assert!(file::read(dir.path(), QUOTA).unwrap().starts_with("-1"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = set(dir.path(), &bounds(1.0, None), None).unwrap_err().to_string();
        assert!(error.starts_with("writing `1024` to ") && error.contains(SHARES), "{error}");
    }

    #[test]
    fn throttling_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(STAT),
            "nr_periods 9\nnr_throttled 4\nthrottled_time 2500000000\n",
        )
        .unwrap();
        let mut all = Statistics::default();
        statistics(dir.path(), &mut all);
        assert_eq!((all.cpus_nr_periods, all.cpus_nr_throttled), (Some(9), Some(4)));
        assert_eq!(all.cpus_throttled_secs, Some(2.5));
    }
}
