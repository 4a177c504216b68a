//! Option texts to values, with all problems reported together.

use std::fmt;

use clap::{ArgMatches, parser::ValueSource};

use super::file::ConfigFile;

/// The options of one command and where each value came from.
pub struct Sources<'a> {
    /// The subcommand's name.
    pub command: &'a str,
    /// Of that subcommand.
    pub matches: &'a ArgMatches,
    /// The file, when there is one.
    pub file: Option<&'a ConfigFile>,
}

impl Sources<'_> {
    /// Where the option's value came from: `flag`, `environment`, the file's
    /// path, or `default`.
    pub fn of(&self, option: &str) -> String {
        let id = option.replace('-', "_");
        match self.matches.value_source(&id) {
            Some(ValueSource::CommandLine) => "flag".to_owned(),
            Some(ValueSource::EnvVariable) => "environment".to_owned(),
            _ => match self.file {
                Some(file) if file.sets(self.command, &id) => file.path().display().to_string(),
                _ => "default".to_owned(),
            },
        }
    }

    /// Every option with its value, those that are not defaults with their
    /// source: `listen=0.0.0.0:5050 ping-interval=20s(flag)`.
    pub fn effective(&self) -> String {
        let mut out = Vec::new();
        for id in self.matches.ids() {
            // A group of options, named as the struct that has them.
            if id.as_str().starts_with(|first: char| first.is_ascii_uppercase()) {
                continue;
            }
            let option = id.as_str().replace('_', "-");
            let Ok(Some(values)) = self.matches.try_get_raw(id.as_str()) else { continue };
            let values: Vec<String> =
                values.map(|value| value.to_string_lossy().into_owned()).collect();
            let source = match self.of(&option) {
                source if source == "default" => String::new(),
                source => format!("({source})"),
            };
            out.push(format!("{option}={}{source}", values.join(",")));
        }
        out.sort();
        out.join(" ")
    }
}

/// Everything that is wrong with a command's options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// The subcommand, for the hint at the end.
    pub command: String,
    /// A sentence each.
    pub problems: Vec<String>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "{one}")?,
            several => {
                write!(f, "{} problems with the options:", several.len())?;
                for problem in several {
                    write!(f, "\n  {problem}")?;
                }
            }
        }
        write!(f, "\n\nFor more information, try 'mezz {} --help'.", self.command)
    }
}

/// Parses options and collects what is wrong with them.
pub struct Checker<'a> {
    sources: &'a Sources<'a>,
    problems: Vec<String>,
}

impl<'a> Checker<'a> {
    /// Nothing checked, nothing wrong.
    pub fn new(sources: &'a Sources<'a>) -> Self {
        Self { sources, problems: Vec::new() }
    }

    /// Parses an option's text into `target`; notes the problem if it has one.
    pub fn set<T>(
        &mut self,
        option: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        target: &mut T,
    ) {
        match parse(text) {
            Ok(value) => *target = value,
            Err(problem) => self.problem(option, &problem),
        }
    }

    /// Parses every text of a list.
    pub fn set_all<T>(
        &mut self,
        option: &str,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
        target: &mut Vec<T>,
    ) {
        target.clear();
        for text in texts {
            match parse(text) {
                Ok(value) => target.push(value),
                Err(problem) => self.problem(option, &problem),
            }
        }
    }

    /// Notes a problem of one option.
    pub fn problem(&mut self, option: &str, problem: &str) {
        let source = match self.sources.of(option) {
            source if source == "default" || source == "flag" => String::new(),
            source => format!(" (from {source})"),
        };
        self.problems.push(format!("--{option}{source}: {problem}"));
    }

    /// Notes a problem unless `holds`.
    pub fn require(&mut self, holds: bool, option: &str, problem: impl FnOnce() -> String) {
        if !holds {
            self.problem(option, &problem());
        }
    }

    /// Whether nothing has been wrong so far: relations between options are worth
    /// checking only then.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// # Errors
    /// Every problem noted.
    pub fn finish(self) -> Result<(), Problems> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Problems { command: self.sources.command.to_owned(), problems: self.problems })
    }
}
