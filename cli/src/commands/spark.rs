//! `mezz spark`.

mod archive;
mod cluster;
mod dispatcher;
mod env;
mod history;

use std::{
    ffi::OsString,
    io::Write,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use mezz_spark::submit::{self, Kind, MASTER_SCHEME, Mode, SparkOptions};

use crate::{client::MasterList, config::Sources, logging};

/// Run Spark jobs and shells on the cluster.
///
/// The driver runs here, its executors on the cluster. Each command takes what
/// Spark's own takes, and besides `--master HOST:PORT`, `--mode coarse|fine`,
/// `--spark-home DIR` (else SPARK_HOME, else PySpark's) and `--bridge-jar FILE` (else
/// MEZZ_SPARK_BRIDGE, else beside this program). Ctrl-C ends the job, its executors
/// and its framework.
#[derive(Debug, Args)]
pub struct SparkArgs {
    /// Whom to ask.
    #[command(flatten)]
    masters: MasterList,
    /// What to run.
    #[command(subcommand)]
    command: SparkCommand,
}

#[derive(Debug, Subcommand)]
enum SparkCommand {
    /// Run a job: spark-submit
    Submit(SparkCommandArgs),
    /// Open a Scala shell: spark-shell
    Shell(SparkCommandArgs),
    /// Open a Python shell: pyspark
    Pyspark(SparkCommandArgs),
    /// Open an SQL shell: spark-sql
    Sql(SparkCommandArgs),
    Env(env::EnvArgs),
    Archive(archive::ArchiveArgs),
    History(history::HistoryArgs),
    Dispatcher(Box<dispatcher::DispatcherArgs>),
    /// Show a driver that a dispatcher runs
    Status(cluster::StatusArgs),
    /// End a driver that a dispatcher runs
    Kill(cluster::DriverArgs),
    /// List the drivers of a dispatcher
    List(cluster::ListArgs),
    /// Print what a driver of a dispatcher wrote to its standard output
    Logs(cluster::LogsArgs),
}

/// `--help` is Spark's own, after ours.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct SparkCommandArgs {
    /// What Spark's command takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Becomes Spark's command, or does what there is to do in cluster mode.
///
/// # Errors
/// When Spark is not found or cannot be started, or a dispatcher cannot be asked.
pub fn run(args: &SparkArgs, sources: &Sources<'_>) -> anyhow::Result<ExitCode> {
    let (kind, arguments) = match &args.command {
        SparkCommand::Dispatcher(args) => {
            return crate::serve(dispatcher::run(args, &dispatcher_sources(sources)));
        }
        SparkCommand::Env(args) => return env::run(args).map(|()| ExitCode::SUCCESS),
        SparkCommand::Archive(args) => return archive::run(args).map(|()| ExitCode::SUCCESS),
        SparkCommand::History(args) => return history::run(args),
        SparkCommand::Status(args) => return crate::list(cluster::status(args)),
        SparkCommand::Kill(args) => return crate::list(cluster::kill(args)),
        SparkCommand::List(args) => return crate::list(cluster::list(args)),
        SparkCommand::Logs(args) => return crate::list(cluster::logs(args)),
        SparkCommand::Submit(args) if cluster::wanted(&args.arguments) => {
            return crate::ask(cluster::submit(&args.arguments));
        }
        SparkCommand::Submit(args) => (Kind::Submit, &args.arguments),
        SparkCommand::Shell(args) => (Kind::Shell, &args.arguments),
        SparkCommand::Pyspark(args) => (Kind::Pyspark, &args.arguments),
        SparkCommand::Sql(args) => (Kind::Sql, &args.arguments),
    };
    let own = Own::take(arguments);
    let options = SparkOptions { spark_home: own.spark_home.map(PathBuf::from), ..own_options()? };
    if own.help {
        return help(kind, &options);
    }
    let master = match (&own.master, own.url) {
        (Some(master), _) => MasterList { master: split(master) }.checked()?,
        // Theirs says it all.
        (None, true) => Vec::new(),
        (None, false) => args.masters.checked()?,
    };
    let options = SparkOptions {
        master,
        bridge_jar: own.bridge_jar.map(PathBuf::from),
        mode: own.mode.map(|mode| Mode::parse(&mode.to_string_lossy())).transpose()?,
        ..options
    };
    // Its settings stay open until Spark has taken this process's place.
    let spark = submit::spark_command(kind, &options, &own.rest)?;
    become_spark(spark.command)
}

/// Where this program is, and nothing else.
fn own_options() -> anyhow::Result<SparkOptions> {
    let mezz_bin = std::env::current_exe().context("cannot find out the path of this program")?;
    Ok(SparkOptions { mezz_bin, ..SparkOptions::default() })
}

/// Of the options of the dispatcher, below those of `mezz spark`.
fn dispatcher_sources<'a>(sources: &Sources<'a>) -> Sources<'a> {
    let matches = sources.matches.subcommand().map_or(sources.matches, |(_, nested)| nested);
    Sources { command: "spark dispatcher", matches, file: sources.file }
}

