//! The supervisor of one container: single-threaded, small, and it outlives the
//! agent.
//!
//! The agent writes a [`Plan`] into the container's runtime directory and starts
//! the launcher with its path. The launcher forks the task, records both pids,
//! lets the task exec, says so on its stdout, waits, and records how it ended.
//! An agent that comes back reads the [records](record) and finds the launcher by
//! its pid and start time.
//!
//! Plan and records carry a version, since a new agent meets launchers that an
//! older one started.

mod child;
pub mod enter;
mod image;
mod init;
pub mod isolation;
mod memory;
mod mounts;
mod namespaces;
pub mod plan;
pub(crate) mod points;
mod privileges;
pub mod process;
mod program;
pub mod record;
mod supervise;

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub use plan::{Credentials, Plan, PlanError};
use thiserror::Error;

/// The signal that makes a launcher kill all of its descendants. Others, SIGTERM
/// and SIGINT among them, it ignores: a container ends by order, not because
/// somebody stops the agent.
pub const KILL_ALL: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGUSR1;

/// What the launcher writes to its stdout before the pid, once the task's
/// program runs (or could not). Any other text is the reason why nothing ran.
pub const STARTED: &str = "started ";

/// Exit status for a wrong command line (`EX_USAGE`).
const USAGE: u8 = 64;

/// Why a launcher could not do its work.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The plan is missing or wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A record could not be written.
    #[error(transparent)]
    Record(#[from] record::RecordError),
    /// The agent recovered meanwhile and gave this container up.
    #[error("the launch was cancelled by the agent's recovery")]
    Cancelled,
    /// The container cannot be kept apart as wanted.
    #[error("{0}")]
    Isolation(String),
    /// A system call failed.
    #[error("{doing}: {source}")]
    System {
        /// Which.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl LaunchError {
    fn system(doing: &'static str) -> impl FnOnce(nix::Error) -> Self {
        move |source| Self::System { doing, source: source.into() }
    }
}

/// Runs a launcher: the arguments are the path of a plan and nothing else; or
/// [`enter::WORD`], which runs one more program in a container. To be called before the
/// process has a second thread.
///
/// Ends when the container or the program has, with status 0 if its end is on record or
/// told, 1 if nothing could be started, 64 for wrong arguments.
pub fn run(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(plan), None) = (args.next(), args.next()) else {
        say("usage: launch <plan>: the path of a plan that an agent wrote, or the word exec");
        return ExitCode::from(USAGE);
    };
    let done =
        if plan == enter::WORD { enter::run() } else { supervise::supervise(&PathBuf::from(plan)) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// To the agent, which reads the launcher's stdout up to its end. The agent may be
/// gone; that is no reason to stop.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n"));
    let _ = stdout.flush();
}

/// The directory of a plan: records go there too.
fn runtime_directory(plan: &Path) -> PathBuf {
    plan.parent().map(Path::to_path_buf).unwrap_or_default()
}
