//! `mezz agent`.

mod duty;
mod isolation;

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use mezz_agent::{
    containerizer::EngineAddress,
    detect, fetcher,
    options::{
        AgentOptions, Containment, DockerOptions, FetcherOptions, LauncherCommand, MonitorOptions,
    },
};
use mezz_proto::{resources::Resources, v1};
use tokio_util::sync::CancellationToken;

pub use self::duty::{AgentCommand, run as command};
use crate::{
    commands::launch,
    config::{Checker, Problems, Sources},
    logging::{self, LogArgs},
    resources,
    server::{self, Listen, advertised},
    units,
};

/// Longest time that executors may take to come back after a restart (rule 52).
const MAX_REREGISTRATION: Duration = Duration::from_secs(15);

/// Longest name of the agent's cgroup, in bytes.
const MAX_CGROUP_NAME: usize = 200;

/// What holds tasks to their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ContainmentArg {
    /// cgroups v2 or v1; needs the rights for them
    Cgroup,
    /// Nothing: tasks can use more than they were given
    None,
}

impl From<ContainmentArg> for Containment {
    fn from(arg: ContainmentArg) -> Self {
        match arg {
            ContainmentArg::Cgroup => Containment::Cgroup,
            ContainmentArg::None => Containment::None,
        }
    }
}

