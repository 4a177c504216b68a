//! Where the time goes until the first task has run: read from the logs of drivers and
//! executors, which carry milliseconds here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

use super::Times;
use crate::report::{Measurement, Report};

/// Every line begins with the milliseconds since the epoch.
const LOG4J: &str = "\
rootLogger.level = info
rootLogger.appenderRef.err.ref = err
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %d{UNIX_MILLIS} %m%n
";

/// What the driver says at a step; managers have words of their own for some.
const IN_DRIVER: [(&str, &[&str]); 6] = [
    ("1_context_begins", &["Running Spark version"]),
    ("2_application_registered", &["Registered with Mezz as", "Connected to Spark cluster with"]),
    ("3_executor_launched", &["is being started on", "Executor added: app-"]),
    ("6_executor_registered", &["Registered executor"]),
    ("8_first_task_launched", &["Starting task "]),
    ("9_first_task_finished", &["Finished task "]),
];

/// And an executor. Its first line of all is a step too.
const IN_EXECUTOR: [(&str, &str); 1] = [("5_executor_ready", "Starting executor ID")];

const EXECUTOR_BEGINS: &str = "4_executor_jvm_up";
const SESSION: &str = "7_session_ready";
const END: &str = "end";

/// Milliseconds since the start of the command, by step.
pub(super) type Steps = BTreeMap<&'static str, f64>;

/// Writes the settings of logs into a folder; returns the option that makes a JVM use them.
pub(super) fn java_option(folder: &Path) -> Result<String> {
    let file = folder.join("log4j2.properties");
    fs::write(&file, LOG4J)?;
    Ok(format!("-Dlog4j2.configurationFile=file:{}", file.display()))
}

/// Reads the logs of a job that began at `start`; executors write theirs somewhere below
/// `folder`.
pub(super) fn read(start: SystemTime, times: &Times, driver: &str, folder: &Path) -> Result<Steps> {
    let start = start.duration_since(UNIX_EPOCH)?.as_secs_f64() * 1000.0;
    let mut steps = Steps::new();
    let mut note = |step, at: f64| {
        let first = steps.entry(step).or_insert(at - start);
        *first = first.min(at - start);
    };
    for (at, text) in driver.lines().filter_map(line) {
        for (step, words) in IN_DRIVER {
            if words.iter().any(|w| text.contains(w)) {
                note(step, at);
            }
        }
    }
    let mut logs = Vec::new();
    find("stderr", folder, &mut logs)?;
    for log in logs {
        let text = fs::read(&log).with_context(|| log.display().to_string())?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().filter_map(line);
        let Some((begun, _)) = lines.next().filter(|(at, _)| *at >= start) else { continue };
        note(EXECUTOR_BEGINS, begun);
        for (at, text) in lines {
            for (step, words) in IN_EXECUTOR {
                if text.contains(words) {
                    note(step, at);
                }
            }
        }
    }
    note(SESSION, times.ready * 1000.0);
    note(END, start + times.wall * 1000.0);
    Ok(steps)
}

fn line(text: &str) -> Option<(f64, &str)> {
    let (at, text) = text.split_once(' ')?;
    (at.len() == 13).then(|| Some((at.parse().ok()?, text)))?
}

fn find(name: &str, folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    // Folders of executors go while they are looked at.
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            find(name, &path, found)?;
        } else if path.file_name().is_some_and(|n| n == name) {
            found.push(path);
        }
    }
    Ok(())
}

/// Prints when each step was reached, of all runs of a job on a manager.
pub(super) fn report(job: &str, manager: &str, runs: &[Steps], report: &mut Report) {
    let names: BTreeSet<_> = runs.iter().flat_map(Steps::keys).collect();
    for step in names {
        let values = runs.iter().filter_map(|steps| steps.get(step).copied()).collect();
        report.add(Measurement::new(&format!("spark.steps.{job}.{manager}.{step}"), "ms", values));
    }
}
