//! Becoming a program: what `execve` wants, and words for its refusals.

use std::{collections::BTreeMap, ffi::CString, path::Path};

use nix::{errno::Errno, unistd};

use crate::containerizer::Program;

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that `execve` wants, made before it is too late to complain.
pub(super) struct Exec {
    name: String,
    /// In the order in which they are tried.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl Exec {
    pub(super) fn new(
        program: &Program,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let text = |what: &str, value: String| {
            CString::new(value).map_err(|_| format!("{what} holds a NUL byte"))
        };
        let (name, argv) = match program {
            Program::Shell(command) => {
                ("/bin/sh".to_owned(), vec!["sh".to_owned(), "-c".to_owned(), command.clone()])
            }
            Program::Exec { path, argv } if argv.is_empty() => (path.clone(), vec![path.clone()]),
            Program::Exec { path, argv } => (path.clone(), argv.clone()),
            Program::Image { .. } | Program::Hold => {
                return Err("there is no program to run".to_owned());
            }
        };
        Ok(Self {
            candidates: candidates(&name, environment)
                .into_iter()
                .map(|path| text("the program's name", path))
                .collect::<Result<_, _>>()?,
            argv: argv.into_iter().map(|a| text("an argument", a)).collect::<Result<_, _>>()?,
            environment: environment
                .iter()
                .map(|(k, v)| text(&format!("the environment variable {k}"), format!("{k}={v}")))
                .collect::<Result<_, _>>()?,
            name,
        })
    }

    /// Returns only with the reason why nothing runs.
    pub(super) fn exec(&self) -> String {
        // The agent does without huge pages; that is inherited, and not the program's wish.
        // A kernel without huge pages refuses, and there is nothing to allow.
        let _ = rustix::thread::disable_transparent_huge_pages(false);
        let mut error = Errno::ENOENT;
        for candidate in &self.candidates {
            let Err(e) = unistd::execve(candidate, &self.argv, &self.environment);
            // A later directory in PATH may have it; but "may not" says more than "is not".
            if !matches!(e, Errno::ENOENT | Errno::ENOTDIR) {
                error = e;
                if e != Errno::EACCES {
                    break;
                }
            }
        }
        self.explain(error)
    }

    fn explain(&self, error: Errno) -> String {
        let name = &self.name;
        match error {
            Errno::ENOENT if self.candidates.iter().any(exists) => {
                format!("cannot run `{name}`: the interpreter that it names does not exist")
            }
            Errno::ENOENT if name.contains('/') => {
                format!("no such program `{name}`: {}", error.desc())
            }
            Errno::ENOENT => format!("no such program `{name}`: it is in no directory of PATH"),
            Errno::ENOEXEC => format!(
                "cannot run `{name}`: it is neither a program for this machine nor a script \
                 that begins with `#!`"
            ),
            Errno::E2BIG => {
                format!("cannot run `{name}`: its arguments and environment are too large")
            }
            other => format!("cannot run `{name}`: {}", other.desc()),
        }
    }
}

fn exists(path: &CString) -> bool {
    path.to_str().is_ok_and(|p| Path::new(p).exists())
}

fn candidates(name: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    if name.is_empty() || name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    path.split(':')
        .map(|dir| if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_looked_for_in_the_tasks_own_path() {
        let environment = BTreeMap::from([("PATH".to_owned(), "/a::/b".to_owned())]);
        assert_eq!(candidates("x", &environment), ["/a/x", "./x", "/b/x"]);
        assert_eq!(candidates("./x", &environment), ["./x"]);
        assert_eq!(candidates("x", &BTreeMap::new()).len(), 6);
    }
}
