//! `cpuacct`: cpu time.

use std::path::Path;

use super::super::file;
use crate::containerizer::Statistics;

const USER: &str = "cpuacct.usage_user";
const SYSTEM: &str = "cpuacct.usage_sys";

const NANOS: f64 = 1e9;

pub(super) fn statistics(directory: &Path, into: &mut Statistics) {
    let seconds = |name| file::number(directory, name).map(|nanos| nanos as f64 / NANOS);
    into.cpus_user_secs = seconds(USER);
    into.cpus_system_secs = seconds(SYSTEM);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nanoseconds_become_seconds() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(USER), "1500000000\n").unwrap();
        let mut all = Statistics::default();
        statistics(dir.path(), &mut all);
        assert_eq!((all.cpus_user_secs, all.cpus_system_secs), (Some(1.5), None));
    }
}
