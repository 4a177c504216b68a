//! What a URI names.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
};

use nix::libc;

use crate::launcher::Credentials;

/// Where something is fetched from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An absolute path of this machine.
    File(PathBuf),
    /// A URL.
    Http(String),
    /// Whatever the operator's command for its scheme makes of it.
    Command {
        /// The program and its arguments.
        command: String,
        /// The URI.
        uri: String,
    },
}

impl Source {
    /// `commands` by scheme; also for a scheme that we know.
    pub(super) fn parse(uri: &str, commands: &BTreeMap<String, String>) -> Result<Self, String> {
        if uri.contains('\0') {
            return Err("it holds a NUL byte".into());
        }
        if uri.starts_with('/') {
            return Ok(Self::File(uri.into()));
        }
        let Some((scheme, rest)) = uri.split_once(':') else {
            return Err("it is neither an absolute path nor a URI; use file, http or https".into());
        };
        let scheme = scheme.to_ascii_lowercase();
        if let Some(command) = commands.get(&scheme) {
            return Ok(Self::Command { command: command.clone(), uri: uri.to_owned() });
        }
        match scheme.as_str() {
            "http" | "https" => Ok(Self::Http(uri.to_owned())),
            "file" => {
                let path = match rest.strip_prefix("//") {
                    Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
                    None => rest,
                };
                if !path.starts_with('/') {
                    return Err("a file URI needs an absolute path: file:///path".into());
                }
                Ok(Self::File(path.into()))
            }
            other => Err(format!(
                "the scheme `{other}` is not supported; use file, http or https, or have the \
                 agent's operator name a command for it (--fetcher-command, such as \
                 `{other}=hadoop fs -copyToLocal {{uri}} {{path}}`)"
            )),
        }
    }

    /// The last part of the path.
    pub(super) fn file_name(&self) -> Result<String, String> {
        let path = match self {
            Self::File(path) => path.to_string_lossy().into_owned(),
            Self::Http(url) | Self::Command { uri: url, .. } => {
                let end = url.find(['?', '#']).unwrap_or(url.len());
                let plain = &url[..end];
                let path = match plain.split_once("://") {
                    Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
                    None => plain.split_once(':').map_or("", |(_, path)| path),
                };
                path.to_owned()
            }
        };
        match path.rsplit('/').next() {
            Some(name) if !name.is_empty() && name != "." && name != ".." => Ok(name.to_owned()),
            _ => Err("it names no file; set output_file".into()),
        }
    }
}

/// A SHA-256 of what a URI names.
pub(super) type Checksum = [u8; 32];

/// Takes `#sha256=HEX` off the end. Fragments mean nothing to servers, and Mesos' URIs
/// have no field for it.
pub(super) fn split_checksum(uri: &str) -> Result<(&str, Option<Checksum>), String> {
    let Some((plain, hex)) = uri.rsplit_once("#sha256=") else { return Ok((uri, None)) };
    let bad = || "its #sha256= must be followed by 64 hexadecimal digits and nothing else";
    let mut checksum = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad().into());
    }
    for (at, byte) in checksum.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
    }
    Ok((plain, Some(checksum)))
}

/// Opens a file for reading with a user's rights, so that the agent's own do not let
/// a task read what its user may not.
pub(super) fn open_as(path: &Path, user: Option<Credentials>) -> io::Result<File> {
    let open = |path: &Path| {
        // Not blocked by a fifo, which is refused afterwards.
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
    };
    let Some(user) = user else { return open(path) };
    let path = path.to_owned();
    // A thread of its own: file-system ids belong to threads, and this one ends with them.
    thread::spawn(move || {
        become_for_files(&user)?;
        open(&path)
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the opening thread panicked")))
}

fn become_for_files(user: &Credentials) -> io::Result<()> {
    // SAFETY: reads no memory.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    // SAFETY: the pointer and length are of a live slice of group ids. The raw call
    // changes only this thread, unlike libc's, which changes all.
    let done =
        unsafe { libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: these read no memory, and change only this thread. They tell no errors,
    // but the present id, so the second call of each shows whether the first worked.
    let now = unsafe {
        libc::setfsgid(user.gid);
        let gid = libc::setfsgid(user.gid);
        libc::setfsuid(user.uid);
        (libc::setfsuid(user.uid), gid)
    };
    if now == (user.uid as i32, user.gid as i32) {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<Source, String> {
        Source::parse(uri, &BTreeMap::from([("s3".into(), "get {uri} {path}".into())]))
    }

    #[test]
    fn checksums_are_taken_off() {
        let hex = "00ff".repeat(16);
        let uri = format!("/a#b#sha256={hex}");
        let (plain, checksum) = split_checksum(&uri).unwrap();
        assert_eq!((plain, &checksum.unwrap()[..2]), ("/a#b", &[0, 255][..]));
        assert_eq!(split_checksum("http://h/x#y"), Ok(("http://h/x#y", None)));
        for bad in [
            "/a#sha256=",
            "/a#sha256=00",
            &format!("{uri}x"),
            &format!("/a#sha256={}", "+1".repeat(32)),
        ] {
            assert!(split_checksum(bad).unwrap_err().contains("64 hexadecimal"), "{bad}");
        }
    }

    #[test]
    fn sources_are_told_apart() {
        let http = |s: &str| Ok(Source::Http(s.into()));
        let file = |s: &str| Ok(Source::File(s.into()));
        assert_eq!(parse("/a/b"), file("/a/b"));
        assert_eq!(parse("file:///a/b"), file("/a/b"));
        assert_eq!(parse("file://localhost/a"), file("/a"));
        assert_eq!(parse("HTTP://x/y"), http("HTTP://x/y"));
        for (bad, why) in [
            ("relative/path", "neither an absolute path nor a URI"),
            ("hdfs://x/y", "(--fetcher-command, such as `hdfs=hadoop fs"),
            ("file://host/path", "needs an absolute path"),
        ] {
            assert!(parse(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn names_are_the_last_part_of_the_path() {
        let name = |uri| parse(uri).unwrap().file_name();
        assert_eq!(name("http://h/a/b.tgz?x=/y"), Ok("b.tgz".into()));
        assert_eq!(name("/a/b"), Ok("b".into()));
        assert_eq!(name("S3://bucket/a/b"), Ok("b".into()));
        for bad in ["http://h", "http://h/", "http://h/a/..", "/a/"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
