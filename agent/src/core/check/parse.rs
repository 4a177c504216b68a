//! What a framework may ask for.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::v1::{self, CheckInfo, HealthCheck, check_info, health_check, network_info};

use super::{Check, Checks, Health, Probe, Prober};
use crate::{
    containerizer::{ExecSpec, Program},
    core::environment::{program, variables},
};

/// A check that asks for less is made at this interval.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Longer than any task runs; what overflows is as good as never.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The checks of a task; the error names the field.
pub(in crate::core) fn parse(task: &v1::TaskInfo) -> Result<Option<Box<Checks>>, String> {
    let check = task.check.as_ref().map(check).transpose();
    let health = task.health_check.as_ref().map(health).transpose();
    let checks = Checks {
        check: check.map_err(|error| format!("check.{error}"))?,
        health: health.map_err(|error| format!("health_check.{error}"))?,
    };
    let any = checks.check.is_some() || checks.health.is_some();
    Ok(any.then(|| Box::new(checks)))
}

fn check(info: &CheckInfo) -> Result<Check, String> {
    use check_info::Type;
    let probe = match info.r#type() {
        Type::Command => {
            let command = info.command.as_ref().ok_or_else(|| missing("command"))?;
            command_probe("command.command", &command.command)?
        }
        Type::Http => {
            let http = info.http.as_ref().ok_or_else(|| missing("http"))?;
            http_probe(http.port, http.path.as_deref(), None, false)?
        }
        Type::Tcp => {
            let tcp = info.tcp.as_ref().ok_or_else(|| missing("tcp"))?;
            Probe::Tcp { port: port("tcp.port", tcp.port)?, ipv6: false }
        }
        Type::Unknown => return Err(no_type()),
    };
    let times = (info.delay_seconds(), info.interval_seconds(), info.timeout_seconds());
    Ok(Check::new(prober(probe, times)?, info.r#type()))
}

fn health(info: &HealthCheck) -> Result<Health, String> {
    use health_check::Type;
    let ipv6 = |protocol: network_info::Protocol| protocol == network_info::Protocol::IPv6;
    let probe = match info.r#type() {
        Type::Command => {
            let command = info.command.as_ref().ok_or_else(|| missing("command"))?;
            command_probe("command", command)?
        }
        Type::Http => {
            let http = info.http.as_ref().ok_or_else(|| missing("http"))?;
            let scheme = http.scheme.as_deref();
            http_probe(http.port, http.path.as_deref(), scheme, ipv6(http.protocol()))?
        }
        Type::Tcp => {
            let tcp = info.tcp.as_ref().ok_or_else(|| missing("tcp"))?;
            Probe::Tcp { port: port("tcp.port", tcp.port)?, ipv6: ipv6(tcp.protocol()) }
        }
        Type::Unknown => return Err(no_type()),
    };
    let times = (info.delay_seconds(), info.interval_seconds(), info.timeout_seconds());
    Ok(Health {
        prober: prober(probe, times)?,
        limit: info.consecutive_failures(),
        grace: seconds("grace_period_seconds", info.grace_period_seconds())?,
        failures: 0,
        healthy: None,
    })
}

fn missing(field: &str) -> String {
    format!("{field}: must be set for a check of this type")
}

fn no_type() -> String {
    "type: must be COMMAND, HTTP or TCP".to_owned()
}

fn prober(probe: Probe, (delay, interval, timeout): (f64, f64, f64)) -> Result<Prober, String> {
    let timeout = seconds("timeout_seconds", timeout)?;
    Ok(Prober {
        probe,
        delay: seconds("delay_seconds", delay)?,
        interval: seconds("interval_seconds", interval)?.max(SHORTEST_INTERVAL),
        timeout: (!timeout.is_zero()).then_some(timeout),
        running: None,
    })
}

fn seconds(field: &str, value: f64) -> Result<Duration, String> {
    if value.is_nan() || value < 0.0 {
        return Err(format!("{field}: {value} is negative or no number"));
    }
    Ok(Duration::try_from_secs_f64(value).unwrap_or(LONGEST).min(LONGEST))
}

fn port(field: &str, value: u32) -> Result<u16, String> {
    u16::try_from(value)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{field}: {value} is no port; it must be 1 to 65535"))
}

fn http_probe(
    port_number: u32,
    path: Option<&str>,
    scheme: Option<&str>,
    ipv6: bool,
) -> Result<Probe, String> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/");
    if !path.starts_with('/') {
        return Err(format!("http.path: {path:?} must start with '/'"));
    }
    if path.bytes().any(|byte| !(0x21..0x7f).contains(&byte)) {
        return Err(format!(
            "http.path: {path:?} holds a space or what is not printable ASCII; write it as %XX"
        ));
    }
    let tls = match scheme {
        None | Some("http") => false,
        Some("https") => true,
        Some(other) => {
            return Err(format!("http.scheme: {other:?} must be `http` or `https`"));
        }
    };
    let port = port("http.port", port_number)?;
    Ok(Probe::Http { port, path: path.to_owned(), tls, ipv6 })
}

/// It runs as the task does: `user` and `uris` of its command do not count.
fn command_probe(field: &str, command: &v1::CommandInfo) -> Result<Probe, String> {
    // Both name what is wrong below `command.`.
    let named = |error: String| match error.strip_prefix("command.") {
        Some(rest) => format!("{field}.{rest}"),
        None => format!("{field}: {error}"),
    };
    let program = match program(command).map_err(named)? {
        program @ (Program::Shell(_) | Program::Exec { .. }) => program,
        Program::Image { .. } | Program::Hold => return Err(missing(&format!("{field}.value"))),
    };
    let environment: BTreeMap<String, String> =
        variables(command).map_err(named)?.into_iter().collect();
    Ok(Probe::Command(ExecSpec { program, environment, stdin: false, terminal: None }))
}