/// Run an agent on this machine, or command one of the cluster.
///
/// It offers the machine's resources and runs the tasks that frameworks launch on
/// them. Tasks outlive the agent: it can be restarted, and finds them again.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct AgentArgs {
    /// Something else, to an agent that runs somewhere.
    #[command(subcommand)]
    pub command: Option<AgentCommand>,

    /// The masters, between commas, in the order in which they are tried
    #[arg(
        long,
        env = "MEZZ_MASTER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        required = true
    )]
    pub master: Vec<String>,
    /// Address to listen on; port 0 is any free one
    #[arg(long, env = "MEZZ_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:5051")]
    pub listen: String,
    /// Address that masters and frameworks are told [default: the address
    /// listened on, or the one by which the master is reached when that is
    /// 0.0.0.0]
    #[arg(long, env = "MEZZ_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Name of this machine in offers [default: the machine's own]
    #[arg(long, env = "MEZZ_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,
    /// Folder for sandboxes and the agent's state
    #[arg(long, env = "MEZZ_WORK_DIR", value_name = "DIR", default_value = "/var/lib/mezz/agent")]
    pub work_dir: PathBuf,

    /// What to offer: `cpus:4;mem:8192;disk:100000;ports:[31000-32000];gpus:1`
    /// (mem and disk in MiB), JSON, or file:///PATH with one of them [default:
    /// what the machine has; the same goes for cpus, mem, disk and ports that are
    /// not named]
    #[arg(long, env = "MEZZ_RESOURCES", value_name = "RESOURCES")]
    pub resources: Option<String>,
    /// What frameworks can choose agents by: `rack:r1;ssd:true;gen:4`, JSON, or
    /// file:///PATH [default: none]
    #[arg(long, env = "MEZZ_ATTRIBUTES", value_name = "ATTRIBUTES")]
    pub attributes: Option<String>,
    /// Region of this machine; goes with --zone [default: none]
    #[arg(long, env = "MEZZ_REGION", value_name = "NAME")]
    pub region: Option<String>,
    /// Zone of this machine; goes with --region [default: none]
    #[arg(long, env = "MEZZ_ZONE", value_name = "NAME")]
    pub zone: Option<String>,

    /// What holds tasks to their limits
    #[arg(long, env = "MEZZ_CONTAINMENT", value_enum, default_value = "cgroup")]
    pub containment: ContainmentArg,
    /// Name of the agent's cgroup; two agents on a machine need two names
    #[arg(long, env = "MEZZ_CGROUP_ROOT", value_name = "NAME", default_value = "mezz")]
    pub cgroup_root: String,
    /// Stop tasks that use more cpu time than they were given, also where the
    /// machine has some left
    #[arg(long, env = "MEZZ_CGROUP_CPU_QUOTA", value_name = "BOOL", default_value = "false")]
    pub cgroup_cpu_quota: String,

    /// Between SIGTERM and SIGKILL, where a task says nothing else
    #[arg(long, env = "MEZZ_KILL_GRACE", value_name = "TIME", default_value = "3s")]
    pub kill_grace: String,
    /// An executor that has not subscribed after this time is killed
    #[arg(
        long,
        env = "MEZZ_EXECUTOR_REGISTRATION_TIMEOUT",
        value_name = "TIME",
        default_value = "1m"
    )]
    pub executor_registration_timeout: String,
    /// After a restart of the agent, executors have this long to come back; at
    /// most 15s
    #[arg(
        long,
        env = "MEZZ_EXECUTOR_REREGISTRATION_TIMEOUT",
        value_name = "TIME",
        default_value = "2s"
    )]
    pub executor_reregistration_timeout: String,
    /// Between telling an executor to shut down and killing it
    #[arg(long, env = "MEZZ_EXECUTOR_SHUTDOWN_GRACE", value_name = "TIME", default_value = "5s")]
    pub executor_shutdown_grace: String,
    /// First wait before a status update is sent again
    #[arg(long, env = "MEZZ_UPDATE_RETRY_MIN", value_name = "TIME", default_value = "10s")]
    pub update_retry_min: String,
    /// Longest wait before a status update is sent again
    #[arg(long, env = "MEZZ_UPDATE_RETRY_MAX", value_name = "TIME", default_value = "10m")]
    pub update_retry_max: String,
    /// First wait between attempts to reach a master
    #[arg(long, env = "MEZZ_REGISTER_BACKOFF_MIN", value_name = "TIME", default_value = "1s")]
    pub register_backoff_min: String,
    /// Longest wait between attempts to reach a master
    #[arg(long, env = "MEZZ_REGISTER_BACKOFF_MAX", value_name = "TIME", default_value = "1m")]
    pub register_backoff_max: String,

    /// Sandboxes of ended tasks are removed after this time on an empty disk; on one
    /// that is full by the share U, after this time multiplied by 0.9 - U
    #[arg(long, env = "MEZZ_SANDBOX_RETENTION", value_name = "TIME", default_value = "7d")]
    pub sandbox_retention: String,
    /// More live tasks than this are refused
    #[arg(long, env = "MEZZ_MAX_TASKS", value_name = "N", default_value = "10000")]
    pub max_tasks: String,
    /// Largest file that is fetched for a task, and most that an archive may
    /// unpack to
    #[arg(long, env = "MEZZ_MAX_FETCH_SIZE", value_name = "SIZE", default_value = "16GiB")]
    pub max_fetch_size: String,
    /// Programs that fetch what is neither http, https nor file, between `;`:
    /// `hdfs=hadoop fs -copyToLocal {uri} {path}`. They run as the task's user,
    /// without a shell [default: none]
    #[arg(
        long,
        env = "MEZZ_FETCHER_COMMAND",
        value_name = "SCHEME=COMMAND",
        value_delimiter = ';'
    )]
    pub fetcher_command: Vec<String>,
    /// Disk for files that are kept for tasks that fetch them again (`cache` of a
    /// URI)
    #[arg(long, env = "MEZZ_FETCHER_CACHE_SIZE", value_name = "SIZE", default_value = "2GiB")]
    pub fetcher_cache_size: String,

    /// How often to look for sandboxes to be removed, and at how full their disk is
    #[arg(long, env = "MEZZ_DISK_WATCH_INTERVAL", value_name = "TIME", default_value = "1m")]
    pub disk_watch_interval: String,
    /// How often to measure what running tasks use: the disk of their sandboxes, and
    /// for the metrics also processor time and memory
    #[arg(
        long,
        env = "MEZZ_CONTAINER_DISK_WATCH_INTERVAL",
        value_name = "TIME",
        default_value = "15s"
    )]
    pub container_disk_watch_interval: String,
    /// End tasks whose sandbox holds more than their disk resource; otherwise they
    /// are reported in the log
    #[arg(long, env = "MEZZ_ENFORCE_DISK_QUOTA", value_name = "BOOL", default_value = "false")]
    pub enforce_disk_quota: String,
    /// How often to look at the TCP ports on which tasks listen
    #[arg(
        long,
        env = "MEZZ_CONTAINER_PORTS_WATCH_INTERVAL",
        value_name = "TIME",
        default_value = "30s"
    )]
    pub container_ports_watch_interval: String,
    /// End tasks that listen on TCP ports of this machine that they do not hold;
    /// otherwise they are reported in the log
    #[arg(
        long,
        env = "MEZZ_ENFORCE_CONTAINER_PORTS",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub enforce_container_ports: String,
    /// Look only at ports that the agent offers, so that tasks may listen on others
    #[arg(
        long,
        env = "MEZZ_CHECK_AGENT_PORT_RANGE_ONLY",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub check_agent_port_range_only: String,
    /// stdout and stderr of a task are each put aside when they are larger, and two
    /// old ones kept; `none` lets them grow
    #[arg(long, env = "MEZZ_LOG_MAX_SIZE", value_name = "SIZE", default_value = "100MiB")]
    pub log_max_size: String,

    /// Docker engine for tasks with containers of type DOCKER: unix:///PATH,
    /// http://HOST:PORT (it has to be on this machine), or `none` to refuse them. It
    /// may be started later than the agent
    #[arg(
        long,
        env = "MEZZ_DOCKER",
        value_name = "ADDRESS",
        default_value = "unix:///var/run/docker.sock"
    )]
    pub docker: String,
    /// File with credentials for image registries, as `docker login` writes it
    /// [default: none]
    #[arg(long, env = "MEZZ_DOCKER_CONFIG", value_name = "FILE")]
    pub docker_config: Option<PathBuf>,

    /// How far containers are kept apart.
    #[command(flatten)]
    pub isolation: isolation::IsolationArgs,

    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// An agent's options, checked. Its resources are only what was named, and the
