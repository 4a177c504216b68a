//! From the fork to the exec: what the container's first process does before it is
//! the task's program.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ffi::CString,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal},
    },
    unistd,
};

use super::{Credentials, Plan};
use crate::containerizer::Program;

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Status of a child that could not become the program. Nobody sees it: the
/// message tells.
const FAILED: i32 = 127;

/// Becomes the program, or says on `errors` why not and ends.
pub(super) fn run(plan: &Plan, go: OwnedFd, errors: OwnedFd) -> ! {
    let Err(failure) = become_program(plan, go);
    if let Some(text) = failure {
        let _ = File::from(errors).write_all(text.as_bytes());
    }
    // SAFETY: ends this process at once; the launcher's exit handlers are not ours.
    unsafe { libc::_exit(FAILED) }
}

/// `None` as the error: the launcher has given up.
fn become_program(plan: &Plan, go: OwnedFd) -> Result<Infallible, Option<String>> {
    let launcher = unistd::getppid();
    unistd::setsid().map_err(|e| failed("a session of its own", e))?;
    for file in &plan.join {
        let joined = OpenOptions::new().write(true).open(file).and_then(|mut f| f.write_all(b"0"));
        joined.map_err(|e| Some(format!("cannot join the cgroup of {}: {e}", file.display())))?;
    }
    limit_core_dumps();
    if let Some(user) = &plan.user {
        change_user(user)?;
    }
    // Only now, so that a directory that the user may not enter is an error, and so is
    // a log that the user may not write, whatever a link makes of it.
    unistd::chdir(&plan.directory).map_err(|e| {
        Some(format!("cannot enter the directory {}: {}", plan.directory.display(), e.desc()))
    })?;
    redirect(&open_log(&plan.stdout)?, &open_log(&plan.stderr)?)?;
    reset_signals()?;
    // After the change of user, which clears it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| failed("a signal for the end", e))?;
    if unistd::getppid() != launcher {
        return Err(None);
    }
    close_on_exec();
    let program = Exec::new(plan).map_err(Some)?;
    let mut byte = [0];
    match File::from(go).read(&mut byte) {
        Ok(1) => Err(Some(program.exec())),
        _ => Err(None),
    }
}

fn failed(what: &str, error: Errno) -> Option<String> {
    Some(format!("cannot set up {what}: {}", error.desc()))
}

/// A crash must not fill the disk; the program may raise it again.
fn limit_core_dumps() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
}

/// With the program's own rights, and never through a link that something in the
/// sandbox may have planted.
fn open_log(path: &Path) -> Result<File, Option<String>> {
    let cannot = |e: std::io::Error| Some(format!("cannot open {}: {e}", path.display()));
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(Some(format!("cannot open {}: it is no regular file", path.display())));
    }
    Ok(file)
}

fn change_user(user: &Credentials) -> Result<(), Option<String>> {
    let groups: Vec<_> = user.groups.iter().map(|g| unistd::Gid::from_raw(*g)).collect();
    let (uid, gid) = (unistd::Uid::from_raw(user.uid), unistd::Gid::from_raw(user.gid));
    unistd::setgroups(&groups)
        .and_then(|()| unistd::setresgid(gid, gid, gid))
        .and_then(|()| unistd::setresuid(uid, uid, uid))
        .map_err(|e| Some(format!("cannot run as the user with uid {uid}: {}", e.desc())))
}

fn redirect(stdout: &File, stderr: &File) -> Result<(), Option<String>> {
    let null = File::open("/dev/null").map_err(|e| Some(format!("cannot open /dev/null: {e}")))?;
    unistd::dup2_stdin(null.as_fd())
        .and_then(|()| unistd::dup2_stdout(stdout.as_fd()))
        .and_then(|()| unistd::dup2_stderr(stderr.as_fd()))
        .map_err(|e| failed("its input and output", e))
}

/// A program expects every signal at its default and none blocked.
fn reset_signals() -> Result<(), Option<String>> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. SIGKILL, SIGSTOP and libc's own refuse.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    SigSet::empty().thread_set_mask().map_err(|e| failed("its signals", e))
}

/// Whatever the agent let slip through. A kernel without the call has only what is
/// marked already.
fn close_on_exec() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: marks file descriptors, closes none.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// All that `execve` wants, made before it is too late to complain.
struct Exec {
    name: String,
    /// In the order in which they are tried.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl Exec {
    fn new(plan: &Plan) -> Result<Self, String> {
        let text = |what: &str, value: String| {
            CString::new(value).map_err(|_| format!("{what} holds a NUL byte"))
        };
        let (name, argv) = match &plan.program {
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
            candidates: candidates(&name, &plan.environment)
                .into_iter()
                .map(|path| text("the program's name", path))
                .collect::<Result<_, _>>()?,
            argv: argv.into_iter().map(|a| text("an argument", a)).collect::<Result<_, _>>()?,
            environment: plan
                .environment
                .iter()
                .map(|(k, v)| text(&format!("the environment variable {k}"), format!("{k}={v}")))
                .collect::<Result<_, _>>()?,
            name,
        })
    }

    /// Returns only with the reason why nothing runs.
    fn exec(&self) -> String {
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
