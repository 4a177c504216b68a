//! Docker containers: an agent's options.

use std::path::PathBuf;

use clap::Args;
use mezz_agent::{containerizer::EngineAddress, options::DockerOptions};

use crate::config::Checker;

/// Where Docker listens if its operator said nothing.
const DOCKER: &str = "unix:///var/run/docker.sock";

/// Docker containers.
#[derive(Clone, Debug, Args)]
pub struct DockerArgs {
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
}

impl DockerArgs {
    /// Checks these options; what is wrong is noted.
    pub fn set(&self, check: &mut Checker<'_>, options: &mut DockerOptions) {
        check.set("docker", &self.docker, docker_engine, &mut options.engine);
        options.config.clone_from(&self.docker_config);
    }
}

/// The machine's own engine.
pub fn default_options() -> DockerOptions {
    DockerOptions { engine: EngineAddress::parse(DOCKER).ok(), config: None }
}

/// An engine, or `none`.
fn docker_engine(text: &str) -> Result<Option<EngineAddress>, String> {
    match text {
        "none" => Ok(None),
        _ => EngineAddress::parse(text).map(Some).map_err(|why| format!("{why}; or none")),
    }
}
