//! Where options come from: flags, then `MEZZ_*` environment, then a TOML file,
//! then defaults.

mod check;
#[cfg(test)]
mod deploy_tests;
mod file;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{ArgMatches, FromArgMatches};

pub use check::{Checker, Problems, Sources};
pub use file::ConfigFile;

use crate::cli::Cli;

/// A command line that could be read.
pub struct Parsed {
    /// As typed values.
    pub cli: Cli,
    /// The program's own matches, for the sources of values.
    pub matches: ArgMatches,
    /// The configuration file, when there is one.
    pub file: Option<ConfigFile>,
}

impl Parsed {
    /// The subcommand's name and matches.
    pub fn subcommand(&self) -> (&str, &ArgMatches) {
        self.matches.subcommand().unwrap_or(("", &self.matches))
    }
}

/// Why a command line could not be read.
pub enum ParseError {
    /// clap's: help, version or usage.
    Clap(clap::Error),
    /// The configuration file's.
    File(Problems),
}

/// Reads the command line (`args[0]` is the program), the environment and the
/// configuration file that one of them names.
///
/// # Errors
/// [`ParseError`], to be shown to the user.
pub fn parse(args: &[OsString]) -> Result<Parsed, ParseError> {
    parse_with(args, std::env::var_os("MEZZ_CONFIG"))
}

fn parse_with(args: &[OsString], from_env: Option<OsString>) -> Result<Parsed, ParseError> {
    let mut command = Cli::definition();
    let path = config_flag(args).or(from_env).filter(|p| !p.is_empty()).map(PathBuf::from);
    let file = match path {
        None => None,
        Some(path) => {
            let file = ConfigFile::read(&path, &command).map_err(|problems| {
                ParseError::File(Problems { command: subcommand_word(args), problems })
            })?;
            command = file.apply(command);
            Some(file)
        }
    };
    let matches = command.try_get_matches_from_mut(args).map_err(ParseError::Clap)?;
    let cli = Cli::from_arg_matches(&matches).map_err(ParseError::Clap)?;
    if cli.config.is_some() && file.is_none() {
        let problem = "--config goes before `spark`".to_owned();
        let command = subcommand_word(args);
        return Err(ParseError::File(Problems { command, problems: vec![problem] }));
    }
    Ok(Parsed { cli, matches, file })
}

fn subcommand_word(args: &[OsString]) -> String {
    args.get(1)
        .filter(|a| !a.to_string_lossy().starts_with('-'))
        .map_or_else(String::new, |a| a.to_string_lossy().into_owned())
}

/// The value of `--config`, which has to be known before clap can be asked: the
/// file's values are clap's defaults. What follows `--`, or `spark`, whose
/// commands have arguments of their own, is not ours.
fn config_flag(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        if arg == OsStr::new("--") || arg == OsStr::new("spark") {
            return None;
        }
        if arg == OsStr::new("--config") {
            return args.next().cloned();
        }
        if let Some(value) = arg.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(value.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::Command;

    fn args(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn ping_interval(parsed: &Parsed) -> (String, String) {
        let Command::Master(master) = &parsed.cli.command else { panic!("not a master") };
        let (command, matches) = parsed.subcommand();
        let sources = Sources { command, matches, file: parsed.file.as_ref() };
        (master.ping_interval.clone(), sources.of("ping-interval"))
    }

    fn parse_ok(line: &str, env: Option<&OsStr>) -> Parsed {
        match parse_with(&args(line), env.map(OsStr::to_owned)) {
            Ok(parsed) => parsed,
            Err(ParseError::Clap(error)) => panic!("{error}"),
            Err(ParseError::File(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = file("[master]\nping-interval = '20s'\n");
        let path = file.path().to_str().unwrap();
        let default = parse_ok("mezz master", None);
        assert_eq!(ping_interval(&default), ("15s".to_owned(), "default".to_owned()));
        let from_file = parse_ok(&format!("mezz master --config {path}"), None);
        assert_eq!(ping_interval(&from_file), ("20s".to_owned(), path.to_owned()));
        let before = parse_ok(&format!("mezz --config={path} master"), None);
        assert_eq!(ping_interval(&before).0, "20s");
        let by_env = parse_ok("mezz master", Some(file.path().as_os_str()));
        assert_eq!(ping_interval(&by_env).0, "20s");
        let flag = parse_ok(&format!("mezz master --ping-interval 3s --config {path}"), None);
        assert_eq!(ping_interval(&flag), ("3s".to_owned(), "flag".to_owned()));
    }

    #[test]
    fn a_file_can_set_what_is_required_and_lists() {
        let file = file("[agent]\nmaster = ['a:5050', 'b:5050']\n[client]\nmaster = 'c:5050'\n");
        let path = file.path().to_str().unwrap();
        let parsed = parse_ok(&format!("mezz agent --config {path}"), None);
        let Command::Agent(agent) = &parsed.cli.command else { panic!("not an agent") };
        assert_eq!(agent.master, ["a:5050", "b:5050"]);
        let parsed = parse_ok(&format!("mezz task kill x --config {path}"), None);
        let Command::Task(task) = &parsed.cli.command else { panic!("not a task") };
        assert_eq!(task.client().masters.master, ["c:5050"]);
        let parsed = parse_ok(&format!("mezz agent drain x --config {path}"), None);
        let (_, matches) = parsed.subcommand();
        let (_, drain) = matches.subcommand().unwrap();
        let masters: Vec<&String> = drain.get_many("master").unwrap().collect();
        assert_eq!(masters, ["c:5050"]);
    }

    #[test]
    fn a_server_below_another_command_has_a_table_of_its_own() {
        let file =
            file("[dispatcher]\nmax-queued = 3\nmaster = ['a:1']\n[client]\nmaster = 'c:1'\n");
        let path = file.path().to_str().unwrap();
        let parsed = parse_ok(&format!("mezz --config {path} spark dispatcher"), None);
        let (_, spark) = parsed.subcommand();
        let (_, matches) = spark.subcommand().unwrap();
        let get = |id: &str| matches.get_many::<String>(id).unwrap().next().unwrap().clone();
        assert_eq!((get("max_queued").as_str(), get("master").as_str()), ("3", "a:1"));
        let sources = Sources { command: "spark dispatcher", matches, file: parsed.file.as_ref() };
        assert_eq!(sources.of("max-queued"), path);
        assert_eq!(sources.of("max-ended"), "default");
    }

    #[test]
    fn what_follows_two_dashes_is_not_ours() {
        assert_eq!(config_flag(&args("mezz run --name x -- cmd --config y")), None);
        assert_eq!(config_flag(&args("mezz spark submit --config y app.py")), None);
        assert_eq!(config_flag(&args("mezz master --config y")), Some("y".into()));
    }

    #[test]
    fn the_effective_configuration_names_sources() {
        let parsed = parse_ok("mezz master --ping-interval 3s", None);
        let (command, matches) = parsed.subcommand();
        let text = Sources { command, matches, file: None }.effective();
        assert!(text.contains("ping-interval=3s(flag)"), "{text}");
        assert!(text.contains(" max-missed-pings=5 "), "{text}");
    }
}
