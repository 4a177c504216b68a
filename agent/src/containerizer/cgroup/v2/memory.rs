//! `memory`: protection and limit, and what the out-of-memory killer did.

use std::path::Path;

use super::super::{
    bounds::Bounds,
    file::{self, CgroupError},
};
use crate::containerizer::{OutOfMemory, Statistics};

const LOW: &str = "memory.low";
const MAX: &str = "memory.max";
const SWAP: &str = "memory.swap.max";
const SWAPPED: &str = "memory.swap.current";
const GROUP_KILL: &str = "memory.oom.group";
const CURRENT: &str = "memory.current";
const PEAK: &str = "memory.peak";
const STAT: &str = "memory.stat";
const EVENTS: &str = "memory.events";

/// No swap, so that the limit is the limit; and the killer takes the whole container:
/// half of one is of no use. Kernels without these files do without.
pub(super) fn prepare(directory: &Path) -> Result<(), CgroupError> {
    for (name, value) in [(SWAP, "0"), (GROUP_KILL, "1")] {
        if directory.join(name).exists() {
            file::write(directory, name, value)?;
        }
    }
    Ok(())
}

/// Whether the limit is in force.
pub(super) fn set(directory: &Path, bounds: &Bounds) -> Result<bool, CgroupError> {
    file::write(directory, LOW, bounds.memory_soft)?;
    match bounds.memory_hard {
        None => file::write(directory, MAX, "max").map(|()| true),
        // Unlike v1 the kernel would obey, and kill.
        Some(hard) if file::number(directory, CURRENT).is_some_and(|used| used > hard) => {
            tracing::warn!(
                cgroup = %directory.display(), hard,
                "more memory is in use than the new limit: it stays as it was"
            );
            Ok(false)
        }
        Some(hard) => file::write(directory, MAX, hard).map(|()| true),
    }
}

pub(super) fn statistics(directory: &Path, into: &mut Statistics) {
    into.mem_rss_bytes = file::keyed(directory, STAT, "anon");
    into.mem_swap_bytes = file::number(directory, SWAPPED);
    into.mem_peak_bytes = peak(directory);
    into.mem_limit_bytes = file::number(directory, MAX);
    into.oom_kills = file::keyed(directory, EVENTS, "oom_kill");
}

/// Kills for want of memory in the whole machine are counted as `oom_kill` too, but
/// only those at the limit as `oom`.
pub(super) fn out_of_memory(directory: &Path) -> Option<OutOfMemory> {
    for event in ["oom_kill", "oom"] {
        file::keyed(directory, EVENTS, event).filter(|times| *times > 0)?;
    }
    Some(OutOfMemory {
        limit_bytes: file::number(directory, MAX)?,
        peak_bytes: peak(directory).unwrap_or_default(),
    })
}

/// Kernels before 5.19 do not keep the peak.
fn peak(directory: &Path) -> Option<u64> {
    file::number(directory, PEAK).or_else(|| file::number(directory, CURRENT))
}
