//! Spark's file of settings for a Mezz cluster: with it every Spark program of this
//! machine, started in whatever way, knows `spark-mezz://`.

use std::path::{Path, PathBuf};

use super::{
    CLASS_PATH, Environment, MASTER_SCHEME, SparkOptions, SubmitError, arguments, is_address,
    locate,
};
use crate::secret;

/// First line of ours, and the mark by which they are found again.
const BEGIN: &str = "# Written by `mezz spark env`: Spark on Mezz.";
const END: &str = "# End of what `mezz spark env` wrote.";

/// A `spark-defaults.conf`.
#[derive(Debug)]
pub struct SparkDefaults {
    /// What is in it.
    pub text: String,
    /// Whether a secret was made for it, so that nobody else may read it.
    pub secret: bool,
}

/// The text of a `spark-defaults.conf`: what Mezz needs, after the settings that hold
/// already. Those are in `folder`, where the file is to be; or, where there is none
/// yet, in the folder that Spark reads now. Without a folder it is what Mezz needs alone,
/// for the others may be secret. In a folder that asks for `spark.authenticate` without
/// a secret it has a new one, which all programs share that read it.
///
/// # Errors
/// [`SubmitError`] when the plugin is not found, a master is no address, or the file
/// cannot be read.
pub fn spark_defaults(
    options: &SparkOptions,
    folder: Option<&Path>,
) -> Result<SparkDefaults, SubmitError> {
    compose(options, &Environment::of_process(), folder)
}

pub(super) fn compose(
    options: &SparkOptions,
    environment: &Environment,
    folder: Option<&Path>,
) -> Result<SparkDefaults, SubmitError> {
    if let Some(bad) = options.master.iter().find(|m| !is_address(m)) {
        return Err(SubmitError::BadMaster(bad.clone()));
    }
    if options.master.is_empty() {
        return Err(SubmitError::NoMaster);
    }
    let jar = locate::bridge_jar(options, environment)?;
    let jar = jar.to_string_lossy();
    let theirs = theirs(options, environment, folder)?;
    let mut settings = vec![
        ("spark.master", format!("{MASTER_SCHEME}{}", options.master.join(","))),
        ("spark.mezz.bin", options.mezz_bin.to_string_lossy().into_owned()),
    ];
    if let Some((key, value)) = options.mode.and_then(|mode| mode.setting().split_once('=')) {
        settings.push((key, value.to_owned()));
    }
    // Of two lines with one key Spark takes the last.
    let class_path = match arguments::property(&theirs, CLASS_PATH) {
        Some(path) if path.split(':').any(|part| part == jar) => path,
        Some(path) => format!("{path}:{jar}"),
        None => jar.into_owned(),
    };
    settings.push((CLASS_PATH, class_path));
    let lacking = secret::is_lacking(|key| arguments::property(&theirs, key));
    let secret = folder.is_some() && lacking;
    if secret {
        settings.push((secret::SECRET, secret::make().map_err(SubmitError::Secret)?));
    }
    let mut text = if folder.is_some() { theirs } else { String::new() };
    text.push_str(BEGIN);
    text.push('\n');
    for (key, value) in settings {
        // The file is one of Java's properties.
        text.push_str(&format!("{key} {}\n", value.replace('\\', "\\\\")));
    }
    text.push_str(END);
    text.push('\n');
    Ok(SparkDefaults { text, secret })
}

/// What is there and is not ours; empty, or with a newline at its end.
fn theirs(
    options: &SparkOptions,
    environment: &Environment,
    folder: Option<&Path>,
) -> Result<String, SubmitError> {
    let now = || {
        let home = locate::spark_home(options, environment, "spark-submit").ok();
        super::conf_dir(home.as_deref(), environment)
    };
    let places = folder.map(Path::to_path_buf).into_iter().chain(now());
    let mut found = String::new();
    for path in places.map(|folder: PathBuf| folder.join(super::DEFAULTS)) {
        if let Some(text) = super::read_if_there(&path)? {
            found = text;
            break;
        }
    }
    let mut ours = false;
    let mut kept = String::new();
    for line in found.lines() {
        match line {
            BEGIN => ours = true,
            END => ours = false,
            _ if ours => {}
            _ => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    Ok(kept)
}
