//! The core files of the hierarchy: controllers for the cgroups below, and killing
//! a whole cgroup.

use std::path::Path;

use super::super::file::{self, CgroupError};

pub(super) const PROCESSES: &str = "cgroup.procs";
const CONTROL: &str = "cgroup.subtree_control";
const KILL: &str = "cgroup.kill";
const EVENTS: &str = "cgroup.events";

/// Lets the cgroups below `directory` be held by these controllers. Those that are on already are left alone, so that a delegated subtree works
/// where its root may not be written.
pub(super) fn enable_controllers(
    directory: &Path,
    controllers: &[&str],
) -> Result<(), CgroupError> {
    let on = file::read(directory, CONTROL)?;
    let missing: Vec<String> = controllers
        .iter()
        .filter(|name| !on.split_whitespace().any(|c| c == **name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    file::write(directory, CONTROL, missing.join(" "))
}

/// Kills all in a cgroup and below it, and waits until they are gone.
pub(super) fn kill(directory: &Path) -> Result<(), CgroupError> {
    if !populated(directory)? {
        return Ok(());
    }
    if directory.join(KILL).exists() {
        file::write(directory, KILL, 1)?;
    }
    let dead = file::until(|| {
        if !populated(directory)? {
            return Ok(true);
        }
        // Kernels before 5.14 have no `cgroup.kill`; where it is, this finds nobody.
        file::kill_each(directory)?;
        Ok(false)
    })?;
    if dead { Ok(()) } else { Err(file::still_alive(directory)) }
}

/// Whether anybody is in it or below; nobody is in one that is gone.
fn populated(directory: &Path) -> Result<bool, CgroupError> {
    match file::read(directory, EVENTS) {
        Ok(_) => Ok(file::keyed(directory, EVENTS, "populated") == Some(1)),
        Err(_) if !directory.exists() => Ok(false),
        Err(e) => Err(e),
    }
}
