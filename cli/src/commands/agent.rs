//! `mezz agent`.

mod docker;
mod duty;
mod fetcher;
mod isolation;
mod monitor;
mod timeouts;

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use mezz_agent::{
    detect,
    options::{AgentOptions, Containment, FetcherOptions, LauncherCommand, MonitorOptions},
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

    /// Executors that speak HTTP have to show their token, those on this machine too;
    /// otherwise these are believed who they are without one
    #[arg(
        long,
        env = "MEZZ_AUTHENTICATE_HTTP_EXECUTORS",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub authenticate_http_executors: String,

    /// How long the agent waits for what.
    #[command(flatten)]
    pub timeouts: timeouts::TimeoutArgs,

    /// Path of `libmezzmesos.so`, told to executors and tasks that do not run in an image, as
    /// MESOS_NATIVE_JAVA_LIBRARY: JVM executors written for Mesos load it [default: none]
    #[arg(long, env = "MEZZ_NATIVE_LIBRARY", value_name = "FILE")]
    pub native_library: Option<PathBuf>,

    /// Sandboxes of ended tasks are removed after this time on an empty disk; on one
    /// that is full by the share U, after this time multiplied by 0.9 - U
    #[arg(long, env = "MEZZ_SANDBOX_RETENTION", value_name = "TIME", default_value = "7d")]
    pub sandbox_retention: String,
    /// More live tasks than this are refused
    #[arg(long, env = "MEZZ_MAX_TASKS", value_name = "N", default_value = "10000")]
    pub max_tasks: String,
    /// How files are fetched for tasks.
    #[command(flatten)]
    pub fetcher: fetcher::FetcherArgs,

    /// What is measured and bounded while tasks run.
    #[command(flatten)]
    pub monitor: monitor::MonitorArgs,

    /// Docker containers.
    #[command(flatten)]
    pub docker: docker::DockerArgs,

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
        native_library: None,
        kill_grace: Duration::from_secs(3),
        executor_registration_timeout: Duration::from_secs(60),
        executor_reregistration_timeout: Duration::from_secs(2),
        executor_shutdown_grace: Duration::from_secs(5),
        authenticate_http_executors: false,
        update_retry: (Duration::from_secs(10), Duration::from_secs(600)),
        sandbox_retention: Duration::from_secs(7 * 86_400),
        register_backoff: (Duration::from_secs(1), Duration::from_secs(60)),
        max_tasks: 10_000,
        max_fetch_bytes: 16 << 30,
        isolation: Default::default(),
        fetcher: FetcherOptions::default(),
        monitor: MonitorOptions::default(),
        docker: docker::default_options(),
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
        check.set(
            "authenticate-http-executors",
            &self.authenticate_http_executors,
            units::boolean,
            &mut o.authenticate_http_executors,
        );
        if let Some(path) = &self.native_library {
            o.native_library = Some(path.clone());
            check.require(path.is_absolute(), "native-library", || {
                format!(
                    "`{}` must be an absolute path: tasks run in folders of their own",
                    path.display()
                )
            });
        }
        self.timeouts.set(&mut check, o);
        check.set(
            "sandbox-retention",
            &self.sandbox_retention,
            units::duration,
            &mut o.sandbox_retention,
        );
        o.isolation = self.isolation.check(o.containment, &mut check);
        check.set("max-tasks", &self.max_tasks, units::count, &mut o.max_tasks);
        self.fetcher.set(&mut check, o);
        self.monitor.set(&mut check, &mut o.monitor);
        self.docker.set(&mut check, &mut o.docker);
        let mut filter = None;
        check.set("log-level", &self.log.log_level, |t| logging::filter(t).map(Some), &mut filter);
        o.domain = self.domain(&mut check);
        if check.is_clean() {
            timeouts::check_relations(&mut check, o);
            fetcher::check_relations(&mut check, &o.fetcher);
            monitor::check_relations(&mut check, &o.monitor);
        }
        check.finish()?;
        Ok(Agent { listen, options })
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
