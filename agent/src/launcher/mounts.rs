//! A container's own mounts: `/tmp`, `/proc`, volumes, and an image as the root.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::{PermissionsExt as _, symlink},
    },
    path::Path,
};

use nix::{
    libc,
    sched::{CloneFlags, setns, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use rustix::{
    fs::{self as rfs, CWD, OFlags, ResolveFlags},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind,
        mount_change, mount_remount, move_mount, open_tree,
    },
};

use super::{
    Credentials, image,
    isolation::{Isolation, Mounts, SANDBOX, Source, TMP, Volume},
    namespaces::Opened,
    points::{Points, beneath},
    process::Process,
};

/// Devices that every program may expect: name, major and minor number.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

pub(super) const TMP_FOLDER: &str = "/tmp";

pub(super) type Done<T = ()> = Result<T, String>;

pub(super) fn failed<E: std::fmt::Display>(
    what: impl std::fmt::Display,
) -> impl FnOnce(E) -> String {
    move |error| format!("cannot {what}: {error}")
}

/// A mount that stands nowhere yet.
struct Tree {
    fd: OwnedFd,
    folder: bool,
}

/// Gives this process mounts of its own, after its pid namespace.
pub(super) fn set_up(mounts: &Mounts, isolation: &Isolation, user: Option<&Credentials>) -> Done {
    // Before there are own mounts, from which no way leads back.
    let joined = match &isolation.join {
        Some(join) if mounts.join_shm => Some(shm_of(join.process)?),
        _ => None,
    };
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| format!("cannot make a mount namespace: {}", e.desc()))?;
    // What the host unmounts goes away here too, or a long task would pin it.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(failed("make the mounts its own"))?;

    // All taken before the root changes, and before it cannot be written.
    let sandbox = Tree::host(&mounts.sandbox)?;
    let tmp = if mounts.tmp {
        let tree = Tree::beneath(&mounts.sandbox, Path::new(TMP), user)?;
        rfs::chmodat(&tree.fd, ".", 0o1777.into(), rfs::AtFlags::empty())
            .map_err(failed("open /tmp for all"))?;
        Some(tree)
    } else {
        None
    };
    let volumes = mounts
        .volumes
        .iter()
        .map(|volume| Tree::volume(volume, user).map(|tree| (volume, tree)))
        .collect::<Done<Vec<_>>>()?;
    let shm = match mounts.shm_bytes {
        _ if joined.is_some() => joined,
        None if mounts.read_only && mounts.root.is_none() => {
            Path::new("/dev/shm").is_dir().then(|| Tree::host(Path::new("/dev/shm"))).transpose()?
        }
        _ => None,
    };

    let mut why_not = None;
    if let Some(root) = &mounts.root {
        why_not = image::enter(root)?;
    } else if mounts.read_only {
        let root = open(CWD, Path::new("/"), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(failed("open the root"))?;
        set_read_only(root.as_fd(), libc::AT_RECURSIVE)
            .map_err(failed("make the root read-only"))?;
    }
    let image = mounts.root.is_some();
    let inside = if image { Path::new(SANDBOX) } else { &mounts.sandbox };
    // As long as they are not mounted, `/tmp` and the sandbox are folders like others.
    let mut points = Points { sandbox: None, own_tmp: false, image, why_not, user };
    if isolation.pid || isolation.join.as_ref().is_some_and(|join| join.pid) || image {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount_new(&points, "proc", "/proc", flags, "")?;
    }
    if image {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount_new(&points, "sysfs", "/sys", flags | MountFlags::RDONLY, "")?;
        devices(&points)?;
    }
    if image || mounts.read_only || isolation.effective.is_some() {
        guard_proc()?;
    }
    if let Some(shm) = shm {
        shm.put(&points, Path::new("/dev/shm"))?;
    } else if image || mounts.shm_bytes.is_some() {
        let size = mounts.shm_bytes.unwrap_or_default();
        let data = if size > 0 { format!("mode=1777,size={size}") } else { "mode=1777".to_owned() };
        mount_new(&points, "tmpfs", "/dev/shm", MountFlags::NOSUID | MountFlags::NODEV, &data)?;
    }
    if let Some(tmp) = tmp {
        tmp.put(&points, Path::new(TMP_FOLDER))?;
        points.own_tmp = true;
    }
    match inside.strip_prefix(TMP_FOLDER) {
        // It was there, and must be there again.
        Ok(rest) if points.own_tmp && !image => {
            sandbox.put_at(beneath(Path::new(TMP_FOLDER), rest, true, None)?.as_fd(), inside)?;
        }
        _ if image || mounts.read_only => sandbox.put(&points, inside)?,
        _ => {}
    }
    points.sandbox = Some(inside);
    for (volume, tree) in volumes {
        tree.put(&points, &volume.to)?;
    }
    if image {
        image::close()?;
    }
    Ok(())
}

/// The `/dev/shm` of another container.
fn shm_of(process: Process) -> Done<Tree> {
    let ours = fs::File::open("/proc/self/ns/mnt").map_err(failed("open the own mounts"))?;
    Opened::of(process, CloneFlags::CLONE_NEWNS)?.enter()?;
    let shm = Tree::host(Path::new("/dev/shm"));
    setns(ours, CloneFlags::CLONE_NEWNS).map_err(failed("return to the own mounts"))?;
    shm
}

impl Tree {
    fn host(path: &Path) -> Done<Self> {
        let what = || format!("take {} as a volume", path.display());
        let fd = open(CWD, path, OFlags::PATH).map_err(failed(what()))?;
        Self::of(fd.as_fd()).map_err(failed(what()))
    }

    /// A path without links. If there is one now, it is not what was allowed.
    fn exactly(path: &Path) -> Done<Self> {
        let what = || format!("take {} as a volume", path.display());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS;
        let fd =
            rfs::openat2(CWD, path, flags, rfs::Mode::empty(), resolve).map_err(failed(what()))?;
        Self::of(fd.as_fd()).map_err(failed(what()))
    }

    fn beneath(base: &Path, path: &Path, user: Option<&Credentials>) -> Done<Self> {
        let fd = beneath(base, path, true, user)?;
        Self::of(fd.as_fd()).map_err(failed(format!(
            "take {} of {}",
            path.display(),
            base.display()
        )))
    }

    fn volume(volume: &Volume, user: Option<&Credentials>) -> Done<Self> {
        let tree = match &volume.from {
            Source::Host(path) => Self::exactly(path)?,
            Source::Sandbox { base, path } => Self::beneath(base, path, user)?,
        };
        if volume.read_only {
            set_read_only(tree.fd.as_fd(), libc::AT_RECURSIVE)
                .map_err(failed("make a volume read-only"))?;
        }
        Ok(tree)
    }

    fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let folder = rfs::FileType::from_raw_mode(rfs::fstat(fd)?.st_mode).is_dir();
        Ok(Self { fd: open_tree(fd, c"", flags)?, folder })
    }

    fn put(self, points: &Points<'_>, to: &Path) -> Done {
        let point = points.of(to, self.folder)?;
        self.put_at(point.as_fd(), to)
    }

    fn put_at(self, point: BorrowedFd<'_>, name: &Path) -> Done {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.fd, c"", point, c"", flags)
            .map_err(failed(format!("mount something at {}", name.display())))
    }
}

