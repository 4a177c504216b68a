//! Ports of this machine that lead into a container.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use mezz_proto::{
    resources::Amount,
    v1::container_info::{DockerInfo, docker_info::Network},
};

use crate::containerizer::ContainerSpec;

/// Adds the mappings; each port of the machine must be the task's.
pub(super) fn apply(
    spec: &ContainerSpec,
    docker: &DockerInfo,
    body: &mut ContainerCreateBody,
    host: &mut HostConfig,
) -> Result<(), String> {
    if docker.port_mappings.is_empty() {
        return Ok(());
    }
    if !matches!(docker.network(), Network::Bridge | Network::User) {
        return Err(format!(
            "container.docker.port_mappings are only for docker.network BRIDGE and USER, and it \
             is {}",
            docker.network().as_str_name()
        ));
    }
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for (index, mapping) in docker.port_mappings.iter().enumerate() {
        let field = format!("container.docker.port_mappings[{index}]");
        let protocol = mapping.protocol.as_deref().unwrap_or("tcp").to_lowercase();
        if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return Err(format!("{field}.protocol `{protocol}` is not tcp, udp or sctp"));
        }
        if !(1..=65_535).contains(&mapping.container_port) {
            return Err(format!(
                "{field}.container_port {} is no port: 1 to 65535",
                mapping.container_port
            ));
        }
        if !holds(spec, mapping.host_port) {
            return Err(format!(
                "{field}.host_port {} is not among the task's ports resources",
                mapping.host_port
            ));
        }
        let binding = PortBinding { host_ip: None, host_port: Some(mapping.host_port.to_string()) };
        bindings
            .entry(format!("{}/{protocol}", mapping.container_port))
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    let mut exposed: Vec<String> = bindings.keys().cloned().collect();
    exposed.sort();
    body.exposed_ports = Some(exposed);
    host.port_bindings = Some(bindings);
    Ok(())
}

fn holds(spec: &ContainerSpec, port: u32) -> bool {
    spec.resources.named("ports").any(|resource| match &resource.amount {
        Amount::Ranges(ranges) => ranges.numbers().any(|n| n == u64::from(port)),
        _ => false,
    })
}
