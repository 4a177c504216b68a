//! For the tests of option checks.

use clap::{Args, FromArgMatches};

use crate::config::{Problems, Sources};

/// Parses `line` (words between spaces) as the options of `command` and checks
/// them.
pub fn check_args<A: Args + FromArgMatches, T>(
    command: &str,
    line: &str,
    check: impl FnOnce(&A, &Sources<'_>) -> Result<T, Problems>,
) -> Result<T, Problems> {
    let words = std::iter::once(command).chain(line.split_whitespace());
    let matches = A::augment_args(clap::Command::new(command.to_owned())).get_matches_from(words);
    let args = A::from_arg_matches(&matches).unwrap();
    check(&args, &Sources { command, matches: &matches, file: None })
}
