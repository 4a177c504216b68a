//! How files are fetched for tasks: an agent's options.

use clap::Args;
use mezz_agent::{
    fetcher,
    options::{AgentOptions, FetcherOptions},
};

use crate::{config::Checker, units};

/// How files are fetched for tasks.
#[derive(Clone, Debug, Args)]
pub struct FetcherArgs {
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
    /// What is not fetched for a task after this time fails it; all of its files
    /// together, with the time that they wait for those of others
    #[arg(long, env = "MEZZ_FETCH_TIMEOUT", value_name = "TIME", default_value = "1h")]
    pub fetch_timeout: String,
}

impl FetcherArgs {
    /// Checks these options; what is wrong is noted.
    pub fn set(&self, check: &mut Checker<'_>, options: &mut AgentOptions) {
        check.set(
            "max-fetch-size",
            &self.max_fetch_size,
            units::size,
            &mut options.max_fetch_bytes,
        );
        let options = &mut options.fetcher;
        let mut commands = Vec::new();
        check.set_all("fetcher-command", &self.fetcher_command, fetcher_command, &mut commands);
        for (scheme, command) in commands {
            if options.commands.insert(scheme.clone(), command).is_some() {
                check.problem("fetcher-command", &format!("two commands for `{scheme}`"));
            }
        }
        let size = &self.fetcher_cache_size;
        check.set("fetcher-cache-size", size, units::size, &mut options.cache_bytes);
        check.set("fetch-timeout", &self.fetch_timeout, units::duration, &mut options.timeout);
    }
}

/// What makes sense only together.
pub fn check_relations(check: &mut Checker<'_>, options: &FetcherOptions) {
    check.require(!options.timeout.is_zero(), "fetch-timeout", || {
        "it has to be more than 0".to_owned()
    });
}

/// A scheme and what fetches its URIs.
pub(super) fn fetcher_command(text: &str) -> Result<(String, String), String> {
    let (scheme, command) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is no SCHEME=COMMAND"))?;
    let (scheme, command) = (scheme.trim().to_ascii_lowercase(), command.trim().to_owned());
    fetcher::check_command(&scheme, &command)?;
    Ok((scheme, command))
}
