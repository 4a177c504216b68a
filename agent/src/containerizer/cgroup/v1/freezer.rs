//! `freezer`: a standstill, so that nobody forks while all are killed.

use std::path::Path;

use super::super::file::{self, CgroupError};

const STATE: &str = "freezer.state";
const FROZEN: &str = "FROZEN";
const THAWED: &str = "THAWED";

/// How often the state is looked at before killing goes on without it: a process in
/// the kernel's hands may not freeze.
const LOOKS: usize = 100;

/// Kills all in a cgroup and waits until they are gone.
pub(super) fn kill(directory: &Path) -> Result<(), CgroupError> {
    let dead = file::until(|| {
        if file::processes(directory)?.is_empty() {
            return Ok(true);
        }
        freeze(directory)?;
        let killed = file::kill_each(directory);
        // Thawed in any case: SIGKILL waits for it.
        file::write(directory, STATE, THAWED)?;
        killed?;
        Ok(false)
    })?;
    if dead { Ok(()) } else { Err(file::still_alive(directory)) }
}

fn freeze(directory: &Path) -> Result<(), CgroupError> {
    file::write(directory, STATE, FROZEN)?;
    for _ in 0..LOOKS {
        if file::read(directory, STATE)? == FROZEN {
            break;
        }
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_empty_cgroup_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        fs::write(dir.path().join(STATE), "untouched").unwrap();
        kill(dir.path()).unwrap();
        assert_eq!(file::read(dir.path(), STATE).unwrap(), "untouched");
    }

    #[test]
    fn one_that_is_gone_is_empty() {
        kill(Path::new("/nowhere/at/all")).unwrap();
    }
}
