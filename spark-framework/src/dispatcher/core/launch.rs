//! A driver as a Mezz task.

use std::{borrow::Cow, collections::BTreeMap, iter, time::Duration};

use mezz_proto::v1::{self, environment::variable};

use super::{CoreOptions, offers::Part};
use crate::{
    dispatcher::{files, job::Job, properties},
    docker::{self, Docker},
    labels, secret,
    session::resources,
    shell::quote,
    submit::MASTER_SCHEME,
};

/// Between asking a driver to end and killing it: time for its shutdown hooks,
/// which end its executors and its framework.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// The variable that brings the settings.
const PROPERTIES: &str = "MEZZ_SPARK_PROPERTIES";

/// Starts Spark in the sandbox. Settings may be secret, so they are neither on the
/// command line nor in the sandbox, whose files anybody may read by the agent: they
/// come in a secret variable, and Spark reads them from a file without a name.
const WRITE: &str = "cd \"$MESOS_SANDBOX\" && \
    f=$(mktemp \"${TMPDIR:-/tmp}/mezz-spark.XXXXXX\") && \
    printf '%s' \"$MEZZ_SPARK_PROPERTIES\" >\"$f\"";

/// Adds a secret that is made where the driver runs, anew for each run: neither client
/// nor dispatcher has it.
const ADD_SECRET: &str = "s=$(od -An -vtx1 -N32 /dev/urandom | tr -d ' \\n') && \
    test ${#s} -eq 64 && printf 'spark.authenticate.secret=%s\\n' \"$s\" >>\"$f\"";

/// Of what the agent fetched: where that is is known there alone.
const IN_SANDBOX: &str = "\"$SPARK_HOME\"/bin/spark-submit";

/// Of an image, unless it is said where it is.
const IN_IMAGE: &str =
    "\"${SPARK_HOME:?is not set in the image: set spark.mezz.driver.home}\"/bin/spark-submit";

const START: &str = "exec 3<\"$f\" && rm \"$f\" && unset MEZZ_SPARK_PROPERTIES s && exec";

/// Puts Spark's temporary files into the sandbox.
const LOCAL_DIRS: &str = "export SPARK_LOCAL_DIRS=\"$MESOS_SANDBOX\"";

/// Settings that name files, between commas.
const FILE_LISTS: [&str; 4] =
    ["spark.jars", "spark.files", "spark.submit.pyFiles", "spark.archives"];

/// Settings of a submission that the driver is not to have: they say how it is
/// submitted, or hold for the client's machine.
const NOT_FOR_DRIVER: [&str; 11] = [
    "spark.master",
    "spark.submit.deployMode",
    "spark.master.rest.enabled",
    "spark.driver.host",
    "spark.driver.supervise",
    // Spark takes only whole numbers, and nothing of it matters to a driver.
    "spark.driver.cores",
    "spark.mezz.driver.home",
    "spark.mezz.driver.bin",
    "spark.mezz.driver.bridgeJar",
    "spark.mezz.driver.labels",
    "spark.mezz.driver.uris",
];

