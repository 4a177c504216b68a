//! Reading what the user wants of `spark-submit`, without changing it.

use std::ffi::{OsStr, OsString};

use crate::dispatcher::properties;

/// Spark 4: read `spark-defaults.conf` besides the `--properties-file`.
const LOAD_DEFAULTS: &str = "--load-spark-defaults";

/// Options without a value; all others take one.
const SWITCHES: [&str; 11] = [
    "--verbose",
    "-v",
    "--supervise",
    "--help",
    "-h",
    "--usage-error",
    "--version",
    "--list",
    "--repl",
    "--bare",
    LOAD_DEFAULTS,
];

/// An option or setting, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// Its value.
    pub(super) value: String,
    /// The whole, for messages.
    pub(super) text: String,
}

/// The user's options of Spark's.
#[derive(Debug)]
pub(super) struct Arguments {
    /// Name and value, in order; switches have none.
    options: Vec<(String, OsString)>,
    /// Whether [`LOAD_DEFAULTS`] is among them.
    pub(super) load_defaults: bool,
    /// Where Spark's options end and the application begins.
    pub(super) end: usize,
}

impl Arguments {
    /// Reads up to the application: its jar or script and what follows is its own.
    pub(super) fn read(args: &[OsString]) -> Self {
        let mut options = Vec::new();
        let mut load_defaults = false;
        let mut at = 0;
        while at < args.len() {
            let text = args[at].to_string_lossy();
            if !text.starts_with('-') || text == "-" {
                break;
            }
            if let Some((name, value)) = text.split_once('=').filter(|_| text.starts_with("--")) {
                options.push((name.to_owned(), value.into()));
                at += 1;
            } else if SWITCHES.contains(&text.as_ref()) {
                load_defaults |= text == LOAD_DEFAULTS;
                at += 1;
            } else {
                let value = args.get(at + 1).cloned().unwrap_or_default();
                options.push((text.into_owned(), value));
                at += 2;
            }
        }
        Self { options, load_defaults, end: at.min(args.len()) }
    }

    /// `--master`, or the same as a setting.
    pub(super) fn master(&self) -> Option<Given> {
        self.option("--master")
            .map(|v| given("--master ", v))
            .or_else(|| self.setting("spark.master").map(|v| given("--conf spark.master=", v)))
    }

    /// `--deploy-mode`, or the same as a setting.
    pub(super) fn deploy_mode(&self) -> Option<String> {
        self.option("--deploy-mode")
            .map(|v| v.to_string_lossy().into_owned())
            .or_else(|| self.setting("spark.submit.deployMode"))
    }

    /// `--num-executors`.
    pub(super) fn executors(&self) -> Option<String> {
        self.option("--num-executors").map(|v| v.to_string_lossy().into_owned())
    }

    /// `--driver-class-path`.
    pub(super) fn driver_class_path(&self) -> Option<OsString> {
        self.option("--driver-class-path").filter(|v| !v.is_empty()).map(OsStr::to_owned)
    }

    /// `--properties-file`.
    pub(super) fn properties_file(&self) -> Option<&OsStr> {
        self.option("--properties-file")
    }

    fn option(&self, name: &str) -> Option<&OsStr> {
        self.options.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_os_str())
    }

    /// A setting of the command line.
    pub(super) fn setting(&self, key: &str) -> Option<String> {
        self.options.iter().rev().filter(|(n, _)| n == "--conf" || n == "-c").find_map(|(_, v)| {
            let text = v.to_string_lossy();
            let (k, v) = text.split_once('=')?;
            (k.trim() == key).then(|| v.to_owned())
        })
    }
}

fn given(prefix: &str, value: impl AsRef<OsStr>) -> Given {
    let value = value.as_ref().to_string_lossy().into_owned();
    Given { text: format!("{prefix}{value}"), value }
}

/// A setting of a file of settings.
pub(super) fn property(text: &str, key: &str) -> Option<String> {
    properties::read(text).remove(key).filter(|value| !value.is_empty())
}
