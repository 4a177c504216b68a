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
