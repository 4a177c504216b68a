//! `--registry etcd://…` and what belongs to it.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use mezz_master::options::{EtcdOptions, Password, TlsFiles};

use crate::{config::Checker, units};

/// Holds the password; not an option, for those are seen by every user of the machine.
const PASSWORD: &str = "MEZZ_ETCD_PASSWORD";

/// Shorter leases are refused by etcd, longer ones would leave a cluster without a
/// master for that long.
const LEASES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// How etcd is used.
#[derive(Debug, Args)]
pub struct EtcdArgs {
    /// How long a leader that etcd does not hear from stays the leader: another one
    /// takes over after this; whole seconds, 2s to 5m
    #[arg(long, env = "MEZZ_LEADER_LEASE", value_name = "TIME", default_value = "10s")]
    pub leader_lease: String,
    /// User at etcd; the password is in MEZZ_ETCD_PASSWORD or --etcd-password-file
    /// [default: none]
    #[arg(long, env = "MEZZ_ETCD_USER", value_name = "NAME")]
    pub etcd_user: Option<String>,
    /// File whose first line is the password of --etcd-user [default: none]
    #[arg(long, env = "MEZZ_ETCD_PASSWORD_FILE", value_name = "FILE")]
    pub etcd_password_file: Option<PathBuf>,
    /// Who signs the certificates of an `etcds://` registry, as PEM [default: those
    /// whom this machine trusts]
    #[arg(long, env = "MEZZ_ETCD_CA_FILE", value_name = "FILE")]
    pub etcd_ca_file: Option<PathBuf>,
    /// Certificate of this process for etcd, as PEM; goes with --etcd-key-file
    /// [default: none]
    #[arg(long, env = "MEZZ_ETCD_CERT_FILE", value_name = "FILE")]
    pub etcd_cert_file: Option<PathBuf>,
    /// Key of --etcd-cert-file, as PEM [default: none]
    #[arg(long, env = "MEZZ_ETCD_KEY_FILE", value_name = "FILE")]
    pub etcd_key_file: Option<PathBuf>,
}

impl EtcdArgs {
    /// Checks what is given beside the registry `text` and the registry itself.
    pub fn check(&self, check: &mut Checker<'_>, text: &str) -> Option<EtcdOptions> {
        let given = [
            ("etcd-user", self.etcd_user.is_some()),
            ("etcd-password-file", self.etcd_password_file.is_some()),
            ("etcd-ca-file", self.etcd_ca_file.is_some()),
            ("etcd-cert-file", self.etcd_cert_file.is_some()),
            ("etcd-key-file", self.etcd_key_file.is_some()),
        ];
        let mut lease = Duration::ZERO;
        check.set("leader-lease", &self.leader_lease, leader_lease, &mut lease);
        let Some((secure, rest)) = scheme(text) else {
            for (option, _) in given.iter().filter(|(_, given)| *given) {
                check.problem(option, "is only for --registry etcd://… or etcds://…");
            }
            return None;
        };
        if !secure {
            for (option, _) in given[2..].iter().filter(|(_, given)| *given) {
                check.problem(option, "is only for --registry etcds://…");
            }
        }
        let mut user = None;
        match self.user(std::env::var(PASSWORD).ok()) {
            Ok(checked) => user = checked,
            Err((option, problem)) => check.problem(option, &problem),
        }
        let identity = match (&self.etcd_cert_file, &self.etcd_key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                check.problem("etcd-cert-file", "needs --etcd-key-file as well");
                None
            }
            (None, Some(_)) => {
                check.problem("etcd-key-file", "needs --etcd-cert-file as well");
                None
            }
        };
        let mut place = (Vec::new(), String::new());
        check.set("registry", rest, |t| address(t, secure), &mut place);
        let tls = TlsFiles { ca: self.etcd_ca_file.clone(), identity };
        Some(EtcdOptions { endpoints: place.0, prefix: place.1, user, tls, lease })
    }

    fn user(
        &self,
        environment: Option<String>,
    ) -> Result<Option<(String, Password)>, (&'static str, String)> {
        let Some(user) = &self.etcd_user else {
            return match self.etcd_password_file {
                Some(_) => Err(("etcd-password-file", "needs --etcd-user as well".to_owned())),
                None => Ok(None),
            };
        };
        let password = match &self.etcd_password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    ("etcd-password-file", format!("cannot read {}: {error}", path.display()))
                })?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            None => environment.unwrap_or_default(),
        };
        if password.is_empty() {
            let problem = format!("needs a password, in {PASSWORD} or by --etcd-password-file");
            return Err(("etcd-user", problem));
        }
        Ok(Some((user.clone(), Password::new(password))))
    }
}

