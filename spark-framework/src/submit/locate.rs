//! Finding Spark and the plugin.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Environment, SparkOptions, SubmitError};

/// The plugin's file name.
const JAR: &str = "mezz-spark-bridge.jar";

/// Where a Spark of Mezz' own may be: a folder of this name beside or above the
/// program, in the current folder or in the home folder.
const PRIVATE: &str = ".mezz/spark";

/// Prints where the Spark is that `import pyspark` finds.
const FIND_PYSPARK: &str = "import importlib.util as u; s = u.find_spec('pyspark'); \
                            print(s.submodule_search_locations[0] if s else '')";

/// Where Spark is installed: the option, SPARK_HOME, the `pyspark` of python3, a
/// private copy.
pub(super) fn spark_home(
    options: &SparkOptions,
    environment: &Environment,
    program: &str,
) -> Result<PathBuf, SubmitError> {
    let named = [
        ("--spark-home", options.spark_home.clone()),
        ("SPARK_HOME", environment.path("SPARK_HOME")),
    ];
    for (option, path) in named {
        if let Some(path) = path {
            return match lacks(&path, program) {
                None => Ok(path),
                Some(missing) => Err(SubmitError::NotSpark { option, path, missing }),
            };
        }
    }
    if let Some(home) = pyspark(environment).filter(|h| lacks(h, program).is_none()) {
        return Ok(home);
    }
    let folders = private_folders(options, environment);
    folders
        .iter()
        .flat_map(|folder| homes_in(folder))
        .find(|home| lacks(home, program).is_none())
        .ok_or_else(|| {
            let mut looked = vec!["the python3 on PATH".to_owned()];
            looked.extend(folders.iter().map(|f| f.display().to_string()));
            SubmitError::NoSpark { looked: looked.join(", ") }
        })
}

/// The plugin: the option, MEZZ_SPARK_BRIDGE, beside the program, in its share
/// folder.
pub(super) fn bridge_jar(
    options: &SparkOptions,
    environment: &Environment,
) -> Result<PathBuf, SubmitError> {
    let named = [
        ("--bridge-jar", options.bridge_jar.clone()),
        ("MEZZ_SPARK_BRIDGE", environment.path("MEZZ_SPARK_BRIDGE")),
    ];
    for (option, path) in named {
        if let Some(path) = path {
            if !path.is_file() {
                return Err(SubmitError::BridgeMissing { option, path });
            }
            // The driver may work in another folder.
            return Ok(std::path::absolute(&path).unwrap_or(path));
        }
    }
    let beside = options.mezz_bin.parent().unwrap_or(Path::new(""));
    let places = [beside.join(JAR), beside.join("../share/mezz").join(JAR)];
    places.iter().find(|p| p.is_file()).cloned().ok_or_else(|| SubmitError::NoBridge {
        looked: places.map(|p| p.display().to_string()).join(", "),
    })
}

/// What a folder lacks to be Spark's.
fn lacks(home: &Path, program: &str) -> Option<String> {
    if !home.join("bin").join(program).is_file() {
        Some(format!("bin/{program}"))
    } else if !home.join("jars").is_dir() {
        Some("jars".to_owned())
    } else {
        None
    }
}

/// The Spark that `pip install pyspark` made, when python3 has one.
fn pyspark(environment: &Environment) -> Option<PathBuf> {
    let path = environment.get("PATH")?;
    let output = Command::new("python3")
        .args(["-c", FIND_PYSPARK])
        .env("PATH", path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let home = String::from_utf8(output.stdout).ok()?;
    let home = home.trim();
    (!home.is_empty()).then(|| PathBuf::from(home))
}

fn private_folders(options: &SparkOptions, environment: &Environment) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let here = environment.current_dir.clone();
    let above = options.mezz_bin.ancestors().skip(1).map(Path::to_path_buf);
    for folder in here.into_iter().chain(above).chain(environment.path("HOME")) {
        let folder = folder.join(PRIVATE);
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The folder itself, and the `pyspark` of the virtual environment that it may be.
fn homes_in(folder: &Path) -> Vec<PathBuf> {
    let mut homes = vec![folder.to_path_buf()];
    let mut pythons: Vec<PathBuf> = std::fs::read_dir(folder.join("lib"))
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    pythons.sort();
    homes.extend(pythons.into_iter().map(|p| p.join("site-packages/pyspark")));
    homes
}
