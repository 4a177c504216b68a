//! `memory`: soft and hard limits, and what the out-of-memory killer did.

use std::{
    fs::File,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::event::{EventfdFlags, eventfd};

use super::super::{
    bounds::Bounds,
    file::{self, CgroupError},
};
use crate::containerizer::{OutOfMemory, Statistics};

const HIERARCHY: &str = "memory.use_hierarchy";
const SOFT: &str = "memory.soft_limit_in_bytes";
const HARD: &str = "memory.limit_in_bytes";
/// Memory and swap together; only where the kernel counts swap.
const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
const PEAK: &str = "memory.max_usage_in_bytes";
const STAT: &str = "memory.stat";
const OOM: &str = "memory.oom_control";
const PEAK_WITH_SWAP: &str = "memory.memsw.max_usage_in_bytes";

/// A container whose peak stayed more than this below its limit, in bytes, was never
/// short of memory itself: the kernel kills for the lack of eight pages at most.
const SLACK: u64 = 1 << 20;
/// Ties an eventfd to another control file.
const EVENTS: &str = "cgroup.event_control";

/// The kernel's "no limit", less what it rounds off.
const NO_LIMIT: u64 = 1 << 62;

/// Cgroups that a task makes inside of its own count as its own. Newer kernels know
/// nothing else.
pub(super) fn count_hierarchically(agent: &Path) -> Result<(), CgroupError> {
    match file::number(agent, HIERARCHY) {
        Some(0) => file::write(agent, HIERARCHY, 1),
        _ => Ok(()),
    }
}

/// Whether the limit is in force.
pub(super) fn set(directory: &Path, bounds: &Bounds) -> Result<bool, CgroupError> {
    file::write(directory, SOFT, bounds.memory_soft)?;
    let hard = bounds.memory_hard.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(-1));
    let raises = bounds.memory_hard.is_none_or(|new| new >= limit(directory).unwrap_or(u64::MAX));
    let swap = directory.join(WITH_SWAP).exists();
    // With swap can never be less than without; so the order depends on the direction.
    if swap && raises {
        file::write(directory, WITH_SWAP, hard)?;
    }
    match file::write(directory, HARD, hard) {
        Err(e) if e.source.kind() == std::io::ErrorKind::ResourceBusy => {
            tracing::warn!(%e, "more memory is in use than the new limit: it stays as it was");
            return Ok(false);
        }
        result => result?,
    }
    if swap && !raises {
        file::write(directory, WITH_SWAP, hard)?;
    }
    Ok(true)
}

fn limit(directory: &Path) -> Option<u64> {
    file::number(directory, HARD).filter(|bytes| *bytes < NO_LIMIT)
}

pub(super) fn statistics(directory: &Path, into: &mut Statistics) {
    into.mem_rss_bytes = file::keyed(directory, STAT, "total_rss");
    into.mem_swap_bytes = file::keyed(directory, STAT, "total_swap");
    into.mem_peak_bytes = file::number(directory, PEAK);
    into.mem_limit_bytes = limit(directory);
    into.oom_kills = file::keyed(directory, OOM, "oom_kill");
}

/// Kills for want of memory in the whole machine are counted too; those of a container
/// that never came to its limit were of that kind. (`memory.failcnt` would tell, but
/// stays at 0 with newer kernels.)
pub(super) fn out_of_memory(directory: &Path) -> Option<OutOfMemory> {
    file::keyed(directory, OOM, "oom_kill").filter(|kills| *kills > 0)?;
    let limit_bytes = limit(directory)?;
    let peak = |name| file::number(directory, name).unwrap_or_default();
    let peak_bytes = peak(PEAK);
    (peak_bytes.max(peak(PEAK_WITH_SWAP)) >= limit_bytes.saturating_sub(SLACK))
        .then_some(OutOfMemory { limit_bytes, peak_bytes })
}

/// An eventfd that the kernel signals before it kills for memory. Unlike v2 it then
/// kills one process only.
pub(super) fn alarm(directory: &Path) -> Result<OwnedFd, CgroupError> {
    let oom = directory.join(OOM);
    let failed = |e| CgroupError::new("watching", &oom, e);
    let control = File::open(&oom).map_err(failed)?;
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let alarm = eventfd(0, flags).map_err(|e| failed(e.into()))?;
    file::write(directory, EVENTS, format!("{} {}", alarm.as_raw_fd(), control.as_raw_fd()))?;
    Ok(alarm)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            fs::write(dir.path().join(name), value).unwrap();
        }
        dir
    }

    #[test]
    fn only_a_kill_is_out_of_memory() {
        let dir = folder(&[(OOM, "under_oom 1\noom_kill 0\n"), (HARD, "9000000")]);
        let put = |name, value: &str| fs::write(dir.path().join(name), value).unwrap();
        put(PEAK, "8999999");
        assert_eq!(out_of_memory(dir.path()), None);
        put(OOM, "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        let expected = |peak_bytes| Some(OutOfMemory { limit_bytes: 9_000_000, peak_bytes });
        assert_eq!(out_of_memory(dir.path()), expected(8_999_999));
        put(PEAK, "7900000");
        assert_eq!(out_of_memory(dir.path()), None, "the machine's memory was short");
        put(PEAK_WITH_SWAP, "9000000");
        assert_eq!(out_of_memory(dir.path()), expected(7_900_000));
    }

    #[test]
    fn no_limit_is_no_number() {
        let dir = folder(&[(HARD, "9223372036854771712")]);
        assert_eq!(limit(dir.path()), None);
    }

    #[test]
    fn a_kernel_that_does_not_count_swap_is_not_asked_to() {
        let dir = folder(&[(SOFT, ""), (HARD, "")]);
        let bounds = Bounds {
            cpus: 1.0,
            cpu_quota_micros: None,
            memory_soft: 1 << 25,
            memory_hard: Some(1 << 26),
            gpus: 0,
        };
        set(dir.path(), &bounds).unwrap();
        assert_eq!(file::number(dir.path(), SOFT), Some(1 << 25));
        assert_eq!(file::number(dir.path(), HARD), Some(1 << 26));
        assert!(!dir.path().join(WITH_SWAP).exists());
    }
}
