//! How far an agent keeps containers apart: its options.

use std::{collections::BTreeSet, path::PathBuf};

use clap::Args;
use mezz_agent::options::{Containment, IsolationOptions, Isolator};

use crate::{config::Checker, units};

/// How far containers are kept apart.
#[derive(Clone, Debug, Args)]
pub struct IsolationArgs {
    /// What every container that is not Docker's gets, whether it asks for it or not, between commas: pid,
    /// mount, ipc, uts, network, no-new-privs, read-only-root, devices (cgroup v1
    /// only). With network no executor can reach its agent
    #[arg(long, env = "MEZZ_ISOLATION", value_name = "NAMES", value_delimiter = ',')]
    pub isolation: Vec<String>,
    /// Folder with unpacked images: the image `a/b` is the folder `a/b` in it. Without
    /// one, containers of type MESOS with an image are refused
    #[arg(long, env = "MEZZ_IMAGE_DIR", value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Processes and threads of one container, at most
    #[arg(long, env = "MEZZ_PIDS_LIMIT", value_name = "N", default_value = "16384")]
    pub pids_limit: String,
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
        let devices = options.always.contains(&Isolator::Devices);
        check.require(!devices || containment == Containment::Cgroup, "isolation", || {
            "devices needs --containment cgroup".to_owned()
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_or_listed() {
        assert_eq!(isolator(" no-new-privs"), Ok(Isolator::NoNewPrivileges));
        let error = isolator("cgroup").unwrap_err();
        assert!(error.starts_with("`cgroup` is none of pid, mount, "), "{error}");
    }
}
