//! A container's processes, as this machine's kernel sees them.

use std::{collections::BTreeSet, fs, io, path::PathBuf, time::Duration};

use mezz_proto::ids::ContainerId;

use super::{ContainerError, Inner, container::Container, operation};
use crate::launcher::process;

/// So often, a millisecond apart, a process is looked at that was told to stop.
const STOP_TRIES: u32 = 100;

/// The first process of a container that runs.
pub(super) struct First {
    pub(super) pid: i32,
    /// Whether the machine's network is its own.
    on_host: bool,
    /// The engine's id of the container.
    pub(super) engine_id: String,
}

impl Inner {
    /// Its first process; none when it does not run.
    pub(super) async fn first_process(
        &self,
        container: &Container,
        doing: &'static str,
    ) -> Result<Option<First>, ContainerError> {
        if !container.runs().await {
            return Ok(None);
        }
        let now = match self.inspect(container).await {
            Ok(now) => now,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(operation(&container.id, doing)(error)),
        };
        let pid = now.state.and_then(|state| state.pid).unwrap_or_default();
        let on_host =
            now.host_config.and_then(|host| host.network_mode).is_some_and(|mode| mode == "host");
        let engine_id = now.id.unwrap_or_default();
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
        Ok(pid.map(|pid| First { pid, on_host, engine_id }))
    }

    pub(super) async fn processes(&self, id: &ContainerId) -> Result<Vec<i32>, ContainerError> {
        const DOING: &str = "looking for its processes";
        let container = self.containers.get(id)?;
        let Some(First { pid, .. }) = self.first_process(&container, DOING).await? else {
            return Ok(Vec::new());
        };
        tokio::task::spawn_blocking(move || of_cgroup(pid))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| ContainerError::Operation { id: id.clone(), doing: DOING, source })
    }

    pub(super) async fn network(
        &self,
        id: &ContainerId,
    ) -> Result<Option<PathBuf>, ContainerError> {
        let container = self.containers.get(id)?;
        let first = self.first_process(&container, "looking for its network").await?;
        Ok(first
            .filter(|first| !first.on_host)
            .map(|first| PathBuf::from(format!("/proc/{}/ns/net", first.pid))))
    }
}

/// Every process in the cgroups of this one, or below them. One that has ended has none.
fn of_cgroup(first: i32) -> io::Result<Vec<i32>> {
    let Some(own) = cgroup(first) else { return Ok(Vec::new()) };
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if cgroup(pid).is_some_and(|path| is_within(&path, &own)) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// In the one hierarchy of v2, or that of v1 that every engine uses.
fn cgroup(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == wanted).then(|| path.to_owned())
        })
    };
    of("memory").or_else(|| of("pids")).or_else(|| of(""))
}

fn is_within(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Kills a process of the container with that id of the engine's, and all that it has
/// started, unless one of the pids is another's by now, or means another here.
pub(super) fn kill_tree(pid: i32, first: i32, engine_id: &str) -> io::Result<()> {
    let (Some(of), Some(container)) = (cgroup(pid), cgroup(first)) else { return Ok(()) };
    // Every engine puts it into the name.
    if engine_id.is_empty() || !container.contains(engine_id) || !is_within(&of, &container) {
        return Ok(());
    }
    // Stopped first: who stands still has no more children than those that are found.
    let mut stopped = BTreeSet::new();
    loop {
        let mut found = process::descendants(pid)?;
        found.push(pid);
        found.retain(|pid| !stopped.contains(pid));
        if found.is_empty() {
            break;
        }
        process::send_to_all(found.iter().copied(), nix::libc::SIGSTOP)?;
        found.iter().for_each(|pid| until_still(*pid));
        stopped.extend(found);
    }
    process::send_to_all(stopped, nix::libc::SIGKILL)
}

/// A signal may find a process on its way through a fork. One that waits for a disk comes
/// to no fork.
fn until_still(pid: i32) {
    for _ in 0..STOP_TRIES {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Its name, in brackets, may hold anything.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('R' | 'S' | 'D')) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_holds_itself_and_what_is_below() {
        assert!(is_within("/docker/a", "/docker/a") && is_within("/docker/a/b", "/docker/a"));
        assert!(!is_within("/docker/ab", "/docker/a") && !is_within("/docker", "/docker/a"));
    }

    #[test]
    fn what_is_started_while_it_is_killed_is_killed_too() {
        use std::process::{Command, Stdio};
        let line = "while :; do sleep 1000 & done";
        let mark = format!("mezz-kill-{}", std::process::id());
        for _ in 0..5 {
            let mut child = Command::new("/bin/sh")
                .args(["-c", line])
                .env("MARK", &mark)
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(5));
            let (pid, me) = (child.id() as i32, std::process::id() as i32);
            for not_ours in ["", "0123456789abcdef"] {
                kill_tree(pid, me, not_ours).unwrap();
                assert!(child.try_wait().unwrap().is_none(), "it is another's");
            }
            kill_tree(pid, me, &cgroup(me).unwrap()).unwrap();
            child.wait().unwrap();
        }
        let left = || {
            let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
                let path = entry.unwrap().path();
                let environment = fs::read(path.join("environ")).unwrap_or_default();
                String::from_utf8_lossy(&environment).contains(&mark).then_some(path)
            });
            pids.collect::<Vec<_>>()
        };
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while !left().is_empty() {
            assert!(std::time::Instant::now() < end, "{:?}", left());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn this_process_is_in_its_own_cgroup() {
        let me = std::process::id() as i32;
        assert!(of_cgroup(me).unwrap().contains(&me));
        assert!(of_cgroup(i32::MAX).unwrap().is_empty());
    }
}
