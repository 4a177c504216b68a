//! Why something could not be fetched.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use reqwest::StatusCode;
use thiserror::Error;

use super::ArchiveError;

/// A URI could not be fetched. The text holds no credentials.
#[derive(Debug, Error)]
#[error("fetching {uri}: {reason}")]
pub struct FetchError {
    /// Which, without user, password and query.
    pub uri: String,
    /// Why not.
    #[source]
    pub reason: FetchReason,
}

/// Why a URI could not be fetched.
#[derive(Debug, Error)]
pub enum FetchReason {
    /// It is none that is understood.
    #[error("{0}")]
    Uri(String),
    /// It would be written to a bad place.
    #[error("`{name}` is no name for a file in the sandbox: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The user is not known here.
    #[error("{0}")]
    User(#[source] io::Error),
    /// The server cannot be reached, or broke off.
    #[error("{}", chain(.0))]
    Http(#[source] reqwest::Error),
    /// The server refuses.
    #[error("the server answered {0}; 200 is needed")]
    Status(StatusCode),
    /// The file cannot be read or written.
    #[error("{doing}: {source}")]
    File {
        /// At which step.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing to tell honest servers by.
    #[error(
        "https cannot be used on this agent's machine: {0}; install its CA certificates (package \
         ca-certificates) and start the agent again"
    )]
    NoCertificates(String),
    /// The same trouble again and again.
    #[error("{last} (tried {tries} times)")]
    Tried {
        /// How often.
        tries: u32,
        /// The trouble at the last one.
        #[source]
        last: Box<FetchReason>,
    },
    /// The operator's command for the scheme did not bring it.
    #[error("`{program}`, the agent's command for this scheme, {problem}")]
    Command {
        /// Its program.
        program: String,
        /// What went wrong, with the end of what it wrote to stderr.
        problem: String,
    },
    /// It is not what it should be.
    #[error("its SHA-256 is {found}, not {wanted} as its #sha256= says")]
    Checksum {
        /// Of what was fetched.
        found: String,
        /// As the URI says.
        wanted: String,
    },
    /// Fetching it for another task at the same time failed.
    #[error(transparent)]
    Shared(Arc<FetchReason>),
    /// More than the limit.
    #[error("it is larger than the limit of {0} bytes (--max-fetch-size)")]
    TooLarge(u64),
    /// Not in time.
    #[error(
        "it was not there {0:?} after the task's fetching began (--fetch-timeout): its server is \
         slow, or so are others from which its framework fetches"
    )]
    Late(Duration),
    /// The archive is broken or hostile.
    #[error("extracting it: {0}")]
    Archive(#[from] ArchiveError),
}

pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

pub(super) fn file_error(doing: &'static str) -> impl FnOnce(io::Error) -> FetchReason {
    move |source| FetchReason::File { doing, source }
}

/// The fetcher cannot be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Its folder cannot be emptied or made.
    #[error("--work-dir: cannot make {path} anew: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made: {}", chain(.0))]
    Client(#[source] reqwest::Error),
}
