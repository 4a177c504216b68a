//! What is measured and bounded while tasks run: an agent's options.

use clap::Args;
use mezz_agent::options::MonitorOptions;

use crate::{config::Checker, units};

/// What is measured and bounded while tasks run.
#[derive(Clone, Debug, Args)]
pub struct MonitorArgs {
    /// How often to look for sandboxes to be removed, and at how full their disk is
    #[arg(long, env = "MEZZ_DISK_WATCH_INTERVAL", value_name = "TIME", default_value = "1m")]
    pub disk_watch_interval: String,
    /// How often to measure what running tasks use: the disk of their sandboxes, and
    /// for the metrics also processor time and memory
    #[arg(
        long,
        env = "MEZZ_CONTAINER_DISK_WATCH_INTERVAL",
        value_name = "TIME",
        default_value = "15s"
    )]
    pub container_disk_watch_interval: String,
    /// End tasks whose sandbox holds more than their disk resource; otherwise they
    /// are reported in the log
    #[arg(long, env = "MEZZ_ENFORCE_DISK_QUOTA", value_name = "BOOL", default_value = "false")]
    pub enforce_disk_quota: String,
    /// How often to look at the TCP ports on which tasks listen
    #[arg(
        long,
        env = "MEZZ_CONTAINER_PORTS_WATCH_INTERVAL",
        value_name = "TIME",
        default_value = "30s"
    )]
    pub container_ports_watch_interval: String,
    /// End tasks that listen on TCP ports of this machine that they do not hold;
    /// otherwise they are reported in the log
    #[arg(
        long,
        env = "MEZZ_ENFORCE_CONTAINER_PORTS",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub enforce_container_ports: String,
    /// Look only at ports that the agent offers, so that tasks may listen on others
    #[arg(
        long,
        env = "MEZZ_CHECK_AGENT_PORT_RANGE_ONLY",
        value_name = "BOOL",
        default_value = "false"
    )]
    pub check_agent_port_range_only: String,
    /// stdout and stderr of a task are each put aside when they are larger, and two
    /// old ones kept; `none` lets them grow
    #[arg(long, env = "MEZZ_LOG_MAX_SIZE", value_name = "SIZE", default_value = "100MiB")]
    pub log_max_size: String,
}

impl MonitorArgs {
    /// Checks these options; what is wrong is noted.
    pub fn set(&self, check: &mut Checker<'_>, options: &mut MonitorOptions) {
        for (option, text, target) in [
            ("disk-watch-interval", &self.disk_watch_interval, &mut options.disk_watch_interval),
            (
                "container-disk-watch-interval",
                &self.container_disk_watch_interval,
                &mut options.container_disk_interval,
            ),
            (
                "container-ports-watch-interval",
                &self.container_ports_watch_interval,
                &mut options.container_ports_interval,
            ),
        ] {
            check.set(option, text, units::duration, target);
        }
        for (option, text, target) in [
            ("enforce-disk-quota", &self.enforce_disk_quota, &mut options.enforce_disk_quota),
            ("enforce-container-ports", &self.enforce_container_ports, &mut options.enforce_ports),
            (
                "check-agent-port-range-only",
                &self.check_agent_port_range_only,
                &mut options.check_agent_port_range_only,
            ),
        ] {
            check.set(option, text, units::boolean, target);
        }
        check.set("log-max-size", &self.log_max_size, size_or_none, &mut options.log_max_bytes);
    }
}

/// What makes sense only together.
pub fn check_relations(check: &mut Checker<'_>, options: &MonitorOptions) {
    for (option, interval) in [
        ("disk-watch-interval", options.disk_watch_interval),
        ("container-disk-watch-interval", options.container_disk_interval),
        ("container-ports-watch-interval", options.container_ports_interval),
    ] {
        check.require(!interval.is_zero(), option, || "it has to be more than 0".to_owned());
    }
}

/// 0 is `none`.
fn size_or_none(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { units::size(text) }
}
