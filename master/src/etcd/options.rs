//! How etcd is reached.

use std::{fmt, path::PathBuf, time::Duration};

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// PEM files for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signs etcd's certificate; those whom the machine trusts when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, where etcd asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where etcd is and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdOptions {
    /// `http://host:port` or `https://host:port`, at least one; all the same scheme.
    pub endpoints: Vec<String>,
    /// What all keys of this cluster begin with; no `/` at the end.
    pub prefix: String,
    /// User and password, where etcd asks for them.
    pub user: Option<(String, Password)>,
    /// Used with `https://`.
    pub tls: TlsFiles,
    /// How long a leader keeps the leadership without word from it: whole seconds,
    /// 2 or more.
    pub lease: Duration,
}

impl EtcdOptions {
    /// For people: the endpoints, without schemes.
    pub fn place(&self) -> String {
        let hosts: Vec<&str> = self
            .endpoints
            .iter()
            .map(|e| e.split_once("://").map_or(e.as_str(), |(_, host)| host))
            .collect();
        format!("etcd at {}{}", hosts.join(","), self.prefix)
    }
}
