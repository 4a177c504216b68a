//! How far an agent keeps containers apart: its options.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::Args;
use mezz_agent::options::{Containment, IsolationOptions, Isolator, capability};

use crate::{config::Checker, units};

/// How far containers are kept apart.
#[derive(Clone, Debug, Args)]
pub struct IsolationArgs {
    /// What every container that is not Docker's gets, whether it asks for it or not, between commas: pid,
    /// mount, ipc, uts, network, no-new-privs, read-only-root, devices, cpuset. With network no executor can reach its agent
    #[arg(long, env = "MEZZ_ISOLATION", value_name = "NAMES", value_delimiter = ',')]
    pub isolation: Vec<String>,
    /// Folder with unpacked images: the image `a/b` is the folder `a/b` in it. Without
    /// one, containers of type MESOS with an image are refused
    #[arg(long, env = "MEZZ_IMAGE_DIR", value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Processes and threads of one container, at most
    #[arg(long, env = "MEZZ_PIDS_LIMIT", value_name = "N", default_value = "16384")]
    pub pids_limit: String,
    /// Capabilities that a container can ever have, between commas (`CHOWN,KILL`), or
    /// none or all; one that asks for others is refused
    #[arg(long, env = "MEZZ_BOUNDING_CAPABILITIES", value_name = "NAMES", default_value = "all")]
    pub bounding_capabilities: String,
    /// Paths of this machine that containers may have as volumes, each with all below it,
    /// between commas, or none or all; links are followed before it is judged
    #[arg(long, env = "MEZZ_ALLOWED_HOST_PATHS", value_name = "PATHS", default_value = "all")]
    pub allowed_host_paths: String,
}

impl IsolationArgs {
    /// Checks these options; what is wrong is noted.
    pub fn check(&self, containment: Containment, check: &mut Checker<'_>) -> IsolationOptions {
        let mut options =
            IsolationOptions { image_dir: self.image_dir.clone(), ..IsolationOptions::default() };
        let mut always = Vec::new();
        check.set_all("isolation", &self.isolation, isolator, &mut always);
        options.always = BTreeSet::from_iter(always);
        let mut pids = 0;
        check.set("pids-limit", &self.pids_limit, units::count, &mut pids);
        options.pids_limit = pids as u64;
        let (bounding, paths) = (&self.bounding_capabilities, &self.allowed_host_paths);
        check.set("bounding-capabilities", bounding, capabilities, &mut options.bounding);
        check.set("allowed-host-paths", paths, host_paths, &mut options.host_paths);
        for (name, isolator) in [("devices", Isolator::Devices), ("cpuset", Isolator::Cpuset)] {
            let wanted = options.always.contains(&isolator);
            check.require(!wanted || containment == Containment::Cgroup, "isolation", || {
                format!("{name} needs --containment cgroup")
            });
        }
        options
    }
}

fn isolator(text: &str) -> Result<Isolator, String> {
    let found = Isolator::NAMES.iter().find(|(name, _)| *name == text.trim());
    found.map(|(_, isolator)| *isolator).ok_or_else(|| {
        let names: Vec<_> = Isolator::NAMES.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is none of {}", names.join(", "))
    })
}

/// The names of a list; none when it says `all`.
fn names(text: &str) -> Option<Vec<&str>> {
    match text.trim() {
        "all" => None,
        "none" => Some(Vec::new()),
        list => Some(list.split(',').map(str::trim).collect()),
    }
}

fn capabilities(text: &str) -> Result<Option<u64>, String> {
    let bit = |name: &str| {
        capability(name).ok_or_else(|| {
            format!("`{name}` is no capability; they are named like CHOWN or NET_BIND_SERVICE")
        })
    };
    let Some(names) = names(text) else { return Ok(None) };
    names.into_iter().try_fold(0, |all, name| Ok(all | bit(name)?)).map(Some)
}

fn host_paths(text: &str) -> Result<Option<Vec<PathBuf>>, String> {
    let path = |name: &str| match Path::new(name) {
        path if path.is_absolute() => Ok(path.to_path_buf()),
        _ => Err(format!("`{name}` is no absolute path")),
    };
    names(text).map(|names| names.into_iter().map(path).collect()).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_or_listed() {
        assert_eq!(isolator(" no-new-privs"), Ok(Isolator::NoNewPrivileges));
        let error = isolator("cgroup").unwrap_err();
        assert!(error.starts_with("`cgroup` is none of pid, mount, "), "{error}");
    }

    #[test]
    fn lists_are_all_none_or_named() {
        assert_eq!(capabilities("all"), Ok(None));
        assert_eq!(capabilities("none"), Ok(Some(0)));
        assert_eq!(capabilities("KILL, cap_net_bind_service"), Ok(Some(1 << 5 | 1 << 10)));
        for bad in ["", "FLY", "UNKNOWN", "KILL,"] {
            assert!(capabilities(bad).unwrap_err().contains("is no capability"), "{bad}");
        }
        assert_eq!(host_paths("all"), Ok(None));
        assert_eq!(host_paths("none"), Ok(Some(vec![])));
        assert_eq!(host_paths("/a,/b/c"), Ok(Some(vec!["/a".into(), "/b/c".into()])));
        assert!(host_paths("a").unwrap_err().contains("`a` is no absolute path"));
    }
}
