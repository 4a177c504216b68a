//! What a submission asks for, read from Spark's own `CreateSubmissionRequest`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{files, properties};
use crate::{
    docker::{Docker, DockerError},
    labels::{self, Label},
    policy::Constraints,
    protocol::CustomResource,
    session::is_fetchable,
};

/// How the 4.x client, which takes no Python in this mode, can be told a Python
/// application: arguments are the file, files beside it, and its own arguments.
const PYTHON_RUNNER: &str = "org.apache.spark.deploy.PythonRunner";

/// What stands for "nothing to fetch".
pub const NO_RESOURCE: &str = "spark-internal";

/// Longest text of a job's settings, in bytes: they travel in one variable of the
/// environment, of which Linux takes 128 KiB.
const MAX_PROPERTIES: usize = 112 << 10;

/// Longest record of a job, in bytes: what keeps it takes 1 MiB, with all that is known
/// of its runs. Linux takes no command line of more than 128 KiB anyway.
const MAX_JOB: usize = 512 << 10;

/// What the settings of the driver's container begin with.
const DOCKER: &str = "spark.mezz.driver.docker.";

/// What the settings of the driver's GPUs and the like begin with.
const RESOURCE: &str = "spark.driver.resource.";

/// Spark's least overhead, in MiB.
const LEAST_OVERHEAD: u64 = 384;

/// The message that creates a submission, as Spark's clients from 3.5 to 4.3 send
/// it. What it lacks is found when it is [read](Job::read).
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateRequest {
    /// `CreateSubmissionRequest`.
    pub action: Option<String>,
    /// The jar or script, as a URI or a path of the agents.
    pub app_resource: Option<String>,
    /// The class with `main`; empty for Python.
    pub main_class: Option<String>,
    /// The application's arguments.
    pub app_args: Option<Vec<String>>,
    /// Its settings.
    pub spark_properties: Option<BTreeMap<String, Option<String>>>,
    /// Its environment.
    pub environment_variables: Option<BTreeMap<String, Option<String>>>,
    /// Spark's version at the client.
    pub client_spark_version: Option<String>,
    /// Free text, which nothing reads.
    pub message: Option<String>,
    /// Of our own client: what it has uploaded for this submission.
    pub uploaded_files: Vec<String>,
    /// Names that are not of the protocol.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// A request that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JobError {
    /// Another message.
    #[error("action is `{0}`; only CreateSubmissionRequest creates a submission")]
    Action(String),
    /// A field that has to be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A setting that makes no sense.
    #[error("{key} is `{value}`: {wanted}")]
    Setting {
        /// Its name.
        key: String,
        /// What was given.
        value: String,
        /// What would do.
        wanted: String,
    },
    /// A setting of the driver's container that makes no sense.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// Too many settings.
    #[error(
        "the settings have {0} bytes as text, and at most {MAX_PROPERTIES} are taken; put long \
         values into a file of the application"
    )]
    TooLong(usize),
    /// Too much of everything.
    #[error(
        "arguments, settings and environment have {0} bytes, and at most {MAX_JOB} are taken; put \
         what is long into a file of the application"
    )]
    TooLarge(usize),
}

/// A driver to be run.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// `spark.app.name`.
    pub name: String,
    /// The jar or script.
    pub resource: String,
    /// The class with `main`, for a jar.
    pub main_class: Option<String>,
    /// The application's arguments.
    pub args: Vec<String>,
    /// Its settings. May hold secrets.
    pub properties: BTreeMap<String, String>,
    /// Its environment. May hold secrets.
    pub environment: BTreeMap<String, String>,
    /// Processors for the driver.
    pub cpus: f64,
    /// Memory for the driver, heap and everything beside it, in MiB.
    pub mem_mib: u64,
    /// Whether it is started again when it fails.
    pub supervise: bool,
    /// Of drivers that wait, those of the highest number go first.
    pub priority: i32,
    /// Attributes that its agent must have, as in `spark.mezz.constraints`.
    pub constraints: String,
    /// Its container; without one it is in a cgroup.
    pub docker: Option<Docker>,
    /// Labels of its task.
    #[serde(default)]
    pub labels: Vec<Label>,
    /// GPUs and whatever else it needs.
    #[serde(default)]
    pub resources: Vec<CustomResource>,
    /// URIs and paths that its agent fetches into its sandbox.
    #[serde(default)]
    pub uris: Vec<String>,
    /// Whether the agent keeps those for others.
    #[serde(default)]
    pub cache: bool,
    /// Tokens of the files that were uploaded for it and that its dispatcher had when it
    /// was submitted.
    #[serde(default)]
    pub uploads: BTreeSet<String>,
}

