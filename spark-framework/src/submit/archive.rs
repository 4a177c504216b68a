//! Class data sharing: an archive of Spark's classes, loaded and linked, which the
//! JVMs of drivers and executors map instead of reading jars.
//!
//! It is in Spark's own folder, under one name, and belongs to whom Spark belongs: who can
//! write there can have any code run by Spark's scripts anyway. A JVM checks that
//! it is the one that made it, with the same jars in the same order at the head of its class
//! path; if not, it does without, and says nothing. So a plugin or a Spark that
//! was replaced costs the gain, and nothing else. What it does not check is that the
//! file is whole.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use thiserror::Error;

use super::{Environment, SparkOptions, SubmitError, locate};

/// The archive's name in Spark's folder; the plugin knows it too.
pub const ARCHIVE: &str = "mezz-classes.jsa";

/// Whether it is used; the plugin reads it for executors.
pub(super) const SETTING: &str = "spark.mezz.classDataSharing";

/// Options of the driver's JVM, which Spark's scripts take.
pub(super) const SUBMIT_OPTIONS: &str = "SPARK_SUBMIT_OPTS";

/// What an archive that does not fit would have a JVM say, on standard output.
const QUIET: &str = "-Xlog:cds*=off";

/// Uses what drivers and executors use.
const TRAINING: &str = include_str!("training.py");

/// Why there is no archive.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// Spark or the plugin is not found.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// Spark's folder belongs to somebody else, or the disk is full.
    #[error(
        "cannot write {}; the archive of Spark's classes is in Spark's own folder, so run this as \
         the user who owns it", path.display()
    )]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The path of Spark or of the plugin has a character that has a meaning in Spark's
    /// scripts or in class paths.
    #[error(
        "{}: an archive cannot be made for a path with blanks, quotes, backslashes or colons: \
         Spark's scripts split the options of its JVMs there. Move it, or name it by a link \
         whose path has none (--spark-home, --bridge-jar)", path.display()
    )]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// Spark did not run.
    #[error("Spark could not be run to see which classes it loads: {status}\n{said}")]
    Training {
        /// How it ended.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// Spark ran and its JVM left no archive.
    #[error(
        "the JVM made no archive; it has to be OpenJDK 17 or newer with its own archive in place \
         (`java -Xshare:dump` makes that)\n{said}"
    )]
    NotMade {
        /// The end of what it said.
        said: String,
    },
}

/// What no path may have that is among the options of a JVM.
const UNFIT: [char; 6] = [' ', '"', '\'', '\\', '\t', '\n'];

/// Whether an archive can be made for this path, and be used.
fn fit(path: &Path) -> Result<(), ArchiveError> {
    let fits = path.to_str().is_some_and(|p| !p.contains(UNFIT) && !p.contains(':'));
    if fits { Ok(()) } else { Err(ArchiveError::Path { path: path.to_owned() }) }
}

/// The archive of the Spark in this folder, where there is one.
pub(super) fn of(home: &Path) -> Option<PathBuf> {
    Some(home.join(ARCHIVE)).filter(|path| path.is_file())
}

/// Whether an archive is to be used that is there; this is the setting's text.
pub(super) fn wanted(setting: Option<&str>) -> bool {
    setting.is_none_or(|text| !text.trim().eq_ignore_ascii_case("false"))
}

/// The head of every class path that an archive is for. Spark's jars are there before its
/// folder of settings: folders can be in no archive.
pub(super) fn class_path(home: &Path, jar: &Path) -> OsString {
    let mut path = jar.as_os_str().to_owned();
    path.push(":");
    path.push(home.join("jars/*"));
    path
}

/// The value of `SPARK_SUBMIT_OPTS` by which the driver's JVM uses the archive; an option
/// that the user gives there wins.
pub(super) fn submit_options(archive: &Path, theirs: Option<&OsStr>) -> Option<OsString> {
    // It is split at blanks, and quotes have their meaning.
    let path = archive.to_str().filter(|p| !p.contains(UNFIT))?;
    let mut all = OsString::from(format!("-XX:SharedArchiveFile={path} {QUIET}"));
    if let Some(theirs) = theirs {
        all.push(" ");
        all.push(theirs);
    }
    Some(all)
}

