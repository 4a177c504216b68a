//! `mezz spark dispatcher`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use mezz_spark::dispatcher::{self, DispatcherOptions, core::CoreOptions, store::FileStore};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Checker, Problems, Sources},
    logging::{self, LogArgs},
    server::{self, Listen, advertised},
    units,
};

/// Run a dispatcher: it takes Spark applications and runs their drivers on agents.
///
/// `spark-submit --deploy-mode cluster --master spark://HOST:7077 --conf
/// spark.master.rest.enabled=true` reaches it, and so does `mezz spark submit
/// --deploy-mode cluster`. Whoever can connect can run programs on the cluster:
/// listen only where you trust the network. Drivers outlive it for a week: started
/// again with the same work dir, it finds them.
#[derive(Debug, Args)]
pub struct DispatcherArgs {
    /// The masters, between commas; drivers are told the same
    #[arg(
        long,
        env = "MEZZ_MASTER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:5050"
    )]
    pub master: Vec<String>,
    /// Address to listen on; port 0 is any free one
    #[arg(long, env = "MEZZ_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:7077")]
    pub listen: String,
    /// Address by which agents fetch uploaded files [default: the address listened
    /// on, or this machine's when that is 0.0.0.0]
    #[arg(long, env = "MEZZ_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Folder for submissions and uploaded files
    #[arg(
        long,
        env = "MEZZ_WORK_DIR",
        value_name = "DIR",
        default_value = "/var/lib/mezz/dispatcher"
    )]
    pub work_dir: PathBuf,
    /// Name among the frameworks
    #[arg(long, env = "MEZZ_NAME", value_name = "NAME", default_value = "Spark dispatcher")]
    pub name: String,
    /// Role of the drivers, and of applications that name none
    #[arg(long, env = "MEZZ_ROLE", value_name = "ROLE", default_value = "*")]
    pub role: String,
    /// User that drivers run as on the agents [default: the one that runs this]
    #[arg(long, env = "MEZZ_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// Where Spark is installed on the agents
    #[arg(long, env = "MEZZ_AGENT_SPARK_HOME", value_name = "DIR", default_value = "/opt/spark")]
    pub spark_home: String,
    /// The mezz program on the agents [default: this one's path]
    #[arg(long, env = "MEZZ_AGENT_MEZZ", value_name = "FILE")]
    pub agent_mezz: Option<String>,
    /// mezz-spark-bridge.jar on the agents [default: beside this program]
    #[arg(long, env = "MEZZ_AGENT_BRIDGE_JAR", value_name = "FILE")]
    pub agent_bridge_jar: Option<String>,
    /// More drivers than this do not wait
    #[arg(long, env = "MEZZ_MAX_QUEUED", value_name = "N", default_value = "200")]
    pub max_queued: String,
    /// Ended drivers that are remembered, with their uploaded files
    #[arg(long, env = "MEZZ_MAX_ENDED", value_name = "N", default_value = "200")]
    pub max_ended: String,
    /// Largest file that is taken
    #[arg(long, env = "MEZZ_MAX_FILE_SIZE", value_name = "SIZE", default_value = "4GiB")]
    pub max_file_size: String,
    /// Bound on all uploaded files together
    #[arg(long, env = "MEZZ_MAX_FILES_SIZE", value_name = "SIZE", default_value = "64GiB")]
    pub max_files_size: String,

    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Options, checked.
struct Dispatcher {
    listen: Listen,
    advertise: Option<String>,
    options: DispatcherOptions,
}

impl DispatcherArgs {
    /// All problems together.
    fn check(&self, sources: &Sources<'_>, program: &Path) -> Result<Dispatcher, Problems> {
        let mut check = Checker::new(sources);
        let mut listen = Listen::default();
        let mut advertise = None;
        let beside = program.with_file_name("mezz-spark-bridge.jar");
        let path = |given: &Option<String>, default: &Path| {
            given.clone().unwrap_or_else(|| default.display().to_string())
        };
        let mut options = DispatcherOptions {
            address: String::new(),
            name: self.name.clone(),
            user: self.user.clone().unwrap_or_else(user),
            files: self.work_dir.join("files"),
            max_file_bytes: 0,
            max_files_bytes: 0,
            core: CoreOptions {
                masters: Vec::new(),
                role: self.role.clone(),
                spark_home: self.spark_home.clone(),
                mezz: path(&self.agent_mezz, program),
                bridge_jar: path(&self.agent_bridge_jar, &beside),
                max_queued: 0,
                max_ended: 0,
            },
        };
        let core = &mut options.core;
        check.set("listen", &self.listen, units::listen_address, &mut listen.address);
        if let Some(text) = &self.advertise {
            check.set("advertise", text, |t| units::peer_address(t).map(Some), &mut advertise);
        }
        check.set_all("master", &self.master, units::peer_address, &mut core.masters);
        check.set("max-queued", &self.max_queued, units::count, &mut core.max_queued);
        check.set("max-ended", &self.max_ended, units::count, &mut core.max_ended);
        for (option, size, bytes) in [
            ("max-file-size", &self.max_file_size, &mut options.max_file_bytes),
            ("max-files-size", &self.max_files_size, &mut options.max_files_bytes),
        ] {
            check.set(option, size, units::size, bytes);
        }
        for (option, path) in [
            ("spark-home", &core.spark_home),
            ("agent-mezz", &core.mezz),
            ("agent-bridge-jar", &core.bridge_jar),
        ] {
            check.require(path.starts_with('/'), option, || {
                format!("`{path}` is no absolute path; drivers start in a folder of their own")
            });
        }
        let mut filter = None;
        check.set("log-level", &self.log.log_level, |t| logging::filter(t).map(Some), &mut filter);
        check.finish()?;
        Ok(Dispatcher { listen, advertise, options })
    }
}

/// As frameworks name who runs them.
fn user() -> String {
    std::env::var("USER").ok().filter(|u| !u.is_empty()).unwrap_or_else(|| "root".to_owned())
}

/// Runs the dispatcher until it is told to stop.
///
/// # Errors
/// What ended it early.
pub async fn run(args: &DispatcherArgs, sources: &Sources<'_>) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find out the path of this program")?;
    let Dispatcher { listen, advertise, mut options } = args.check(sources, &program)?;
    logging::start(
        logging::filter(&args.log.log_level).map_err(anyhow::Error::msg)?,
        args.log.log_format,
    );
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        "mezz spark dispatcher: {}",
        sources.effective()
    );
    server::make_work_dir(&args.work_dir)?;
    let path = args.work_dir.join("dispatcher.redb");
    let store = tokio::task::spawn_blocking(move || FileStore::open(&path)).await??;
    let listener = listen.bind("--listen").await?;
    let peer = options.core.masters.first().map(String::as_str);
    options.address = advertised(advertise, listener.local_addr()?, peer);
    let address = &options.address;
    tracing::info!(%address, "listening; submit with --master spark://{address}");
    let shutdown = CancellationToken::new();
    server::cancel_on_signal(&shutdown)?;
    dispatcher::serve(options, store, listener, shutdown).await?;
    tracing::info!("stopped; drivers go on");
    Ok(())
}
