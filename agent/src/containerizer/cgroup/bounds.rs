//! From resources to what the kernel is told (behaviour rule 64).

use std::collections::BTreeMap;

use mezz_proto::resources::Resources;

const MIB: u64 = 1 << 20;

/// No container gets less memory than this: a shell could not even start.
pub const LEAST_MEMORY_BYTES: u64 = 32 * MIB;

/// The time in which a quota is counted.
pub const CPU_PERIOD_MICROS: u64 = 100_000;

/// The kernel refuses smaller quotas.
const LEAST_QUOTA_MICROS: u64 = 1_000;

/// Processes and threads of one container. Far above what a JVM needs, and far
/// below what a fork bomb needs to take the machine with it.
pub const MAX_PIDS: u64 = 16_384;

/// What a container is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Its share of the cpus.
    pub cpus: f64,
    /// Microseconds of cpu time per 100 ms; none: only the share counts.
    pub cpu_quota_micros: Option<u64>,
    /// Bytes that are left to it when memory runs short.
    pub memory_soft: u64,
    /// Bytes above which it is killed; none: no bound.
    pub memory_hard: Option<u64>,
    /// GPUs, which are whole; what is above is cut off.
    pub gpus: usize,
}

impl Bounds {
    /// `limits` stand above `resources`; infinity lifts a bound, and what is no
    /// positive number counts as not given. `quota` bounds cpu time without a limit
    /// too.
    pub fn new(resources: &Resources, limits: &BTreeMap<String, f64>, quota: bool) -> Self {
        let limit = |name| limits.get(name).copied().filter(|v: &f64| *v > 0.0);
        let cpus = resources.scalar("cpus").to_f64();
        let cpu_quota_micros = match limit("cpus") {
            Some(cpus) => finite(cpus).map(quota_micros),
            None => quota.then(|| quota_micros(cpus)),
        };
        let memory_soft = memory_bytes(resources.scalar("mem").to_f64());
        let memory_hard = match limit("mem") {
            Some(mem) => finite(mem).map(memory_bytes),
            None => Some(memory_soft),
        };
        let gpus = resources.scalar("gpus").to_f64() as usize;
        Self { cpus, cpu_quota_micros, memory_soft, memory_hard, gpus }
    }

    /// Whether the cpus are to be set, with those bounds in force.
    pub fn changes_cpus(&self, before: Option<&Self>) -> bool {
        let cpus = |b: &Self| (b.cpus, b.cpu_quota_micros);
        before.is_none_or(|before| cpus(before) != cpus(self))
    }

    /// Whether the memory is to be set, with those bounds in force.
    pub fn changes_memory(&self, before: Option<&Self>) -> bool {
        let memory = |b: &Self| (b.memory_soft, b.memory_hard);
        before.is_none_or(|before| memory(before) != memory(self))
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn quota_micros(cpus: f64) -> u64 {
    ((cpus * CPU_PERIOD_MICROS as f64) as u64).max(LEAST_QUOTA_MICROS)
}

/// The kernel counts in pages, so fractions of a MiB survive.
fn memory_bytes(mib: f64) -> u64 {
    ((mib * MIB as f64) as u64).max(LEAST_MEMORY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(limits: &[(&str, f64)], quota: bool) -> Bounds {
        let limits = limits.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        Bounds::new(&Resources::cpus_mem(0.5, 64.0), &limits, quota)
    }

    #[test]
    fn resources_alone_share_the_cpus_and_bound_the_memory() {
        let b = bounds(&[], false);
        assert_eq!((b.cpus, b.cpu_quota_micros), (0.5, None));
        assert_eq!((b.memory_soft, b.memory_hard), (64 * MIB, Some(64 * MIB)));
        assert_eq!(bounds(&[], true).cpu_quota_micros, Some(50_000));
    }

    #[test]
    fn limits_stand_above_resources() {
        let b = bounds(&[("cpus", 2.0), ("mem", 128.0)], false);
        assert_eq!(b.cpu_quota_micros, Some(200_000));
        assert_eq!((b.memory_soft, b.memory_hard), (64 * MIB, Some(128 * MIB)));
    }

    #[test]
    fn infinity_lifts_a_bound() {
        let b = bounds(&[("cpus", f64::INFINITY), ("mem", f64::INFINITY)], true);
        assert_eq!((b.cpu_quota_micros, b.memory_hard), (None, None));
        assert_eq!(b.memory_soft, 64 * MIB);
    }

    #[test]
    fn what_differs_is_told_apart() {
        let b = bounds(&[], false);
        assert!(b.changes_cpus(None) && b.changes_memory(None));
        assert!(!b.changes_cpus(Some(&b)) && !b.changes_memory(Some(&b)));
        let cpus = Bounds { cpus: 1.0, ..b };
        assert!(cpus.changes_cpus(Some(&b)) && !cpus.changes_memory(Some(&b)));
        let quota = bounds(&[], true);
        assert!(quota.changes_cpus(Some(&b)) && !quota.changes_memory(Some(&b)));
        let unbound = bounds(&[("mem", f64::INFINITY)], false);
        assert!(!unbound.changes_cpus(Some(&b)) && unbound.changes_memory(Some(&b)));
    }

    #[test]
    fn nothing_is_less_than_the_least() {
        let b = Bounds::new(&Resources::new(), &BTreeMap::new(), true);
        assert_eq!(b.cpu_quota_micros, Some(1_000));
        assert_eq!(b.memory_hard, Some(LEAST_MEMORY_BYTES));
        assert_eq!(bounds(&[("mem", f64::NAN)], false).memory_hard, Some(64 * MIB));
    }
}