/// An archive that was made.
#[derive(Debug)]
pub struct Made {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Makes the archive of an installed Spark, in the place of one that is there: runs a
/// small application on this machine alone, for half a minute.
///
/// # Errors
/// [`ArchiveError`] says what to do.
pub fn make_archive(options: &SparkOptions) -> Result<Made, ArchiveError> {
    let environment = Environment::of_process();
    let home = locate::spark_home(options, &environment, "spark-submit")?;
    let home = std::path::absolute(&home).unwrap_or(home);
    let jar = locate::bridge_jar(options, &environment)?;
    fit(&home)?;
    fit(&jar)?;
    let path = home.join(ARCHIVE);
    let new = home.join(format!(".{ARCHIVE}.{}", std::process::id()));
    let work = home.join(format!(".{ARCHIVE}.work.{}", std::process::id()));
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::Write { path, source }
    };
    let made = fs::create_dir(&work)
        .map_err(write(&work))
        .and_then(|()| train(&home, &jar, &new, &work, &environment))
        .and_then(|bytes| {
            // One that is cut off would crash every JVM: it is there as a whole, or not.
            fs::set_permissions(&new, fs::Permissions::from_mode(0o644))
                .and_then(|()| fs::File::open(&new)?.sync_all())
                .and_then(|()| fs::rename(&new, &path))
                .map_err(write(&path))?;
            Ok(Made { path: path.clone(), bytes })
        });
    let _ = fs::remove_dir_all(&work);
    if made.is_err() {
        let _ = fs::remove_file(&new);
    }
    made
}

fn train(
    home: &Path,
    jar: &Path,
    archive: &Path,
    work: &Path,
    environment: &Environment,
) -> Result<u64, ArchiveError> {
    let script = work.join("training.py");
    fs::write(&script, TRAINING)
        .map_err(|source| ArchiveError::Write { path: script.clone(), source })?;
    let mut command = Command::new(home.join("bin/spark-submit"));
    let dump = format!("-XX:ArchiveClassesAtExit={} {QUIET}", archive.display());
    command
        .args(["--master", "local[2]", "--driver-class-path"])
        .arg(class_path(home, jar))
        .args(["--conf", "spark.ui.port=0", "--conf", "spark.driver.host=127.0.0.1", "--conf"])
        .arg(format!("spark.local.dir={}", work.display()))
        .arg(&script)
        .arg(work)
        .env("SPARK_HOME", home)
        .env("SPARK_LOCAL_IP", "127.0.0.1")
        // Settings of this user are not everybody's.
        .env("SPARK_CONF_DIR", work)
        .env(SUBMIT_OPTIONS, dump)
        .current_dir(work)
        .stdin(Stdio::null());
    if let Some(path) = super::python_path(home, environment) {
        command.env("PYTHONPATH", path);
    }
    let output = command.output().map_err(|error| ArchiveError::Training {
        status: error.to_string(),
        said: String::new(),
    })?;
    let said = last_lines(&output.stderr) + &last_lines(&output.stdout);
    if !output.status.success() {
        return Err(ArchiveError::Training { status: output.status.to_string(), said });
    }
    match fs::metadata(archive) {
        Ok(made) if made.len() > 0 => Ok(made.len()),
        _ => Err(ArchiveError::NotMade { said }),
    }
}

fn last_lines(said: &[u8]) -> String {
    const LINES: usize = 20;
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said.lines().collect();
    let mut text = lines[lines.len().saturating_sub(LINES)..].join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_spark_s_scripts_would_split_is_named() {
        fit(Path::new("/opt/spark-4.3/x_y")).unwrap();
        for path in ["/opt/my spark", "/opt/it's", "/opt/a:b", "/opt/a\\b"] {
            let error = fit(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{path}: an archive cannot be made")), "{error}");
            assert_eq!(submit_options(Path::new(path), None).is_some(), path.contains(':'));
        }
    }
}
