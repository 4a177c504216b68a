//! `mezz spark env`.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use mezz_spark::submit::{self, DEFAULTS, Mode, SparkOptions};

use crate::{client::MasterList, output};

/// Print the settings by which any Spark program of this machine knows the cluster
///
/// They are those of Spark's file `spark-defaults.conf`. With --write they go into a
/// folder, and what is printed makes a shell use it: `eval "$(mezz spark env --write
/// ~/.spark-mezz)"`. Then a stock `spark-submit`, or a Python program with PySpark from
/// pip, runs on the cluster.
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// Write spark-defaults.conf into this folder. Settings that are there stay; where
    /// there are none, those that Spark uses now are taken over. With spark.authenticate
    /// and no secret among them, a new one is made, for its owner's eyes alone
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// What holds cores: executors while they live, or tasks while they run: coarse or
    /// fine [default: what spark.mezz.coarse says]
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// mezz-spark-bridge.jar [env: MEZZ_SPARK_BRIDGE] [default: beside this program]
    #[arg(long, value_name = "FILE")]
    bridge_jar: Option<PathBuf>,
    /// The masters.
    #[command(flatten)]
    masters: MasterList,
}

/// Prints or writes the settings.
///
/// # Errors
/// When the plugin is not found, or the file cannot be read or written.
pub fn run(args: &EnvArgs) -> anyhow::Result<()> {
    let options = SparkOptions {
        master: args.masters.checked()?,
        bridge_jar: args.bridge_jar.clone(),
        mode: args.mode.as_deref().map(Mode::parse).transpose()?,
        ..super::own_options()?
    };
    let defaults = submit::spark_defaults(&options, args.write.as_deref())?;
    let Some(folder) = &args.write else {
        eprintln!("# For a spark-defaults.conf; --write DIR makes one.");
        return Ok(output::write(&defaults.text)?);
    };
    let file = folder.join(DEFAULTS);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    replace(&file, &defaults.text, defaults.secret)
        .with_context(|| format!("cannot write {}", file.display()))?;
    // Programs run in other folders.
    let folder = std::path::absolute(folder)?;
    Ok(output::write(&format!("export SPARK_CONF_DIR={}\n", quoted(&folder.to_string_lossy())))?)
}

/// Puts a file in its place in one step. Nobody else may read a new one, for the settings
/// taken over may hold secrets; an old one stays as readable as it was, unless a secret
/// was made for it.
fn replace(file: &Path, text: &str, secret: bool) -> io::Result<()> {
    let new = file.with_extension(format!("conf.{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut open| open.write_all(text.as_bytes()).and_then(|()| open.sync_all()))
        .and_then(|()| match fs::metadata(file) {
            Ok(_) if secret => Ok(()),
            Ok(old) => fs::set_permissions(&new, old.permissions()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
        .and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_its_owners_and_an_old_one_as_it_was() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("spark-defaults.conf");
        let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        replace(&file, "a 1\n", false).unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&file, "a 2\n", false).unwrap();
        assert_eq!((mode(), fs::read_to_string(&file).unwrap().as_str()), (0o640, "a 2\n"));
        replace(&file, "a 3\n", true).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_shell_reads_the_folder_as_one_word() {
        assert_eq!(quoted("/home/ann/.spark-mezz"), "/home/ann/.spark-mezz");
        assert_eq!(quoted("/home/ann's spark"), "'/home/ann'\\''s spark'");
    }
}
