//! `mezz spark history`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use mezz_spark::submit::{self, SparkOptions};

/// Run Spark's history server: the web pages of applications that have ended
///
/// It shows the event logs that applications write with `spark.eventLog.enabled=true`,
/// in the foreground, until Ctrl-C.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Folder of the event logs, or its URI [default: spark.history.fs.logDirectory or
    /// spark.eventLog.dir of spark-defaults.conf, else /tmp/spark-events]
    #[arg(long, value_name = "DIR")]
    log_dir: Option<String>,
    /// Port of the pages; 0 is any free one [default: spark.history.ui.port of
    /// spark-defaults.conf, else 18080]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Where Spark is installed [env: SPARK_HOME] [default: the PySpark of python3]
    #[arg(long, value_name = "DIR")]
    spark_home: Option<PathBuf>,
}

/// Becomes the history server.
///
/// # Errors
/// When Spark or the folder is not found, or it cannot be started.
pub fn run(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let options = SparkOptions { spark_home: args.spark_home.clone(), ..super::own_options()? };
    let server = submit::history_server(&options, args.log_dir.as_deref(), args.port)?;
    eprintln!("{} with the event logs in {}", server.address, server.logs);
    super::become_spark(server.command)
}
