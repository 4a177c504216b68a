//! `mezz master`.

mod etcd;
mod frameworks;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use mezz_master::{
    allocator::{MAX_REFUSE, MinAllocatable},
    options::{CoreOptions, MasterOptions, RegistryOptions, RemovalRate},
};
use mezz_proto::resources::Resources;
use tokio_util::sync::CancellationToken;

pub use self::etcd::EtcdArgs;
use self::frameworks::{FrameworkArgs, Frameworks};
use crate::{
    config::{Checker, Problems, Sources},
    logging::{self, LogArgs},
    server::{self, Listen, advertised},
    units,
};

/// Run a master.
///
/// Agents and frameworks connect to it, and whoever can connect can run programs
/// on the cluster, or end them: listen only where you trust the network. Frameworks
/// can be asked who they are.
#[derive(Debug, Args)]
pub struct MasterArgs {
    /// Address to listen on; port 0 is any free one
    #[arg(long, env = "MEZZ_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:5050")]
    pub listen: String,
    /// Address that agents and frameworks are told [default: the address
    /// listened on, or this machine's when that is 0.0.0.0]
    #[arg(long, env = "MEZZ_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Name of the cluster, for people [default: none]
    #[arg(long, env = "MEZZ_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// Folder for the registry
    #[arg(long, env = "MEZZ_WORK_DIR", value_name = "DIR", default_value = "/var/lib/mezz/master")]
    pub work_dir: PathBuf,
    /// Where agents and frameworks are remembered over a restart of the master:
    /// `file` (in the work dir), `memory` (nowhere; it learns them from their own
    /// return), or etcd, `etcd://HOST:PORT,HOST:PORT/PREFIX` (with TLS `etcds://…`),
    /// which several masters share; one of them leads
    #[arg(long, env = "MEZZ_REGISTRY", value_name = "KIND", default_value = "file")]
    pub registry: String,
    /// How etcd is used.
    #[command(flatten)]
    pub etcd: EtcdArgs,

    /// Who may be a framework.
    #[command(flatten)]
    pub frameworks: FrameworkArgs,

    /// How often each agent is pinged
    #[arg(long, env = "MEZZ_PING_INTERVAL", value_name = "TIME", default_value = "15s")]
    pub ping_interval: String,
    /// An agent that missed this many pings in a row is unreachable
    #[arg(long, env = "MEZZ_MAX_MISSED_PINGS", value_name = "N", default_value = "5")]
    pub max_missed_pings: String,
    /// An agent that lost its connection, or that did not return after a restart
    /// of the master, is unreachable after this time; at least all of the missed
    /// pings
    #[arg(long, env = "MEZZ_AGENT_REREGISTER_TIMEOUT", value_name = "TIME", default_value = "10m")]
    pub agent_reregister_timeout: String,
    /// No more agents than so many in so long a time become unreachable, N/TIME or
    /// `none`; the others wait for their turn, and those that return meanwhile are
    /// not told of
    #[arg(
        long,
        env = "MEZZ_AGENT_REMOVAL_RATE_LIMIT",
        value_name = "RATE",
        default_value = "100/1m"
    )]
    pub agent_removal_rate_limit: String,
    /// Unreachable agents and their tasks are forgotten after this time
    #[arg(long, env = "MEZZ_UNREACHABLE_RETENTION", value_name = "TIME", default_value = "14d")]
    pub unreachable_retention: String,
    /// How often each framework gets a sign of life
    #[arg(long, env = "MEZZ_HEARTBEAT_INTERVAL", value_name = "TIME", default_value = "15s")]
    pub heartbeat_interval: String,

    /// Offers that nobody used are taken back after this time, or `never`
    #[arg(long, env = "MEZZ_OFFER_TIMEOUT", value_name = "TIME", default_value = "never")]
    pub offer_timeout: String,
    /// Changes within this time are answered by one round of offers; at most 1s
    #[arg(long, env = "MEZZ_ALLOCATION_BATCH", value_name = "TIME", default_value = "2ms")]
    pub allocation_batch: String,
    /// A refusal of an offer lasts at least this long
    #[arg(long, env = "MEZZ_MIN_FILTER", value_name = "TIME", default_value = "0s")]
    pub min_filter: String,
    /// Smallest offer: amounts that it has to contain, alternatives between `|`;
    /// mem and disk in MiB
    #[arg(
        long,
        env = "MEZZ_MIN_ALLOCATABLE_RESOURCES",
        value_name = "RESOURCES",
        default_value = "cpus:0.01|mem:32"
    )]
    pub min_allocatable_resources: String,
    /// Resources that do not count in fair shares, between commas [default: none]
    #[arg(long, env = "MEZZ_FAIR_SHARING_EXCLUDED", value_name = "NAMES", value_delimiter = ',')]
    pub fair_sharing_excluded: Vec<String>,
    /// Hide agents with GPUs from frameworks that do not say that they use GPUs
    #[arg(long, env = "MEZZ_FILTER_GPU_RESOURCES", value_name = "BOOL", default_value = "true")]
    pub filter_gpu_resources: String,
    /// Shares of roles against each other, ROLE=NUMBER between commas [default: 1
    /// for each]
    #[arg(long, env = "MEZZ_WEIGHTS", value_name = "WEIGHTS", value_delimiter = ',')]
    pub weights: Vec<String>,
    /// Region of this master: agents elsewhere are offered only to frameworks
    /// that know of regions [default: none]
    #[arg(long, env = "MEZZ_REGION", value_name = "NAME")]
    pub region: Option<String>,

    /// More agents than this are refused
    #[arg(long, env = "MEZZ_MAX_AGENTS", value_name = "N", default_value = "100000")]
    pub max_agents: String,
    /// More live frameworks than this are refused
    #[arg(long, env = "MEZZ_MAX_FRAMEWORKS", value_name = "N", default_value = "10000")]
    pub max_frameworks: String,
    /// More live tasks than this are refused
    #[arg(long, env = "MEZZ_MAX_TASKS", value_name = "N", default_value = "4000000")]
    pub max_tasks: String,
    /// Ended frameworks that are remembered
    #[arg(long, env = "MEZZ_MAX_COMPLETED_FRAMEWORKS", value_name = "N", default_value = "50")]
    pub max_completed_frameworks: String,
    /// Ended tasks that are remembered for each framework
    #[arg(long, env = "MEZZ_MAX_COMPLETED_TASKS", value_name = "N", default_value = "1000")]
    pub max_completed_tasks: String,

    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// A master's options, checked.
