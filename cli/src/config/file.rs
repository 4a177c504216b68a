//! The TOML file: a table for each kind of command, whose keys are the options'
//! names.
//!
//! The file's values become the defaults of the very same options that flags
//! and environment set, so that no option is defined twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::Command;
use toml::{Table, Value};

/// Commands that run servers have a table of their own; the others share one.
const SERVERS: [&str; 4] = ["master", "agent", "local", DISPATCHER];

/// The table of `mezz spark dispatcher`, a server below another command.
const DISPATCHER: &str = "dispatcher";

/// The table of the commands that ask a master.
pub const CLIENT: &str = "client";

/// Options that make no sense in a file.
const NOT_IN_FILES: [&str; 3] = ["help", "version", "config"];

/// What the file sets.
#[derive(Debug, Default)]
pub struct ConfigFile {
    path: PathBuf,
    /// Table, option id, texts.
    values: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl ConfigFile {
    /// Reads the file and checks every table and key against `command`'s options.
    ///
    /// # Errors
    /// All problems, a sentence each; every one names the file.
    pub fn read(path: &Path, command: &Command) -> Result<Self, Vec<String>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("configuration file {}: {error}", path.display())])?;
        Self::parse(path, &text, command)
    }

    fn parse(path: &Path, text: &str, command: &Command) -> Result<Self, Vec<String>> {
        let file = path.display();
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| vec![format!("{file} is no TOML: {error}")])?;
        let mut out = Self { path: path.to_owned(), values: BTreeMap::new() };
        let mut problems = Vec::new();
        for (section, value) in table {
            let Some(options) = options_of(&section, command) else {
                let names = SERVERS.iter().chain([&CLIENT]).map(ToString::to_string).collect();
                problems
                    .push(format!("{file}: no table `{section}`{}", suggestion(&section, &names)));
                continue;
            };
            let Value::Table(entries) = value else {
                problems.push(format!("{file}: `{section}` has to be a table, [{section}]"));
                continue;
            };
            for (key, value) in entries {
                let id = key.replace('-', "_");
                if !options.contains_key(&id) {
                    let names = options.values().map(|o| o.long.clone()).collect();
                    problems.push(format!(
                        "{file}: unknown key `{key}` in [{section}]{}",
                        suggestion(&key, &names)
                    ));
                    continue;
                }
                match texts(&value, options[&id].several) {
                    Ok(texts) => {
                        out.values.entry(section.clone()).or_default().insert(id, texts);
                    }
                    Err(problem) => {
                        problems.push(format!("{file}: `{key}` in [{section}] {problem}"));
                    }
                }
            }
        }
        if problems.is_empty() { Ok(out) } else { Err(problems) }
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file sets this option of this subcommand.
    pub fn sets(&self, subcommand: &str, id: &str) -> bool {
        self.values.get(table_of(subcommand)).is_some_and(|t| t.contains_key(id))
    }

    /// Makes the file's values the defaults of the options.
    #[must_use]
    pub fn apply(&self, command: Command) -> Command {
        command.mut_subcommands(|sub| {
            let table = table_of(sub.get_name()).to_owned();
            let sub = self.set_defaults(sub, &table);
            // `mezz agent drain` asks a master, as all commands do that are not
            // servers themselves.
            let spark = table == CLIENT;
            sub.mut_subcommands(|nested| match nested.get_name() {
                DISPATCHER if spark => self.set_defaults(nested, DISPATCHER),
                _ => self.set_all_defaults(nested, CLIENT),
            })
        })
    }
}

impl ConfigFile {
    fn set_defaults(&self, command: Command, table: &str) -> Command {
        let Some(values) = self.values.get(table) else { return command };
        command.mut_args(|arg| match values.get(arg.get_id().as_str()) {
            Some(texts) => arg.required(false).default_values(texts.clone()),
            None => arg,
        })
    }

    fn set_all_defaults(&self, command: Command, table: &str) -> Command {
        let command = self.set_defaults(command, table);
        command.mut_subcommands(|nested| self.set_all_defaults(nested, table))
    }
}

fn table_of(subcommand: &str) -> &str {
    let subcommand = subcommand.strip_prefix("spark ").unwrap_or(subcommand);
    if SERVERS.contains(&subcommand) { subcommand } else { CLIENT }
}

struct FileOption {
    long: String,
    several: bool,
}

