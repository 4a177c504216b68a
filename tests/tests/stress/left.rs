//! What a run may have left behind on the machine.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use mezz_tests::{Cluster, PATIENCE, eventually};

/// Mounts and network namespaces, as they were.
pub struct Machine {
    mounts: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Machine {
    /// Looks at the machine.
    pub fn look() -> Result<Self> {
        Ok(Self { mounts: mounts()?, namespaces: namespaces()? })
    }

    /// Looks again, after everything of the cluster with these cgroup roots ended.
    pub fn check(&self, roots: &[String]) -> Result<()> {
        let now = Self::look()?;
        let mounts: Vec<_> = now.mounts.difference(&self.mounts).collect();
        ensure!(mounts.is_empty(), "mounts left behind: {mounts:?}");
        let namespaces: Vec<_> = now.namespaces.difference(&self.namespaces).collect();
        ensure!(namespaces.is_empty(), "namespaces left behind: {namespaces:?}");
        let mut cgroups = Vec::new();
        for root in roots {
            containers_below(Path::new("/sys/fs/cgroup"), root, &mut cgroups)?;
        }
        ensure!(cgroups.is_empty(), "cgroups of containers left behind: {cgroups:?}");
        let docker = docker_containers()?;
        ensure!(docker.is_empty(), "Docker containers left behind: {docker:?}");
        Ok(())
    }
}

/// Waits until the agents say that they hold no container any more.
pub fn nothing_running(cluster: &Cluster) -> Result<()> {
    eventually(PATIENCE, "no process of a task is left", || {
        let left: Vec<_> = mezz_tests::processes_of(cluster.folder())?
            .into_iter()
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                !line.contains(" master ") && !line.contains(" agent ")
            })
            .collect();
        let docker = docker_containers()?;
        Ok(if left.is_empty() && docker.is_empty() {
            Ok(())
        } else {
            Err(format!("processes {left:?}, Docker containers {docker:?}"))
        })
    })
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Those that some process is in.
fn namespaces() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        for kind in ["pid", "net", "mnt", "ipc", "uts"] {
            // A process may end while it is looked at.
            if let Ok(name) = fs::read_link(entry.path().join("ns").join(kind)) {
                found.insert(name.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

/// Folders of containers: everything below a folder of this name.
fn containers_below(folder: &Path, root: &str, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == root {
            for container in fs::read_dir(entry.path())? {
                let container = container?;
                if container.file_type()?.is_dir() {
                    found.push(container.path().display().to_string());
                }
            }
        } else {
            containers_below(&entry.path(), root, found)?;
        }
    }
    Ok(())
}

fn docker_containers() -> Result<Vec<String>> {
    let output = Command::new("docker")
        .args(["ps", "--all", "--quiet", "--filter", "label=dev.mezz.container"])
        .output()
        .context("running docker")?;
    ensure!(output.status.success(), "docker: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}
