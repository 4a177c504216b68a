//! What an agent is, for those who read: it does not change while it runs.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mezz_proto::{
    pages::{AttributesPage, duration_text},
    resources::Resources,
    v1,
};

use crate::options::{AgentOptions, Containment};

/// An agent, as it was started.
#[derive(Debug, Default)]
pub(crate) struct About {
    pub(crate) hostname: String,
    pub(crate) port: u16,
    /// host:port that peers are told.
    pub(crate) address: String,
    pub(crate) resources: Resources,
    pub(crate) attributes: Vec<v1::Attribute>,
    pub(crate) domain: Option<v1::DomainInfo>,
    /// By the names that Mesos has for them.
    pub(crate) flags: BTreeMap<&'static str, String>,
    /// What the fetcher's cache may hold.
    pub(crate) fetcher_cache_bytes: u64,
    /// Seconds since the epoch.
    pub(crate) start_time: f64,
}

impl About {
    pub(crate) fn new(options: &AgentOptions, address: &str, local: SocketAddr) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            hostname: options.hostname.clone(),
            port: local.port(),
            address: address.to_owned(),
            resources: options.resources.clone(),
            attributes: options.attributes.clone(),
            domain: options.domain.clone(),
            flags: flags(options, local),
            fetcher_cache_bytes: options.fetcher.cache_bytes,
            start_time: now.as_secs_f64(),
        }
    }

    /// Who it is among executors and operators of Mesos.
    pub(crate) fn pid(&self) -> String {
        format!("slave(1)@{}", self.address)
    }
}

/// Options that Mesos has too, under its names and in its forms. None of them is secret:
/// what can hold credentials (commands that fetch, the file of Docker's) is left out.
fn flags(o: &AgentOptions, local: SocketAddr) -> BTreeMap<&'static str, String> {
    let containerizers = if o.docker.engine.is_some() { "docker,mesos" } else { "mesos" };
    let cgroups = o.containment == Containment::Cgroup;
    let isolation = if cgroups { "cgroups/cpu,cgroups/mem" } else { "posix/cpu,posix/mem" };
    let duration = |duration: Duration| duration_text(duration);
    let mut flags = BTreeMap::from([
        ("authenticate_http_executors", o.authenticate_http_executors.to_string()),
        ("authenticate_http_readonly", "false".to_owned()),
        ("authenticate_http_readwrite", "false".to_owned()),
        ("cgroups_enable_cfs", o.cgroup_cpu_quota.to_string()),
        ("cgroups_root", o.cgroup_root.clone()),
        ("container_disk_watch_interval", duration(o.monitor.container_disk_interval)),
        ("containerizers", containerizers.to_owned()),
        ("default_role", "*".to_owned()),
        ("disk_watch_interval", duration(o.monitor.disk_watch_interval)),
        ("enforce_container_disk_quota", o.monitor.enforce_disk_quota.to_string()),
        ("enforce_container_ports", o.monitor.enforce_ports.to_string()),
        ("executor_registration_timeout", duration(o.executor_registration_timeout)),
        ("executor_reregistration_timeout", duration(o.executor_reregistration_timeout)),
        ("executor_shutdown_grace_period", duration(o.executor_shutdown_grace)),
        ("fetcher_cache_size", bytes_text(o.fetcher.cache_bytes)),
        ("fetcher_stall_timeout", duration(o.fetcher.timeout)),
        ("gc_delay", duration(o.sandbox_retention)),
        ("gc_disk_headroom", "0.1".to_owned()),
        ("hostname", o.hostname.clone()),
        ("http_command_executor", "false".to_owned()),
        ("ip", local.ip().to_string()),
        ("isolation", isolation.to_owned()),
        ("master", o.masters.join(",")),
        ("port", local.port().to_string()),
        ("reconfiguration_policy", "additive".to_owned()),
        ("recover", "reconnect".to_owned()),
        ("recovery_timeout", "15mins".to_owned()),
        ("registration_backoff_factor", duration(o.register_backoff.0)),
        ("resources", o.resources.to_string()),
        ("strict", "true".to_owned()),
        ("switch_user", nix::unistd::geteuid().is_root().to_string()),
        ("work_dir", o.work_dir.display().to_string()),
    ]);
    if let Ok(serde_json::Value::Object(all)) = serde_json::to_value(AttributesPage(&o.attributes))
        && !all.is_empty()
    {
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let all: Vec<String> = all.iter().map(|(k, v)| format!("{k}:{}", text(v))).collect();
        flags.insert("attributes", all.join(";"));
    }
    flags
}

/// A size as Mesos writes it, in the largest unit of which it is a whole number.
fn bytes_text(bytes: u64) -> String {
    let units = [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")];
    let whole = |shift: u32| bytes > 0 && bytes.trailing_zeros() >= shift;
    match units.into_iter().find(|&(shift, _)| whole(shift)) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_by_mesos() {
        for (bytes, text) in
            [(2 << 30, "2GB"), (3 << 40, "3TB"), (1536 << 20, "1536MB"), (1500, "1500B"), (0, "0B")]
        {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
