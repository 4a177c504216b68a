//! The line protocol between the driver's JVM and this process: one JSON object
//! a line, each with its type in `t`.
//!
//! The driver's first line is `register` with the protocol's version in `v`; the
//! answer is `registered` with ours, or `error`. Fields that are not known are
//! ignored; a message that is not known is answered by `error`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, BufRead},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The protocol's version.
pub const VERSION: u32 = 1;

/// Longest line in bytes. The largest are fine-grained answers: the driver puts at
/// most 32 MiB of task data into one.
pub const MAX_LINE: usize = 64 << 20;

/// From the driver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum FromDriver {
    /// First and once: who the application is and how its executors are started.
    Register(Box<Register>),
    /// How many executors of which profile are wanted from now on.
    Target {
        /// Profiles not named are wanted no more.
        profiles: Vec<Profile>,
    },
    /// These executors are to end.
    KillExecutors {
        /// Their ids.
        ids: Vec<String>,
    },
    /// This executor has made itself known to the driver.
    ExecutorRegistered {
        /// Its id.
        id: String,
    },
    /// Fine-grained: what the driver does with the offers of one `offers`.
    Answer {
        /// Its number.
        batch: u64,
        /// The last `revive` before the driver looked at them.
        seen: u64,
        /// Whether tasks are left that could run, had they a place.
        waiting: bool,
        /// Offers that are used; the others are not.
        #[serde(default)]
        launches: Vec<Launches>,
    },
    /// Fine-grained: there are tasks to run.
    Revive {
        /// Counts these messages, from 1.
        n: u64,
        /// Hosts where some of them would rather run.
        #[serde(default)]
        hosts: BTreeSet<String>,
    },
    /// Fine-grained: this task is to end.
    KillTask {
        /// Its id.
        tid: u64,
        /// Whether to interrupt its thread.
        interrupt: bool,
        /// For people.
        reason: String,
    },
    /// The application is over.
    Unregister {
        /// Its exit status; 0 when all is well.
        #[serde(default)]
        exit_code: i32,
    },
}

/// How tasks get to executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Executors hold their cores for as long as they live.
    Coarse,
    /// Each Spark task is one of the cluster's and holds its cores while it runs.
    Fine,
}

/// Tasks for one offer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Launches {
    /// Its place in the `offers` message, from 0.
    pub offer: usize,
    /// What to run on it.
    pub tasks: Vec<SparkTask>,
}

/// A Spark task.
#[derive(Clone, PartialEq, Deserialize)]
pub struct SparkTask {
    /// Spark's id of this attempt.
    pub tid: u64,
    /// For people.
    pub name: String,
    /// Cores that it holds.
    pub cpus: f64,
    /// Spark's encoded `TaskDescription`.
    #[serde(deserialize_with = "from_base64")]
    pub data: Vec<u8>,
}

impl fmt::Debug for SparkTask {
    /// Without the data, which is the user's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SparkTask({}, {} bytes)", self.tid, self.data.len())
    }
}

fn from_base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

fn to_base64<S: serde::Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

/// What fine-grained mode needs to know.
#[derive(Clone, PartialEq, Deserialize)]
pub struct FineSettings {
    /// Cores of a task at least.
    pub task_cpus: f64,
    /// Cores that an executor holds while it lives.
    pub executor_cpus: f64,
    /// What an executor needs, in MiB.
    pub mem: u64,
    /// The part of it that is the JVM's heap, in MiB.
    pub heap: u64,
    /// Executors that are started before there are tasks.
    #[serde(default)]
    pub ahead: usize,
    /// The `mezz` program on the agents; this one's path when absent.
    pub program: Option<String>,
    /// The application's settings, for its executors.
    pub props: BTreeMap<String, String>,
    /// Those of them that are secret.
    #[serde(default)]
    pub secret_props: BTreeMap<String, String>,
}

/// What shuffle services need to know.
#[derive(Clone, PartialEq, Deserialize)]
pub struct ShuffleSettings {
    /// Cores of each.
    pub cpus: f64,
    /// Memory of each in MiB.
    pub mem: u64,
    /// A service's argv. `{{SHUFFLE_PORT}}` is replaced, there and in those of
    /// executors.
    pub command: Vec<String>,
    /// A service's environment. May hold secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// `spark.mezz.placement`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacementName {
    /// Over as many agents as possible.
    #[default]
    Spread,
    /// On as few agents as possible.
    Consolidate,
}