/// Whether by TLS, and what follows.
fn scheme(text: &str) -> Option<(bool, &str)> {
    let plain = text.strip_prefix("etcd://").map(|rest| (false, rest));
    plain.or_else(|| text.strip_prefix("etcds://").map(|rest| (true, rest)))
}

/// `host:2379,host2:2379/prefix`.
fn address(text: &str, secure: bool) -> Result<(Vec<String>, String), String> {
    let (hosts, prefix) = text.split_once('/').ok_or_else(|| {
        "name a prefix for the keys of this cluster, as in `etcd://host:2379/mezz`".to_owned()
    })?;
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() || prefix.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "`/{prefix}` cannot be the prefix of the keys; write `etcd://host:2379/mezz`"
        ));
    }
    let scheme = if secure { "https" } else { "http" };
    let hosts = hosts
        .split(',')
        .map(|host| Ok(format!("{scheme}://{}", units::peer_address(host)?)))
        .collect::<Result<_, String>>()?;
    Ok((hosts, format!("/{prefix}")))
}

fn leader_lease(text: &str) -> Result<Duration, String> {
    let lease = units::duration(text)?;
    if lease < LEASES.0 || lease > LEASES.1 || lease.subsec_nanos() != 0 {
        return Err(format!(
            "`{text}` is no whole number of seconds from {} to {}",
            units::show_duration(LEASES.0),
            units::show_duration(LEASES.1)
        ));
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_etcd() {
        let (hosts, prefix) = address("a:2379,b:2379/mezz/prod/", true).unwrap();
        assert_eq!(hosts, ["https://a:2379", "https://b:2379"]);
        assert_eq!(prefix, "/mezz/prod");
        for bad in ["a:2379", "a:2379/", "a/mezz", "/mezz", "a:1,/mezz", "a:1/m z", ""] {
            assert!(address(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn leases() {
        assert_eq!(leader_lease("2s"), Ok(LEASES.0));
        for bad in ["1s", "301s", "2500ms", "soon"] {
            assert!(leader_lease(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_password_comes_from_a_file_or_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let args = |user: Option<&str>, file: Option<PathBuf>| EtcdArgs {
            leader_lease: "10s".to_owned(),
            etcd_user: user.map(str::to_owned),
            etcd_password_file: file,
            etcd_ca_file: None,
            etcd_cert_file: None,
            etcd_key_file: None,
        };
        let secret = Some(("u".to_owned(), Password::new("secret")));
        assert_eq!(args(Some("u"), Some(file.clone())).user(None), Ok(secret.clone()));
        assert_eq!(args(Some("u"), None).user(Some("secret".to_owned())), Ok(secret.clone()));
        assert!(!format!("{secret:?}").contains("secret"));
        assert_eq!(args(None, None).user(None), Ok(None));
        assert_eq!(args(Some("u"), None).user(None).unwrap_err().0, "etcd-user");
        assert_eq!(args(None, Some(file)).user(None).unwrap_err().0, "etcd-password-file");
        let missing = args(Some("u"), Some(dir.path().join("none"))).user(None).unwrap_err();
        assert!(missing.1.contains("none"), "{missing:?}");
    }
}
