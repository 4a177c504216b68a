//! What a launcher is to do.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::isolation::Isolation;
use crate::containerizer::Program;

/// The plan's name in the runtime directory.
pub const FILE: &str = "plan.json";

/// The version that is written. Raised when an old launcher would misread a new
/// plan; a new field that may be ignored does not raise it. 2 brought
/// [`Plan::isolation`].
pub const VERSION: u32 = 2;

/// The oldest version that is understood.
const OLDEST: u32 = 1;

/// Everything that a launcher needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`], or an older one.
    pub v: u32,
    /// What runs.
    pub program: Program,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Who it runs as; the launcher's own user when absent.
    pub user: Option<Credentials>,
    /// Its working directory, as it sees it.
    pub directory: PathBuf,
    /// Appended to; as it sees it.
    pub stdout: PathBuf,
    /// Appended to; as it sees it.
    pub stderr: PathBuf,
    /// Files that a `0` is written to before the program runs, which moves the
    /// writer into that cgroup.
    pub join: Vec<PathBuf>,
    /// How far it is kept apart.
    #[serde(default, skip_serializing_if = "Isolation::is_none")]
    pub isolation: Isolation,
}

/// A user, as numbers: the launcher looks up no names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All supplementary group ids.
    pub groups: Vec<u32>,
}

/// Why a plan cannot be carried out.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("plan {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not JSON, or lacks something.
    #[error("plan {path} is malformed: {source}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Written by another version of Mezz.
    #[error(
        "plan {path} has version {found}, but this program knows only versions {OLDEST} to \
         {VERSION}; run the newer one"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version that it has.
        found: u32,
    },
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// [`PlanError`]; the version is looked at before anything else is.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let at = || path.to_path_buf();
        let text = fs::read(path).map_err(|source| PlanError::Read { path: at(), source })?;
        let malformed = |source| PlanError::Malformed { path: at(), source };
        let Version { v } = serde_json::from_slice(&text).map_err(malformed)?;
        if !(OLDEST..=VERSION).contains(&v) {
            return Err(PlanError::Version { path: at(), found: v });
        }
        serde_json::from_slice(&text).map_err(malformed)
    }

    /// Writes the plan into a runtime directory and returns its path.
    ///
    /// # Errors
    /// As writing a file fails.
    pub fn write(&self, directory: &Path) -> io::Result<PathBuf> {
        let path = directory.join(FILE);
        // Not synced: after a power cut there is nobody to carry it out.
        // Environments hold secrets.
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            v: VERSION,
            program: Program::Shell("true".into()),
            environment: BTreeMap::from([("A".into(), "b".into())]),
            user: Some(Credentials { uid: 1, gid: 2, groups: vec![2, 3] }),
            directory: "/tmp".into(),
            stdout: "/tmp/stdout".into(),
            stderr: "/tmp/stderr".into(),
            join: vec!["/sys/fs/cgroup/x/tasks".into()],
            isolation: Isolation { pid: true, effective: Some(3), ..Isolation::default() },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = plan().write(dir.path()).unwrap();
        assert_eq!(Plan::read(&path).unwrap(), plan());
    }

    #[test]
    fn a_plan_of_another_version_is_refused_whatever_else_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, r#"{"v": 7, "teleport": true}"#).unwrap();
        let error = Plan::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("has version 7, but this program knows only versions 1 to 2"),
            "{error}"
        );
    }

    #[test]
    fn a_malformed_plan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, r#"{"v": 1}"#).unwrap();
        let error = Plan::read(&path).unwrap_err().to_string();
        assert!(error.contains("missing field `program`"), "{error}");
    }
}