/// An application.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Register {
    /// How tasks get to executors.
    pub mode: Mode,
    /// host:port of each master.
    pub masters: Vec<String>,
    /// The application's name.
    pub app_name: String,
    /// The user that executors run as.
    pub user: String,
    /// The version of Spark.
    pub spark: String,
    /// Address of the application's web pages.
    pub ui: Option<String>,
    /// The driver's host.
    pub host: Option<String>,
    /// The executor's argv. `{{EXECUTOR_ID}}`, `{{HOSTNAME}}`, `{{CORES}}`,
    /// `{{HEAP_MIB}}`, `{{APP_ID}}` and `{{PROFILE_ID}}` are replaced; with `docker` or
    /// `spark_uri` set also `{{SPARK_HOME}}` and `{{JAVA}}`, which only the executor
    /// can find out.
    pub command: Vec<String>,
    /// The executor's environment, with the same replacements. May hold secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Cores over all executors.
    pub cores_max: Option<u32>,
    /// Executors on one agent.
    pub max_per_agent: Option<u32>,
    /// Attributes that agents must have; see
    /// [`Constraints`](crate::policy::Constraints).
    pub constraints: Option<String>,
    /// Labels of all tasks; see [`labels`](crate::labels).
    pub labels: Option<String>,
    /// Failed executors, of which one more ends the application.
    pub max_failures: Option<u32>,
    /// Seconds after which a failure counts no more for that.
    pub failures_interval_s: Option<f64>,
    /// Names of the application's settings that are ours or were those of Mesos.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Set when executors' shuffle files are served by services of the application's.
    pub shuffle: Option<ShuffleSettings>,
    /// Set in fine-grained mode.
    pub fine: Option<FineSettings>,
    /// The role to take offers for; `*` when absent.
    pub role: Option<String>,
    /// Whom to be for masters that ask; `MEZZ_PRINCIPAL` of the process when absent.
    pub principal: Option<String>,
    /// File whose first line is that principal's secret; `MEZZ_SECRET_FILE` when absent.
    pub secret_file: Option<String>,
    /// Where executors go.
    #[serde(default)]
    pub placement: PlacementName,
    /// The master ends the application so many seconds after losing both the
    /// driver and this process.
    pub failover_timeout_s: Option<f64>,
    /// Seconds that an executor has, in coarse-grained mode, when its agent ends it
    /// for another reason than our word; 5 when absent.
    pub kill_grace_s: Option<u32>,
    /// The executors' container: `spark.mezz.executor.docker.*`, by what comes behind
    /// that. Without `image` in it there is none.
    #[serde(default)]
    pub docker: BTreeMap<String, String>,
    /// What agents fetch for executors: URIs and paths, between commas.
    pub uris: Option<String>,
    /// An archive with Spark in it, to be fetched too and used by executors.
    pub spark_uri: Option<String>,
    /// Whether agents keep what they fetch for other executors.
    #[serde(default = "yes")]
    pub fetch_cache: bool,
}

fn yes() -> bool {
    true
}

impl fmt::Debug for Register {
    /// Without the values of the environment, and without the command, which
    /// holds settings of the user's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("mode", &self.mode)
            .field("masters", &self.masters)
            .field("app_name", &self.app_name)
            .field("user", &self.user)
            .field("spark", &self.spark)
            .field("env", &self.env.keys())
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// How many executors of a resource profile, and their size.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Profile {
    /// The resource profile's id.
    pub rp: u32,
    /// Executors wanted.
    pub n: u32,
    /// Cores of each.
    pub cores: u32,
    /// Memory of each in MiB, overhead included.
    pub mem: u64,
    /// The part of it that is the JVM's heap, in MiB.
    pub heap: u64,
    /// Pending tasks that would rather run on each host.
    #[serde(default)]
    pub locality: BTreeMap<String, u32>,
    /// GPUs and whatever else each needs.
    #[serde(default)]
    pub resources: Vec<CustomResource>,
}

/// A resource of an executor or driver other than cores and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomResource {
    /// Spark's name.
    pub name: String,
    /// Whole units.
    pub amount: u64,
    /// Whether the process finds out by itself which ones it has.
    #[serde(default)]
    pub discovered: bool,
}

