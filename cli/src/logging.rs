//! What servers say while they run: to stderr, as text or JSON.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Options of every server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// What to log: error, warn, info, debug or trace, also per module, like
    /// `info,mezz_master=debug`
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log_level: String,
    /// How log lines look
    #[arg(long, env = "MEZZ_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// A log filter.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|error| {
        format!("`{text}` is no filter ({error}); write a level like `info`, or `info,mezz_master=debug`")
    })
}

/// Starts logging. Once in a process; later calls change nothing.
pub fn start(filter: EnvFilter, format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Fails only when logging has been started already.
    drop(started);
}

/// For commands that talk by themselves: only warnings, unless RUST_LOG says
/// otherwise.
pub fn start_quiet() {
    let filter = std::env::var("RUST_LOG").ok().and_then(|text| filter(&text).ok());
    start(filter.unwrap_or_else(|| EnvFilter::new("error")), LogFormat::Text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        assert!(filter("info").is_ok());
        assert!(filter("warn,mezz_master=debug").is_ok());
        assert!(filter("mezz_master=loud").unwrap_err().contains("mezz_master=loud"));
    }
}
