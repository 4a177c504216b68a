//! `devices`: which of them may be opened.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use nix::sys::stat::{major, minor};

use super::super::file::{self, CgroupError};

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";
const LIST: &str = "devices.list";

/// All may be made, which opens none; and null, zero, full, random, urandom, tty, ptmx
/// and terminals may be opened.
const HARMLESS: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// What every program with a GPU needs besides; where they are.
const GPU_CONTROL: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// Lets a container open harmless devices, and so many GPUs that no other container of
/// the agent has. The folder of the devices is `/dev`, save in tests.
pub(super) fn confine(
    agent: &Path,
    id: &str,
    gpus: usize,
    devices: &Path,
) -> Result<(), CgroupError> {
    let directory = agent.join(id);
    let gpus = if gpus > 0 { free_gpus(agent, id, gpus, devices)? } else { Vec::new() };
    file::write(&directory, DENY, "a")?;
    for rule in HARMLESS.into_iter().map(str::to_owned).chain(gpus) {
        file::write(&directory, ALLOW, rule)?;
    }
    Ok(())
}

fn free_gpus(
    agent: &Path,
    id: &str,
    wanted: usize,
    devices: &Path,
) -> Result<Vec<String>, CgroupError> {
    let mut taken = BTreeSet::new();
    for other in file::children(agent)?.into_iter().filter(|other| other != id) {
        // One that goes away meanwhile has nothing.
        let list = file::read(&agent.join(other), LIST).unwrap_or_default();
        taken.extend(list.lines().map(str::to_owned));
    }
    let failed = |e| CgroupError::new("looking for GPUs in", devices, e);
    let mut gpus = Vec::new();
    for entry in fs::read_dir(devices).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
        if let Some(number) = number.and_then(|number| number.parse::<u32>().ok())
            && let Some(rule) = rule(&devices.join(name)).map_err(failed)?
        {
            gpus.push((number, rule));
        }
    }
    gpus.sort_unstable();
    let all = gpus.len();
    let mut free: Vec<_> =
        gpus.into_iter().map(|(_, rule)| rule).filter(|rule| !taken.contains(rule)).collect();
    if free.len() < wanted {
        let text = format!("{wanted} are wanted, and of {all} only {} are free", free.len());
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, text)));
    }
    free.truncate(wanted);
    for name in GPU_CONTROL {
        free.extend(rule(&devices.join(name)).map_err(failed)?);
    }
    Ok(free)
}

/// That a device may be used, if it is one and there.
fn rule(path: &Path) -> io::Result<Option<String>> {
    let is = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        is => is?,
    };
    let device = is.rdev();
    Ok(is.file_type().is_char_device().then(|| format!("c {}:{} rw", major(device), minor(device))))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};

    use super::*;

    /// Devices of a machine with two GPUs, and an agent with the containers `a`, `b`
    /// and `c`, where `a` has the first GPU.
    fn machine() -> (tempfile::TempDir, tempfile::TempDir) {
        let (devices, agent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, minor) in [("nvidia1", 1), ("nvidia0", 0), ("nvidiactl", 255), ("nvidiaX", 9)] {
            let device = makedev(195, minor);
            mknod(&devices.path().join(name), SFlag::S_IFCHR, Mode::S_IRUSR, device)
                .expect("this test needs root");
        }
        fs::write(devices.path().join("nvidia2"), "no device").unwrap();
        for id in ["a", "b", "c"] {
            fs::create_dir(agent.path().join(id)).unwrap();
            for name in [ALLOW, DENY, LIST] {
                fs::write(agent.path().join(id).join(name), "").unwrap();
            }
        }
        fs::write(agent.path().join("a").join(LIST), "c 1:3 rwm\nc 195:0 rw\n").unwrap();
        (devices, agent)
    }

    #[test]
    fn gpus_of_others_are_not_given_again() {
        let (devices, agent) = machine();
        let free = |wanted| free_gpus(agent.path(), "b", wanted, devices.path());
        assert_eq!(free(1).unwrap(), ["c 195:1 rw", "c 195:255 rw"]);
        let error = free(2).unwrap_err().to_string();
        assert!(error.ends_with("2 are wanted, and of 2 only 1 are free"), "{error}");
        fs::write(agent.path().join("a").join(LIST), "").unwrap();
        assert_eq!(free(2).unwrap(), ["c 195:0 rw", "c 195:1 rw", "c 195:255 rw"]);
    }

    #[test]
    fn all_is_forbidden_first() {
        let (devices, agent) = machine();
        confine(agent.path(), "b", 0, devices.path()).unwrap();
        let text = |name| file::read(&agent.path().join("b"), name).unwrap();
        assert_eq!(text(DENY), "a");
        // A plain file keeps what was written last; control files take one at a time.
        assert!(text(ALLOW).starts_with("c 136:* rwm"));
        fs::write(agent.path().join("b").join(ALLOW), "").unwrap();
        confine(agent.path(), "b", 1, devices.path()).unwrap();
        assert!(text(ALLOW).starts_with("c 195:255 rw"));
    }
}
