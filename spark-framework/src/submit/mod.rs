//! Builds the command line of Spark's own programs for a Mezz cluster.
//!
//! Only three things are added to what the user wrote: the master URL, the
//! plugin on the driver's class path, and where `mezz` is; and a secret where
//! `spark.authenticate` needs one that nobody gives, and what uses an archive of
//! Spark's classes. Everything else is passed on untouched.

mod archive;
mod arguments;
mod env;
mod history;
mod locate;
mod settings;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use thiserror::Error;

use self::arguments::Arguments;
pub use self::{
    archive::{ARCHIVE, ArchiveError, Made, make_archive},
    env::{SparkDefaults, spark_defaults},
    history::{HistoryServer, history_server},
    settings::SettingsFile,
};

/// The scheme of our master URLs. `spark-submit` takes none that does not start
/// with `spark`, and `spark://` is its own.
pub const MASTER_SCHEME: &str = "spark-mezz://";

/// Spark's file of settings, in its folder of them.
pub const DEFAULTS: &str = "spark-defaults.conf";

/// The driver's class path, as a setting.
const CLASS_PATH: &str = "spark.driver.extraClassPath";

/// Which of Spark's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `spark-submit`.
    Submit,
    /// `spark-shell`, for Scala.
    Shell,
    /// `pyspark`, for Python.
    Pyspark,
    /// `spark-sql`.
    Sql,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Kind::Submit => "spark-submit",
            Kind::Shell => "spark-shell",
            Kind::Pyspark => "pyspark",
            Kind::Sql => "spark-sql",
        }
    }
}

/// How tasks get to executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Executors hold their cores for as long as they live.
    Coarse,
    /// Each Spark task is one of the cluster's and holds its cores while it runs.
    Fine,
}

impl Mode {
    /// Reads `coarse` or `fine`.
    ///
    /// # Errors
    /// [`SubmitError::BadMode`].
    pub fn parse(text: &str) -> Result<Self, SubmitError> {
        match text {
            "coarse" => Ok(Self::Coarse),
            "fine" => Ok(Self::Fine),
            _ => Err(SubmitError::BadMode(text.to_owned())),
        }
    }

    /// The setting that asks for it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Coarse => "spark.mezz.coarse=true",
            Self::Fine => "spark.mezz.coarse=false",
        }
    }
}

/// Where things are, and how they are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparkOptions {
    /// host:port of each master; when empty the user's own `--master
    /// spark-mezz://…` is needed.
    pub master: Vec<String>,
    /// Where Spark is installed; looked for when absent.
    pub spark_home: Option<PathBuf>,
    /// `mezz-spark-bridge.jar`; looked for when absent.
    pub bridge_jar: Option<PathBuf>,
    /// This program, absolute.
    pub mezz_bin: PathBuf,
    /// The mode; when absent the application's own settings say.
    pub mode: Option<Mode>,
}