/// The task that runs this driver on the agent of this host.
pub(super) fn task(
    options: &CoreOptions,
    job: &Job,
    id: &str,
    part: &Part,
    host: &str,
) -> v1::TaskInfo {
    let mut fetched = Fetched::new(job, &options.address);
    // An image brings its own Spark.
    let here = job.docker.is_none().then_some(&options.spark_home);
    let home = job.properties.get("spark.mezz.driver.home").or(here);
    let resource = fetched.path(&job.resource);
    let mut settings = settings(options, job, host, &mut fetched);
    let given = job.uris.iter().map(|uri| v1::command_info::Uri {
        value: fetched.address(uri),
        cache: Some(job.cache),
        ..Default::default()
    });
    let given: Vec<_> = given.collect();
    fetched.uris.extend(given);
    let allocated = resources::allocations("spark.driver", &job.resources, &part.addresses);
    if allocated.is_some() {
        settings.insert("spark.driver.resourcesFile".to_owned(), resources::FILE.to_owned());
    }
    let mut line = vec![
        "--master".to_owned(),
        format!("{MASTER_SCHEME}{}", options.masters.join(",")),
        "--deploy-mode".to_owned(),
        "client".to_owned(),
        "--properties-file".to_owned(),
        "/proc/self/fd/3".to_owned(),
    ];
    if let Some(class) = &job.main_class {
        line.extend(["--class".to_owned(), class.clone()]);
    }
    line.push(resource);
    line.extend(job.args.iter().cloned());
    let fetched_home = home.filter(|home| !home.starts_with('/'));
    let mut words = vec![match home {
        Some(_) if fetched_home.is_some() => IN_SANDBOX.to_owned(),
        Some(home) => quote(&format!("{home}/bin/spark-submit")),
        None => IN_IMAGE.to_owned(),
    }];
    words.extend(line.iter().map(|word| quote(word)));
    // Spark's own default is /tmp, where nobody counts or removes what is left.
    let local = job.properties.contains_key("spark.local.dir")
        || job.environment.contains_key("SPARK_LOCAL_DIRS");
    let lacking = secret::is_lacking(|key| job.properties.get(key).cloned());
    let steps = [
        fetched_home.map(|home| find_home(home).into()),
        (!local).then_some(Cow::Borrowed(LOCAL_DIRS)),
        Some(WRITE.into()),
        lacking.then_some(ADD_SECRET.into()),
    ];
    let script: Vec<Cow<'_, str>> = steps.into_iter().flatten().chain([START.into()]).collect();
    let mut script = script.join(" && ");
    if allocated.is_some() {
        let (variable, file) = (resources::VARIABLE, resources::FILE);
        script = format!("printf %s \"${variable}\" >\"$MESOS_SANDBOX/{file}\" && {script}");
    }

    let mut environment: BTreeMap<String, String> = job.environment.clone();
    for (key, value) in &job.properties {
        if let Some(name) = key.strip_prefix("spark.mezz.driverEnv.")
            && !name.is_empty()
            && !name.contains(['=', '\0'])
        {
            environment.insert(name.to_owned(), value.clone());
        }
    }
    environment.extend(allocated.map(|json| (resources::VARIABLE.to_owned(), json)));
    let installed = home.filter(|_| fetched_home.is_none());
    environment.extend(installed.map(|home| ("SPARK_HOME".to_owned(), home.clone())));
    environment.insert(PROPERTIES.to_owned(), properties::write(&settings));
    let variables = environment.into_iter().map(|(name, value)| hidden(name, value)).collect();
    let mut task = v1::TaskInfo {
        name: format!("driver of {}", job.name),
        task_id: v1::TaskId { value: id.to_owned() },
        agent_id: part.agent.clone(),
        resources: part.resources.clone(),
        command: Some(v1::CommandInfo {
            value: Some(format!("{script} {}", words.join(" "))),
            shell: Some(true),
            environment: Some(v1::Environment { variables }),
            uris: fetched.uris,
            user: job.docker.as_ref().and_then(|d| d.user.clone()),
            ..Default::default()
        }),
        container: job.docker.as_ref().map(Docker::container),
        kill_policy: Some(v1::KillPolicy {
            grace_period: Some(v1::DurationInfo {
                nanoseconds: i64::try_from(KILL_GRACE.as_nanos()).unwrap_or(i64::MAX),
            }),
        }),
        ..Default::default()
    };
    labels::add(&mut task, &labels::to_proto(&job.labels));
    task
}

/// Spark's folder among what the agent fetched; what lacks is said, for the last words.
fn find_home(home: &str) -> String {
    let lacking = format!("spark.mezz.driver.home: no {home}/bin/spark-submit was fetched");
    format!(
        "export SPARK_HOME=\"$MESOS_SANDBOX\"/{} && \
         if [ ! -f \"$SPARK_HOME/bin/spark-submit\" ]; then echo {} >&2; exit 1; fi",
        quote(home),
        quote(&lacking)
    )
}

/// host:port of the offering agent's API, when the offer says.
pub(super) fn agent_address(offer: &v1::Offer) -> Option<String> {
    let address = &offer.url.as_ref()?.address;
    let host = address.hostname.as_deref().or(address.ip.as_deref())?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some(format!("{host}:{}", address.port))
}

