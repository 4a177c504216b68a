//! A credential whose secret is in a file, where no list of processes shows it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use mezz_proto::credential::{Credential, CredentialError, MAX_CREDENTIAL_BYTES};
use thiserror::Error;

/// Why there is no credential. The secret is not in it.
#[derive(Debug, Error)]
pub enum CredentialFileError {
    /// The file cannot be read.
    #[error("cannot read the secret from {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The principal, or what is in the file.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

/// The credential of this principal, whose secret is the first line of this file.
///
/// # Errors
/// [`CredentialFileError`].
pub fn credential_from_file(
    principal: &str,
    file: &Path,
) -> Result<Credential, CredentialFileError> {
    let mut text = Vec::new();
    // One byte more than may be, and the line's end.
    let most = MAX_CREDENTIAL_BYTES as u64 + 3;
    File::open(file)
        .and_then(|open| open.take(most).read_to_end(&mut text))
        .map_err(|source| CredentialFileError::File { path: file.to_owned(), source })?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let secret = std::str::from_utf8(line).map_err(|_| CredentialFileError::File {
        path: file.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, "it is no text"),
    })?;
    Ok(Credential::new(principal, secret.strip_suffix('\r').unwrap_or(secret))?)
}
