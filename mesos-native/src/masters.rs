//! What a program gives as its master.

use thiserror::Error;

/// Where a master listens when only its host is named.
const PORT: u16 = 5050;

/// What may stand before hosts in what a program gives. [`parse`] refuses some; [`shown`] has
/// to see behind all.
const SCHEMES: [&str; 4] = ["mesos://", "zk://", "http://", "https://"];

/// Where the masters are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Masters {
    /// `host:port` of each.
    Listed(Vec<String>),
    /// In this file, in one of the other forms.
    In(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum MastersError {
    #[error(
        "`{0}`: Mezz has no ZooKeeper; name the masters themselves, for example mesos://host1:5050,host2:5050"
    )]
    ZooKeeper(String),
    #[error("`{0}`: start a cluster on this machine by `mezz local` and name 127.0.0.1:5050")]
    Local(String),
    #[error("`{0}` is no master; write host:port, or several as host1:port,host2:port")]
    Address(String),
    #[error("`{0}` names a file again; write host:port into it")]
    Nested(String),
    #[error("`{file}` cannot be read: {reason}")]
    File { file: String, reason: String },
}

/// Reads `host:port`, `master@host:port`, lists of them, each with or without `mesos://`,
/// and `file:///path`. Refused are `zk://`, and `local`, for which libmesos starts a cluster.
pub(crate) fn parse(text: &str) -> Result<Masters, MastersError> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix("file://") {
        return Ok(Masters::In(path.to_owned()));
    }
    let list = text.strip_prefix("mesos://").unwrap_or(text);
    if list.starts_with("zk://") {
        return Err(MastersError::ZooKeeper(shown(text)));
    }
    if ["local", "localquiet"].contains(&list) {
        return Err(MastersError::Local(text.to_owned()));
    }
    if shown(list) != list {
        // Nothing of it: a comma may be the password's.
        return Err(MastersError::Address(shown(text)));
    }
    list.split(',').map(|one| address(one.trim())).collect::<Result<_, _>>().map(Masters::Listed)
}

/// The masters in a file's text.
pub(crate) fn parse_file(text: &str) -> Result<Vec<String>, MastersError> {
    match parse(text)? {
        Masters::Listed(masters) => Ok(masters),
        Masters::In(path) => Err(MastersError::Nested(path)),
    }
}

/// As it may be logged: without the user and password that a ZooKeeper's address may have.
pub(crate) fn shown(text: &str) -> String {
    let mut rest = text;
    while let Some(after) = SCHEMES.iter().find_map(|scheme| rest.strip_prefix(scheme)) {
        rest = after;
    }
    let master = |one: &str| one.rsplit_once('@').is_none_or(|(who, _)| who.trim() == "master");
    let Some((_, hosts)) = rest.rsplit_once('@') else { return text.to_owned() };
    if text.starts_with("file://") || rest.split(',').all(master) {
        return text.to_owned();
    }
    // All before the last one: a password may have any character.
    format!("{}***@{hosts}", &text[..text.len() - rest.len()])
}

fn address(text: &str) -> Result<String, MastersError> {
    let wrong = || MastersError::Address(text.to_owned());
    let plain = text.strip_prefix("mesos://").unwrap_or(text);
    // As libprocess writes where a master is.
    let plain = plain.strip_prefix("master@").unwrap_or(plain).trim_end_matches('/');
    let ipv6 = plain.starts_with('[');
    let (host, port) = match plain.rsplit_once(':') {
        Some((host, port)) if !ipv6 || host.ends_with(']') => {
            (host, port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?)
        }
        _ => (plain, PORT),
    };
    let bare = if ipv6 {
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).ok_or_else(wrong)?
    } else {
        host
    };
    let fits =
        |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || (ipv6 && ":%".contains(c));
    if bare.is_empty() || !bare.chars().all(fits) {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<String> {
        match parse(text) {
            Ok(Masters::Listed(masters)) => masters,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn addresses_in_every_form() {
        assert_eq!(listed("host:5050"), ["host:5050"]);
        assert_eq!(listed("mesos://10.0.0.1:6000/"), ["10.0.0.1:6000"]);
        assert_eq!(listed("master@10.0.0.1:5050"), ["10.0.0.1:5050"]);
        assert_eq!(listed("host"), ["host:5050"]);
        assert_eq!(listed("[::1]:5051"), ["[::1]:5051"]);
        assert_eq!(listed("[::1]"), ["[::1]:5050"]);
        assert_eq!(listed("mesos://a:1,b:2, mesos://c"), ["a:1", "b:2", "c:5050"]);
    }

    #[test]
    fn what_is_no_master_is_named() {
        for bad in [
            "",
            ":5050",
            "a b:1",
            "host:0",
            "host:99999",
            "http://h:1",
            "a:1,,b:2",
            "[::1",
            "::1:5050",
        ] {
            assert!(matches!(parse(bad), Err(MastersError::Address(_))), "{bad}");
        }
    }

    #[test]
    fn what_mesos_has_and_we_have_not_says_what_to_use() {
        for text in ["zk://a:2181/mesos", "mesos://zk://a:2181,b:2181/mesos"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("host1:5050,host2:5050"), "{error}");
        }
        assert!(parse("local").unwrap_err().to_string().contains("mezz local"));
    }

    #[test]
    fn passwords_are_not_told() {
        assert_eq!(shown("zk://me:se,c@ret@a:2181,b:2181/mesos"), "zk://***@a:2181,b:2181/mesos");
        for plain in ["mesos://master@a:1", "a:1,master@b:2", "file:///etc/x@y", "zk://a/mesos"] {
            assert_eq!(shown(plain), plain);
        }
        for secret in ["zk://me:se,cret@a:1/m", "mesos://zk://me:se,cret@a:1", "me:se,cret@a:1"] {
            let error = parse(secret).unwrap_err().to_string();
            assert!(!error.contains("se,") && !error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn a_file_may_name_them() {
        assert_eq!(parse("file:///etc/mesos/zk"), Ok(Masters::In("/etc/mesos/zk".into())));
        assert_eq!(parse_file("mesos://a:1\n"), Ok(vec!["a:1".to_owned()]));
        assert_eq!(parse_file("file:///b"), Err(MastersError::Nested("/b".into())));
    }
}
