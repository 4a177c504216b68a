//! What became of the settings that Spark had for Apache Mesos, and which settings of
//! ours there are: a driver's log tells a user who has one of the former, or of neither.
//!
//! `docs/spark-migration.md` has the same table, for people; a test compares the two.

/// What does here what a setting did on Mesos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// This setting, option or command.
    Use(&'static str),
    /// Nothing: why.
    Nothing(&'static str),
}

use Here::{Nothing, Use};

/// Every setting that Spark 3.5 reads for Mesos. A name that ends with a dot stands for
/// all that begin with it.
pub const MESOS: [(&str, Here); 52] = [
    (
        "spark.mesos.appJar.local.resolution.mode",
        Nothing("`file:` and `local:` are paths of the agent, or of the image in Docker"),
    ),
    ("spark.mesos.cluster.retry.wait.max", Nothing("pauses double from 1 s to 60 s")),
    ("spark.mesos.coarse", Use("spark.mezz.coarse")),
    (
        "spark.mesos.coarse.shutdownTimeout",
        Nothing("executors have 5 s for their end, and are gone with the framework"),
    ),
    ("spark.mesos.constraints", Use("spark.mezz.constraints")),
    ("spark.mesos.containerizer", Nothing("an image is run by Docker, all else in a cgroup")),
    ("spark.mesos.dispatcher.driverDefault.", Use("spark-defaults.conf")),
    ("spark.mesos.dispatcher.historyServer.url", Use("mezz spark history")),
    ("spark.mesos.dispatcher.queue", Use("spark.mezz.dispatcher.priority")),
    ("spark.mesos.dispatcher.queue.", Use("spark.mezz.dispatcher.priority")),
    ("spark.mesos.dispatcher.webui.url", Use("mezz spark dispatcher --advertise")),
    ("spark.mesos.driver.constraints", Use("spark.mezz.driver.constraints")),
    ("spark.mesos.driver.failoverTimeout", Use("spark.mezz.failoverTimeout")),
    (
        "spark.mesos.driver.frameworkId",
        Nothing("the master gives ids, and `mezz frameworks` shows them"),
    ),
    ("spark.mesos.driver.labels", Use("spark.mezz.driver.labels")),
    ("spark.mesos.driver.memoryOverhead", Use("spark.driver.memoryOverhead")),
    ("spark.mesos.driver.secret.envkeys", Use("spark.mezz.driverEnv.")),
    ("spark.mesos.driver.secret.filenames", Use("spark.mezz.driverEnv.")),
    ("spark.mesos.driver.secret.names", Use("spark.mezz.driverEnv.")),
    ("spark.mesos.driver.secret.values", Use("spark.mezz.driverEnv.")),
    ("spark.mesos.driver.webui.url", Use("spark.mezz.driver.webui.url")),
    ("spark.mesos.driverEnv.", Use("spark.mezz.driverEnv.")),
    (
        "spark.mesos.executor.docker.forcePullImage",
        Use("spark.mezz.executor.docker.forcePullImage"),
    ),
    ("spark.mesos.executor.docker.image", Use("spark.mezz.executor.docker.image")),
    ("spark.mesos.executor.docker.parameters", Use("spark.mezz.executor.docker.parameters")),
    (
        "spark.mesos.executor.docker.portmaps",
        Nothing("with the host's network no port needs to be mapped"),
    ),
    ("spark.mesos.executor.docker.volumes", Use("spark.mezz.executor.docker.volumes")),
    ("spark.mesos.executor.home", Use("spark.mezz.executor.home")),
    ("spark.mesos.executor.memoryOverhead", Use("spark.executor.memoryOverhead")),
    ("spark.mesos.executor.secret.envkeys", Use("spark.executorEnv.")),
    ("spark.mesos.executor.secret.filenames", Use("spark.executorEnv.")),
    ("spark.mesos.executor.secret.names", Use("spark.executorEnv.")),
    ("spark.mesos.executor.secret.values", Use("spark.executorEnv.")),
    (
        "spark.mesos.extra.cores",
        Nothing("executors run as many tasks as they have cores; set spark.task.cpus instead"),
    ),
    ("spark.mesos.fetcherCache.enable", Use("spark.mezz.fetcherCache.enable")),
    ("spark.mesos.gpus.max", Use("spark.executor.resource.gpu.amount")),
    ("spark.mesos.maxDrivers", Use("mezz spark dispatcher --max-queued")),
    ("spark.mesos.mesosExecutor.cores", Use("spark.mezz.executor.cores")),
    ("spark.mesos.network.labels", Nothing("networks are Docker's, and have none")),
    ("spark.mesos.network.name", Use("spark.mezz.executor.docker.network")),
    ("spark.mesos.principal", Use("spark.mezz.principal")),
    ("spark.mesos.principal.file", Use("spark.mezz.principal")),
    ("spark.mesos.proxy.baseURL", Nothing("the dispatcher has no pages to be shown by a proxy")),
    ("spark.mesos.rejectOfferDuration", Nothing("decided by the framework")),
    ("spark.mesos.rejectOfferDurationForReachedMaxCores", Nothing("decided by the framework")),
    ("spark.mesos.rejectOfferDurationForUnmetConstraints", Nothing("decided by the framework")),
    ("spark.mesos.retainedDrivers", Use("mezz spark dispatcher --max-ended")),
    ("spark.mesos.role", Use("spark.mezz.role")),
    ("spark.mesos.secret", Use("spark.mezz.secret.file")),
    ("spark.mesos.secret.file", Use("spark.mezz.secret.file")),
    ("spark.mesos.task.labels", Use("spark.mezz.executor.labels")),
    ("spark.mesos.uris", Use("spark.mezz.uris")),
];

/// Every setting of ours. A name that ends with a dot stands for all that begin with it.
pub const OURS: [&str; 43] = [
    "spark.mezz.bin",
    "spark.mezz.classDataSharing",
    "spark.mezz.coarse",
    "spark.mezz.constraints",
    "spark.mezz.dispatcher",
    "spark.mezz.dispatcher.priority",
    "spark.mezz.driver.bin",
    "spark.mezz.driver.bridgeJar",
    "spark.mezz.driver.constraints",
    "spark.mezz.driver.docker.forcePullImage",
    "spark.mezz.driver.docker.image",
    "spark.mezz.driver.docker.network",
    "spark.mezz.driver.docker.parameters",
    "spark.mezz.driver.docker.user",
    "spark.mezz.driver.docker.volumes",
    "spark.mezz.driver.home",
    "spark.mezz.driver.labels",
    "spark.mezz.driver.uris",
    "spark.mezz.driver.webui.url",
    "spark.mezz.driverEnv.",
    "spark.mezz.executor.bin",
    "spark.mezz.executor.bridge",
    "spark.mezz.executor.cores",
    "spark.mezz.executor.decommissionGrace",
    "spark.mezz.executor.docker.forcePullImage",
    "spark.mezz.executor.docker.image",
    "spark.mezz.executor.docker.network",
    "spark.mezz.executor.docker.parameters",
    "spark.mezz.executor.docker.user",
    "spark.mezz.executor.docker.volumes",
    "spark.mezz.executor.home",
    "spark.mezz.executor.labels",
    "spark.mezz.executor.maxPerAgent",
    "spark.mezz.failoverTimeout",
    "spark.mezz.fetcherCache.enable",
    "spark.mezz.placement",
    "spark.mezz.principal",
    "spark.mezz.role",
    "spark.mezz.secret.file",
    "spark.mezz.shuffle.service.cores",
    "spark.mezz.shuffle.service.enabled",
    "spark.mezz.shuffle.service.memory",
    "spark.mezz.uris",
];

/// What a driver's log is to say of these settings' names; each name once.
pub fn warnings(names: &[String]) -> Vec<String> {
    names.iter().filter_map(|name| warning(name)).collect()
}

fn warning(name: &str) -> Option<String> {
    if name.starts_with("spark.mesos.") {
        let here = MESOS.iter().find(|(old, _)| is(name, old)).map(|(_, here)| *here);
        return Some(match here {
            Some(Use(new)) if new.ends_with('.') => {
                format!("{name} is of Mesos and does nothing here: use {new}NAME; {SEE}")
            }
            Some(Use(new)) => format!("{name} is of Mesos and does nothing here: use {new}; {SEE}"),
            Some(Nothing(why)) => {
                format!("{name} is of Mesos and there is nothing like it here: {why}; {SEE}")
            }
            None => format!("{name} is of Mesos and does nothing here; {SEE}"),
        });
    }
    if !name.starts_with("spark.mezz.") || OURS.iter().any(|known| is(name, known)) {
        return None;
    }
    // The names' own parts: all begin alike.
    let own = |name: &str| name["spark.mezz.".len()..].to_owned();
    let distance = |known: &&str| strsim::damerau_levenshtein(&own(name), &own(known));
    let nearest = OURS.into_iter().min_by_key(distance);
    let near = |known: &&str| distance(known) <= (own(name).chars().count() / 3).max(1);
    Some(match nearest.filter(near) {
        Some(known) => format!("{name} is no setting of Mezz and does nothing; is it {known}?"),
        None => format!(
            "{name} is no setting of Mezz and does nothing; docs/spark.md lists those there are"
        ),
    })
}

/// Where there is more about it.
const SEE: &str = "see docs/spark-migration.md";

fn is(name: &str, known: &str) -> bool {
    if known.ends_with('.') { name.starts_with(known) } else { name == known }
}

#[cfg(test)]
mod tests;
