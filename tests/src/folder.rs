//! Folders of tests, and what tests that were killed have left: a test that takes too
//! long ends without a word, and what it has started outlives it, by design.
//!
//! That children die with the test by PR_SET_PDEATHSIG would not do: it reaches neither
//! launchers nor drivers, and means the thread that started a child.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{docker, process::MARK, signal};

/// In each folder, locked for as long as the test lives that made it.
const OWNER: &str = "owner";

/// The file of a folder that tells the name of a project of docker-compose, which goes with it.
pub const COMPOSE_PROJECT: &str = "compose.project";

/// What the names of such folders begin with.
const PREFIX: &str = "mezz-";

/// A temporary folder, which goes with this.
pub struct Folder {
    folder: TempDir,
    _owner: File,
}

impl Folder {
    /// A new one; `kind` stands in its name. First, what dead tests have left is ended.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(kind: &str) -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        Self::below(&parent, kind)
    }

    fn below(parent: &Path, kind: &str) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix(&format!("{PREFIX}{kind}-")).tempdir_in(parent)?;
        // Under its name only when it is locked.
        let unlocked = folder.path().join("owner.new");
        let owner = File::create(&unlocked)?;
        owner.try_lock().context("locking a file that nobody knows")?;
        fs::rename(unlocked, folder.path().join(OWNER))?;
        Ok(Self { folder, _owner: owner })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Ends what belongs to folders whose tests are dead, and removes them. What cannot be
/// ended or removed is left: another user's, say.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let folder = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Whatever else has such a name is somebody else's, and may not even end when opened.
        let ours = |path: &Path| {
            fs::symlink_metadata(path).is_ok_and(|m| {
                m.uid() == rustix::process::geteuid().as_raw() && (m.is_file() || m.is_dir())
            })
        };
        if !ours(&folder) || !ours(&folder.join(OWNER)) {
            continue;
        }
        let Ok(owner) = File::open(folder.join(OWNER)) else { continue };
        if owner.try_lock().is_err() {
            continue;
        }
        eprintln!("a test that was killed has left {}: it is removed", folder.display());
        for pid in started_in(&folder).unwrap_or_default() {
            let _ = signal(pid, Signal::KILL);
        }
        remove_containers(&folder);
        let _ = fs::remove_dir_all(&folder);
    }
}

/// What the test of this folder has started, and what that has: its processes with their
/// children, and what is in its agents' cgroups. Whoever else looks into the folder, as a
/// developer's shell, is not among them.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn started_in(folder: &Path) -> Result<BTreeSet<i32>> {
    let cgroup = format!("/{}-", cgroup_root(folder));
    let mut started = BTreeSet::new();
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end while it is looked at.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let environment = read("environ");
        let marked = environment.split(|b| *b == 0).any(|variable| {
            let value = variable.strip_prefix(MARK.as_bytes()).and_then(|v| v.strip_prefix(b"="));
            value.is_some_and(|logs| Path::new(OsStr::from_bytes(logs)).starts_with(folder))
        });
        // A launcher has no environment and outlives its agent, but names its plan.
        let line = read("cmdline");
        let mut words = line.split(|b| *b == 0).map(OsStr::from_bytes);
        let program = words.next().map(Path::new).and_then(Path::file_name).unwrap_or_default();
        let launcher = program.as_bytes().starts_with(b"mezz")
            && words.any(|word| Path::new(word).starts_with(folder));
        let contained = String::from_utf8_lossy(&read("cgroup")).contains(&cgroup);
        if marked || launcher || contained {
            started.insert(pid);
        }
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parents.insert(pid, parent.and_then(|pid| pid.trim().parse::<i32>().ok()));
    }
    loop {
        let is_child =
            |(_, parent): &(&i32, &Option<i32>)| parent.is_some_and(|p| started.contains(&p));
        let children: Vec<i32> = parents.iter().filter(is_child).map(|(pid, _)| *pid).collect();
        let before = started.len();
        started.extend(children);
        if started.len() == before {
            return Ok(started);
        }
    }
}

/// What the names of the cgroups of a folder's agents begin with, before a `-`.
pub(crate) fn cgroup_root(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().replace('.', "-")
}

/// Removes the Docker containers of all agents whose work dirs are in this folder and the
/// networks that its test made, and a project of docker-compose with its containers, networks
/// and volumes.
fn remove_containers(folder: &Path) {
    let project = fs::read_to_string(folder.join(COMPOSE_PROJECT)).ok();
    // Its agent before that one's containers, or it would start others.
    let mut labels: Vec<String> =
        project.iter().map(|name| format!("com.docker.compose.project={name}")).collect();
    let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    // The agent of the project has its work dir a folder deeper.
    for work_dir in below(folder).chain(below(&folder.join("compose"))) {
        let known = fs::read(work_dir.path().join("docker.json")).unwrap_or_default();
        let known: serde_json::Value = serde_json::from_slice(&known).unwrap_or_default();
        if let Some(agent) = known["agent"].as_str() {
            labels.push(format!("dev.mezz.agent={agent}"));
        }
    }
    for label in &labels {
        remove(&["ps", "-aq"], label, &["rm", "-f", "-v"]);
    }
    remove(&["network", "ls", "-q"], &docker::label(folder), &["network", "rm"]);
    for label in project.iter().map(|name| format!("com.docker.compose.project={name}")) {
        remove(&["network", "ls", "-q"], &label, &["network", "rm"]);
        remove(&["volume", "ls", "-q"], &label, &["volume", "rm"]);
    }
}

/// Removes what Docker lists with this label.
fn remove(list: &[&str], label: &str, remove: &[&str]) {
    let filter = format!("label={label}");
    let listed = Command::new("docker").args(list).args(["--filter", &filter]).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    for id in String::from_utf8_lossy(&listed).split_whitespace() {
        let _ = Command::new("docker").args(remove).arg(id).output();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{PATIENCE, Process, eventually};

    #[test]
    fn what_a_dead_test_has_left_is_ended_and_a_living_ones_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let start = |folder: &Path| {
            let mut command = Command::new("sleep");
            command.arg("600").current_dir(folder);
            Process::start("sleep", folder, command).unwrap()
        };
        let living = Folder::below(parent.path(), "living").unwrap();
        let dead = parent.path().join("mezz-dead");
        let unknown = parent.path().join("mezz-unknown");
        for folder in [&dead, &unknown] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(dead.join(OWNER), "").unwrap();
        let (mut goes_on, mut ends, mut other) =
            (start(living.path()), start(&dead), start(&unknown));
        // Somebody looks what it has left.
        let looks = parent.path().join("looks");
        fs::create_dir(&looks).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "cd \"$0\"; sleep 600"]).arg(&dead);
        let mut developer = Process::start("developer", &looks, command).unwrap();
        eventually(PATIENCE, "the developer is there", || {
            let there = crate::processes_of(&dead)?.contains(&developer.pid());
            Ok(if there { Ok(()) } else { Err(String::new()) })
        })
        .unwrap();
        // The kernel shows no environment until a program is all loaded, which is after its
        // parent goes on.
        eventually(PATIENCE, "its environment is seen", || {
            let seen = started_in(&dead)?;
            Ok(if seen.contains(&ends.pid()) { Ok(()) } else { Err(format!("{seen:?}")) })
        })
        .unwrap();
        sweep(parent.path());
        eventually(PATIENCE, "it ends", || {
            Ok(if ends.running() { Err(String::new()) } else { Ok(()) })
        })
        .unwrap();
        assert!(!dead.exists());
        assert!(goes_on.running() && other.running() && developer.running());
        assert!(living.path().join(OWNER).exists() && unknown.exists());
    }
}
