//! The files of `deploy/`, and the documents about them, name options and metrics that there
//! are, and no others.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::Command;

use super::ConfigFile;
use crate::cli::Cli;

fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn deploy(file: &str) -> PathBuf {
    repository("deploy").join(file)
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The variables of all commands.
fn variables(command: &Command, found: &mut BTreeSet<String>) {
    for option in command.get_arguments() {
        found.extend(option.get_env().map(|name| name.to_string_lossy().into_owned()));
    }
    for nested in command.get_subcommands() {
        variables(nested, found);
    }
}

/// The flags of all commands, without their dashes.
fn flags(command: &Command, found: &mut BTreeSet<String>) {
    found.extend(command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)));
    for nested in command.get_subcommands() {
        flags(nested, found);
    }
}

/// The flags that a document speaks of and that are not plainly another program's: what is
/// between backticks, and lines of blocks of code, may begin with that program.
fn flags_in(text: &str) -> BTreeSet<String> {
    let mut pieces = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            pieces.push(line);
        } else {
            pieces.extend(line.split('`').skip(1).step_by(2));
        }
    }
    let ours = pieces.into_iter().filter(|piece| {
        let program = piece.split_whitespace().next().unwrap_or_default();
        program.starts_with("--") || program == "mezz"
    });
    let words = ours.flat_map(str::split_whitespace).filter_map(|word| word.strip_prefix("--"));
    let name = |word: &str| {
        let end = word.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(word.len());
        word[..end].to_owned()
    };
    words.map(name).filter(|name| !name.is_empty()).collect()
}

/// Words of a text that begin so.
fn words(text: &str, beginning: &str) -> BTreeSet<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !plain(c)).filter(|word| word.starts_with(beginning));
    // Of a histogram; and a text may speak of all that begins so.
    words
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .filter(|word| !word.ends_with('_'))
        .collect()
}

/// What is set by the lines of a file, `NAME=…` or `NAME: …`; not `${NAME:-…}`, which
/// docker-compose itself puts in.
fn set_by(file: &Path) -> BTreeSet<String> {
    let text = read(file).replace("${", "$");
    let names = text.split(['\n', '{', ',']).filter_map(|part| {
        let (name, _) = part.trim().trim_start_matches("Environment=").split_once(['=', ':'])?;
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        (name.starts_with("MEZZ_") && name.chars().all(plain)).then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn the_example_of_a_configuration_file_is_right() {
    let file = deploy("example/mezz.toml");
    if let Err(problems) = ConfigFile::read(&file, &Cli::definition()) {
        panic!("{problems:#?}");
    }
}

#[test]
fn every_variable_that_is_set_is_an_option() {
    let mut known = BTreeSet::from(["MEZZ_CONFIG".to_owned()]);
    variables(&Cli::definition(), &mut known);
    for (file, least) in [
        ("docker-compose.yml", 12),
        ("example/master.env", 2),
        ("example/agent.env", 4),
        ("example/dispatcher.env", 2),
        ("systemd/mezz-master.service", 1),
        ("systemd/mezz-agent.service", 1),
        ("systemd/mezz-spark-dispatcher.service", 1),
    ] {
        let set = set_by(&deploy(file));
        assert!(set.len() >= least, "{file}: {set:?}");
        let unknown: Vec<_> = set.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?} are no variables of `mezz`");
    }
}

#[test]
fn every_flag_in_the_documents_is_an_option() {
    let mut known = BTreeSet::new();
    flags(&Cli::definition(), &mut known);
    for (file, least) in [("docs/production.md", 15), ("docs/high-availability.md", 8)] {
        let told = flags_in(&read(&repository(file)));
        assert!(told.len() >= least, "{file}: {told:?}");
        let unknown: Vec<_> = told.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?} are no options of `mezz`");
    }
}

#[test]
fn every_metric_of_the_alerts_is_there() {
    for (servers, beginning, in_alerts, in_document) in [
        ("master/src/shell", "mezz_master_", 3, 4),
        ("agent/src", "mezz_agent_", 3, 4),
        ("spark-framework/src/dispatcher", "mezz_dispatcher_", 2, 3),
    ] {
        let known = words(&read(&repository(servers).join("metrics.rs")), beginning);
        let files = [("deploy/example/alerts.yml", in_alerts), ("docs/production.md", in_document)];
        for (file, least) in files {
            let told = words(&read(&repository(file)), beginning);
            assert!(told.len() >= least, "{file}: {told:?}");
            let unknown: Vec<_> = told.difference(&known).collect();
            assert!(unknown.is_empty(), "{file}: {unknown:?} are no metrics");
        }
    }
}