/// machine's own are not yet added.
#[derive(Debug)]
pub struct Agent {
    listen: Listen,
    options: AgentOptions,
}

/// Where Docker listens if its operator said nothing.
const DOCKER: &str = "unix:///var/run/docker.sock";

/// The options of an agent whose user said nothing.
pub fn default_options(work_dir: PathBuf, launcher: LauncherCommand) -> AgentOptions {
    AgentOptions {
        masters: Vec::new(),
        advertise: None,
        hostname: detect::detect_hostname(),
        work_dir,
        resources: Resources::new(),
        attributes: Vec::new(),
        domain: None,
        containment: Containment::Cgroup,
        cgroup_root: "mezz".to_owned(),
        cgroup_cpu_quota: false,
        launcher,
        kill_grace: Duration::from_secs(3),
        executor_registration_timeout: Duration::from_secs(60),
        executor_reregistration_timeout: Duration::from_secs(2),
        executor_shutdown_grace: Duration::from_secs(5),
        update_retry: (Duration::from_secs(10), Duration::from_secs(600)),
        sandbox_retention: Duration::from_secs(7 * 86_400),
        register_backoff: (Duration::from_secs(1), Duration::from_secs(60)),
        max_tasks: 10_000,
        max_fetch_bytes: 16 << 30,
        isolation: Default::default(),
        fetcher: FetcherOptions::default(),
        monitor: MonitorOptions::default(),
        docker: DockerOptions { engine: EngineAddress::parse(DOCKER).ok(), config: None },
    }
}