impl fmt::Debug for Job {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("name", &self.name)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// Reads and checks a request.
    ///
    /// # Errors
    /// [`JobError`] names what is missing or wrong.
    pub fn read(request: CreateRequest) -> Result<Self, JobError> {
        if let Some(action) = request.action
            && action != "CreateSubmissionRequest"
        {
            return Err(JobError::Action(action));
        }
        let resource = request.app_resource.ok_or(JobError::Missing("appResource"))?;
        request.client_spark_version.ok_or(JobError::Missing("clientSparkVersion"))?;
        let mut properties =
            present(request.spark_properties.ok_or(JobError::Missing("sparkProperties"))?);
        let environment = environment(present(request.environment_variables.unwrap_or_default()));
        let main_class = request.main_class.filter(|class| !class.is_empty());
        let args = request.app_args.unwrap_or_default();
        let (resource, main_class, args) =
            python_runner(resource, main_class, args, &mut properties)?;
        if resource.is_empty() {
            return Err(JobError::Missing("appResource"));
        }
        let get = |key: &str| properties.get(key).map(|v| v.trim()).filter(|v| !v.is_empty());
        let name = match get("spark.app.name").ok_or(JobError::Missing("spark.app.name"))? {
            // Of no use to people.
            PYTHON_RUNNER => resource.rsplit('/').next().unwrap_or_default(),
            name => name,
        };
        let name = name.to_owned();
        let constraints = get("spark.mezz.driver.constraints").unwrap_or_default().to_owned();
        Constraints::parse(&constraints).map_err(|error| {
            wrong("spark.mezz.driver.constraints", &constraints, &error.to_string())
        })?;
        let settings = Settings(&properties);
        let job = Self {
            cpus: settings.cores()?,
            mem_mib: settings.memory()?,
            supervise: settings.boolean("spark.driver.supervise", false)?,
            priority: settings.priority()?,
            labels: settings.labels()?,
            resources: settings.resources()?,
            uris: settings.uris()?,
            cache: settings.boolean("spark.mezz.fetcherCache.enable", true)?,
            docker: Docker::read(
                DOCKER,
                properties.iter().map(|(key, value)| (key.as_str(), value.as_str())),
            )?,
            name,
            resource,
            main_class,
            args,
            constraints,
            environment,
            properties,
            uploads: BTreeSet::new(),
        };
        let long = properties::write(&job.properties).len();
        if long > MAX_PROPERTIES {
            return Err(JobError::TooLong(long));
        }
        match serde_json::to_vec(&job).map_or(usize::MAX, |record| record.len()) {
            large if large > MAX_JOB => Err(JobError::TooLarge(large)),
            _ => Ok(job),
        }
    }

    /// Tokens of the uploaded files that it names, of whatever dispatcher.
    pub(super) fn tokens(&self) -> BTreeSet<String> {
        let texts = self.properties.values().chain([&self.resource]);
        files::tokens(texts.map(String::as_str))
    }
}

fn present(map: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    map.into_iter().filter_map(|(k, v)| Some((k, v?))).collect()
}

/// What describes the client's machine stays there, as Spark's own server has it.
fn environment(given: BTreeMap<String, String>) -> BTreeMap<String, String> {
    const OF_THE_CLIENT: [&str; 5] = [
        "SPARK_LOCAL_IP",
        "SPARK_LOCAL_HOSTNAME",
        "SPARK_HOME",
        "SPARK_CONF_DIR",
        "SPARK_ENV_LOADED",
    ];
    given
        .into_iter()
        .filter(|(name, value)| {
            !OF_THE_CLIENT.contains(&name.as_str())
                && !name.is_empty()
                && !name.contains(['=', '\0'])
                && !value.contains('\0')
        })
        .collect()
}

type Application = (String, Option<String>, Vec<String>);

fn python_runner(
    resource: String,
    main_class: Option<String>,
    mut args: Vec<String>,
    properties: &mut BTreeMap<String, String>,
) -> Result<Application, JobError> {
    if main_class.as_deref() != Some(PYTHON_RUNNER) {
        return Ok((resource, main_class, args));
    }
    if args.is_empty() {
        return Err(JobError::Missing("appArgs (the Python file of PythonRunner)"));
    }
    let file = args.remove(0);
    let beside = if args.is_empty() { String::new() } else { args.remove(0) };
    if !beside.is_empty() {
        let all = properties.entry("spark.submit.pyFiles".to_owned()).or_default();
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(&beside);
    }
    Ok((file, None, args))
}

/// Settings that say how the driver is run.
struct Settings<'a>(&'a BTreeMap<String, String>);

