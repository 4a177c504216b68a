//! The files of `deploy/` name options that there are, and no others.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::Command;

use super::ConfigFile;
use crate::cli::Cli;

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
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

/// What is set by the lines of a file, `NAME=…` or `NAME: …`; not `${NAME:-…}`, which
/// docker-compose itself puts in.
fn set_by(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let text = text.replace("${", "$");
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
