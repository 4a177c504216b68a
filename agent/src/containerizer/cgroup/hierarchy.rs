//! Which cgroup hierarchies this machine has mounted, and where.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// v1 controllers that containers need.
pub const V1_CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "freezer"];

/// A v1 controller that is used when asked for.
pub const DEVICES: &str = "devices";

/// A controller of both versions that is used when asked for.
pub const CPUSET: &str = "cpuset";

/// v2 controllers that containers need.
pub const V2_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The mounts of both versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Of the unified hierarchy.
    pub v2: Option<PathBuf>,
    /// Of each v1 controller; several may share one.
    pub v1: BTreeMap<&'static str, PathBuf>,
}

/// What there is to work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usable {
    /// A unified hierarchy with all [`V2_CONTROLLERS`].
    V2(PathBuf),
    /// All [`V1_CONTROLLERS`], and maybe [`DEVICES`] and [`CPUSET`].
    V1(BTreeMap<&'static str, PathBuf>),
    /// Neither; these are missing, as v1 or v2 calls them.
    Missing(Vec<&'static str>),
}

impl Mounts {
    /// From the text of `/proc/self/mountinfo`. Where something is mounted twice the
    /// first counts.
    pub fn parse(mountinfo: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(point) = before.split(' ').nth(4).map(unescape) else { continue };
            let mut after = after.split(' ');
            match after.next() {
                Some("cgroup2") => _ = mounts.v2.get_or_insert(point),
                Some("cgroup") => {
                    let options = after.nth(1).unwrap_or_default();
                    for name in V1_CONTROLLERS.into_iter().chain([DEVICES, CPUSET]) {
                        if options.split(',').any(|o| o == name) {
                            mounts.v1.entry(name).or_insert_with(|| point.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        mounts
    }

    /// v2 if it has the controllers, else v1 if that has.
    pub fn usable(&self) -> Usable {
        let available = self
            .v2
            .as_deref()
            .and_then(|root| fs::read_to_string(root.join("cgroup.controllers")).ok())
            .unwrap_or_default();
        let has = |name: &&str| available.split_whitespace().any(|c| c == *name);
        let missing = |all: &[&'static str], has: &dyn Fn(&&str) -> bool| -> Vec<&'static str> {
            all.iter().filter(|name| !has(name)).copied().collect()
        };
        let missing_v1 = missing(&V1_CONTROLLERS, &|name| self.v1.contains_key(*name));
        let missing_v2 = missing(&V2_CONTROLLERS, &has);
        match &self.v2 {
            Some(root) if missing_v2.is_empty() => Usable::V2(root.clone()),
            _ if missing_v1.is_empty() => Usable::V1(self.v1.clone()),
            Some(_) if self.v1.is_empty() => Usable::Missing(missing_v2),
            _ => Usable::Missing(missing_v1),
        }
    }
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let (mut out, bytes) = (Vec::new(), text.as_bytes());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let octal = bytes
            .get(i + 1..i + 4)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(byte));
        i += if octal.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Whether a unified hierarchy has a controller.
pub fn has_controller(root: &Path, name: &str) -> bool {
    fs::read_to_string(root.join("cgroup.controllers"))
        .is_ok_and(|all| all.split_whitespace().any(|controller| controller == name))
}

/// Whether a name can stand as one directory below a hierarchy's root.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && Path::new(name).components().count() == 1
        && !name.contains(['/', '\0', '\n'])
        && name != "."
        && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/mem\\040ory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
35 30 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";

    #[test]
    fn mounts_are_found_by_their_options() {
        let mounts = Mounts::parse(HYBRID);
        assert_eq!(mounts.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(mounts.v1["cpu"], mounts.v1["cpuacct"]);
        assert_eq!(mounts.v1["memory"], Path::new("/sys/fs/cgroup/mem ory"));
        assert_eq!(mounts.v1.len(), 4);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Mounts::parse(HYBRID).usable(), Usable::Missing(vec!["freezer"]));
        let all = format!("{HYBRID}36 30 0:32 / /f rw - cgroup cgroup rw,freezer\n");
        assert!(matches!(Mounts::parse(&all).usable(), Usable::V1(_)));
    }

    #[test]
    fn a_unified_hierarchy_with_the_controllers_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = Mounts { v2: Some(dir.path().into()), ..Mounts::default() };
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory\n").unwrap();
        assert_eq!(mounts.usable(), Usable::Missing(vec!["pids"]));
        fs::write(dir.path().join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        assert_eq!(mounts.usable(), Usable::V2(dir.path().into()));
    }

    #[test]
    fn names_that_lead_elsewhere_are_no_names() {
        assert!(is_plain_name("mezz") && is_plain_name("a.b-c"));
        for bad in ["", ".", "..", "a/b", "/a", "a\n", &"x".repeat(201)] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
