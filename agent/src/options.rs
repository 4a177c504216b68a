//! Settings of an agent, with their defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use mezz_proto::{resources::Resources, v1};

use crate::containerizer::{EngineAddress, cgroup::MAX_PIDS};

/// What holds containers to their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// cgroups, v2 or v1, whichever the machine has. The agent does not start
    /// without the rights for them.
    Cgroup,
    /// Nothing: tasks run with no limits. Only when asked for by name.
    None,
}

/// How to start the launcher: this program, then these arguments, then the path
/// of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LauncherCommand {
    /// An absolute path.
    pub program: PathBuf,
    /// Before the plan's path.
    pub args: Vec<String>,
}

/// Settings of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentOptions {
    /// host:port of each master, in the order in which they are tried.
    pub masters: Vec<String>,
    /// host:port that peers are told; the bound address when absent.
    pub advertise: Option<String>,
    /// The host's name, for offers.
    pub hostname: String,
    /// Sandboxes, the store and logs live below it.
    pub work_dir: PathBuf,
    /// All that the agent offers.
    pub resources: Resources,
    /// For constraints.
    pub attributes: Vec<v1::Attribute>,
    /// Region and zone.
    pub domain: Option<v1::DomainInfo>,
    /// What holds containers to their limits.
    pub containment: Containment,
    /// Name of the agent's cgroup below each hierarchy's root; two agents on one
    /// machine need two names.
    pub cgroup_root: String,
    /// Also bound cpu time (quota), not only share it.
    pub cgroup_cpu_quota: bool,
    /// How the launcher is started.
    pub launcher: LauncherCommand,
    /// `libmezzmesos.so` or another native library of Mesos' JVM API, which containers that
    /// see this machine's files find named in their environment (rule 55); absolute.
    pub native_library: Option<PathBuf>,
    /// Between SIGTERM and SIGKILL where no policy says (rule 59: 3 s).
    pub kill_grace: Duration,
    /// An executor that has not subscribed so long after its container began to run is
    /// killed (rule 53: 1 min).
    pub executor_registration_timeout: Duration,
    /// After a restart, executors have so long to come back (rule 52: 2 s).
    pub executor_reregistration_timeout: Duration,
    /// Between telling an executor to shut down and killing it (rule 53: 5 s).
    pub executor_shutdown_grace: Duration,
    /// Executors that speak HTTP must show their token also when they call from this
    /// machine (Mesos' `--authenticate_http_executors`: off).
    pub authenticate_http_executors: bool,
    /// First and longest wait before an update is sent again (rule 35: 10 s, 10 min).
    pub update_retry: (Duration, Duration),
    /// Sandboxes of ended containers are removed after this (rule 56: 1 week).
    pub sandbox_retention: Duration,
    /// First and longest wait between attempts to reach a master (rule 45: 1 s, 1 min).
    pub register_backoff: (Duration, Duration),
    /// More live tasks than this are refused.
    pub max_tasks: usize,
    /// One fetched file may be so large, in bytes, and so may be all that an
    /// archive holds.
    pub max_fetch_bytes: u64,
    /// How files are fetched.
    pub fetcher: FetcherOptions,
    /// What is measured and bounded while containers run, and what is kept of them.
    pub monitor: MonitorOptions,
    /// How far containers are kept apart.
    pub isolation: IsolationOptions,
    /// Where Docker containers run.
    pub docker: DockerOptions,
}

/// Where Docker containers run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerOptions {
    /// The engine, on this machine; without one, tasks with such containers are refused.
    pub engine: Option<EngineAddress>,
    /// The file that `docker login` writes, with credentials for registries; read at
    /// each pull.
    pub config: Option<PathBuf>,
}

/// How files are fetched for tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetcherOptions {
    /// For URIs of these schemes (in small letters): a program and its arguments
    /// between blanks, in which `{uri}` stands for the URI and `{path}` for the file
    /// to be written. No shell reads them.
    pub commands: BTreeMap<String, String>,
    /// Files kept for URIs with `cache` take so much of the disk, in bytes
    /// (rule 57: 2 GB); what is in use stays, even beyond.
    pub cache_bytes: u64,
    /// All that one task wants fetched is there by then, or the task fails; more than
    /// nothing.
    pub timeout: Duration,
}