/// Why there is no command line.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// Not found anywhere.
    #[error(
        "Spark is not found: give --spark-home, set SPARK_HOME, or `pip install pyspark` for the \
         python3 on your PATH (looked in {looked})"
    )]
    NoSpark {
        /// Where it was looked for.
        looked: String,
    },
    /// A folder that was named holds no Spark.
    #[error(
        "{option} is {}, which has no {missing}; give the folder that Spark is installed in",
        path.display()
    )]
    NotSpark {
        /// Where the folder comes from.
        option: &'static str,
        /// The folder.
        path: PathBuf,
        /// What is not there.
        missing: String,
    },
    /// The plugin is not found anywhere.
    #[error(
        "mezz-spark-bridge.jar is not found: give --bridge-jar or set MEZZ_SPARK_BRIDGE; \
         spark-framework/bridge/build.sh builds it (looked in {looked})"
    )]
    NoBridge {
        /// Where it was looked for.
        looked: String,
    },
    /// The plugin is not where it was said to be.
    #[error("{option} is {}, which is no file", path.display())]
    BridgeMissing {
        /// Where the path comes from.
        option: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// No master.
    #[error("no master: give --master host:port[,host:port…] or set MEZZ_MASTER")]
    NoMaster,
    /// A master that is no address.
    #[error("master `{0}` is not host:port")]
    BadMaster(String),
    /// A mode that there is not.
    #[error("--mode is `{0}`; it is coarse or fine")]
    BadMode(String),
    /// The user's arguments name another master.
    #[error(
        "{given} conflicts with the Mezz master {ours}: leave it out, or call spark-submit itself \
         for another cluster"
    )]
    OtherMaster {
        /// The user's.
        given: String,
        /// The URL that would be added.
        ours: String,
    },
    /// Only a dispatcher runs drivers on the cluster.
    #[error(
        "--deploy-mode cluster is for applications, by `mezz spark submit` and a dispatcher; a \
         shell's driver runs on this machine"
    )]
    ClusterMode,
    /// A folder of event logs that is not there.
    #[error(
        "{option} is {}, which is no folder; applications write their event logs there with \
         spark.eventLog.enabled=true and spark.eventLog.dir", path.display()
    )]
    NoLogs {
        /// Where the folder comes from.
        option: &'static str,
        /// The folder.
        path: PathBuf,
    },
    /// A port that is none.
    #[error("spark.history.ui.port is `{0}`; it is a number from 1 to 65535")]
    BadPort(String),
    /// No port is free.
    #[error("no port is free")]
    NoPort(#[source] std::io::Error),
    /// No secret could be made, or handed on.
    #[error(
        "cannot make the secret that spark.authenticate needs; give one by \
         spark.authenticate.secret in a --properties-file"
    )]
    Secret(#[source] std::io::Error),
    /// A file of settings that cannot be read.
    #[error("cannot read {}", path.display())]
    Properties {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A command of Spark's.
#[derive(Debug)]
pub struct SparkCommand {
    /// It inherits the environment, with SPARK_HOME set.
    pub command: Command,
    /// Where the command reads its settings from, if a secret was made for it: to be
    /// kept until it has ended, or has taken this process's place.
    pub settings: Option<SettingsFile>,
}

/// The command that runs Spark's program on the cluster.
///
/// # Errors
/// [`SubmitError`] says what is missing or contradictory, and what to do.
pub fn spark_command(
    kind: Kind,
    options: &SparkOptions,
    user_args: &[OsString],
) -> Result<SparkCommand, SubmitError> {
    let environment = Environment::of_process();
    let home = locate::spark_home(options, &environment, kind.program())?;
    let jar = locate::bridge_jar(options, &environment)?;
    let mut settings = None;
    let with_secret = |text: &str| {
        let file = SettingsFile::with_secret(text).map_err(SubmitError::Secret)?;
        Ok(settings.insert(file).path())
    };
    let line = arguments(options, &home, &jar, &environment, user_args, with_secret)?;
    let mut command = program(kind, &home, &environment);
    command.args(line.arguments);
    if let Some(options) = line.submit_options {
        command.env(archive::SUBMIT_OPTIONS, options);
    }
    Ok(SparkCommand { command, settings })
}

/// The command that prints the help of Spark's program. Needs no master and no
/// plugin.
///
/// # Errors
/// [`SubmitError`] when Spark is not found.
pub fn help_command(kind: Kind, options: &SparkOptions) -> Result<Command, SubmitError> {
    let environment = Environment::of_process();
    let home = locate::spark_home(options, &environment, kind.program())?;
    let mut command = program(kind, &home, &environment);
    command.arg("--help");
    Ok(command)
}

/// Spark's program with no arguments.
fn program(kind: Kind, home: &Path, environment: &Environment) -> Command {
    let mut command = Command::new(home.join("bin").join(kind.program()));
    command.env("SPARK_HOME", home);
    if kind == Kind::Pyspark
        && let Some(path) = python_path(home, environment)
    {
        command.env("PYTHONPATH", path);
    }
    command
}

/// For a Spark that pip installed: PYTHONPATH with its folder of packages. Its
/// `pyspark` script imports from there, and the python3 on PATH may be another.
fn python_path(home: &Path, environment: &Environment) -> Option<OsString> {
    let packages = home.parent().filter(|p| p.ends_with("site-packages"))?;
    let mut path = packages.as_os_str().to_owned();
    if let Some(theirs) = environment.get("PYTHONPATH") {
        path.push(":");
        path.push(theirs);
    }
    Some(path)
}

/// What is read of the surroundings, so that tests need not change those of the
/// whole process.
#[derive(Clone, Debug, Default)]
struct Environment {
    variables: BTreeMap<String, OsString>,
    current_dir: Option<PathBuf>,
}

impl Environment {
    fn of_process() -> Self {
        let names = [
            "SPARK_HOME",
            "SPARK_CONF_DIR",
            "SPARK_HISTORY_OPTS",
            "SPARK_LOCAL_IP",
            archive::SUBMIT_OPTIONS,
            "MEZZ_SPARK_BRIDGE",
            "HOME",
            "PATH",
            "PYTHONPATH",
        ];
        let variables =
            names.iter().filter_map(|n| Some(((*n).to_owned(), std::env::var_os(n)?))).collect();
        Self { variables, current_dir: std::env::current_dir().ok() }
    }

    /// The variable, unless it is not set or empty.
    fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
}

/// What Spark's program is called with.
#[derive(Debug)]
struct Line {
    arguments: Vec<OsString>,
    /// Options of the driver's JVM, in the variable that Spark's scripts take them from.
    submit_options: Option<OsString>,
}

/// `with_secret` makes a file of these settings and a new secret, and returns its path.
fn arguments(
    options: &SparkOptions,
    home: &Path,
    jar: &Path,
    environment: &Environment,
    user_args: &[OsString],
    with_secret: impl FnOnce(&str) -> Result<PathBuf, SubmitError>,
) -> Result<Line, SubmitError> {
    let user = Arguments::read(user_args);
    if user.deploy_mode().as_deref() == Some("cluster") {
        return Err(SubmitError::ClusterMode);
    }
    let master = master(options, &user)?;
    let text = settings::read(&user, home, environment)?;

    let mut all: Vec<OsString> = Vec::new();
    // Before the user's, so that a setting of theirs wins.
    let mut bin = OsString::from("spark.mezz.bin=");
    bin.push(&options.mezz_bin);
    all.extend(["--conf".into(), bin]);
    all.extend(user_args[..user.end].iter().cloned());
    if let Some(master) = master {
        all.extend(["--master".into(), master.into()]);
    }
    if let Some(mode) = options.mode {
        all.extend(["--conf".into(), mode.setting().into()]);
    }
    // Spark forgets the option of clusters other than its own three.
    if let Some(number) = user.executors() {
        all.extend(["--conf".into(), format!("spark.executor.instances={number}").into()]);
    }
    if settings::lack_secret(&user, &text) {
        // In the place of the user's, whose settings it has: of two the last one wins.
        all.extend(["--properties-file".into(), with_secret(&text)?.into()]);
    }
    // After the user's, which it takes in: of two the last one wins, and a
    // setting would lose against it.
    all.push("--driver-class-path".into());
    let theirs = class_path(&user, &text, jar);
    let sharing = setting(&user, &text, archive::SETTING);
    let submit_options = match (&theirs, archive::of(home)) {
        // With other classes at its head no archive fits.
        (None, Some(archive)) if archive::wanted(sharing.as_deref()) => {
            archive::submit_options(&archive, environment.get(archive::SUBMIT_OPTIONS))
        }
        _ => None,
    };
    all.push(match theirs {
        Some(mut theirs) => {
            theirs.push(":");
            theirs.push(jar);
            theirs
        }
        None if submit_options.is_some() => archive::class_path(home, jar),
        None => jar.into(),
    });
    all.extend(user_args[user.end..].iter().cloned());
    Ok(Line { arguments: all, submit_options })
}

/// The master URL to add; `None` when the user's own will do.
fn master(options: &SparkOptions, user: &Arguments) -> Result<Option<String>, SubmitError> {
    if let Some(bad) = options.master.iter().find(|m| !is_address(m)) {
        return Err(SubmitError::BadMaster(bad.clone()));
    }
    let ours = format!("{MASTER_SCHEME}{}", options.master.join(","));
    match user.master() {
        None if options.master.is_empty() => Err(SubmitError::NoMaster),
        None => Ok(Some(ours)),
        Some(given) => {
            let same = given.value == ours;
            let only = options.master.is_empty() && given.value.starts_with(MASTER_SCHEME);
            if same || only {
                Ok(None)
            } else {
                let ours = if options.master.is_empty() { MASTER_SCHEME.to_owned() } else { ours };
                Err(SubmitError::OtherMaster { given: given.text, ours })
            }
        }
    }
}

/// The class path that the driver would have without us: the option has the last word.
/// `mezz spark env` may have put the plugin there.
fn class_path(user: &Arguments, text: &str, jar: &Path) -> Option<OsString> {
    let path = user.driver_class_path();
    let path = path.or_else(|| setting(user, text, CLASS_PATH).map(Into::into))?;
    let parts: Vec<PathBuf> = std::env::split_paths(&path).filter(|part| part != jar).collect();
    // What was split can be joined again.
    std::env::join_paths(parts).ok().filter(|path| !path.is_empty())
}

/// A setting as Spark takes it: of the command line, then of the `text` of files.
fn setting(user: &Arguments, text: &str, key: &str) -> Option<String> {
    let of_user = user.setting(key).filter(|value| !value.is_empty());
    of_user.or_else(|| arguments::property(text, key))
}

/// The folder that Spark reads its settings from.
fn conf_dir(home: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    environment.path("SPARK_CONF_DIR").or_else(|| Some(home?.join("conf")))
}

/// The file's text, unless there is no such file.
fn read_if_there(path: &Path) -> Result<Option<String>, SubmitError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SubmitError::Properties { path: path.to_path_buf(), source }),
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(['/', ',', ' '])
            && port.parse::<u16>().is_ok_and(|p| p > 0)
    })
}
