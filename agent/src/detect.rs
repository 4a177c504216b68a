//! What a machine has to offer, found out by itself (behaviour rule 51).

use std::{fs, io, path::Path, thread::available_parallelism};

use mezz_proto::resources::{Amount, Identity, Range, Ranges, Resource, Resources, Scalar};

pub use crate::launcher::process::boot_id;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Offered when the machine does not tell how much memory or disk it has (MiB).
const FALLBACK_MEM_MIB: u64 = 1024;
const FALLBACK_DISK_MIB: u64 = 10 * 1024;

/// Ports that are offered.
const PORTS: (u64, u64) = (31_000, 32_000);

/// cpus, mem, disk and ports of this machine. `work_dir`, or the nearest directory
/// above it that exists, says which disk.
///
/// Part is kept back for the system: 1 GiB of memory and 5 GiB of disk where there
/// is twice that, else half. A cgroup that bounds the agent's own cpus or memory
/// counts as the machine's size.
pub fn detect_resources(work_dir: &Path) -> Resources {
    let cpus = available_parallelism().map_or(1, |n| n.get() as u64);
    let mem = memory_bytes().map_or(FALLBACK_MEM_MIB, |m| keep_back(m, GIB) / MIB);
    let disk = disk_bytes(work_dir).map_or(FALLBACK_DISK_MIB, |d| keep_back(d, 5 * GIB) / MIB);
    let scalar = |name, units| Resource::scalar(name, Scalar::from_units(units));
    let mut found: Resources =
        [scalar("cpus", cpus), scalar("mem", mem), scalar("disk", disk)].into_iter().collect();
    if let Ok(range) = Range::new(PORTS.0, PORTS.1) {
        let ports = Ranges::new([range]);
        found
            .insert(Resource { identity: Identity::named("ports"), amount: Amount::Ranges(ports) });
    }
    found
}

/// The machine's name; `localhost` when it has none.
pub fn detect_hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

fn keep_back(total: u64, reserve: u64) -> u64 {
    if total >= 2 * reserve { total - reserve } else { total / 2 }
}

fn memory_bytes() -> Option<u64> {
    let machine = mem_total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    // Inside of a docker container its own cgroup is the root of what it sees.
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
        .min()
        .unwrap_or(u64::MAX);
    Some(machine.min(cgroup))
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn disk_bytes(work_dir: &Path) -> Option<u64> {
    let stat = work_dir.ancestors().find_map(|dir| match rustix::fs::statvfs(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        result => Some(result.ok()),
    })??;
    stat.f_blocks.checked_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_all_four() {
        let found = detect_resources(Path::new("/nowhere/yet"));
        assert!(found.scalar("cpus") >= Scalar::from_units(1));
        assert!(found.scalar("mem") > Scalar::ZERO);
        assert!(found.scalar("disk") > Scalar::ZERO);
        assert!(found.to_string().contains("ports:[31000-32000]"), "{found}");
    }

    #[test]
    fn large_machines_keep_a_fixed_part_back_and_small_ones_half() {
        assert_eq!(keep_back(8 * GIB, GIB), 7 * GIB);
        assert_eq!(keep_back(2 * GIB, GIB), GIB);
        assert_eq!(keep_back(GIB, GIB), GIB / 2);
    }

    #[test]
    fn meminfo_is_read_in_kib() {
        assert_eq!(mem_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16_777_216));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
    }
}