/// The options that a table may set, by id; `None` when there is no such table.
fn options_of(section: &str, command: &Command) -> Option<BTreeMap<String, FileOption>> {
    if section == CLIENT {
        // Those that all commands that ask a master have.
        let sub = command.find_subcommand("agents")?;
        let shared = ["leader_timeout", "master", "output"];
        return Some(file_options(sub).filter(|(id, _)| shared.contains(&id.as_str())).collect());
    }
    let above = match section {
        DISPATCHER => command.find_subcommand("spark")?,
        _ => command,
    };
    SERVERS
        .contains(&section)
        .then(|| above.find_subcommand(section).map(|sub| file_options(sub).collect()))?
}

fn file_options(command: &Command) -> impl Iterator<Item = (String, FileOption)> {
    command.get_arguments().filter_map(|arg| {
        let id = arg.get_id().as_str();
        let long = arg.get_long()?.to_owned();
        (!NOT_IN_FILES.contains(&id)).then(|| {
            (id.to_owned(), FileOption { long, several: arg.get_value_delimiter().is_some() })
        })
    })
}

fn texts(value: &Value, several: bool) -> Result<Vec<String>, String> {
    let text = |value: &Value| match value {
        Value::String(s) => Some(s.clone()),
        Value::Integer(i) => Some(i.to_string()),
        Value::Float(f) => Some(f.to_string()),
        Value::Boolean(b) => Some(b.to_string()),
        _ => None,
    };
    match value {
        Value::Array(items) if several => items
            .iter()
            .map(|item| text(item).ok_or_else(|| "has to be a list of texts".to_owned()))
            .collect(),
        Value::Array(_) => Err("takes one value, not a list".to_owned()),
        value => text(value)
            .map(|t| vec![t])
            .ok_or_else(|| "has to be a text, a number, true or false".to_owned()),
    }
}

/// `; did you mean …?`, or all the names when none is near.
fn suggestion(word: &str, names: &BTreeSet<String>) -> String {
    let normal = word.replace('_', "-");
    let nearest = names
        .iter()
        .map(|name| (distance(&normal, name), name))
        .filter(|(d, name)| *d <= (name.len() / 5).max(2))
        .min();
    match nearest {
        Some((_, name)) => format!("; did you mean `{name}`?"),
        None => {
            let all: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("; there are {}", all.join(", "))
        }
    }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn parse(text: &str) -> Result<ConfigFile, Vec<String>> {
        ConfigFile::parse(Path::new("/etc/mezz.toml"), text, &Cli::definition())
    }

    #[test]
    fn unknown_keys_name_key_file_and_nearest() {
        let problems = parse(
            "[master]\nping_intervall = '1s'\nzzzzzzzzzzzzzzzzz = 1\n[agnet]\nx = 1\n\
             [client]\nlisten = 'x'\n",
        )
        .unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:#?}");
        let all = problems.join("\n");
        assert!(problems.iter().all(|p| p.contains("/etc/mezz.toml")), "{all}");
        assert!(
            all.contains("unknown key `ping_intervall` in [master]; did you mean `ping-interval`?"),
            "{all}"
        );
        assert!(all.contains("`zzzzzzzzzzzzzzzzz` in [master]; there are advertise, "), "{all}");
        assert!(all.contains("no table `agnet`; did you mean `agent`?"), "{all}");
        assert!(
            all.contains(
                "unknown key `listen` in [client]; there are leader-timeout, master, output"
            ),
            "{all}"
        );
    }

    #[test]
    fn wrong_kinds_are_refused() {
        let problems =
            parse("master = 1\n[agent]\nresources = []\nhostname = { a = 1 }\nmaster = [[]]\n")
                .unwrap_err()
                .join("\n");
        for part in [
            "`master` has to be a table, [master]",
            "`resources` in [agent] takes one value, not a list",
            "`hostname` in [agent] has to be a text",
            "`master` in [agent] has to be a list of texts",
        ] {
            assert!(problems.contains(part), "{part}: {problems}");
        }
        assert!(parse("[master").unwrap_err()[0].contains("/etc/mezz.toml is no TOML"));
        let missing = ConfigFile::read(Path::new("/nonexistent/x.toml"), &Cli::definition());
        assert!(missing.unwrap_err()[0].contains("/nonexistent/x.toml"));
    }

    #[test]
    fn keys_with_either_dash_and_values_of_all_kinds() {
        let file = parse(
            "[master]\nping-interval = '20s'\nmax_missed_pings = 7\nfilter-gpu-resources = false\n\
             weights = ['a=2', 'b=3']\n",
        )
        .unwrap();
        assert!(file.sets("master", "ping_interval") && file.sets("master", "weights"));
        assert!(!file.sets("agent", "ping_interval"));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
