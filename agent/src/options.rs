//! Settings of an agent, with their defaults.

use std::{path::PathBuf, time::Duration};

use mezz_proto::{resources::Resources, v1};

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
    /// Between SIGTERM and SIGKILL where no policy says (rule 59: 3 s).
    pub kill_grace: Duration,
    /// An executor that has not subscribed after this is killed (rule 53: 1 min).
    pub executor_registration_timeout: Duration,
    /// After a restart, executors have so long to come back (rule 52: 2 s).
    pub executor_reregistration_timeout: Duration,
    /// Between telling an executor to shut down and killing it (rule 53: 5 s).
    pub executor_shutdown_grace: Duration,
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
}
