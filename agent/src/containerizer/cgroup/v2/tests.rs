//! On a folder that looks like a unified hierarchy.

use std::{fs, process::Command};

use mezz_proto::resources::Resources;

use super::*;

/// The agent is `mezz`, the container `c`; the kernel's files are there.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put("cgroup.subtree_control", "cpu\n");
        folder.put("mezz/cgroup.subtree_control", "");
        for name in ["cpu.weight", "cpu.max", "memory.low", "memory.max", "memory.swap.max"] {
            folder.put(&format!("mezz/c/{name}"), "");
        }
        for name in ["memory.oom.group", "pids.max", "cgroup.procs", "cgroup.kill"] {
            folder.put(&format!("mezz/c/{name}"), "");
        }
        folder.put("mezz/c/cgroup.events", "populated 0\nfrozen 0\n");
        folder
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap()
    }

    fn open(&self) -> V2 {
        let settings = Settings { most_pids: 77, devices: false, cpuset: false };
        V2::open(self.0.path(), "mezz", settings).unwrap()
    }
}

fn bounds(cpus: f64, mem: f64, quota: bool) -> Bounds {
    Bounds::new(&Resources::cpus_mem(cpus, mem), &Default::default(), quota)
}

#[test]
fn missing_controllers_are_switched_on_at_both_levels() {
    let folder = Folder::new();
    folder.open();
    assert_eq!(folder.text("cgroup.subtree_control"), "+memory +pids");
    assert_eq!(folder.text("mezz/cgroup.subtree_control"), "+cpu +memory +pids");
}

#[test]
fn controllers_that_are_on_are_left_alone() {
    let folder = Folder::new();
    folder.put("cgroup.subtree_control", "cpuset cpu io memory pids\n");
    folder.open();
    assert_eq!(folder.text("cgroup.subtree_control"), "cpuset cpu io memory pids\n");
}

#[test]
fn a_new_container_gets_its_limits() {
    let folder = Folder::new();
    let join = folder.open().create("c", &bounds(1.5, 64.0, true)).unwrap();
    assert_eq!(join, [folder.0.path().join("mezz/c/cgroup.procs")]);
    for (name, value) in [
        ("cpu.weight", "150"),
        ("cpu.max", "150000 100000"),
        ("memory.low", "67108864"),
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "77"),
    ] {
        assert_eq!(folder.text(&format!("mezz/c/{name}")), value, "{name}");
    }
}

#[test]
fn without_a_quota_only_the_weight_counts() {
    let folder = Folder::new();
    folder.open().create("c", &bounds(0.001, 8.0, false)).unwrap();
    assert_eq!(folder.text("mezz/c/cpu.weight"), "1");
    assert_eq!(folder.text("mezz/c/cpu.max"), "max 100000");
    assert_eq!(folder.text("mezz/c/memory.max"), "33554432");
}

#[test]
fn a_limit_is_not_lowered_below_what_is_in_use() {
    let folder = Folder::new();
    folder.put("mezz/c/memory.max", "67108864");
    folder.put("mezz/c/memory.current", "50000000\n");
    let held = folder.open().update("c", &bounds(1.0, 32.0, false), None).unwrap();
    assert!(!held, "it is told that the limit is another");
    assert_eq!(folder.text("mezz/c/memory.max"), "67108864");
    assert_eq!(folder.text("mezz/c/memory.low"), "33554432");
}

#[test]
fn only_what_differs_is_written() {
    let folder = Folder::new();
    let (v2, before) = (folder.open(), bounds(1.0, 32.0, false));
    v2.create("c", &before).unwrap();
    for name in ["cpu.weight", "cpu.max", "memory.low", "memory.max"] {
        folder.put(&format!("mezz/c/{name}"), "as it was");
    }
    let read = || ["cpu.weight", "memory.max"].map(|name| folder.text(&format!("mezz/c/{name}")));
    assert!(v2.update("c", &before, Some(&before)).unwrap());
    assert_eq!(read(), ["as it was", "as it was"]);
    let more = bounds(2.0, 32.0, false);
    assert!(v2.update("c", &more, Some(&before)).unwrap());
    assert!(read()[0].starts_with("200") && read()[1] == "as it was", "{:?}", read());
    assert!(v2.update("c", &bounds(2.0, 64.0, false), Some(&more)).unwrap());
    assert!(read()[1].starts_with("67108864"), "{:?}", read());
}

#[test]
fn only_a_kill_is_out_of_memory() {
    let folder = Folder::new();
    let v2 = folder.open();
    folder.put("mezz/c/memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\n");
    folder.put("mezz/c/memory.max", "33554432\n");
    folder.put("mezz/c/memory.peak", "33554000\n");
    assert_eq!(v2.out_of_memory("c"), None);
    folder.put("mezz/c/memory.events", "max 12\noom 0\noom_kill 2\noom_group_kill 1\n");
    assert_eq!(v2.out_of_memory("c"), None, "the machine's memory was short");
    folder.put("mezz/c/memory.events", "max 12\noom 1\noom_kill 2\noom_group_kill 1\n");
    let expected = OutOfMemory { limit_bytes: 33_554_432, peak_bytes: 33_554_000 };
    assert_eq!(v2.out_of_memory("c"), Some(expected));
}

#[test]
fn statistics_are_read_from_all_controllers() {
    let folder = Folder::new();
    folder.put("mezz/c/cpu.stat", "usage_usec 3\nuser_usec 2500000\nsystem_usec 500000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 1500000\n");
    folder.put("mezz/c/memory.stat", "anon 4096\nfile 8192\n");
    folder.put("mezz/c/memory.max", "max\n");
    folder.put("mezz/c/memory.current", "12288\n");
    folder.put("mezz/c/memory.swap.current", "512\n");
    folder.put("mezz/c/memory.events", "oom_kill 0\n");
    folder.put("mezz/c/pids.current", "2\n");
    let expected = Statistics {
        cpus_user_secs: Some(2.5),
        cpus_system_secs: Some(0.5),
        cpus_nr_periods: Some(9),
        cpus_nr_throttled: Some(4),
        cpus_throttled_secs: Some(1.5),
        mem_rss_bytes: Some(4096),
        mem_peak_bytes: Some(12288),
        mem_swap_bytes: Some(512),
        mem_limit_bytes: None,
        oom_kills: Some(0),
        pids: Some(2),
    };
    assert_eq!(folder.open().statistics("c"), expected);
}

#[test]
fn killing_uses_the_kernels_own_file_and_then_looks_after_stragglers() {
    let folder = Folder::new();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    folder.put("mezz/c/cgroup.events", "populated 1\n");
    folder.put("mezz/c/cgroup.procs", &format!("{}\n", child.id()));
    let v2 = folder.open();
    let events = folder.0.path().join("mezz/c/cgroup.events");
    let waiter = std::thread::spawn(move || {
        let status = child.wait().unwrap();
        fs::write(events, "populated 0\n").unwrap();
        status
    });
    v2.kill("c").unwrap();
    assert!(!waiter.join().unwrap().success());
    assert_eq!(folder.text("mezz/c/cgroup.kill"), "1");
}

#[test]
fn what_is_gone_is_empty_and_removed() {
    let v2 = Folder::new().open();
    v2.kill("unknown").unwrap();
    v2.remove("unknown").unwrap();
    assert_eq!(v2.processes("unknown").unwrap(), Vec::<i32>::new());
}

#[test]
fn containers_are_listed() {
    let folder = Folder::new();
    assert_eq!(folder.open().list().unwrap(), ["c"]);
}
