//! By a program of the operator's, for schemes that we do not speak.

use std::{
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::{ExitStatus, Stdio},
};

use nix::{
    libc,
    sys::{resource, signal},
    unistd::{Gid, Pid, Uid},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
};

use super::{FetchReason, blocking, copy, file_error};
use crate::launcher::Credentials;

/// So much of the end of what it says is told.
const TAIL: usize = 1024;

/// What of the agent's environment it gets; more can be set by `env` in the command.
const INHERITED: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];

/// The user that a program runs as.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) credentials: Credentials,
}

/// Runs `command` as `user` with `{uri}` and `{path}` replaced, and moves what it wrote
/// to `to`. It writes in `folder`, which is there and the agent's. Dropped, it kills the
/// program.
pub(super) async fn run(
    command: &str,
    uri: &str,
    to: &Path,
    folder: &Path,
    user: Option<&User>,
    max: u64,
) -> Result<(), FetchReason> {
    let path = folder.join("file");
    let text = path.display().to_string();
    let mut words =
        command.split_whitespace().map(|word| word.replace("{path}", &text).replace("{uri}", uri));
    let program = words.next().unwrap_or_default();
    let failed = |problem: String| FetchReason::Command { program: program.clone(), problem };

    // Others may not put their files into its place.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
        .and_then(|()| match user {
            Some(User { credentials: c, .. }) => chown(folder, Some(c.uid), Some(c.gid)),
            None => Ok(()),
        })
        .map_err(file_error("making its folder"))?;
    let mut child = command_of(&program, words, folder, user, max)
        .spawn()
        .map_err(|e| failed(format!("cannot be started: {e}")))?;
    let group = Group::of(&child);
    let said = child.stderr.take().map(|stderr| tokio::spawn(tail(stderr)));
    let ended = child.wait().await;
    // Also what it left in the background, which might hold its end of the pipe.
    drop(group);
    let said = match said {
        Some(said) => said.await.unwrap_or_default(),
        None => String::new(),
    };
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(failed(how(status, &said, max))),
        Err(e) => return Err(failed(format!("cannot be waited for: {e}"))),
    }
    let (to, user) = (to.to_owned(), user.map(|user| user.credentials.clone()));
    blocking(move || take(&path, &to, user, max)).await.map_err(|reason| match reason {
        FetchReason::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            failed("ended well, but wrote no file to {path}".into())
        }
        reason => reason,
    })
}

fn command_of(
    program: &str,
    words: impl Iterator<Item = String>,
    folder: &Path,
    user: Option<&User>,
    max: u64,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .envs(INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(user) = user {
        command.env("USER", &user.name).env("LOGNAME", &user.name);
        // What Hadoop's client without Kerberos calls itself.
        command.env("HADOOP_USER_NAME", &user.name);
    }
    let become_user = user.map(|user| {
        let Credentials { uid, gid, groups } = user.credentials.clone();
        let groups: Vec<_> = groups.into_iter().map(Gid::from_raw).collect();
        (Uid::from_raw(uid), Gid::from_raw(gid), groups)
    });
    let limit = move || {
        resource::setrlimit(resource::Resource::RLIMIT_FSIZE, max, max)?;
        match &become_user {
            Some((uid, gid, groups)) if nix::unistd::geteuid().is_root() => {
                nix::unistd::setgroups(groups)?;
                nix::unistd::setgid(*gid)?;
                nix::unistd::setuid(*uid)?;
            }
            _ => {}
        }
        Ok(())
    };
    // SAFETY: it runs between fork and exec, and does nothing but system calls: it takes no
    // lock and no memory.
    unsafe { command.pre_exec(limit) };
    command
}

/// A program with all that it started; killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = signal::killpg(group, signal::Signal::SIGKILL);
        }
    }
}

async fn tail(mut from: impl AsyncRead + Unpin) -> String {
    let (mut end, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut part).await {
        end.extend_from_slice(&part[..n]);
        let excess = end.len().saturating_sub(TAIL);
        end.drain(..excess);
    }
    String::from_utf8_lossy(&end).trim().to_owned()
}

fn how(status: ExitStatus, said: &str, max: u64) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    let how = match (status.code(), status.signal()) {
        (_, Some(libc::SIGXFSZ)) => {
            format!("wrote more than the limit of {max} bytes (--max-fetch-size)")
        }
        (Some(code), _) => format!("exited with status {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or(0)),
    };
    if said.is_empty() { how } else { format!("{how}; its last words: {said}") }
}

/// Out of the user's reach, and only then looked at.
fn take(from: &Path, to: &Path, user: Option<Credentials>, max: u64) -> Result<(), FetchReason> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => return copy(from, to, max, user),
        moved => moved.map_err(file_error("moving it"))?,
    }
    let meta = std::fs::symlink_metadata(to).map_err(file_error("looking at it"))?;
    // A second name would stay in the user's hands.
    if !meta.is_file() || meta.nlink() != 1 {
        if meta.is_dir() {
            std::fs::remove_dir_all(to).map_err(file_error("removing the folder"))?;
        }
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(file_error("looking at it")(error));
    }
    if meta.len() > max {
        return Err(FetchReason::TooLarge(max));
    }
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    chown(to, Some(uid.as_raw()), Some(gid.as_raw())).map_err(file_error("taking it over"))
}