/// To the driver.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ToDriver {
    /// The master has taken the application in.
    Registered {
        /// [`VERSION`].
        v: u32,
        /// The framework's id.
        app_id: String,
    },
    /// An executor is being started.
    ExecutorLaunched {
        /// Its id.
        id: String,
        /// Its resource profile.
        rp: u32,
        /// The agent's id.
        agent: String,
        /// The agent's host.
        host: String,
    },
    /// An executor is gone, or could not be started.
    ExecutorExited {
        /// Its id.
        id: String,
        /// Exit status; 128 + n for signal n; -1 when not known.
        code: i32,
        /// Whether to count it against the tasks that ran there.
        by_app: bool,
        /// Whether the driver asked for it.
        killed: bool,
        /// For people.
        reason: String,
    },
    /// Something is not as the user may think: in the settings, or on an agent.
    Warning {
        /// For people.
        message: String,
    },
    /// The shuffle service of an agent is gone, and all that it served.
    ServiceLost {
        /// The agent's id.
        agent: String,
        /// The agent's host.
        host: String,
        /// For people.
        reason: String,
    },
    /// Executors are missing, and no agent that is offered has room for one.
    Waiting {
        /// How many there are.
        executors: usize,
        /// For people.
        message: String,
    },
    /// Fine-grained: offers to look at.
    Offers {
        /// The number to answer with.
        batch: u64,
        /// The offers.
        offers: Vec<ShownOffer>,
    },
    /// Fine-grained: an executor is being started before there are tasks.
    ExecutorAhead {
        /// What it is on.
        #[serde(flatten)]
        offer: ShownOffer,
        /// The id of the task by which the agent serves its files.
        task: String,
    },
    /// Fine-grained: an executor has begun.
    ExecutorUp {
        /// Its id.
        id: String,
    },
    /// Fine-grained: how a task ended, in its executor's words.
    Status {
        /// The task.
        tid: u64,
        /// `FINISHED`, `FAILED` or `KILLED`.
        state: &'static str,
        /// Spark's encoded result or reason.
        #[serde(serialize_with = "to_base64")]
        data: Vec<u8>,
    },
    /// Fine-grained: tasks that did not run.
    Undone {
        /// Which.
        tids: Vec<u64>,
        /// The executor that they were for.
        exec: String,
        /// Whether to count it against them.
        by_app: bool,
        /// For people.
        reason: String,
    },
    /// The application cannot go on.
    Error {
        /// Why.
        message: String,
    },
}

/// An offer, as the driver sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownOffer {
    /// The executor that would run the tasks.
    pub exec: String,
    /// The agent's id.
    pub agent: String,
    /// The agent's host.
    pub host: String,
    /// Cores for tasks.
    pub cpus: f64,
    /// Where the agent serves an executor's files; `&task=ID&path=FILE` completes
    /// it.
    pub logs: Option<String>,
}

