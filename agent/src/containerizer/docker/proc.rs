//! A container's processes, as this machine's kernel sees them.

use std::{fs, io, path::PathBuf};

use mezz_proto::ids::ContainerId;

use super::{ContainerError, Inner, container::Container, operation};

impl Inner {
    /// Its first process; none when it does not run.
    pub(super) async fn first_process(
        &self,
        container: &Container,
        doing: &'static str,
    ) -> Result<Option<(i32, bool)>, ContainerError> {
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
        Ok(i32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| (pid, on_host)))
    }

    pub(super) async fn processes(&self, id: &ContainerId) -> Result<Vec<i32>, ContainerError> {
        const DOING: &str = "looking for its processes";
        let container = self.container(id)?;
        let Some((pid, _)) = self.first_process(&container, DOING).await? else {
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
        let container = self.container(id)?;
        let first = self.first_process(&container, "looking for its network").await?;
        Ok(first
            .filter(|(_, on_host)| !on_host)
            .map(|(pid, _)| PathBuf::from(format!("/proc/{pid}/ns/net"))))
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

/// Kills a process of a container, and all that it has started, unless the pid is
/// another's by now.
pub(super) fn kill_tree(pid: i32, first: i32) -> io::Result<()> {
    let (Some(of), Some(container)) = (cgroup(pid), cgroup(first)) else { return Ok(()) };
    if !is_within(&of, &container) {
        return Ok(());
    }
    let mut pids = crate::launcher::process::descendants(pid)?;
    pids.push(pid);
    crate::launcher::process::send_to_all(pids, nix::libc::SIGKILL)
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
    fn this_process_is_in_its_own_cgroup() {
        let me = std::process::id() as i32;
        assert!(of_cgroup(me).unwrap().contains(&me));
        assert!(of_cgroup(i32::MAX).unwrap().is_empty());
    }
}
