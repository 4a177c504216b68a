//! An executor as a Mezz task.

use std::time::Duration;

use mezz_proto::{ids::AgentId, labels, resources::Dialect, v1};

use super::{place::Place, resources};
use crate::{
    policy::LaunchSpec,
    protocol::{Profile, Register},
};

/// Between asking an executor to end and killing it: time for its shutdown hooks,
/// which remove its files.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Fills names in double braces in.
pub(super) struct Filler(Vec<(String, String)>);

impl Filler {
    /// Of these names and values.
    pub(super) fn new(values: &[(&str, &str)]) -> Self {
        Self(values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    /// The text with all names filled in.
    pub(super) fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// The application that executors belong to.
pub(super) struct App<'a> {
    pub(super) register: &'a Register,
    pub(super) id: &'a str,
    pub(super) place: &'a Place,
}

/// The task that runs this executor; `log` is the address of its agent.
pub(super) fn task(
    app: &App<'_>,
    profile: &Profile,
    spec: &LaunchSpec,
    agent: &AgentId,
    role: Option<&str>,
    log: Option<&str>,
) -> v1::TaskInfo {
    let id = spec.executor.to_string();
    let shuffle_port = spec.served.as_ref().map_or(0, |s| s.port).to_string();
    let filler = Filler::new(&[
        ("{{EXECUTOR_ID}}", &id),
        ("{{HOSTNAME}}", &spec.hostname),
        ("{{CORES}}", &spec.cores.to_string()),
        ("{{HEAP_MIB}}", &profile.heap.to_string()),
        ("{{APP_ID}}", app.id),
        ("{{PROFILE_ID}}", &spec.profile.0.to_string()),
        ("{{SHUFFLE_PORT}}", &shuffle_port),
    ]);
    let fill = |text: &String| filler.fill(text);
    let mut env: Vec<(String, String)> =
        app.register.env.iter().map(|(k, v)| (k.clone(), fill(v))).collect();
    if let Some(base) = log {
        for (name, file) in [("SPARK_LOG_URL_STDOUT", "stdout"), ("SPARK_LOG_URL_STDERR", "stderr")]
        {
            let url = format!("{base}/files/download?framework={}&task={id}&path={file}", app.id);
            env.push((name.to_owned(), url));
        }
    }
    let arguments: Vec<String> = app.register.command.iter().map(fill).collect();
    let arguments = resources::tell(&profile.resources, &spec.addresses, arguments, &mut env);
    v1::TaskInfo {
        name: format!("{} executor {id}", app.register.app_name),
        task_id: v1::TaskId { value: id },
        agent_id: agent.into(),
        resources: spec.resources.to_proto(Dialect::Refined, role),
        command: Some(v1::CommandInfo {
            environment: Some(v1::Environment {
                variables: env.into_iter().map(|(name, value)| variable(name, value)).collect(),
            }),
            ..app.place.command(arguments)
        }),
        container: app.place.container(),
        // What Python runs for it must not end before it.
        labels: Some(v1::Labels {
            labels: vec![labels::label(labels::KILL_SIGNAL, labels::KILL_SIGNAL_FIRST_PROCESS)],
        }),
        kill_policy: Some(policy(
            app.register.kill_grace_s.map_or(KILL_GRACE, |s| Duration::from_secs(u64::from(s))),
        )),
        ..Default::default()
    }
}

/// For executors that end on our word: Spark has decided, so they have nothing to
/// move away, however long they would have otherwise.
pub(crate) fn kill_policy() -> v1::KillPolicy {
    policy(KILL_GRACE)
}

fn policy(grace: Duration) -> v1::KillPolicy {
    let nanoseconds = i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX);
    v1::KillPolicy { grace_period: Some(v1::DurationInfo { nanoseconds }) }
}

/// As a secret where the name says so, which keeps it out of what is shown of
/// tasks.
pub(super) fn variable(name: String, value: String) -> v1::environment::Variable {
    use v1::{environment::variable, secret};
    let upper = name.to_ascii_uppercase();
    if !["SECRET", "PASSWORD", "TOKEN"].iter().any(|w| upper.contains(w)) {
        return v1::environment::Variable { name, value: Some(value), ..Default::default() };
    }
    let secret = v1::Secret {
        r#type: Some(secret::Type::Value as i32),
        value: Some(secret::Value { data: value.into_bytes() }),
        ..Default::default()
    };
    v1::environment::Variable {
        name,
        r#type: Some(variable::Type::Secret as i32),
        secret: Some(secret),
        ..Default::default()
    }
}

/// Where the offering agent serves files, when the offer says.
pub(crate) fn log_base(offer: &v1::Offer) -> Option<String> {
    let url = offer.url.as_ref()?;
    let host = url.address.hostname.as_deref().or(url.address.ip.as_deref())?;
    // An address of IPv6 stands in brackets.
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some(format!("{}://{host}:{}", url.scheme, url.address.port))
}
