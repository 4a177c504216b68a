//! A containerizer in a folder of its own, with cgroups of a name of its own.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use mezz_agent::{
    containerizer::{self, ContainerSpec, Containerizer, Program, Termination},
    launcher::{process, record},
    options::{AgentOptions, Containment, FetcherOptions, LauncherCommand, MonitorOptions},
};
use mezz_proto::{ids::ContainerId, resources::Resources};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Of the tests' containers.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The launcher, as the agent would start it.
pub fn launcher() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mezz-launcher"))
}

/// Options with a work_dir that goes away with the first part.
pub fn options(containment: Containment) -> (TempDir, AgentOptions) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let dir = tempfile::tempdir().unwrap();
    // Containers of other users live in it.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let options = AgentOptions {
        masters: vec![],
        advertise: None,
        hostname: "test".into(),
        work_dir: dir.path().join("work"),
        resources: Resources::new(),
        attributes: vec![],
        domain: None,
        containment,
        cgroup_root: format!("mezz-test-{}-{n}", std::process::id()),
        cgroup_cpu_quota: false,
        launcher: LauncherCommand {
            program: env!("CARGO_BIN_EXE_mezz-launcher").into(),
            args: vec![],
        },
        native_library: None,
        kill_grace: Duration::from_secs(3),
        executor_registration_timeout: Duration::from_secs(60),
        executor_reregistration_timeout: Duration::from_secs(2),
        executor_shutdown_grace: Duration::from_secs(5),
        authenticate_http_executors: false,
        update_retry: (Duration::from_secs(10), Duration::from_secs(600)),
        sandbox_retention: Duration::from_secs(600),
        register_backoff: (Duration::from_secs(1), Duration::from_secs(60)),
        max_tasks: 100,
        max_fetch_bytes: 1 << 30,
        isolation: Default::default(),
        fetcher: FetcherOptions::default(),
        monitor: MonitorOptions::default(),
        docker: Default::default(),
    };
    (dir, options)
}

/// One containerizer. When it goes, so do its containers and cgroups.
pub struct Agent {
    pub it: Arc<dyn Containerizer>,
    // Before the folder, whose records it reads.
    clean: Cleaner,
    pub dir: TempDir,
    pub options: AgentOptions,
    next: AtomicU32,
}

impl Agent {
    pub fn new(containment: Containment) -> Self {
        Self::with(options(containment))
    }

    pub fn with((dir, options): (TempDir, AgentOptions)) -> Self {
        let it = containerizer::open(&options).unwrap_or_else(|e| {
            panic!("these tests need root and cgroups (v2, or v1 with cpu, cpuacct, memory, pids, freezer; in Docker: --privileged --cgroupns=host): {e}")
        });
        let clean = Cleaner { name: options.cgroup_root.clone(), work: options.work_dir.clone() };
        Self { it, dir, options, next: AtomicU32::new(0), clean }
    }

    /// As another process of the agent would find it.
    pub fn restart(self) -> Self {
        let Self { it, dir, options, next, clean } = self;
        drop(it);
        let it = containerizer::open(&options).unwrap();
        Self { it, dir, options, next, clean }
    }

    pub fn spec(&self, command: &str) -> ContainerSpec {
        let id = format!("c{}", self.next.fetch_add(1, Ordering::Relaxed));
        let sandbox = self.sandbox(&ContainerId::new(&id));
        fs::create_dir_all(&sandbox).unwrap();
        ContainerSpec {
            id: ContainerId::new(id),
            program: Program::Shell(command.into()),
            environment: BTreeMap::from([("PATH".into(), PATH.into())]),
            user: None,
            sandbox,
            resources: Resources::cpus_mem(0.1, 32.0),
            limits: BTreeMap::new(),
            info: None,
            pod: None,
        }
    }

    pub async fn start(&self, spec: ContainerSpec) -> ContainerId {
        let id = spec.id.clone();
        self.it
            .launch(spec)
            .await
            .unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
        id
    }

    pub async fn run(&self, command: &str) -> ContainerId {
        self.start(self.spec(command)).await
    }

    pub async fn wait(&self, id: &ContainerId) -> Termination {
        tokio::time::timeout(PATIENCE, self.it.wait(id)).await.expect("it ends").unwrap()
    }

