//! Processor time of the processes that a job keeps busy, by what they are. It says where
//! the time goes, and is disturbed less by what else runs on the machine than times are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use super::Times;
use crate::cluster::Stat;

/// Between two looks: each costs some milliseconds.
const INTERVAL: Duration = Duration::from_millis(200);

/// What processes are, by a word of their command line; the first that is there counts.
const PROCESSES: [(&str, &str); 10] = [
    ("spark-sidecar", "sidecar"),
    ("GrainedExecutorBackend", "executor_jvm"),
    ("FineExecutorBackend", "executor_jvm"),
    ("spark-executor", "executor"),
    ("deploy.SparkSubmit", "driver_jvm"),
    ("deploy.master.Master", "master"),
    ("deploy.worker.Worker", "agent"),
    ("\0master\0", "master"),
    ("\0agent\0", "agent"),
    ("python", "python"),
];

/// Seconds of processor time, by what used them.
pub(super) type Seconds = BTreeMap<&'static str, f64>;

/// One look: when, in seconds since the epoch, and the time of each process since its start.
struct Look {
    at: f64,
    processes: BTreeMap<u32, (&'static str, Duration)>,
}

/// Looks at the processes below this one until it is asked what it saw.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Look>>,
}

impl Watch {
    /// Begins to look.
    pub(super) fn start() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("cpu".to_owned()).spawn(move || {
            let mut looks = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                looks.push(look());
                thread::sleep(INTERVAL);
            }
            looks
        })?;
        Ok(Self { stop, thread })
    }

    /// What was used while the program ran in its session.
    pub(super) fn end(self, times: &Times) -> Result<Seconds> {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.thread.join().ok().context("the thread that looks at processes")?;
        Ok(between(&looks, times.ready, times.ready + times.job))
    }
}

/// From the last look before `begin` to the last before `end`.
fn between(looks: &[Look], begin: f64, end: f64) -> Seconds {
    let last = |at: f64| looks.iter().rfind(|look| look.at <= at);
    let (first, last) = (last(begin), last(end));
    let mut used = Seconds::new();
    for (pid, (what, after)) in last.into_iter().flat_map(|look| &look.processes) {
        let before = first.and_then(|look| look.processes.get(pid));
        let before = before.map_or(Duration::ZERO, |(_, before)| *before);
        *used.entry(what).or_default() += after.saturating_sub(before).as_secs_f64();
    }
    used
}

fn look() -> Look {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // Processes end while they are looked at.
        if let Some(pid) = pid
            && let Ok(stat) = Stat::of(pid)
        {
            all.insert(pid, stat);
        }
    }
    let mut ours = BTreeSet::from([std::process::id()]);
    loop {
        let more = all.iter().filter(|(pid, s)| ours.contains(&s.parent) && !ours.contains(pid));
        let more: Vec<u32> = more.map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            break;
        }
        ours.extend(more);
    }
    let ours = all.into_iter().filter(|(pid, _)| ours.contains(pid));
    let processes = ours.filter_map(|(pid, stat)| Some((pid, (what(pid)?, stat.own)))).collect();
    Look { at, processes }
}

/// Asked at each look, for a process may become another program; a launcher is none.
fn what(pid: u32) -> Option<&'static str> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    PROCESSES.iter().find(|(word, _)| line.contains(word)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_before_and_after_does_not_count() {
        let look = |at, first, second: Option<u64>| {
            let ms = Duration::from_millis;
            let mut processes = BTreeMap::from([(1, ("driver_jvm", ms(first)))]);
            processes.extend(second.map(|used| (2, ("driver_jvm", ms(used)))));
            Look { at, processes }
        };
        let looks = [look(0.9, 400, None), look(1.9, 900, Some(100)), look(2.1, 5000, None)];
        let used = between(&looks, 1.0, 2.0);
        assert_eq!(used.len(), 1);
        assert!((used["driver_jvm"] - 0.6).abs() < 1e-9, "{used:?}");
    }
}
