//! `mezz spark archive`.

use std::path::PathBuf;

use clap::Args;
use mezz_spark::submit::{self, SparkOptions};

/// Make drivers and executors start faster: archive the classes of an installed Spark
///
/// Their JVMs then map the archive (class data sharing) instead of reading and checking
/// some ten thousand classes each. It is put into Spark's folder as mezz-classes.jsa, so run
/// this as the user who owns that, wherever Spark is installed, and again when Spark, Java
/// or Mezz was replaced: one that does not fit any more is not used. Runs a small Spark
/// application on this machine alone; takes some 30 s and 200 MB.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Where Spark is installed [env: SPARK_HOME] [default: the PySpark of python3]
    #[arg(long, value_name = "DIR")]
    spark_home: Option<PathBuf>,
    /// mezz-spark-bridge.jar, where drivers and executors have it [env: MEZZ_SPARK_BRIDGE]
    /// [default: beside this program]
    #[arg(long, value_name = "FILE")]
    bridge_jar: Option<PathBuf>,
}

/// Makes the archive, and says where it is.
///
/// # Errors
/// When Spark or the plugin is not found, Spark cannot be run, or the folder cannot be
/// written.
pub fn run(args: &ArchiveArgs) -> anyhow::Result<()> {
    let options = SparkOptions {
        spark_home: args.spark_home.clone(),
        bridge_jar: args.bridge_jar.clone(),
        ..super::own_options()?
    };
    let made = submit::make_archive(&options)?;
    eprintln!("{} ({} MB)", made.path.display(), made.bytes / 1_000_000);
    Ok(())
}
