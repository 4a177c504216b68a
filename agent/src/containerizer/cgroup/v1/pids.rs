//! `pids`: how many processes and threads.

use std::path::Path;

use super::super::file::{self, CgroupError};
use crate::containerizer::Statistics;

const MAX: &str = "pids.max";
const CURRENT: &str = "pids.current";

pub(super) fn limit(directory: &Path, most: u64) -> Result<(), CgroupError> {
    file::write(directory, MAX, most)
}

pub(super) fn statistics(directory: &Path, into: &mut Statistics) {
    into.pids = file::number(directory, CURRENT).and_then(|n| n.try_into().ok());
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_limit_is_written_and_the_number_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MAX), "").unwrap();
        fs::write(dir.path().join(CURRENT), "3\n").unwrap();
        limit(dir.path(), 77).unwrap();
        let mut all = Statistics::default();
        statistics(dir.path(), &mut all);
        assert_eq!((file::number(dir.path(), MAX), all.pids), (Some(77), Some(3)));
    }
}