/// Prints our options, then Spark's if there is one to say them.
fn help(kind: Kind, options: &SparkOptions) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let spark = submit::help_command(kind, options);
    writeln!(out, "{OWN_HELP}")?;
    match spark {
        Ok(command) => {
            writeln!(out, "Everything else is Spark's own:\n")?;
            out.flush()?;
            become_spark(command)
        }
        Err(problem) => {
            writeln!(out, "Everything else is Spark's own, which cannot be shown: {problem}")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Our part of each command's help.
const OWN_HELP: &str = "\
Runs on a Mezz cluster, the driver on this machine; or, by `submit --deploy-mode cluster`,
also the driver, under `mezz spark dispatcher`. Mezz' own options:

  --master HOST:PORT[,HOST:PORT...]
          The masters, in the order in which they are tried [env: MEZZ_MASTER] [default: 127.0.0.1:5050]
  --mode coarse|fine
          What holds cores: executors while they live, or tasks while they run
          [default: coarse, or what spark.mezz.coarse says]
  --spark-home DIR
          Where Spark is installed [env: SPARK_HOME] [default: the PySpark of python3]
  --bridge-jar FILE
          mezz-spark-bridge.jar [env: MEZZ_SPARK_BRIDGE] [default: beside this program]
  --dispatcher HOST:PORT[,HOST:PORT...], --wait, --priority N
          With --deploy-mode cluster: the dispatchers [env: MEZZ_DISPATCHER]
          [default: spark.mezz.dispatcher of spark-defaults.conf, else 127.0.0.1:7077]; wait
          for the driver's end; its place in the queue
";

/// Returns only when it could not.
fn become_spark(mut command: Command) -> anyhow::Result<ExitCode> {
    let error = command.exec();
    Err(anyhow!("cannot start {}: {error}", command.get_program().display()))
}

fn split(masters: &OsString) -> Vec<String> {
    masters.to_string_lossy().split(',').map(str::to_owned).collect()
}

/// Spark's options without a value; what follows another one is its value.
const SWITCHES: [&str; 7] =
    ["--verbose", "-v", "--supervise", "--help", "-h", "--version", "--load-spark-defaults"];

/// Our options among Spark's.
#[derive(Debug, Default, PartialEq)]
struct Own {
    master: Option<OsString>,
    /// Whether theirs is a master URL of ours, to be passed on.
    url: bool,
    mode: Option<OsString>,
    spark_home: Option<OsString>,
    bridge_jar: Option<OsString>,
    /// Whether help is wanted, and nothing else.
    help: bool,
    /// Everything else, untouched.
    rest: Vec<OsString>,
}

impl Own {
    /// Looks only before the application, whose arguments are its own.
    fn take(args: &[OsString]) -> Self {
        let mut own = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let text = arg.to_string_lossy();
            if !text.starts_with('-') {
                own.rest.push(arg.clone());
                break;
            }
            let (name, value) = match text.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.into())),
                _ if SWITCHES.contains(&&*text) => (&*text, None),
                _ => (&*text, args.next().cloned()),
            };
            let is_url = value.as_ref().is_some_and(|v| v.to_string_lossy().contains("://"));
            match name {
                "--master" if !is_url => own.master = value,
                "--mode" => own.mode = value,
                "--spark-home" => own.spark_home = value,
                "--bridge-jar" => own.bridge_jar = value,
                _ => {
                    own.help |= matches!(name, "--help" | "-h");
                    let ours = value.as_ref().is_some_and(|v| {
                        let v = v.to_string_lossy();
                        v.trim_start_matches("spark.master=").starts_with(MASTER_SCHEME)
                    });
                    own.url |= ours && matches!(name, "--master" | "--conf" | "-c");
                    own.rest.push(arg.clone());
                    if !text.contains('=') {
                        own.rest.extend(value);
                    }
                }
            }
        }
        own.rest.extend(args.cloned());
        own
    }
}

/// The driver's helper, which the Spark plugin starts and speaks with over stdin
/// and stdout.
///
/// # Errors
/// What ended it early.
pub async fn sidecar() -> anyhow::Result<ExitCode> {
    logging::start_quiet();
    mezz_spark::run_sidecar().await?;
    Ok(ExitCode::SUCCESS)
}

/// What runs Spark's tasks on an agent in fine-grained mode.
///
/// # Errors
/// What ended it early.
pub async fn executor() -> anyhow::Result<ExitCode> {
    logging::start_quiet();
    Ok(ExitCode::from(mezz_spark::run_executor().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(line: &str) -> Own {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Own::take(&args)
    }

    fn rest(own: &Own) -> String {
        let words: Vec<_> = own.rest.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn ours_are_taken_from_anywhere_before_the_application() {
        let own = take(
            "--conf a=b --master h:5050 --mode fine -v --spark-home=/s app.py --master x --mode y",
        );
        assert_eq!(own.master, Some("h:5050".into()));
        assert_eq!(own.spark_home, Some("/s".into()));
        assert_eq!(own.bridge_jar, None);
        assert_eq!(own.mode, Some("fine".into()));
        assert_eq!(rest(&own), "--conf a=b -v app.py --master x --mode y");
    }

    #[test]
    fn spark_keeps_its_own() {
        let line = "--class a.B --conf=spark.x=y --jars a,b -v app.jar 1 2";
        let own = take(line);
        assert_eq!(rest(&own), line);
        assert_eq!((own.master, own.url), (None, false));
    }

    #[test]
    fn a_master_url_is_passed_on() {
        for line in [
            "--master spark-mezz://h:5050 app.py",
            "--master=spark-mezz://h:5050 app.py",
            "--conf spark.master=spark-mezz://h:5050 app.py",
        ] {
            let own = take(line);
            assert_eq!((rest(&own).as_str(), own.url, own.master), (line, true, None));
        }
        let other = take("--master spark://h:7077 app.py");
        assert_eq!((rest(&other).as_str(), other.url), ("--master spark://h:7077 app.py", false));
    }

    #[test]
    fn a_missing_value_is_spark_s_to_complain_about() {
        assert_eq!(rest(&take("--conf")), "--conf");
        assert_eq!(rest(&take("")), "");
    }
}