impl AgentArgs {
    /// Checks every option.
    ///
    /// # Errors
    /// All problems together.
    pub fn check(&self, sources: &Sources<'_>) -> Result<Agent, Problems> {
        let mut check = Checker::new(sources);
        let mut listen = Listen::default();
        let mut options = default_options(
            self.work_dir.clone(),
            // Set once the options are known to be good.
            LauncherCommand { program: PathBuf::new(), args: Vec::new() },
        );
        let o = &mut options;
        o.containment = self.containment.into();
        if let Some(hostname) = &self.hostname {
            o.hostname.clone_from(hostname);
        }

        check.set_all("master", &self.master, units::peer_address, &mut o.masters);
        check.set("listen", &self.listen, units::listen_address, &mut listen.address);
        if let Some(text) = &self.advertise {
            check.set("advertise", text, |t| units::peer_address(t).map(Some), &mut o.advertise);
        }
        if let Some(text) = &self.resources {
            check.set("resources", text, resources::resources, &mut o.resources);
        }
        if let Some(text) = &self.attributes {
            check.set("attributes", text, resources::attributes, &mut o.attributes);
        }
        check.set("cgroup-root", &self.cgroup_root, cgroup_name, &mut o.cgroup_root);
        check.set(
            "cgroup-cpu-quota",
            &self.cgroup_cpu_quota,
            units::boolean,
            &mut o.cgroup_cpu_quota,
        );
        for (option, text, target) in [
            ("kill-grace", &self.kill_grace, &mut o.kill_grace),
            (
                "executor-registration-timeout",
                &self.executor_registration_timeout,
                &mut o.executor_registration_timeout,
            ),
            (
                "executor-reregistration-timeout",
                &self.executor_reregistration_timeout,
                &mut o.executor_reregistration_timeout,
            ),
            (
                "executor-shutdown-grace",
                &self.executor_shutdown_grace,
                &mut o.executor_shutdown_grace,
            ),
            ("update-retry-min", &self.update_retry_min, &mut o.update_retry.0),
            ("update-retry-max", &self.update_retry_max, &mut o.update_retry.1),
            ("register-backoff-min", &self.register_backoff_min, &mut o.register_backoff.0),
            ("register-backoff-max", &self.register_backoff_max, &mut o.register_backoff.1),
            ("sandbox-retention", &self.sandbox_retention, &mut o.sandbox_retention),
            ("disk-watch-interval", &self.disk_watch_interval, &mut o.monitor.disk_watch_interval),
            (
                "container-disk-watch-interval",
                &self.container_disk_watch_interval,
                &mut o.monitor.container_disk_interval,
            ),
            (
                "container-ports-watch-interval",
                &self.container_ports_watch_interval,
                &mut o.monitor.container_ports_interval,
            ),
        ] {
            check.set(option, text, units::duration, target);
        }
        o.isolation = self.isolation.check(o.containment, &mut check);
        check.set("max-tasks", &self.max_tasks, units::count, &mut o.max_tasks);
        check.set("max-fetch-size", &self.max_fetch_size, units::size, &mut o.max_fetch_bytes);
        self.files(&mut check, o);
        check.set("docker", &self.docker, docker_engine, &mut o.docker.engine);
        o.docker.config.clone_from(&self.docker_config);
        let mut filter = None;
        check.set("log-level", &self.log.log_level, |t| logging::filter(t).map(Some), &mut filter);
        o.domain = self.domain(&mut check);
        if check.is_clean() {
            check_relations(&mut check, o);
        }
        check.finish()?;
        Ok(Agent { listen, options })
    }

    fn files(&self, check: &mut Checker<'_>, o: &mut AgentOptions) {
        let mut commands = Vec::new();
        check.set_all("fetcher-command", &self.fetcher_command, fetcher_command, &mut commands);
        for (scheme, command) in commands {
            if o.fetcher.commands.insert(scheme.clone(), command).is_some() {
                check.problem("fetcher-command", &format!("two commands for `{scheme}`"));
            }
        }
        let size = &self.fetcher_cache_size;
        check.set("fetcher-cache-size", size, units::size, &mut o.fetcher.cache_bytes);
        for (option, text, target) in [
            ("enforce-disk-quota", &self.enforce_disk_quota, &mut o.monitor.enforce_disk_quota),
            (
                "enforce-container-ports",
                &self.enforce_container_ports,
                &mut o.monitor.enforce_ports,
            ),
            (
                "check-agent-port-range-only",
                &self.check_agent_port_range_only,
                &mut o.monitor.check_agent_port_range_only,
            ),
        ] {
            check.set(option, text, units::boolean, target);
        }
        check.set("log-max-size", &self.log_max_size, size_or_none, &mut o.monitor.log_max_bytes);
    }

