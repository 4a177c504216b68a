//! What servers say while they run: to stderr, as text or JSON.

use clap::{Args, ValueEnum};
use mezz_proto::logging::LogControl;
use tracing_subscriber::{
    EnvFilter, Layer, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

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
    let text = filter.to_string();
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // It fails only when logging has been started already.
    if tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().is_ok() {
        install(text, move |filter| drop(handle.reload(filter)));
    }
}

/// Lets operators change how much is logged (SET_LOGGING_LEVEL).
fn install(started_with: String, reload: impl Fn(EnvFilter) + Send + Sync + 'static) {
    mezz_proto::logging::install(Box::new(Reload { started_with, reload }));
}

/// The parts of Mezz, whose details an operator may ask for.
const PARTS: [&str; 4] = ["mezz_master", "mezz_agent", "mezz_sdk", "mezz_spark"];

struct Reload<F> {
    started_with: String,
    reload: F,
}

impl<F: Fn(EnvFilter) + Send + Sync> LogControl for Reload<F> {
    fn set(&self, verbosity: u32) {
        if let Ok(filter) = filter(&filter_for(&self.started_with, verbosity)) {
            (self.reload)(filter);
        }
    }
}

/// The filter's text for what an operator asks.
fn filter_for(started_with: &str, verbosity: u32) -> String {
    let level = match verbosity {
        0 => return started_with.to_owned(),
        1 => "debug",
        _ => "trace",
    };
    PARTS.iter().fold(started_with.to_owned(), |text, part| format!("{text},{part}={level}"))
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
    fn operators_hear_more_of_mezz_and_of_nothing_else() {
        assert_eq!(filter_for("warn", 0), "warn");
        let more = filter_for("warn", 1);
        assert!(more.starts_with("warn,mezz_master=debug,mezz_agent=debug"), "{more}");
        assert!(filter(&more).is_ok());
        assert!(filter(&filter_for("info,mezz_agent=warn", 3)).is_ok());
    }

    #[test]
    fn filters() {
        assert!(filter("info").is_ok());
        assert!(filter("warn,mezz_master=debug").is_ok());
        assert!(filter("mezz_master=loud").unwrap_err().contains("mezz_master=loud"));
    }
}