#[derive(Debug)]
pub struct Master {
    listen: Listen,
    options: MasterOptions,
    /// Sentences for the log.
    warnings: Vec<String>,
}

impl MasterArgs {
    /// Checks every option.
    ///
    /// # Errors
    /// All problems together.
    pub fn check(&self, sources: &Sources<'_>) -> Result<Master, Problems> {
        let mut check = Checker::new(sources);
        let mut core =
            CoreOptions { master_id: uuid::Uuid::new_v4().to_string(), ..CoreOptions::default() };
        let mut listen = Listen::default();
        let mut registry = RegistryOptions::Memory;
        let mut advertise = None;

        check.set("listen", &self.listen, units::listen_address, &mut listen.address);
        if let Some(text) = &self.advertise {
            check.set("advertise", text, |t| units::peer_address(t).map(Some), &mut advertise);
        }
        match self.etcd.check(&mut check, &self.registry) {
            Some(etcd) => registry = RegistryOptions::Etcd(etcd),
            None => check.set("registry", &self.registry, |t| self.registry(t), &mut registry),
        }
        let Frameworks { authentication, warnings } = self.frameworks.check(&mut check);
        check.set("ping-interval", &self.ping_interval, units::duration, &mut core.ping_interval);
        check.set(
            "max-missed-pings",
            &self.max_missed_pings,
            units::count_u32,
            &mut core.max_missed_pings,
        );
        check.set(
            "agent-reregister-timeout",
            &self.agent_reregister_timeout,
            units::duration,
            &mut core.agent_reregister_timeout,
        );
        check.set(
            "agent-removal-rate-limit",
            &self.agent_removal_rate_limit,
            removal_rate,
            &mut core.agent_removal_rate_limit,
        );
        check.set(
            "unreachable-retention",
            &self.unreachable_retention,
            units::duration,
            &mut core.unreachable_retention,
        );
        check.set(
            "heartbeat-interval",
            &self.heartbeat_interval,
            units::duration,
            &mut core.heartbeat_interval,
        );
        check.set(
            "offer-timeout",
            &self.offer_timeout,
            units::duration_or_never,
            &mut core.offer_timeout,
        );
        check.set(
            "allocation-batch",
            &self.allocation_batch,
            units::duration,
            &mut core.allocation_batch,
        );
        check.set("min-filter", &self.min_filter, units::duration, &mut core.min_filter);
        check.set(
            "min-allocatable-resources",
            &self.min_allocatable_resources,
            min_allocatable,
            &mut core.allocator.min_allocatable,
        );
        check.set(
            "filter-gpu-resources",
            &self.filter_gpu_resources,
            units::boolean,
            &mut core.allocator.filter_gpu_resources,
        );
        check.set_all("weights", &self.weights, units::weight, &mut core.weights);
        check.set("max-agents", &self.max_agents, units::count, &mut core.max_agents);
        check.set("max-frameworks", &self.max_frameworks, units::count, &mut core.max_frameworks);
        check.set("max-tasks", &self.max_tasks, units::count, &mut core.max_tasks);
        check.set(
            "max-completed-frameworks",
            &self.max_completed_frameworks,
            units::count,
            &mut core.max_completed_frameworks,
        );
        check.set(
            "max-completed-tasks",
            &self.max_completed_tasks,
            units::count,
            &mut core.max_completed_tasks,
        );
        core.allocator.fair_sharing_excluded.clone_from(&self.fair_sharing_excluded);
        core.allocator.region.clone_from(&self.region);
        let mut filter = None;
        check.set("log-level", &self.log.log_level, |t| logging::filter(t).map(Some), &mut filter);
        if check.is_clean() {
            check_relations(&mut check, &core);
        }
        check.finish()?;
        Ok(Master {
            listen,
            options: MasterOptions {
                advertise,
                cluster: self.cluster.clone(),
                registry,
                authentication,
                core,
            },
            warnings,
        })
    }

