//! The settings that Spark reads from files, and the file without a name by which a
//! driver gets a secret of its own.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    Arguments, DEFAULTS, Environment, SubmitError, arguments::property, conf_dir, read_if_there,
};
use crate::secret;

/// A file of settings that is in memory alone and has no name.
#[derive(Debug)]
pub struct SettingsFile {
    file: File,
}

impl SettingsFile {
    /// These settings with a new secret.
    pub(super) fn with_secret(text: &str) -> io::Result<Self> {
        // Not closed by the command that takes this process's place.
        let mut file = File::from(memfd_create(DEFAULTS, MemfdFlags::empty())?);
        // A line of theirs that goes on would swallow the next one.
        writeln!(file, "{text}\n\n{}={}", secret::SECRET, secret::make()?)?;
        Ok(Self { file })
    }

    /// By which this process, what takes its place and their children open it. Not by
    /// `/proc/self`: Python closes it for the JVM that it starts.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}

/// The text of the user's file, or of Spark's own; of both where the user says so. Of
/// two lines with one key the last one holds.
pub(super) fn read(
    user: &Arguments,
    home: &Path,
    environment: &Environment,
) -> Result<String, SubmitError> {
    let mut text = String::new();
    let theirs = user.properties_file();
    if theirs.is_none() || user.load_defaults {
        let defaults = conf_dir(Some(home), environment).map(|conf| conf.join(DEFAULTS));
        if let Some(path) = defaults {
            text = read_if_there(&path)?.unwrap_or_default();
        }
    }
    if let Some(file) = theirs {
        let path = PathBuf::from(file);
        let read = std::fs::read_to_string(&path);
        text += "\n\n";
        text += &read.map_err(|source| SubmitError::Properties { path, source })?;
    }
    Ok(text)
}

/// Whether the driver would lack a secret that it needs. `text` is of files.
pub(super) fn lack_secret(user: &Arguments, text: &str) -> bool {
    secret::is_lacking(|key| user.setting(key).or_else(|| property(text, key)))
}
