//! The processor time of a process in nanoseconds: `/proc/PID/stat` counts in ticks of ten
//! milliseconds, which are a good part of what a round takes.

use std::{collections::HashMap, fs, time::Duration};

use anyhow::{Context, Result};

/// What each thread of a process has used so far.
pub struct Processor {
    pid: u32,
    threads: HashMap<String, u64>,
}

impl Processor {
    /// Of this process, now.
    pub fn of(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}/task");
        let mut threads = HashMap::new();
        for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
            let entry = entry?;
            // A thread may end meanwhile.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let nanos = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
            threads.insert(entry.file_name().to_string_lossy().into_owned(), nanos);
        }
        Ok(Self { pid, threads })
    }

    /// What was used since: without that of threads that have ended, of which the master
    /// has none while it is busy.
    pub fn since(&self) -> Result<Duration> {
        let now = Self::of(self.pid)?;
        let used = now.threads.iter().map(|(thread, nanos)| {
            nanos.saturating_sub(self.threads.get(thread).copied().unwrap_or_default())
        });
        Ok(Duration::from_nanos(used.sum()))
    }
}