pub(super) fn open(at: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rfs::openat(at, path, flags | OFlags::CLOEXEC, rfs::Mode::empty())?)
}

fn mount_new(points: &Points<'_>, kind: &str, to: &str, flags: MountFlags, data: &str) -> Done {
    let what = || format!("mount {kind} at {to}");
    points.of(Path::new(to), true)?;
    let data = std::ffi::CString::new(data).map_err(failed(what()))?;
    mount(kind, to, kind, flags, Some(data.as_c_str())).map_err(failed(what()))
}

/// The kernel lets uid 0 write its settings whatever capabilities it lacks, and one of
/// them is a program that it runs as root of the machine (`core_pattern`).
fn guard_proc() -> Done {
    for name in ["sys", "irq", "bus", "fs", "sysrq-trigger"] {
        let path = Path::new("/proc").join(name);
        if path.exists() {
            let what = || format!("guard {}", path.display());
            mount_bind(&path, &path).map_err(failed(what()))?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount_remount(&path, MountFlags::BIND | MountFlags::RDONLY | flags, c"")
                .map_err(failed(what()))?;
        }
    }
    for name in ["kcore", "keys", "timer_list"] {
        let path = Path::new("/proc").join(name);
        if path.exists() {
            mount_bind("/dev/null", &path).map_err(failed(format!("hide {}", path.display())))?;
        }
    }
    Ok(())
}

fn devices(points: &Points<'_>) -> Done {
    mount_new(points, "tmpfs", "/dev", MountFlags::NOSUID, "mode=0755,size=64k")?;
    let all = Mode::from_bits_truncate(0o666);
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(name);
        mknod(&path, SFlag::S_IFCHR, all, makedev(major, minor))
            .map_err(io::Error::from)
            // The mask for new files may have taken some of it.
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o666)))
            .map_err(failed(format!("make {}", path.display())))?;
    }
    for (name, to) in LINKS {
        symlink(to, Path::new("/dev").join(name)).map_err(failed(format!("make /dev/{name}")))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_new(points, "devpts", "/dev/pts", flags, "newinstance,ptmxmode=0666,mode=0620,gid=5")
}

/// A mount, with `AT_RECURSIVE` also all below it. What else it is (`nosuid`, `nodev`)
/// stays.
pub(super) fn set_read_only(of: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    const READ_ONLY: u64 = 1;
    let attributes = Attributes { set: READ_ONLY, clear: 0, propagation: 0, userns: 0 };
    let flags = libc::AT_EMPTY_PATH | flags;
    // SAFETY: reads an empty name and a structure of the size that is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            of.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
