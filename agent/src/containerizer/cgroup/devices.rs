//! Which devices a container may open: the same rules for both versions.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use nix::sys::stat::{major, minor};

use super::file::CgroupError;

/// What may be done with a device, as bits; the kernel's own numbers.
pub mod access {
    /// To make one.
    pub const MAKE: u8 = 1;
    /// To read.
    pub const READ: u8 = 2;
    /// To write.
    pub const WRITE: u8 = 4;
}
use access::{MAKE, READ, WRITE};

/// That some devices may be used. All others may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is for block devices; otherwise for character devices.
    pub block: bool,
    /// None: any.
    pub major: Option<u32>,
    /// None: any.
    pub minor: Option<u32>,
    /// Bits of [`access`].
    pub access: u8,
}

/// As v1 writes it: `c 1:3 rwm`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let kind = if self.block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = [(READ, "r"), (WRITE, "w"), (MAKE, "m")];
        letters
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .try_for_each(|(_, l)| f.write_str(l))
    }
}

const fn make_any(block: bool) -> Rule {
    Rule { block, major: None, minor: None, access: MAKE }
}

const fn all(major: u32, minor: Option<u32>) -> Rule {
    Rule { block: false, major: Some(major), minor, access: MAKE | READ | WRITE }
}

/// All may be made, which opens none; and null, zero, full, random, urandom, tty, ptmx
/// and terminals may be opened.
const HARMLESS: [Rule; 10] = [
    make_any(false),
    make_any(true),
    all(1, Some(3)),
    all(1, Some(5)),
    all(1, Some(7)),
    all(1, Some(8)),
    all(1, Some(9)),
    all(5, Some(0)),
    all(5, Some(2)),
    all(136, None),
];

/// What every program with a GPU needs besides; where they are.
const GPU_CONTROL: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// The rules of a container: harmless devices, and so many GPUs that are not among
/// `taken`, which are rules of other containers. The folder of the devices is `/dev`,
/// save in tests.
pub fn rules(
    gpus: usize,
    taken: &BTreeSet<String>,
    devices: &Path,
) -> Result<Vec<Rule>, CgroupError> {
    let mut rules = HARMLESS.to_vec();
    if gpus > 0 {
        rules.extend(free_gpus(gpus, taken, devices)?);
    }
    Ok(rules)
}

fn free_gpus(
    wanted: usize,
    taken: &BTreeSet<String>,
    devices: &Path,
) -> Result<Vec<Rule>, CgroupError> {
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
    gpus.sort_unstable_by_key(|(number, _)| *number);
    let all = gpus.len();
    let is_free = |rule: &Rule| !taken.contains(&rule.to_string());
    let mut free: Vec<_> = gpus.into_iter().map(|(_, rule)| rule).filter(is_free).collect();
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
fn rule(path: &Path) -> io::Result<Option<Rule>> {
    let is = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        is => is?,
    };
    let number = |number: u64| u32::try_from(number).ok();
    Ok(is.file_type().is_char_device().then(|| Rule {
        block: false,
        major: number(major(is.rdev())),
        minor: number(minor(is.rdev())),
        access: READ | WRITE,
    }))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};

    use super::*;

    /// Devices of a machine with two GPUs.
    pub fn machine() -> tempfile::TempDir {
        let devices = tempfile::tempdir().unwrap();
        for (name, minor) in [("nvidia1", 1), ("nvidia0", 0), ("nvidiactl", 255), ("nvidiaX", 9)] {
            let device = makedev(195, minor);
            mknod(&devices.path().join(name), SFlag::S_IFCHR, Mode::S_IRUSR, device)
                .expect("this test needs root");
        }
        fs::write(devices.path().join("nvidia2"), "no device").unwrap();
        devices
    }

    #[test]
    fn gpus_of_others_are_not_given_again() {
        let devices = machine();
        let free = |wanted, taken: &[&str]| {
            let taken = taken.iter().map(|rule| (*rule).to_owned()).collect();
            free_gpus(wanted, &taken, devices.path())
        };
        let text = |rules: Vec<Rule>| rules.iter().map(Rule::to_string).collect::<Vec<_>>();
        let taken = ["c 1:3 rwm", "c 195:0 rw"];
        assert_eq!(text(free(1, &taken).unwrap()), ["c 195:1 rw", "c 195:255 rw"]);
        let error = free(2, &taken).unwrap_err().to_string();
        assert!(error.ends_with("2 are wanted, and of 2 only 1 are free"), "{error}");
        let both = ["c 195:0 rw", "c 195:1 rw", "c 195:255 rw"];
        assert_eq!(text(free(2, &[]).unwrap()), both);
    }

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let text: Vec<_> = HARMLESS.iter().map(Rule::to_string).collect();
        assert_eq!(text[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(text[9], "c 136:* rwm");
    }
}