    fn registry(&self, text: &str) -> Result<RegistryOptions, String> {
        match text {
            "memory" => Ok(RegistryOptions::Memory),
            "file" => Ok(RegistryOptions::File(self.work_dir.join("registry.redb"))),
            _ => Err(format!(
                "`{text}` is no kind of registry; there are `file`, `memory`, and \
                 `etcd://HOST:PORT,…/PREFIX`"
            )),
        }
    }
}

fn removal_rate(text: &str) -> Result<Option<RemovalRate>, String> {
    let rate = units::rate_or_none(text)?;
    Ok(rate.map(|(agents, per)| RemovalRate { agents, per }))
}

/// `cpus:0.01|mem:32`: an offer has to contain one of the alternatives.
fn min_allocatable(text: &str) -> Result<Vec<MinAllocatable>, String> {
    text.split('|').filter(|part| !part.trim().is_empty()).map(quantities).collect()
}

fn quantities(text: &str) -> Result<MinAllocatable, String> {
    let resources = Resources::parse(text).map_err(|error| format!("`{text}`: {error}"))?;
    let scalars: BTreeMap<_, _> =
        resources.scalars().map(|(name, amount)| (Arc::from(name), amount)).collect();
    if scalars.len() != resources.len() {
        return Err(format!("`{text}`: only numbers, like `cpus:0.01`, can be a smallest offer"));
    }
    Ok(scalars)
}

/// What makes sense only together.
fn check_relations(check: &mut Checker<'_>, core: &CoreOptions) {
    for (option, value) in
        [("ping-interval", core.ping_interval), ("heartbeat-interval", core.heartbeat_interval)]
    {
        check.require(!value.is_zero(), option, || "it has to be more than 0".to_owned());
    }
    let missed = core.ping_interval.saturating_mul(core.max_missed_pings);
    check.require(core.agent_reregister_timeout >= missed, "agent-reregister-timeout", || {
        format!(
            "{} is less than --ping-interval times --max-missed-pings, {}: an agent that is cut off \
             would be given up sooner than one that is silent",
            units::show_duration(core.agent_reregister_timeout),
            units::show_duration(missed)
        )
    });
    check.require(core.allocation_batch <= Duration::from_secs(1), "allocation-batch", || {
        format!("{} is more than the most, 1s", units::show_duration(core.allocation_batch))
    });
    check.require(core.min_filter <= MAX_REFUSE, "min-filter", || {
        format!(
            "{} is more than the longest that a refusal can last, {}",
            units::show_duration(core.min_filter),
            units::show_duration(MAX_REFUSE)
        )
    });
    check.require(
        core.offer_timeout.is_none_or(|t| t > core.allocation_batch),
        "offer-timeout",
        || {
            "it has to be longer than --allocation-batch; to keep offers for good, say `never`"
                .to_owned()
        },
    );
}

/// Runs the master until it is told to stop.
///
/// # Errors
/// What ended it early.
pub async fn run(args: &MasterArgs, sources: &Sources<'_>) -> anyhow::Result<()> {
    let Master { listen, mut options, warnings } = args.check(sources)?;
    logging::start(
        logging::filter(&args.log.log_level).map_err(anyhow::Error::msg)?,
        args.log.log_format,
    );
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "mezz master: {}", sources.effective());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let RegistryOptions::File(_) = options.registry {
        server::make_work_dir(&args.work_dir)?;
    }
    let listener = listen.bind("--listen").await?;
    let address = advertised(options.advertise.take(), listener.local_addr()?, None);
    tracing::info!(%address, "listening; agents join with `mezz agent --master {address}`");
    options.core.address.clone_from(&address);
    options.advertise = Some(address);
    let shutdown = CancellationToken::new();
    server::cancel_on_signal(&shutdown)?;
    mezz_master::serve(options, listener, shutdown).await?;
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests;
