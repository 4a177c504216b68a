//! The command that runs Spark's own history server.

use std::{net::TcpListener, path::PathBuf, process::Command};

use super::{Environment, SparkOptions, SubmitError, arguments, locate};

/// Spark's own script for classes that have none.
const PROGRAM: &str = "spark-class";

const MAIN: &str = "org.apache.spark.deploy.history.HistoryServer";

/// Where the history server looks for the folder.
const LOGS: &str = "spark.history.fs.logDirectory";

/// Where applications write to.
const EVENTS: &str = "spark.eventLog.dir";

const PORT: &str = "spark.history.ui.port";

/// Spark's defaults of these.
const DEFAULT_LOGS: &str = "file:///tmp/spark-events";
const DEFAULT_PORT: u16 = 18080;

/// A history server that can be started.
#[derive(Debug)]
pub struct HistoryServer {
    /// Runs it, in the foreground.
    pub command: Command,
    /// Where its pages will be: it listens there, or ends.
    pub address: String,
    /// The folder of event logs that it shows, as a URI.
    pub logs: String,
}

/// Spark's history server over the event logs in `logs`, a path or a URI; when absent
/// over those that Spark's file of settings names. It listens on `port`, 0 being any
/// free one, and never on another one.
///
/// # Errors
/// [`SubmitError`] when Spark or the folder is not found, or no port is free.
pub fn history_server(
    options: &SparkOptions,
    logs: Option<&str>,
    port: Option<u16>,
) -> Result<HistoryServer, SubmitError> {
    let environment = Environment::of_process();
    prepare(options, &environment, logs, port)
}

pub(super) fn prepare(
    options: &SparkOptions,
    environment: &Environment,
    logs: Option<&str>,
    port: Option<u16>,
) -> Result<HistoryServer, SubmitError> {
    let home = locate::spark_home(options, environment, PROGRAM)?;
    let defaults = super::conf_dir(Some(&home), environment).map(|c| c.join(super::DEFAULTS));
    let defaults = match defaults {
        Some(path) => super::read_if_there(&path)?.unwrap_or_default(),
        None => String::new(),
    };
    let setting = |key| arguments::property(&defaults, key);
    let (option, logs) = match logs {
        Some(given) => ("--log-dir", given.to_owned()),
        None => match (setting(LOGS), setting(EVENTS)) {
            (Some(logs), _) => (LOGS, logs),
            (None, Some(logs)) => (EVENTS, logs),
            (None, None) => (LOGS, DEFAULT_LOGS.to_owned()),
        },
    };
    let logs = uri(option, &logs)?;
    let port = match port {
        Some(0) => free_port()?,
        Some(port) => port,
        None => match setting(PORT) {
            Some(text) => text.parse().map_err(|_| SubmitError::BadPort(text))?,
            None => DEFAULT_PORT,
        },
    };
    // As Spark binds it.
    let host = environment.get("SPARK_LOCAL_IP").map(|ip| ip.to_string_lossy().into_owned());
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let mut opts = environment
        .get("SPARK_HISTORY_OPTS")
        .map(|o| o.to_string_lossy().into_owned() + " ")
        .unwrap_or_default();
    // Spark would go on to the next port, which nobody would know of.
    let all = [(LOGS, logs.as_str()), (PORT, &port.to_string()), ("spark.port.maxRetries", "0")];
    opts += &all.map(|(key, value)| quoted(&format!("-D{key}={value}"))).join(" ");
    let mut command = Command::new(home.join("bin").join(PROGRAM));
    command.arg(MAIN).env("SPARK_HOME", &home).env("SPARK_HISTORY_OPTS", opts);
    Ok(HistoryServer { command, address: format!("http://{host}:{port}"), logs })
}

/// A path of this machine as a URI, which whatever Hadoop's settings say it stays. It
/// must be there: the history server ends with a stack of traces where it is not.
fn uri(option: &'static str, logs: &str) -> Result<String, SubmitError> {
    let path = match logs.split_once(':') {
        Some(("file", rest)) => {
            let rest = rest.trim_start_matches('/');
            PathBuf::from(format!("/{rest}"))
        }
        // A scheme: somebody else's to look into.
        Some((scheme, _)) if !scheme.contains('/') => return Ok(logs.to_owned()),
        _ => std::path::absolute(logs).unwrap_or_else(|_| PathBuf::from(logs)),
    };
    if !path.is_dir() {
        return Err(SubmitError::NoLogs { option, path });
    }
    Ok(format!("file://{}", path.display()))
}

/// Another program may take it before Spark does, which then says so.
fn free_port() -> Result<u16, SubmitError> {
    let bound = TcpListener::bind("0.0.0.0:0").and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(SubmitError::NoPort)
}

/// As one word for Spark's scripts, which read quotes as a shell does.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}