    /// Removes it and looks whether anything is left.
    pub async fn remove(&self, id: &ContainerId) {
        self.it.remove(id).await.unwrap();
        self.assert_nothing_left(id);
    }

    pub fn sandbox(&self, id: &ContainerId) -> PathBuf {
        self.dir.path().join("sandboxes").join(id.as_str())
    }

    pub fn runtime(&self, id: &ContainerId) -> PathBuf {
        self.options.work_dir.join("containers").join(id.as_str())
    }

    pub fn output(&self, id: &ContainerId, name: &str) -> String {
        fs::read_to_string(self.sandbox(id).join(name)).unwrap()
    }

    pub fn touch(&self, id: &ContainerId, name: &str) {
        fs::write(self.sandbox(id).join(name), "").unwrap();
    }

    pub fn launcher_pid(&self, id: &ContainerId) -> i32 {
        record::started(&self.runtime(id)).unwrap().expect("it has started").launcher.pid
    }

    /// The container's living processes.
    pub fn living(&self, id: &ContainerId) -> Vec<i32> {
        process::descendants(self.launcher_pid(id)).unwrap()
    }

    pub fn exit_is_on_record(&self, id: &ContainerId) -> bool {
        record::ended(&self.runtime(id)).unwrap().is_some()
    }

    /// The text of a control file; for v2 the controller does not matter.
    pub fn control(&self, controller: &str, id: &ContainerId, file: &str) -> String {
        let found: Vec<_> = cgroups(&self.options.cgroup_root)
            .into_iter()
            .filter(|dir| controller.is_empty() || dir.to_string_lossy().contains(controller))
            .map(|dir| dir.join(id.as_str()).join(file))
            .filter(|path| path.exists())
            .collect();
        assert_eq!(found.len(), 1, "{controller} {file}: {found:?}");
        fs::read_to_string(&found[0]).unwrap().trim().to_owned()
    }

    /// How many processes and threads are in its cgroup.
    pub fn control_pids(&self, id: &ContainerId) -> usize {
        let controller = if self.it.name() == "cgroup-v1" { "pids" } else { "" };
        self.control(controller, id, "pids.current").parse().unwrap()
    }

    /// Whether the kernel has killed in it for memory.
    pub fn out_of_memory(&self, id: &ContainerId) -> bool {
        let (controller, file) = match self.it.name() {
            "cgroup-v1" => ("memory", "memory.oom_control"),
            _ => ("", "memory.events"),
        };
        let text = self.control(controller, id, file);
        text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|n| n != "0"))
    }

    pub fn assert_nothing_left(&self, id: &ContainerId) {
        for directory in cgroups(&self.options.cgroup_root) {
            let left = directory.join(id.as_str());
            assert!(!left.exists(), "{} is left", left.display());
        }
        assert!(!self.runtime(id).exists());
    }
}

/// Every directory of this name right below a cgroup mount.
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")))
        .filter_map(|line| Some(Path::new(line.split(' ').nth(1)?).join(name)))
        .filter(|path| path.is_dir())
        .collect()
}

struct Cleaner {
    name: String,
    work: PathBuf,
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.work.join("containers")).into_iter().flatten().flatten() {
            if let Ok(Some(started)) = record::started(&entry.path())
                && started.launcher.exists().unwrap_or(true)
                && started.launcher.pid.unsigned_abs() != std::process::id()
            {
                let _ = process::send(started.launcher.pid, nix::libc::SIGUSR1);
                let end = Instant::now() + PATIENCE;
                while alive(started.launcher.pid) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        for directory in cgroups(&self.name) {
            for child in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if child.path().is_dir() {
                    let _ = fs::remove_dir(child.path());
                }
            }
            if let Err(error) = fs::remove_dir(&directory)
                && !std::thread::panicking()
            {
                panic!("{} cannot be removed: {error}", directory.display());
            }
        }
    }
}

/// A file system of 256 KiB at a folder, which is made.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn at(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, path, Some("tmpfs"), flags, Some("size=256k"))
            .expect("these tests need the right to mount");
        Self(path.to_path_buf())
    }

    /// Leaves no room.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filling")).unwrap();
        let error = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Whether a process is there and more than a zombie.
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn write_with_mode(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
