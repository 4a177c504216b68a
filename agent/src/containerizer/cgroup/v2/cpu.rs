//! `cpu`: weight, bandwidth and cpu time.

use std::path::Path;

use super::super::{
    bounds::{Bounds, CPU_PERIOD_MICROS},
    file::{self, CgroupError},
};
use crate::containerizer::Statistics;

const WEIGHT: &str = "cpu.weight";
const MAX: &str = "cpu.max";
const STAT: &str = "cpu.stat";

const WEIGHT_PER_CPU: f64 = 100.0;

/// The kernel's own bounds.
const WEIGHTS: (u64, u64) = (1, 10_000);

const MICROS: f64 = 1e6;

pub(super) fn set(directory: &Path, bounds: &Bounds) -> Result<(), CgroupError> {
    let weight = ((bounds.cpus * WEIGHT_PER_CPU) as u64).clamp(WEIGHTS.0, WEIGHTS.1);
    file::write(directory, WEIGHT, weight)?;
    let quota = bounds.cpu_quota_micros.map_or("max".to_owned(), |q| q.to_string());
    file::write(directory, MAX, format!("{quota} {CPU_PERIOD_MICROS}"))
}

pub(super) fn statistics(directory: &Path, into: &mut Statistics) {
    let seconds = |key| file::keyed(directory, STAT, key).map(|micros| micros as f64 / MICROS);
    into.cpus_user_secs = seconds("user_usec");
    into.cpus_system_secs = seconds("system_usec");
    into.cpus_throttled_secs = seconds("throttled_usec");
    into.cpus_nr_periods = file::keyed(directory, STAT, "nr_periods");
    into.cpus_nr_throttled = file::keyed(directory, STAT, "nr_throttled");
}
