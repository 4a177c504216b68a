//! How long an agent waits for what: its options.

use std::time::Duration;

use clap::Args;
use mezz_agent::options::AgentOptions;

use crate::{config::Checker, units};

/// Longest time that executors may take to come back after a restart (rule 52).
const MAX_REREGISTRATION: Duration = Duration::from_secs(15);

/// How long the agent waits for what.
#[derive(Clone, Debug, Args)]
pub struct TimeoutArgs {
    /// Between SIGTERM and SIGKILL, where a task says nothing else
    #[arg(long, env = "MEZZ_KILL_GRACE", value_name = "TIME", default_value = "3s")]
    pub kill_grace: String,
    /// An executor that has not subscribed so long after its program was started is
    /// killed
    #[arg(
        long,
        env = "MEZZ_EXECUTOR_REGISTRATION_TIMEOUT",
        value_name = "TIME",
        default_value = "1m"
    )]
    pub executor_registration_timeout: String,
    /// After a restart of the agent, executors have this long to come back; at
    /// most 15s
    #[arg(
        long,
        env = "MEZZ_EXECUTOR_REREGISTRATION_TIMEOUT",
        value_name = "TIME",
        default_value = "2s"
    )]
    pub executor_reregistration_timeout: String,
    /// Between telling an executor to shut down and killing it
    #[arg(long, env = "MEZZ_EXECUTOR_SHUTDOWN_GRACE", value_name = "TIME", default_value = "5s")]
    pub executor_shutdown_grace: String,
    /// First wait before a status update is sent again
    #[arg(long, env = "MEZZ_UPDATE_RETRY_MIN", value_name = "TIME", default_value = "10s")]
    pub update_retry_min: String,
    /// Longest wait before a status update is sent again
    #[arg(long, env = "MEZZ_UPDATE_RETRY_MAX", value_name = "TIME", default_value = "10m")]
    pub update_retry_max: String,
    /// First wait between attempts to reach a master
    #[arg(long, env = "MEZZ_REGISTER_BACKOFF_MIN", value_name = "TIME", default_value = "1s")]
    pub register_backoff_min: String,
    /// Longest wait between attempts to reach a master
    #[arg(long, env = "MEZZ_REGISTER_BACKOFF_MAX", value_name = "TIME", default_value = "1m")]
    pub register_backoff_max: String,
}

impl TimeoutArgs {
    /// Checks these options; what is wrong is noted.
    pub fn set(&self, check: &mut Checker<'_>, options: &mut AgentOptions) {
        let o = options;
        for (option, text, target) in [
            ("kill-grace", &self.kill_grace, &mut o.kill_grace),
            (
                "executor-registration-timeout",
                &self.executor_registration_timeout,
                &mut o.executor_registration_timeout,
            ),
            (
                "executor-reregistration-timeout",
                &self.executor_reregistration_timeout,
                &mut o.executor_reregistration_timeout,
            ),
            (
                "executor-shutdown-grace",
                &self.executor_shutdown_grace,
                &mut o.executor_shutdown_grace,
            ),
            ("update-retry-min", &self.update_retry_min, &mut o.update_retry.0),
            ("update-retry-max", &self.update_retry_max, &mut o.update_retry.1),
            ("register-backoff-min", &self.register_backoff_min, &mut o.register_backoff.0),
            ("register-backoff-max", &self.register_backoff_max, &mut o.register_backoff.1),
        ] {
            check.set(option, text, units::duration, target);
        }
    }
}

/// What makes sense only together.
pub fn check_relations(check: &mut Checker<'_>, options: &AgentOptions) {
    for (option, (first, longest)) in
        [("update-retry", options.update_retry), ("register-backoff", options.register_backoff)]
    {
        check.require(!first.is_zero(), &format!("{option}-min"), || {
            "it has to be more than 0".to_owned()
        });
        check.require(first <= longest, &format!("{option}-max"), || {
            format!(
                "{} is less than --{option}-min, {}",
                units::show_duration(longest),
                units::show_duration(first)
            )
        });
    }
    check.require(
        !options.executor_registration_timeout.is_zero(),
        "executor-registration-timeout",
        || "it has to be more than 0".to_owned(),
    );
    check.require(
        options.executor_reregistration_timeout <= MAX_REREGISTRATION,
        "executor-reregistration-timeout",
        || {
            format!(
                "{} is more than the most, {}",
                units::show_duration(options.executor_reregistration_timeout),
                units::show_duration(MAX_REREGISTRATION)
            )
        },
    );
}