impl Default for FetcherOptions {
    fn default() -> Self {
        Self { commands: BTreeMap::new(), cache_bytes: 2 << 30, timeout: Duration::from_secs(3600) }
    }
}

/// What is measured and bounded while containers run, and what is kept of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorOptions {
    /// Between two looks for sandboxes to be removed, and at how full their disk is
    /// (rule 56: 1 min).
    pub disk_watch_interval: Duration,
    /// Between two measurements of what containers use: of their sandboxes' disk
    /// (rule 64: 15 s), and of processor time and memory for the metrics.
    pub container_disk_interval: Duration,
    /// End containers whose sandbox holds more than their `disk` resource. Those
    /// without one are not measured against anything.
    pub enforce_disk_quota: bool,
    /// Between two looks at the ports on which containers listen (rule 64: 30 s).
    pub container_ports_interval: Duration,
    /// End containers that listen on TCP ports that they do not hold.
    pub enforce_ports: bool,
    /// Look only at ports that the agent offers; otherwise at all.
    pub check_agent_port_range_only: bool,
    /// `stdout` and `stderr` of a container are each put aside when they are larger
    /// than this, in bytes; 0 lets them grow.
    pub log_max_bytes: u64,
}

impl Default for MonitorOptions {
    fn default() -> Self {
        Self {
            disk_watch_interval: Duration::from_secs(60),
            container_disk_interval: Duration::from_secs(15),
            enforce_disk_quota: false,
            container_ports_interval: Duration::from_secs(30),
            enforce_ports: false,
            check_agent_port_range_only: false,
            log_max_bytes: 100 << 20,
        }
    }
}

/// How far containers that are processes of this machine are kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationOptions {
    /// What every container gets, whether its framework asks for it or not.
    pub always: BTreeSet<Isolator>,
    /// Unpacked images: a container with the image `a/b` has the folder `a/b` below it
    /// as its root. Images are refused when absent.
    pub image_dir: Option<PathBuf>,
    /// Processes and threads of one container, at most; at least 1.
    pub pids_limit: u64,
    /// Capabilities that containers can ever have, as bits of the kernel's numbers; who
    /// asks for others is refused. All when absent.
    pub bounding: Option<u64>,
    /// Paths of the machine that containers may have as volumes, each with all below it.
    /// All when absent.
    pub host_paths: Option<Vec<PathBuf>>,
}

impl Default for IsolationOptions {
    fn default() -> Self {
        Self {
            always: BTreeSet::new(),
            image_dir: None,
            pids_limit: MAX_PIDS,
            bounding: None,
            host_paths: None,
        }
    }
}

/// In the protocol the kernel's numbers of capabilities begin here.
pub(crate) const FIRST_CAPABILITY: i32 = 1000;

/// The bit of a capability by its name, with or without `CAP_`, in capitals or not.
pub fn capability(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let known = v1::capability_info::Capability::from_str_name(plain)?;
    let number = i32::from(known).checked_sub(FIRST_CAPABILITY)?;
    (0..64).contains(&number).then(|| 1 << number)
}

/// One thing in which containers are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolator {
    /// `pid`: a container sees and signals its own processes only.
    Pid,
    /// `mount`: mounts of its own, and a `/tmp` in its sandbox.
    Mount,
    /// `ipc`: System V IPC, message queues and `/dev/shm` of its own.
    Ipc,
    /// `uts`: a hostname of its own.
    Uts,
    /// `network`: no network but a loopback device; executors cannot reach their agent
    /// then.
    Network,
    /// `no-new-privs`: programs such as `su` give no rights.
    NoNewPrivileges,
    /// `read-only-root`: only the sandbox, `/tmp` (in the sandbox) and volumes can be
    /// written.
    ReadOnlyRoot,
    /// `devices`: only harmless devices, and GPUs as held.
    Devices,
    /// `cpuset`: cores of its own for a container with whole cpus, as long as one is left
    /// to the others, who share what is left.
    Cpuset,
}

impl Isolator {
    /// All, by name.
    pub const NAMES: [(&str, Self); 9] = [
        ("pid", Self::Pid),
        ("mount", Self::Mount),
        ("ipc", Self::Ipc),
        ("uts", Self::Uts),
        ("network", Self::Network),
        ("no-new-privs", Self::NoNewPrivileges),
        ("read-only-root", Self::ReadOnlyRoot),
        ("devices", Self::Devices),
        ("cpuset", Self::Cpuset),
    ];
}
