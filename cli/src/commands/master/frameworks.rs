//! Who may be a framework.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use mezz_master::{credentials::Credentials, options::Authentication};

use crate::{config::Checker, credentials::SecretFile, units};

/// How frameworks prove who they are.
#[derive(Debug, Args)]
pub struct FrameworkArgs {
    /// File with principals and their secrets, in Mesos' JSON,
    /// `{"credentials": [{"principal": "NAME", "secret": "SECRET"}]}`, or `NAME SECRET`
    /// on each line; read at the start [default: none]
    #[arg(long, env = "MEZZ_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// Take only frameworks that prove to be one of --credentials, by HTTP Basic,
    /// whether they speak HTTP or gRPC
    #[arg(
        long,
        env = "MEZZ_AUTHENTICATE_FRAMEWORKS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true"
    )]
    pub authenticate_frameworks: String,
}

/// What is given, checked.
#[derive(Debug, Default)]
pub struct Frameworks {
    /// What is asked of them, if anything is.
    pub authentication: Option<Authentication>,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

impl FrameworkArgs {
    /// Reads the file, whether it is used or not.
    pub fn check(&self, check: &mut Checker<'_>) -> Frameworks {
        let mut out = Frameworks::default();
        let mut asked = false;
        check.set(
            "authenticate-frameworks",
            &self.authenticate_frameworks,
            units::boolean,
            &mut asked,
        );
        let Some(path) = &self.credentials else {
            check.require(!asked, "authenticate-frameworks", || {
                "needs --credentials as well, a file with the principals that frameworks may have \
                 and their secrets"
                    .to_owned()
            });
            return out;
        };
        let read = SecretFile::read(path).and_then(|file| {
            let known = Credentials::parse(&file.text);
            let known = known.map_err(|error| format!("{}: {error}", path.display()))?;
            Ok((known, file.open))
        });
        let (known, open) = match read {
            Ok(read) => read,
            Err(problem) => {
                check.problem("credentials", &problem);
                return out;
            }
        };
        if open {
            out.warnings.push(format!(
                "every user of this machine can read or change {}, which holds secrets; take \
                 these rights away: chmod o= {}",
                path.display(),
                path.display()
            ));
        }
        if asked {
            let credentials = Arc::new(known);
            out.authentication = Some(Authentication { credentials, file: Some(path.clone()) });
        } else {
            out.warnings.push(
                "--credentials are of no use without --authenticate-frameworks: nobody is asked \
                 who they are"
                    .to_owned(),
            );
        }
        out
    }
}
