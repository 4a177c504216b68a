//! Files that hold secrets, and who this program is for a master that asks.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use mezz_proto::error::chain;
use mezz_sdk::{
    Credential, CredentialError,
    scheduler::{CredentialFileError, credential_from_file},
};

/// A larger file is another one than was meant.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The rights of users who are neither the owner nor in the file's group.
const OTHERS: u32 = 0o007;

/// What a file with secrets holds.
#[derive(Debug)]
pub struct SecretFile {
    /// All of it.
    pub text: String,
    /// Every user of the machine can read or change it.
    pub open: bool,
}

impl SecretFile {
    /// Reads it; `file:///PATH` will do as well, as with Mesos.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let plain = path.to_str().and_then(|text| text.strip_prefix("file://")).map(Path::new);
        let path = plain.unwrap_or(path);
        let failed = |error| format!("cannot read {}: {error}", path.display());
        let file = File::open(path).map_err(failed)?;
        let open = file.metadata().map_err(failed)?.mode() & OTHERS != 0;
        let mut text = String::new();
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("{} is longer than {MAX_FILE_BYTES} bytes", path.display()));
        }
        Ok(Self { text, open })
    }
}

/// Whom a framework's program proves to be.
#[derive(Clone, Debug, Default, Args)]
pub struct CredentialArgs {
    /// Whom to be, for masters that ask frameworks who they are; goes with --secret-file
    /// [default: none]
    #[arg(long, env = "MEZZ_PRINCIPAL", value_name = "NAME")]
    pub principal: Option<String>,
    /// File whose first line is the secret of --principal [default: none]
    #[arg(long, env = "MEZZ_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
}

impl CredentialArgs {
    /// As [`credential`](Self::credential), for a command that has nothing else to tell.
    ///
    /// # Errors
    /// A sentence.
    pub fn checked(&self) -> anyhow::Result<Option<Credential>> {
        let checked = self.credential();
        checked.map_err(|(option, problem)| crate::usage(format!("--{option}: {problem}")))
    }

    /// Both, or neither.
    ///
    /// # Errors
    /// The option, and what is wrong with it.
    pub fn credential(&self) -> Result<Option<Credential>, (&'static str, String)> {
        let (principal, file) = match (&self.principal, &self.secret_file) {
            (None, None) => return Ok(None),
            (Some(principal), Some(file)) => (principal, file),
            (Some(_), None) => {
                return Err(("principal", "needs --secret-file as well".to_owned()));
            }
            (None, Some(_)) => {
                return Err(("secret-file", "needs --principal as well".to_owned()));
            }
        };
        credential_from_file(principal, file).map(Some).map_err(|error| {
            let option = match error {
                CredentialFileError::File { .. }
                | CredentialFileError::Credential(
                    CredentialError::NoSecret | CredentialError::TooLong { field: "secret" },
                ) => "secret-file",
                CredentialFileError::Credential(_) => "principal",
            };
            (option, chain(&error))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "hush\n").unwrap();
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let url = PathBuf::from(format!("file://{}", path.display()));
            for path in [&path, &url] {
                let read = SecretFile::read(path).unwrap();
                assert_eq!((read.text.as_str(), read.open), ("hush\n", open), "{mode:o}");
            }
        }
        let missing = SecretFile::read(&dir.path().join("none")).unwrap_err();
        assert!(missing.contains("none"), "{missing}");
    }

    #[test]
    fn a_principal_and_its_secret_go_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let of = |principal: Option<&str>, secret_file: Option<PathBuf>| {
            CredentialArgs { principal: principal.map(str::to_owned), secret_file }.credential()
        };
        assert_eq!(of(None, None), Ok(None));
        let credential = Credential::new("p", "hush").unwrap();
        assert_eq!(of(Some("p"), file("good", "hush\nmore\n")), Ok(Some(credential)));
        for (principal, secret_file, option) in [
            (Some("p"), None, "principal"),
            (None, file("good", "hush"), "secret-file"),
            (Some("p"), file("empty", "\nhush"), "secret-file"),
            (Some("p"), Some(dir.path().join("none")), "secret-file"),
            (Some("a:b"), file("good", "hush"), "principal"),
        ] {
            let (named, problem) = of(principal, secret_file).unwrap_err();
            assert_eq!(named, option, "{problem}");
            assert!(!problem.contains("hush"), "{problem}");
        }
    }
}
