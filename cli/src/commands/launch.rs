//! `mezz launch`: the small process above each container, which an agent starts
//! and which outlives it. It runs before anything else of this program does, for
//! it has to stay single-threaded.

use std::{ffi::OsStr, process::ExitCode};

use anyhow::Context;
use mezz_agent::options::LauncherCommand;

/// The hidden subcommand.
const WORD: &str = "launch";

/// Runs the launcher when the command line asks for it.
pub fn dispatch() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    (args.next().as_deref() == Some(OsStr::new(WORD))).then(|| mezz_agent::launcher::run(args))
}

/// How an agent starts it: this very program.
///
/// # Errors
/// When the path of this program cannot be found out.
pub fn command() -> anyhow::Result<LauncherCommand> {
    let program = std::env::current_exe().context("cannot find out the path of this program")?;
    Ok(LauncherCommand { program, args: vec![WORD.to_owned()] })
}