/// A line that is no message.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// The driver's plugin and this program are of different versions.
    #[error(
        "the Spark plugin speaks version {theirs} of the protocol, this mezz speaks {VERSION}; \
         use mezz-spark-bridge.jar and mezz of the same release"
    )]
    Version {
        /// The plugin's.
        theirs: u64,
    },
    /// Not JSON, or not a message of this protocol.
    #[error("message {kind} from the Spark plugin is not understood")]
    Malformed {
        /// Its type, when it has one.
        kind: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Longer than [`MAX_LINE`].
    #[error("a message from the Spark plugin is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The pipe failed.
    #[error("reading from the Spark plugin failed")]
    Read(#[from] io::Error),
}

/// The parts of a message that every version has.
#[derive(Deserialize)]
struct Envelope {
    t: Option<String>,
    v: Option<u64>,
}

impl FromDriver {
    /// Reads one line.
    ///
    /// # Errors
    /// [`ProtocolError`]; the text of the line, which may hold secrets, is not in
    /// it.
    pub fn parse(line: &[u8]) -> Result<Self, ProtocolError> {
        let malformed = |kind: &str, source| ProtocolError::Malformed {
            kind: format!("`{}`", kind.chars().take(40).collect::<String>()),
            source,
        };
        let envelope: Envelope = serde_json::from_slice(line).map_err(|e| malformed("?", e))?;
        let kind = envelope.t.unwrap_or_default();
        if kind == "register" {
            let theirs = envelope.v.unwrap_or(0);
            if theirs != u64::from(VERSION) {
                return Err(ProtocolError::Version { theirs });
            }
        }
        serde_json::from_slice(line).map_err(|e| malformed(&kind, e))
    }
}

impl ToDriver {
    /// The answer to `register`.
    pub fn registered(app_id: &str) -> Self {
        Self::Registered { v: VERSION, app_id: app_id.to_owned() }
    }

    /// The message as a line, newline included.
    pub fn to_line(&self) -> Vec<u8> {
        // Strings and numbers only: this cannot fail, and an empty line, which
        // the driver skips, would be the harmless answer if it did.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Reads the next message; `None` at the end.
///
/// # Errors
/// [`ProtocolError`]. After [`ProtocolError::Malformed`] the next line may be
/// read; after the others nothing more.
pub fn read_message(input: &mut impl BufRead) -> Result<Option<FromDriver>, ProtocolError> {
    loop {
        let mut line = Vec::new();
        let limit = MAX_LINE as u64 + 1;
        let n = io::Read::take(&mut *input, limit).read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            // Without its end a line is cut off: by the limit, or by a driver that
            // died while it wrote.
            return if n > MAX_LINE { Err(ProtocolError::TooLong) } else { Ok(None) };
        }
        if !line.trim_ascii().is_empty() {
            return FromDriver::parse(&line).map(Some);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const REGISTER: &str = r#"{"t":"register","v":1,"mode":"coarse","masters":["h:5050"],
        "app_name":"pi","user":"u","spark":"4.3.0","command":["java"],
        "env":{"_SPARK_AUTH_SECRET":"hush"},"cores_max":4,"placement":"consolidate","new":1}"#;

    #[test]
    fn reads_what_the_driver_sends() {
        let FromDriver::Register(r) = FromDriver::parse(REGISTER.as_bytes()).unwrap() else {
            panic!("not a register")
        };
        assert_eq!((r.cores_max, r.placement), (Some(4), PlacementName::Consolidate));
        let target =
            r#"{"t":"target","profiles":[{"rp":0,"n":2,"cores":1,"mem":1408,"heap":1024}]}"#;
        let FromDriver::Target { profiles } = FromDriver::parse(target.as_bytes()).unwrap() else {
            panic!("not a target")
        };
        assert_eq!(profiles[0].mem, 1408);
    }

    #[test]
    fn secrets_are_not_shown() {
        let r = FromDriver::parse(REGISTER.as_bytes()).unwrap();
        let shown = format!("{r:?}");
        assert!(shown.contains("_SPARK_AUTH_SECRET") && !shown.contains("hush"), "{shown}");
        let broken = REGISTER.replace("\"coarse\"", "\"gross\"");
        let e = FromDriver::parse(broken.as_bytes()).unwrap_err();
        let shown = format!("{e}: {}", e.source().unwrap());
        assert!(shown.contains("`gross`") && shown.contains("`coarse`"), "{shown}");
        assert!(!shown.contains("hush"));
    }

    #[test]
    fn another_version_is_refused_before_anything_else_is_looked_at() {
        for (text, theirs) in
            [(r#"{"t":"register","v":2,"mode":7}"#, 2), (r#"{"t":"register"}"#, 0)]
        {
            let e = FromDriver::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(e, ProtocolError::Version { theirs: t } if t == theirs), "{e}");
        }
    }

    #[test]
    fn an_unknown_message_is_named() {
        let e = FromDriver::parse(br#"{"t":"dance"}"#).unwrap_err();
        assert!(e.to_string().contains("`dance`"), "{e}");
        assert!(e.source().unwrap().to_string().contains("kill_executors"));
    }

    #[test]
    fn lines_are_bounded_and_a_cut_off_line_is_the_end() {
        let mut input: &[u8] = b"\n{\"t\":\"unregister\"}\n{\"t\":\"unreg";
        let first = read_message(&mut input).unwrap();
        assert_eq!(first, Some(FromDriver::Unregister { exit_code: 0 }));
        assert_eq!(read_message(&mut input).unwrap(), None);
        let long = vec![b'x'; MAX_LINE + 1];
        let e = read_message(&mut long.as_slice()).unwrap_err();
        assert!(matches!(e, ProtocolError::TooLong), "{e}");
    }

    #[test]
    fn lines_to_the_driver() {
        let line = ToDriver::Registered { v: VERSION, app_id: "fw-1".into() }.to_line();
        assert_eq!(line, b"{\"t\":\"registered\",\"v\":1,\"app_id\":\"fw-1\"}\n");
    }
}
