//! `mezz local`: a cluster in one process.

mod cluster;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use mezz_agent::options::{AgentOptions, LauncherCommand};
use mezz_proto::resources::Resources;
use tokio_util::sync::CancellationToken;

use self::cluster::Cluster;
use super::agent::{ContainmentArg, default_options};
use crate::{
    config::{Checker, Problems, Sources},
    logging::{self, LogArgs},
    output, resources,
    server::{self, Listen},
    text, units,
};

/// More agents than this in one process are a slip of the keys.
const MAX_AGENTS: usize = 1000;

/// Run a master and some agents on this machine until Ctrl-C.
///
/// All in one process, for trying things out: whatever runs on the cluster ends
/// with it.
#[derive(Debug, Args)]
pub struct LocalArgs {
    /// How many agents
    #[arg(long, env = "MEZZ_AGENTS", value_name = "N", default_value = "1")]
    pub agents: String,
    /// Port of the master on 127.0.0.1; 0 is any free one
    #[arg(long, env = "MEZZ_PORT", value_name = "PORT", default_value = "5050")]
    pub port: String,
    /// What each agent offers: `cpus:4;mem:8192`, JSON or file:///PATH (mem and
    /// disk in MiB) [default: its part of the machine, at least one cpu]
    #[arg(long, env = "MEZZ_RESOURCES", value_name = "RESOURCES")]
    pub resources: Option<String>,
    /// What frameworks can choose agents by, for all of them: `rack:r1;ssd:true`
    /// [default: none]
    #[arg(long, env = "MEZZ_ATTRIBUTES", value_name = "ATTRIBUTES")]
    pub attributes: Option<String>,
    /// What holds tasks to their limits
    #[arg(long, env = "MEZZ_CONTAINMENT", value_enum, default_value = "cgroup")]
    pub containment: ContainmentArg,
    /// Folder for the agents' sandboxes, kept afterwards [default: a temporary
    /// one, removed afterwards]
    #[arg(long, env = "MEZZ_WORK_DIR", value_name = "DIR")]
    pub work_dir: Option<PathBuf>,

    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// A local cluster's options, checked.
#[derive(Debug)]
struct Local {
    agents: usize,
    listen: Listen,
    resources: Option<Resources>,
    /// Of every agent; the rest differs.
    template: AgentOptions,
}

impl LocalArgs {
    fn check(&self, sources: &Sources<'_>) -> Result<Local, Problems> {
        let mut check = Checker::new(sources);
        let mut agents = 1;
        let mut port = 0;
        let launcher = LauncherCommand { program: PathBuf::new(), args: Vec::new() };
        let mut template = default_options(PathBuf::new(), launcher);
        template.containment = self.containment.into();
        let mut own = None;
        check.set("agents", &self.agents, units::count, &mut agents);
        check.require(agents <= MAX_AGENTS, "agents", || {
            format!("{agents} is more than the most, {MAX_AGENTS}")
        });
        check.set("port", &self.port, port_number, &mut port);
        if let Some(text) = &self.resources {
            check.set("resources", text, |t| resources::resources(t).map(Some), &mut own);
        }
        if let Some(text) = &self.attributes {
            check.set("attributes", text, resources::attributes, &mut template.attributes);
        }
        let mut filter = None;
        check.set("log-level", &self.log.log_level, |t| logging::filter(t).map(Some), &mut filter);
        check.finish()?;
        let listen = Listen { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        Ok(Local { agents, listen, resources: own, template })
    }
}

fn port_number(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` is no port; write a number from 0 to 65535"))
}

/// The agents' folder; a temporary one goes when this is dropped.
struct WorkDir {
    path: PathBuf,
    temporary: bool,
}

impl WorkDir {
    fn make(given: Option<&Path>) -> anyhow::Result<Self> {
        let (path, temporary) = match given {
            Some(path) => (path.to_owned(), false),
            None => {
                let name = format!("mezz-local-{}", uuid::Uuid::new_v4().simple());
                (std::env::temp_dir().join(name), true)
            }
        };
        server::make_work_dir(&path)?;
        // Launchers and tasks run elsewhere: a relative path would mislead them.
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot use the work dir {}", path.display()))?;
        Ok(Self { path, temporary })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Runs the cluster until it is told to stop.
///
/// # Errors
/// What kept it from starting, or ended it early.
pub async fn run(args: &LocalArgs, sources: &Sources<'_>) -> anyhow::Result<()> {
    let local = args.check(sources)?;
    logging::start(
        logging::filter(&args.log.log_level).map_err(anyhow::Error::msg)?,
        args.log.log_format,
    );
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "mezz local: {}", sources.effective());
    let interrupted = CancellationToken::new();
    server::cancel_on_signal(&interrupted)?;
    let listener = local.listen.bind("--port").await?;
    let address = listener.local_addr()?.to_string();
    let work_dir = WorkDir::make(args.work_dir.as_deref())?;

    let mut cluster = Cluster::start(&local, listener, &address, &work_dir.path).await?;
    let until_signal = async {
        cluster.ready(&address).await?;
        output::write(&banner(&address, local.agents))?;
        Err(cluster.failed().await)
    };
    let result = tokio::select! {
        biased;
        () = interrupted.cancelled() => Ok(()),
        result = until_signal => result,
    };
    cluster.stop(&address).await;
    result
}

fn banner(address: &str, agents: usize) -> String {
    let option = if address == "127.0.0.1:5050" {
        String::new()
    } else {
        format!("export MEZZ_MASTER={address}\n  ")
    };
    format!(
        "The cluster is up: master at {address}, {}. Try, in another terminal:\n  {option}\
         mezz agents\n  \
         mezz run --instances 2 -- sh -c 'echo hello from $(hostname)'\n  \
         mezz tasks --completed\n  \
         mezz spark submit app.py\n\
         Ctrl-C stops it and whatever runs on it.\n",
        text::count(agents, "agent")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_args;

    fn check(line: &str) -> Result<Local, Problems> {
        check_args::<LocalArgs, _>("local", line, LocalArgs::check)
    }

    #[test]
    fn defaults() {
        let local = check("").unwrap();
        assert_eq!((local.agents, local.resources), (1, None));
        assert_eq!(local.listen.address, "127.0.0.1:5050".parse().unwrap());
    }

    #[test]
    fn every_option_arrives() {
        let local = check("--agents 3 --port 0 --resources cpus:4 --attributes a:b").unwrap();
        assert_eq!((local.agents, local.listen.address.port()), (3, 0));
        assert_eq!(local.resources, Some(Resources::parse("cpus:4").unwrap()));
        assert_eq!(local.template.attributes[0].name, "a");
    }

    #[test]
    fn every_bad_text_names_its_option() {
        for (option, text) in [
            ("--agents", "0"),
            ("--agents", "1001"),
            ("--port", "65536"),
            ("--resources", "cpus"),
            ("--attributes", "x"),
            ("--log-level", "a=b=c"),
        ] {
            let problems = check(&format!("{option}={text}")).unwrap_err().problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(&format!("{option}: ")), "{problems:?}");
        }
    }

    #[test]
    fn a_temporary_work_dir_goes_and_a_given_one_stays() {
        let temporary = WorkDir::make(None).unwrap();
        let path = temporary.path.clone();
        assert!(path.is_dir());
        drop(temporary);
        assert!(!path.exists());
        let given = tempfile::tempdir().unwrap();
        drop(WorkDir::make(Some(given.path())).unwrap());
        assert!(given.path().is_dir());
    }

    #[test]
    fn the_banner_tells_where_an_unusual_master_is() {
        assert!(banner("127.0.0.1:6000", 2).contains("export MEZZ_MASTER=127.0.0.1:6000"));
        let usual = banner("127.0.0.1:5050", 1);
        assert!(!usual.contains("MEZZ_MASTER") && usual.contains(", 1 agent."));
    }
}