fn settings(
    options: &CoreOptions,
    job: &Job,
    host: &str,
    fetched: &mut Fetched<'_>,
) -> BTreeMap<String, String> {
    let own = |key: &str, default: &str| {
        job.properties.get(key).map_or(default, String::as_str).to_owned()
    };
    let mut settings: BTreeMap<String, String> = job
        .properties
        .iter()
        .filter(|(key, _)| {
            !NOT_FOR_DRIVER.contains(&key.as_str()) && !key.starts_with("spark.mezz.driverEnv.")
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for key in FILE_LISTS {
        if let Some(list) = settings.get_mut(key) {
            let paths: Vec<String> = list
                .split(',')
                .map(str::trim)
                .filter(|uri| !uri.is_empty())
                .map(|uri| fetched.path(uri))
                .collect();
            *list = paths.join(",");
        }
    }
    let (mezz, bridge_jar) = match job.docker.is_some() {
        true => (docker::MEZZ_IN_IMAGE, docker::BRIDGE_IN_IMAGE),
        false => (&*options.mezz, &*options.bridge_jar),
    };
    settings.insert("spark.mezz.bin".to_owned(), own("spark.mezz.driver.bin", mezz));
    let jar = own("spark.mezz.driver.bridgeJar", bridge_jar);
    let path = settings.entry("spark.driver.extraClassPath".to_owned()).or_default();
    if !path.is_empty() {
        path.push(':');
    }
    path.push_str(&jar);
    if options.role != "*" {
        settings.entry("spark.mezz.role".to_owned()).or_insert_with(|| options.role.clone());
    }
    // In a network of its own, a driver is best known by the address it finds.
    if !job.docker.as_ref().is_some_and(Docker::has_own_network) {
        settings.insert("spark.driver.host".to_owned(), host.to_owned());
        // The host's name may stand for another address there, such as 127.0.1.1.
        settings
            .entry("spark.driver.bindAddress".to_owned())
            .or_insert_with(|| "0.0.0.0".to_owned());
    }
    settings
}

/// What the agent fetches before the driver starts; each URI once.
struct Fetched<'a> {
    job: &'a Job,
    /// Of this dispatcher.
    here: &'a str,
    uris: Vec<v1::command_info::Uri>,
    paths: BTreeMap<String, String>,
}

impl<'a> Fetched<'a> {
    fn new(job: &'a Job, here: &'a str) -> Self {
        Self { job, here, uris: Vec::new(), paths: BTreeMap::new() }
    }

    /// Where to fetch it from: what was uploaded for this driver, from this dispatcher,
    /// whichever took it then.
    fn address(&self, uri: &str) -> String {
        let uploaded = !files::tokens(iter::once(uri)).is_disjoint(&self.job.uploads);
        if uploaded { files::at(uri, self.here) } else { uri.to_owned() }
    }

    /// Where the driver finds it: in the sandbox if it comes by http, which the
    /// agent fetches once for all drivers; Spark itself knows what to do with other
    /// schemes. A fragment (`#name`) is Spark's.
    fn path(&mut self, uri: &str) -> String {
        let scheme = uri.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            return uri.to_owned();
        }
        let (plain, fragment) = match uri.split_once('#') {
            Some((plain, fragment)) => (plain, format!("#{fragment}")),
            None => (uri, String::new()),
        };
        let end = plain.find('?').unwrap_or(plain.len());
        let name = match plain[..end].rsplit('/').next() {
            Some(name) if !name.is_empty() && name != "." && name != ".." => name,
            _ => "file",
        };
        let next = self.uris.len();
        let value = self.address(plain);
        let path = self.paths.entry(plain.to_owned()).or_insert_with(|| {
            let path = format!("mezz-files/{next}/{name}");
            self.uris.push(v1::command_info::Uri {
                value,
                extract: Some(false),
                // What we serve never changes; who knows of others.
                cache: Some(!files::tokens(iter::once(plain)).is_empty()),
                output_file: Some(path.clone()),
                ..Default::default()
            });
            path
        });
        format!("{path}{fragment}")
    }
}

/// Nothing of a driver's environment is shown to those who look at the cluster.
fn hidden(name: String, value: String) -> v1::environment::Variable {
    v1::environment::Variable {
        name,
        r#type: Some(variable::Type::Secret as i32),
        secret: Some(v1::Secret {
            r#type: Some(v1::secret::Type::Value as i32),
            value: Some(v1::secret::Value { data: value.into_bytes() }),
            ..Default::default()
        }),
        ..Default::default()
    }
}
