//! What a container is held to, in the engine's words (behaviour rules 64, 65).

use bollard::models::{ContainerUpdateBody, HostConfig};

use crate::containerizer::cgroup::Bounds;

const SHARES_PER_CPU: f64 = 1024.0;

/// In which [`Bounds::cpu_quota_micros`] is counted.
const CPU_PERIOD_MICROS: i64 = 100_000;

/// The kernel's own least.
const LEAST_SHARES: i64 = 2;

/// More bytes than any machine has: the engine cannot lift a bound, only raise it.
const NO_MEMORY_BOUND: i64 = 1 << 60;

fn shares(bounds: &Bounds) -> i64 {
    ((bounds.cpus * SHARES_PER_CPU) as i64).max(LEAST_SHARES)
}

fn signed(value: u64) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Memory that is used up is not taken from the swap: a limit is a limit.
pub(super) fn apply(bounds: &Bounds, host: &mut HostConfig) {
    host.cpu_shares = Some(shares(bounds));
    if let Some(quota) = bounds.cpu_quota_micros {
        host.cpu_period = Some(CPU_PERIOD_MICROS);
        host.cpu_quota = Some(signed(quota));
    }
    let hard = bounds.memory_hard.map(signed);
    host.memory = hard;
    host.memory_swap = hard;
    host.memory_reservation = Some(least(bounds, hard));
}

/// The engine refuses a soft bound above the hard one.
fn least(bounds: &Bounds, hard: Option<i64>) -> i64 {
    let soft = signed(bounds.memory_soft);
    hard.map_or(soft, |hard| hard.min(soft))
}

/// From what it has now to other bounds. The swap that it was given stays.
pub(super) fn change(bounds: &Bounds, now: &HostConfig) -> ContainerUpdateBody {
    let hard = bounds.memory_hard.map(signed);
    let memory = hard.unwrap_or(NO_MEMORY_BOUND);
    let swap = match (now.memory_swap, now.memory) {
        (Some(both), Some(before)) if both >= before && before > 0 => {
            memory.saturating_add(both - before)
        }
        (Some(-1), _) => -1,
        _ => memory,
    };
    ContainerUpdateBody {
        cpu_shares: Some(shares(bounds)),
        cpu_period: Some(CPU_PERIOD_MICROS),
        cpu_quota: Some(bounds.cpu_quota_micros.map_or(-1, signed)),
        memory: Some(memory),
        memory_swap: Some(swap),
        memory_reservation: Some(least(bounds, hard)),
        ..ContainerUpdateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mezz_proto::resources::Resources;

    use super::*;

    const MIB: i64 = 1 << 20;

    fn bounds(limits: &[(&str, f64)], quota: bool) -> Bounds {
        let limits: BTreeMap<_, _> = limits.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        Bounds::new(&Resources::cpus_mem(0.5, 64.0), &limits, quota)
    }

    fn host(bounds: &Bounds) -> HostConfig {
        let mut host = HostConfig::default();
        apply(bounds, &mut host);
        host
    }

    #[test]
    fn cpus_are_shares_and_memory_is_a_bound_without_swap() {
        let host = host(&bounds(&[], false));
        assert_eq!((host.cpu_shares, host.cpu_quota, host.cpu_period), (Some(512), None, None));
        assert_eq!((host.memory, host.memory_swap), (Some(64 * MIB), Some(64 * MIB)));
        assert_eq!(host.memory_reservation, Some(64 * MIB));
    }

    #[test]
    fn limits_and_the_option_make_a_quota() {
        let by_option = host(&bounds(&[], true));
        assert_eq!((by_option.cpu_quota, by_option.cpu_period), (Some(50_000), Some(100_000)));
        let by_limit = host(&bounds(&[("cpus", 2.0), ("mem", 128.0)], false));
        assert_eq!(by_limit.cpu_quota, Some(200_000));
        assert_eq!(by_limit.memory, Some(128 * MIB));
        assert_eq!(by_limit.memory_reservation, Some(64 * MIB));
    }

    #[test]
    fn infinity_lifts_a_bound() {
        let host = host(&bounds(&[("cpus", f64::INFINITY), ("mem", f64::INFINITY)], true));
        assert_eq!((host.cpu_quota, host.memory, host.memory_swap), (None, None, None));
        let change = change(&bounds(&[("mem", f64::INFINITY)], false), &host);
        assert_eq!((change.memory, change.cpu_quota), (Some(NO_MEMORY_BOUND), Some(-1)));
    }

    #[test]
    fn a_change_keeps_the_swap_that_was_asked_for() {
        let mut now = host(&bounds(&[], false));
        let more = bounds(&[("mem", 128.0)], false);
        assert_eq!(change(&more, &now).memory_swap, Some(128 * MIB));
        now.memory_swap = Some(80 * MIB);
        assert_eq!(change(&more, &now).memory_swap, Some(144 * MIB));
        now.memory_swap = Some(-1);
        assert_eq!(change(&more, &now).memory_swap, Some(-1));
    }
}
