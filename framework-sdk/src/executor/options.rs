//! What the agent tells an executor in its environment (behaviour rule 55).

use std::{fmt, time::Duration};

use mezz_proto::ids::{ExecutorId, FrameworkId};
use thiserror::Error;

/// What an executor needs to know to subscribe.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// MESOS_AGENT_ENDPOINT: the agent's host:port.
    pub agent: String,
    /// MESOS_FRAMEWORK_ID.
    pub framework_id: FrameworkId,
    /// MESOS_EXECUTOR_ID.
    pub executor_id: ExecutorId,
    /// MEZZ_EXECUTOR_TOKEN: proves to the agent who this is.
    pub token: Option<String>,
    /// MESOS_RECOVERY_TIMEOUT: how long to wait for an agent that went away.
    /// Without it the executor shuts down when its agent goes away.
    pub recovery_timeout: Option<Duration>,
    /// MESOS_SUBSCRIPTION_BACKOFF_MAX: longest pause between two attempts to
    /// subscribe. Default: 2 s.
    pub backoff_max: Duration,
    /// MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD: how long the executor has to end
    /// after [`Event::Shutdown`](super::Event::Shutdown). Default: 5 s.
    pub shutdown_grace_period: Duration,
}

/// A variable that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionsError {
    /// Not set, or empty.
    #[error("{0} is not set; a custom executor is started by an agent, which sets it")]
    Missing(&'static str),
    /// No duration.
    #[error(
        "{name}: `{value}` is no duration; write a number with ns, us, ms, secs, mins, hrs, days or weeks"
    )]
    Duration {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// No address.
    #[error("MESOS_AGENT_ENDPOINT: `{0}` is no address; it must be host:port")]
    Address(String),
}

impl ExecutorOptions {
    /// From these variables.
    ///
    /// # Errors
    /// [`OptionsError`] names the variable that is missing or wrong.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, OptionsError> {
        let optional = |name| var(name).filter(|v| !v.is_empty());
        let required = |name| optional(name).ok_or(OptionsError::Missing(name));
        let duration = |name| match optional(name) {
            None => Ok(None),
            Some(value) => match parse_duration(&value) {
                Some(d) => Ok(Some(d)),
                None => Err(OptionsError::Duration { name, value }),
            },
        };
        let agent = required("MESOS_AGENT_ENDPOINT")?;
        if !agent.rsplit_once(':').is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok()) {
            return Err(OptionsError::Address(agent));
        }
        Ok(Self {
            agent,
            framework_id: required("MESOS_FRAMEWORK_ID")?.into(),
            executor_id: required("MESOS_EXECUTOR_ID")?.into(),
            token: optional("MEZZ_EXECUTOR_TOKEN"),
            recovery_timeout: duration("MESOS_RECOVERY_TIMEOUT")?,
            backoff_max: duration("MESOS_SUBSCRIPTION_BACKOFF_MAX")?
                .unwrap_or(Duration::from_secs(2)),
            shutdown_grace_period: duration("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD")?
                .unwrap_or(Duration::from_secs(5)),
        })
    }
}

impl fmt::Debug for ExecutorOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorOptions")
            .field("agent", &self.agent)
            .field("framework_id", &self.framework_id)
            .field("executor_id", &self.executor_id)
            .field("recovery_timeout", &self.recovery_timeout)
            .finish_non_exhaustive()
    }
}

/// Mesos' text form: `15mins`, `1.5secs`.
fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit_at].trim().parse().ok()?;
    let seconds = match &text[unit_at..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" | "s" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<ExecutorOptions, OptionsError> {
        let base = [
            ("MESOS_AGENT_ENDPOINT", "10.0.0.1:5051"),
            ("MESOS_FRAMEWORK_ID", "F"),
            ("MESOS_EXECUTOR_ID", "E"),
            ("MEZZ_EXECUTOR_TOKEN", "hush"),
        ];
        ExecutorOptions::from_vars(|name| {
            vars.iter().chain(&base).find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn durations() {
        let parsed = |t| parse_duration(t);
        assert_eq!(parsed("15mins"), Some(Duration::from_secs(900)));
        assert_eq!(parsed("1.5secs"), Some(Duration::from_millis(1500)));
        assert_eq!(parsed("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "5", "secs", "-1secs", "5 parsecs", "1e400secs"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn reads_variables_and_names_bad_ones() {
        let options = read(&[("MESOS_RECOVERY_TIMEOUT", "15mins")]).unwrap();
        assert_eq!(options.recovery_timeout, Some(Duration::from_secs(900)));
        assert_eq!(options.shutdown_grace_period, Duration::from_secs(5));
        assert!(!format!("{options:?}").contains("hush"));
        assert_eq!(
            read(&[("MESOS_FRAMEWORK_ID", "")]),
            Err(OptionsError::Missing("MESOS_FRAMEWORK_ID"))
        );
        assert_eq!(read(&[("MESOS_AGENT_ENDPOINT", "x")]), Err(OptionsError::Address("x".into())));
        assert!(matches!(
            read(&[("MESOS_RECOVERY_TIMEOUT", "soon")]),
            Err(OptionsError::Duration { name: "MESOS_RECOVERY_TIMEOUT", .. })
        ));
    }
}