impl Settings<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|v| v.trim()).filter(|v| !v.is_empty())
    }

    fn boolean(&self, key: &str, otherwise: bool) -> Result<bool, JobError> {
        let Some(text) = self.get(key) else { return Ok(otherwise) };
        text.to_ascii_lowercase()
            .parse()
            .map_err(|_| wrong(key, text, "it has to be true or false"))
    }

    fn cores(&self) -> Result<f64, JobError> {
        let key = "spark.driver.cores";
        let Some(text) = self.get(key) else { return Ok(1.0) };
        text.parse()
            .ok()
            .filter(|cores: &f64| (0.01..=1e6).contains(cores))
            .ok_or_else(|| wrong(key, text, "it has to be a number from 0.01"))
    }

    fn priority(&self) -> Result<i32, JobError> {
        let key = "spark.mezz.dispatcher.priority";
        let Some(text) = self.get(key) else { return Ok(0) };
        text.parse().map_err(|_| wrong(key, text, "it has to be a whole number"))
    }

    fn labels(&self) -> Result<Vec<Label>, JobError> {
        let key = "spark.mezz.driver.labels";
        let text = self.get(key).unwrap_or_default();
        labels::parse(text).map_err(|error| wrong(key, text, &error.to_string()))
    }

    fn uris(&self) -> Result<Vec<String>, JobError> {
        let key = "spark.mezz.driver.uris";
        let list = self.get(key).unwrap_or_default().split(',').map(str::trim);
        let mut uris: Vec<String> = Vec::new();
        for uri in list.filter(|uri| !uri.is_empty()) {
            if !is_fetchable(uri) {
                let wanted = "it has to be a URI, or an absolute path of the agents' machines";
                return Err(wrong(key, uri, wanted));
            }
            if !uris.iter().any(|known| known == uri) {
                uris.push(uri.to_owned());
            }
        }
        Ok(uris)
    }

    /// `spark.driver.resource.NAME.amount`.
    fn resources(&self) -> Result<Vec<CustomResource>, JobError> {
        let named = self.0.iter().filter_map(|(key, value)| {
            Some((key, key.strip_prefix(RESOURCE)?.strip_suffix(".amount")?, value.trim()))
        });
        let mut resources = Vec::new();
        for (key, name, value) in named {
            let amount =
                value.parse().map_err(|_| wrong(key, value, "it has to be a whole number"))?;
            let script = format!("{RESOURCE}{name}.discoveryScript");
            let plugin = "spark.resources.discoveryPlugin";
            let discovered = self.get(&script).or(self.get(plugin)).is_some();
            resources.push(CustomResource { name: name.to_owned(), amount, discovered });
        }
        Ok(resources)
    }

    /// Heap and everything beside it.
    fn memory(&self) -> Result<u64, JobError> {
        let key = "spark.driver.memory";
        let heap = match self.get(key) {
            None => 1024,
            Some(text) => mebibytes(text, None)
                .filter(|mib| *mib > 0)
                .ok_or_else(|| wrong(key, text, "it has to be an amount like 512m or 2g"))?,
        };
        let size = |key: &str, text: &str| {
            mebibytes(text, Some(1))
                .ok_or_else(|| wrong(key, text, "it has to be an amount like 512m, or MiB"))
        };
        let key = "spark.driver.memoryOverhead";
        if let Some(text) = self.get(key) {
            return Ok(heap.saturating_add(size(key, text)?));
        }
        let key = "spark.driver.memoryOverheadFactor";
        let factor = match self.get(key) {
            None => 0.1,
            Some(text) => text
                .parse()
                .ok()
                .filter(|f: &f64| f.is_finite() && *f >= 0.0)
                .ok_or_else(|| wrong(key, text, "it has to be a number from 0"))?,
        };
        let key = "spark.driver.minMemoryOverhead";
        let least = match self.get(key) {
            None => LEAST_OVERHEAD,
            Some(text) => size(key, text)?,
        };
        Ok(heap.saturating_add(least.max((heap as f64 * factor) as u64)))
    }
}

fn wrong(key: &str, value: &str, wanted: &str) -> JobError {
    JobError::Setting { key: key.to_owned(), value: value.to_owned(), wanted: wanted.to_owned() }
}

/// `512m`, `2g`; a number alone counts `bare` MiB each, where that is allowed.
fn mebibytes(text: &str, bare: Option<u64>) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    match &text[end..] {
        "" => number.checked_mul(bare?),
        "b" => Some(number >> 20),
        "k" | "kb" => Some(number >> 10),
        "m" | "mb" => Some(number),
        "g" | "gb" => number.checked_mul(1 << 10),
        "t" | "tb" => number.checked_mul(1 << 20),
        _ => None,
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
pub(super) mod tests;
