//! What a URI names.

use std::{
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
}

impl Source {
    pub(super) fn parse(uri: &str) -> Result<Self, String> {
        if uri.contains('\0') {
            return Err("it holds a NUL byte".into());
        }
        if uri.starts_with('/') {
            return Ok(Self::File(uri.into()));
        }
        let Some((scheme, rest)) = uri.split_once(':') else {
            return Err("it is neither an absolute path nor a URI; use file, http or https".into());
        };
        match scheme.to_ascii_lowercase().as_str() {
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
            other => Err(format!("the scheme `{other}` is not supported; use file, http or https")),
        }
    }

    /// The last part of the path.
    pub(super) fn file_name(&self) -> Result<String, String> {
        let path = match self {
            Self::File(path) => path.to_string_lossy().into_owned(),
            Self::Http(url) => {
                let end = url.find(['?', '#']).unwrap_or(url.len());
                let rest = url[..end].split_once("://").map_or("", |(_, rest)| rest);
                rest.split_once('/').map_or("", |(_, path)| path).to_owned()
            }
        };
        match path.rsplit('/').next() {
            Some(name) if !name.is_empty() && name != "." && name != ".." => Ok(name.to_owned()),
            _ => Err("it names no file; set output_file".into()),
        }
    }
}

/// Without user, password, query and fragment: those may be secret.
pub(super) fn redact(uri: &str) -> String {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let (plain, cut) = (&uri[..end], end < uri.len());
    let query = if cut { "?…" } else { "" };
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let host_end = rest.find('/').unwrap_or(rest.len());
            let host = rest[..host_end].rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{}{query}", &rest[host_end..])
        }
        None => format!("{plain}{query}"),
    }
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

    #[test]
    fn sources_are_told_apart() {
        let http = |s: &str| Ok(Source::Http(s.into()));
        let file = |s: &str| Ok(Source::File(s.into()));
        assert_eq!(Source::parse("/a/b"), file("/a/b"));
        assert_eq!(Source::parse("file:///a/b"), file("/a/b"));
        assert_eq!(Source::parse("file://localhost/a"), file("/a"));
        assert_eq!(Source::parse("HTTP://x/y"), http("HTTP://x/y"));
        for (bad, why) in [
            ("relative/path", "neither an absolute path nor a URI"),
            ("hdfs://x/y", "the scheme `hdfs` is not supported"),
            ("file://host/path", "needs an absolute path"),
        ] {
            assert!(Source::parse(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn names_are_the_last_part_of_the_path() {
        let name = |uri| Source::parse(uri).unwrap().file_name();
        assert_eq!(name("http://h/a/b.tgz?x=/y"), Ok("b.tgz".into()));
        assert_eq!(name("/a/b"), Ok("b".into()));
        for bad in ["http://h", "http://h/", "http://h/a/..", "/a/"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_left_out() {
        assert_eq!(redact("https://me:pa@ss@h:1/p?token=1#x"), "https://h:1/p?…");
        assert_eq!(redact("/a/b"), "/a/b");
    }
}
