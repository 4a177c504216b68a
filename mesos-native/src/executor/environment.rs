//! What the agent tells an executor, in the variables that libmesos reads (rule 55).

use mezz_sdk::executor::ExecutorOptions;

use crate::error::Error;

/// Those that libmesos insists on.
const REQUIRED: [&str; 5] = [
    "MESOS_SLAVE_PID",
    "MESOS_SLAVE_ID",
    "MESOS_FRAMEWORK_ID",
    "MESOS_EXECUTOR_ID",
    "MESOS_DIRECTORY",
];

/// What libmesos takes when the variable is not there.
const RECOVERY_TIMEOUT: &str = "15mins";

/// The SDK's settings from these variables.
pub(super) fn options(var: impl Fn(&str) -> Option<String>) -> Result<ExecutorOptions, Error> {
    let var = |name: &str| var(name).filter(|value| !value.is_empty());
    for name in REQUIRED {
        if var(name).is_none() {
            return Err(Error::Variable(name));
        }
    }
    let options = ExecutorOptions::from_vars(|name| match name {
        // The address in `slave(1)@ip:port`.
        "MESOS_AGENT_ENDPOINT" => {
            var(name).or_else(|| Some(var("MESOS_SLAVE_PID")?.rsplit_once('@')?.1.to_owned()))
        }
        // Executors of frameworks that do not checkpoint end with their agent (rule 53).
        "MESOS_RECOVERY_TIMEOUT" => {
            let checkpoints = var("MESOS_CHECKPOINT").is_some_and(|value| value == "1");
            checkpoints.then(|| var(name).unwrap_or_else(|| RECOVERY_TIMEOUT.to_owned()))
        }
        _ => var(name),
    })?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const VARS: [(&str, &str); 7] = [
        ("MESOS_SLAVE_PID", "slave(1)@10.0.0.1:5051"),
        ("MESOS_SLAVE_ID", "S"),
        ("MESOS_FRAMEWORK_ID", "F"),
        ("MESOS_EXECUTOR_ID", "E"),
        ("MESOS_DIRECTORY", "/sandbox"),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_RECOVERY_TIMEOUT", "15mins"),
    ];

    fn read(changes: &[(&str, &str)]) -> Result<ExecutorOptions, Error> {
        options(|name| {
            let all = changes.iter().chain(&VARS);
            all.into_iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn reads_what_libmesos_reads() {
        let options = read(&[]).unwrap();
        assert_eq!(options.agent, "10.0.0.1:5051");
        assert_eq!(options.recovery_timeout, Some(Duration::from_secs(900)));
        let options = read(&[("MESOS_AGENT_ENDPOINT", "a:1"), ("MESOS_CHECKPOINT", "0")]).unwrap();
        assert_eq!((options.agent.as_str(), options.recovery_timeout), ("a:1", None));
        let options = read(&[("MESOS_RECOVERY_TIMEOUT", "")]).unwrap();
        assert_eq!(options.recovery_timeout, Some(Duration::from_secs(900)));
    }

    #[test]
    fn names_what_is_missing_in_libmesos_words() {
        for name in REQUIRED {
            let error = read(&[(name, "")]).unwrap_err().to_string();
            assert_eq!(error, format!("Expecting '{name}' to be set in the environment"));
        }
    }
}
