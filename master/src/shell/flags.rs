//! A master's settings under the names of Mesos, for `/flags` and `/state`.

use std::collections::BTreeMap;

use mezz_proto::pages::duration_text;

use super::limits::MAX_SUBSCRIBERS;
use crate::options::{CoreOptions, MasterOptions, RegistryOptions};

/// The settings that Mesos has a name for. Names and passwords of the registry stay out.
pub fn flags(options: &MasterOptions, core: &CoreOptions) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut set = |name: &str, value: String| _ = out.insert(name.to_owned(), value);
    let (host, port) = core.address.rsplit_once(':').unwrap_or((&core.address, ""));
    set("hostname", host.to_owned());
    set("port", port.to_owned());
    if let Some(cluster) = &options.cluster {
        set("cluster", cluster.clone());
    }
    let registry = match &options.registry {
        RegistryOptions::Memory => "in_memory",
        RegistryOptions::File(_) => "file",
        RegistryOptions::Etcd(_) => "etcd",
    };
    set("registry", registry.to_owned());
    set("agent_ping_timeout", duration_text(core.ping_interval));
    set("max_agent_ping_timeouts", core.max_missed_pings.to_string());
    set("agent_reregister_timeout", duration_text(core.agent_reregister_timeout));
    if let Some(rate) = &core.agent_removal_rate_limit {
        let rate = format!("{}/{}", rate.agents, duration_text(rate.per));
        set("agent_removal_rate_limit", rate);
    }
    set("registry_max_agent_age", duration_text(core.unreachable_retention));
    set("registry_max_agent_count", core.max_agents.to_string());
    set("allocation_interval", duration_text(core.allocation_batch));
    if let Some(timeout) = core.offer_timeout {
        set("offer_timeout", duration_text(timeout));
    }
    let smallest: Vec<_> = core
        .allocator
        .min_allocatable
        .iter()
        .map(|entry| {
            let parts: Vec<_> = entry.iter().map(|(name, of)| format!("{name}:{of}")).collect();
            parts.join(";")
        })
        .collect();
    set("min_allocatable_resources", smallest.join("|"));
    if !core.allocator.fair_sharing_excluded.is_empty() {
        let names = core.allocator.fair_sharing_excluded.join(",");
        set("fair_sharing_excluded_resource_names", names);
    }
    set("filter_gpu_resources", core.allocator.filter_gpu_resources.to_string());
    if !core.weights.is_empty() {
        let weights: Vec<_> = core.weights.iter().map(|(r, w)| format!("{r}={w}")).collect();
        set("weights", weights.join(","));
    }
    set("max_completed_frameworks", core.max_completed_frameworks.to_string());
    set("max_completed_tasks_per_framework", core.max_completed_tasks.to_string());
    set("max_operator_event_stream_subscribers", MAX_SUBSCRIBERS.to_string());
    // There is one for both protocols.
    for name in ["authenticate_frameworks", "authenticate_http_frameworks"] {
        set(name, options.authentication.is_some().to_string());
    }
    if let Some(authentication) = &options.authentication {
        set("http_framework_authenticators", "basic".to_owned());
        if let Some(file) = &authentication.file {
            set("credentials", file.display().to_string());
        }
    }
    for (name, value) in [
        ("allocator", "hierarchical"),
        ("authenticate_agents", "false"),
        ("authenticate_http_readonly", "false"),
        ("authenticate_http_readwrite", "false"),
        ("framework_sorter", "drf"),
        ("publish_per_framework_metrics", "false"),
        ("role_sorter", "drf"),
        ("root_submissions", "true"),
    ] {
        set(name, value.to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{credentials::Credentials, options::Authentication};

    #[test]
    fn settings_have_the_names_and_forms_of_mesos() {
        let core = CoreOptions { address: "host:5050".to_owned(), ..Default::default() };
        let options = MasterOptions {
            advertise: None,
            cluster: None,
            registry: RegistryOptions::Memory,
            authentication: None,
            core: core.clone(),
        };
        let shown = flags(&options, &core);
        for (name, value) in [
            ("agent_ping_timeout", "15secs"),
            ("agent_reregister_timeout", "10mins"),
            ("registry_max_agent_age", "2weeks"),
            ("min_allocatable_resources", "cpus:0.01|mem:32"),
            ("max_agent_ping_timeouts", "5"),
            ("port", "5050"),
            ("authenticate_frameworks", "false"),
            ("authenticate_http_frameworks", "false"),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
        assert!(!shown.contains_key("credentials"), "{shown:?}");

        let credentials = Arc::new(Credentials::parse("spark hush").unwrap());
        let authentication = Authentication { credentials, file: Some("/etc/c.json".into()) };
        let options = MasterOptions { authentication: Some(authentication), ..options };
        let shown = flags(&options, &core);
        for (name, value) in [
            ("authenticate_frameworks", "true"),
            ("authenticate_http_frameworks", "true"),
            ("http_framework_authenticators", "basic"),
            ("credentials", "/etc/c.json"),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
        assert!(!format!("{shown:?}").contains("hush"), "{shown:?}");
    }
}
