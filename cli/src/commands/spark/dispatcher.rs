//! `mezz spark dispatcher`.

mod keys;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use mezz_master::{election, options::EtcdOptions};
use mezz_spark::dispatcher::{
    self, Dispatcher, DispatcherOptions, core::CoreOptions, keyed::KeyedStore, store::FileStore,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::keys::LeaderKeys;

use crate::{
    commands::master::EtcdArgs,
    config::{Checker, Problems, Sources},
    credentials::CredentialArgs,
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
/// again with the same work dir, it finds them. With etcd as their registry several
/// dispatchers are one: clients get the list of all of them.
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
    /// Address by which agents fetch uploaded files, and other dispatchers reach this
    /// one [default: the address listened
    /// on, or this machine's when that is 0.0.0.0]
    #[arg(long, env = "MEZZ_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where submissions are remembered: `file` (in the work dir), or etcd,
    /// `etcd://HOST:PORT,HOST:PORT/PREFIX` (with TLS `etcds://…`), which several
    /// dispatchers share; one of them leads. It may be the masters' own
    #[arg(long, env = "MEZZ_REGISTRY", value_name = "KIND", default_value = "file")]
    pub registry: String,
    /// How etcd is used.
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Folder for uploaded files. Several dispatchers should have one, on storage that
    /// they share: otherwise files are lost with the machine of the one that took them
    /// [default: `files` in the work dir]
    #[arg(long, env = "MEZZ_UPLOAD_DIR", value_name = "DIR")]
    pub upload_dir: Option<PathBuf>,
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
    /// Who the dispatcher is; drivers have `spark.mezz.principal`.
    #[command(flatten)]
    pub credential: CredentialArgs,
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
#[derive(Debug)]
struct Checked {
    listen: Listen,
    advertise: Option<String>,
    etcd: Option<EtcdOptions>,
    options: DispatcherOptions,
}

/// The dispatchers' part of a prefix, beside that of the masters.
const KEYS: &str = "dispatcher";

impl DispatcherArgs {
    /// All problems together.
    fn check(&self, sources: &Sources<'_>, program: &Path) -> Result<Checked, Problems> {
        let mut check = Checker::new(sources);
        let mut listen = Listen::default();
        let mut advertise = None;
        let beside = program.with_file_name("mezz-spark-bridge.jar");
        let path = |given: &Option<String>, default: &Path| {
            given.clone().unwrap_or_else(|| default.display().to_string())
        };
        let mut options = DispatcherOptions {
            name: self.name.clone(),
            user: self.user.clone().unwrap_or_else(user),
            credential: None,
            files: self.upload_dir.clone().unwrap_or_else(|| self.work_dir.join("files")),
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
                address: String::new(),
            },
        };
        match self.credential.credential() {
            Ok(credential) => options.credential = credential,
            Err((option, problem)) => check.problem(option, &problem),
        }
        let etcd = self
            .etcd
            .check(&mut check, &self.registry)
            .map(|etcd| EtcdOptions { prefix: format!("{}/{KEYS}", etcd.prefix), ..etcd });
        check.require(etcd.is_some() || self.registry == "file", "registry", || {
            format!(
                "`{}` is no kind of registry; there are `file` and `etcd://HOST:PORT,…/PREFIX`",
                self.registry
            )
        });
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
        Ok(Checked { listen, advertise, etcd, options })
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
    let Checked { listen, advertise, etcd, mut options } = args.check(sources, &program)?;
    logging::start(
        logging::filter(&args.log.log_level).map_err(anyhow::Error::msg)?,
        args.log.log_format,
    );
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        "mezz spark dispatcher: {}",
        sources.effective()
    );
    let listener = listen.bind("--listen").await?;
    let peer = options.core.masters.first().map(String::as_str);
    let address = advertised(advertise, listener.local_addr()?, peer);
    tracing::info!(%address, "listening; submit with --master spark://{address}");
    options.core.address = address;
    let shutdown = CancellationToken::new();
    server::cancel_on_signal(&shutdown)?;
    match etcd {
        None => {
            server::make_work_dir(&args.work_dir)?;
            let path = args.work_dir.join("dispatcher.redb");
            let store = tokio::task::spawn_blocking(move || FileStore::open(&path)).await??;
            dispatcher::serve(options, store, listener, shutdown).await?;
        }
        Some(etcd) => {
            if args.upload_dir.is_none() {
                tracing::warn!(
                    folder = %options.files.display(),
                    "uploaded files are on this machine alone: give all dispatchers one \
                     --upload-dir on storage that they share"
                );
            }
            stand(options, &etcd, listener, shutdown).await?;
        }
    }
    tracing::info!("stopped; drivers go on");
    Ok(())
}

/// One of several: leads when it is elected.
async fn stand(
    options: DispatcherOptions,
    etcd: &EtcdOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = options.core.address.clone();
    let dispatcher = Dispatcher::new(options)?;
    let standing = election::stand(
        etcd,
        &address,
        &shutdown,
        |leader| dispatcher.stand_by(leader),
        |etcd, won, over| {
            let led = dispatcher.lead(KeyedStore::new(LeaderKeys::new(etcd, won)), over);
            async { Ok::<_, anyhow::Error>(led.await?) }
        },
    );
    dispatcher.serve_while(listener, standing).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_args;

    fn check(line: &str) -> Result<Checked, Problems> {
        check_args::<DispatcherArgs, _>("dispatcher", line, |args, sources| {
            args.check(sources, Path::new("/bin/mezz"))
        })
    }

    #[test]
    fn where_submissions_and_files_are() {
        let alone = check("--work-dir /w").unwrap();
        assert_eq!((alone.etcd, alone.options.files), (None, "/w/files".into()));
        let one = check("--registry etcd://a:2379/mezz --leader-lease 3s --upload-dir /shared");
        let one = one.unwrap();
        assert_eq!(one.options.files, PathBuf::from("/shared"));
        let etcd = one.etcd.unwrap();
        assert_eq!((etcd.prefix.as_str(), etcd.lease.as_secs()), ("/mezz/dispatcher", 3));
        for (line, option) in [
            ("--registry memory", "registry"),
            ("--registry etcd://a:2379", "registry"),
            ("--registry file --etcd-user u", "etcd-user"),
            ("--leader-lease 1s", "leader-lease"),
            ("--principal p", "principal"),
            ("--principal p --secret-file /none", "secret-file"),
        ] {
            let problems = check(line).unwrap_err().problems;
            assert_eq!(problems.len(), 1, "{line}: {problems:?}");
            assert!(problems[0].starts_with(&format!("--{option}: ")), "{problems:?}");
        }
    }
}