    fn domain(&self, check: &mut Checker<'_>) -> Option<v1::DomainInfo> {
        use v1::domain_info::{
            FaultDomain,
            fault_domain::{RegionInfo, ZoneInfo},
        };
        match (&self.region, &self.zone) {
            (None, None) => None,
            (Some(region), Some(zone)) => Some(v1::DomainInfo {
                fault_domain: Some(FaultDomain {
                    region: RegionInfo { name: region.clone() },
                    zone: ZoneInfo { name: zone.clone() },
                }),
            }),
            (Some(_), None) => {
                check.problem("region", "it goes only together with --zone");
                None
            }
            (None, Some(_)) => {
                check.problem("zone", "it goes only together with --region");
                None
            }
        }
    }
}

/// A folder below each hierarchy's root.
fn cgroup_name(text: &str) -> Result<String, String> {
    let good = !text.is_empty()
        && text.len() <= MAX_CGROUP_NAME
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no name of a cgroup; use letters, digits, `-`, `_` and `.`"))
    }
}

/// A scheme and what fetches its URIs.
fn fetcher_command(text: &str) -> Result<(String, String), String> {
    let (scheme, command) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is no SCHEME=COMMAND"))?;
    let (scheme, command) = (scheme.trim().to_ascii_lowercase(), command.trim().to_owned());
    fetcher::check_command(&scheme, &command)?;
    Ok((scheme, command))
}

/// 0 is `none`.
fn size_or_none(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { units::size(text) }
}

/// An engine, or `none`.
fn docker_engine(text: &str) -> Result<Option<EngineAddress>, String> {
    match text {
        "none" => Ok(None),
        _ => EngineAddress::parse(text).map(Some).map_err(|why| format!("{why}; or none")),
    }
}

/// What makes sense only together.
fn check_relations(check: &mut Checker<'_>, options: &AgentOptions) {
    for (option, (first, longest)) in
        [("update-retry", options.update_retry), ("register-backoff", options.register_backoff)]
    {
        check.require(!first.is_zero(), &format!("{option}-min"), || {
            "it has to be more than 0".to_owned()
        });
        check.require(first <= longest, &format!("{option}-max"), || {
            format!(
                "{} is less than --{option}-min, {}",
                units::show_duration(longest),
                units::show_duration(first)
            )
        });
    }
    for (option, interval) in [
        ("disk-watch-interval", options.monitor.disk_watch_interval),
        ("container-disk-watch-interval", options.monitor.container_disk_interval),
        ("container-ports-watch-interval", options.monitor.container_ports_interval),
    ] {
        check.require(!interval.is_zero(), option, || "it has to be more than 0".to_owned());
    }
    check.require(
        !options.executor_registration_timeout.is_zero(),
        "executor-registration-timeout",
        || "it has to be more than 0".to_owned(),
    );
    check.require(
        options.executor_reregistration_timeout <= MAX_REREGISTRATION,
        "executor-reregistration-timeout",
        || {
            format!(
                "{} is more than the most, {}",
                units::show_duration(options.executor_reregistration_timeout),
                units::show_duration(MAX_REREGISTRATION)
            )
        },
    );
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What ended it early.
pub async fn run(args: &AgentArgs, sources: &Sources<'_>) -> anyhow::Result<()> {
    let Agent { listen, mut options } = args.check(sources)?;
    logging::start(
        logging::filter(&args.log.log_level).map_err(anyhow::Error::msg)?,
        args.log.log_format,
    );
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "mezz agent: {}", sources.effective());
    server::make_work_dir(&options.work_dir)?;
    options.launcher = launch::command()?;
    let detected = detect::detect_resources(&options.work_dir);
    options.resources = resources::with_detected(options.resources, &detected);
    let listener = listen.bind("--listen").await?;
    let peer = options.masters.first().map(String::as_str);
    let address = advertised(options.advertise.take(), listener.local_addr()?, peer);
    tracing::info!(%address, resources = %options.resources, "listening");
    options.advertise = Some(address);
    let shutdown = CancellationToken::new();
    server::cancel_on_signal(&shutdown)?;
    mezz_agent::serve(options, listener, shutdown).await?;
    tracing::info!("stopped; tasks go on and are found again by the next agent with this work dir");
    Ok(())
}

#[cfg(test)]
mod tests;
