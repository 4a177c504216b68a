//! What a container runs and finds in its environment (behaviour rule 55).

use std::{collections::BTreeMap, path::Path, time::Duration};

use mezz_proto::{
    ids::{ExecutorId, FrameworkId, TaskId},
    pages::duration_text,
    v1::{self, command_info, container_info::docker_info::Network, environment::variable, secret},
};

use super::{Core, ExecutorKey, admission::is_docker, state::Token};
use crate::containerizer::Program;

/// The PATH of commands that set none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long an executor of a checkpointing framework tries to come back to its
/// agent (rule 53), and the longest pause between its attempts.
pub(super) const RECOVERY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const SUBSCRIPTION_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The program that a command of a Docker container names: without a shell, all of
/// it are arguments of the image's own program (rule 65).
pub(super) fn image_program(command: &v1::CommandInfo) -> Result<Program, String> {
    if command.shell() {
        return program(command);
    }
    let value = command.value.iter().filter(|value| !value.is_empty());
    Ok(Program::Image { argv: value.chain(&command.arguments).cloned().collect() })
}

/// The program that a command names.
pub(super) fn program(command: &v1::CommandInfo) -> Result<Program, String> {
    let value = command.value.clone().unwrap_or_default();
    if value.is_empty() {
        return Err("command.value is not set: there is nothing to run".to_owned());
    }
    if command.shell() {
        Ok(Program::Shell(value))
    } else {
        Ok(Program::Exec { path: value, argv: command.arguments.clone() })
    }
}

/// The files that a command wants fetched.
pub(super) fn uris(command: &v1::CommandInfo) -> Vec<command_info::Uri> {
    command.uris.clone()
}

/// The variables that a command sets itself.
pub(super) fn variables(command: &v1::CommandInfo) -> Result<Vec<(String, String)>, String> {
    let mut variables = Vec::new();
    let Some(environment) = &command.environment else { return Ok(variables) };
    for variable in &environment.variables {
        let name = &variable.name;
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!(
                "command.environment: {name:?} is no variable's name: it must not be empty nor \
                 hold '=' or a zero byte"
            ));
        }
        let value = match variable.r#type() {
            variable::Type::Secret => secret_value(variable.secret.as_ref()).ok_or_else(|| {
                format!(
                    "command.environment: the secret of {name} must be given by value, as \
                         text; references are not supported"
                )
            })?,
            variable::Type::Value | variable::Type::Unknown => {
                variable.value.clone().unwrap_or_default()
            }
        };
        if value.contains('\0') {
            return Err(format!("command.environment: the value of {name} holds a zero byte"));
        }
        variables.push((name.clone(), value));
    }
    Ok(variables)
}

fn secret_value(secret: Option<&v1::Secret>) -> Option<String> {
    let secret = secret?;
    if secret.r#type() == secret::Type::Reference {
        return None;
    }
    String::from_utf8(secret.value.as_ref()?.data.clone()).ok()
}

/// For whom an environment is.
pub(super) enum Inhabitant<'a> {
    Task(&'a TaskId),
    Executor(&'a ExecutorId, &'a v1::ExecutorInfo, &'a Token),
    /// What holds a pod.
    Pod(&'a ExecutorId),
    /// One of its members.
    Member(&'a ExecutorId, &'a TaskId),
}

impl Core {
    /// The whole environment of a container; what the command sets wins.
    pub(super) fn environment(
        &self,
        framework: &v1::FrameworkInfo,
        inhabitant: &Inhabitant<'_>,
        resources: &[v1::Resource],
        container: Option<&v1::ContainerInfo>,
        command: &v1::CommandInfo,
        sandbox: &Path,
    ) -> Result<BTreeMap<String, String>, String> {
        let sandbox = sandbox.display().to_string();
        let agent = self.agent_id.as_ref().map(ToString::to_string).unwrap_or_default();
        let role = resources
            .iter()
            .find_map(|resource| resource.allocation_info.as_ref()?.role.clone())
            .or_else(|| framework.roles.first().cloned())
            .unwrap_or_else(|| framework.role().to_owned());
        let grace = match inhabitant {
            Inhabitant::Executor(_, info, _) => self.shutdown_grace(info),
            _ => self.options.executor_shutdown_grace,
        };
        let executor = match inhabitant {
            Inhabitant::Executor(id, ..) | Inhabitant::Pod(id) | Inhabitant::Member(id, _) => {
                id.as_str()
            }
            Inhabitant::Task(id) => id.as_str(),
        };
        let mut environment = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            environment.insert(name.to_owned(), value);
        };
        set("PATH", DEFAULT_PATH.to_owned());
        set("LIBPROCESS_PORT", "0".to_owned());
        // One with a network of its own has other addresses.
        if let Inhabitant::Executor(_, info, _) = inhabitant
            && let Some(ip) = self.options.executor_ip
            && !has_own_network(info.container.as_ref())
        {
            set("LIBPROCESS_IP", ip.to_string());
        }
        // The default executor tells its tasks (rule 55).
        if let Inhabitant::Member(id, _) = inhabitant
            && let Some(ip) = self.options.executor_ip
            && !has_own_network(container)
        {
            let key = ExecutorKey {
                framework: FrameworkId::from(framework.id.clone().unwrap_or_default()),
                executor: (*id).clone(),
            };
            let pod = self.executors.get(&key).and_then(|pod| pod.info.container.as_ref());
            if !has_own_network(pod) {
                set("MESOS_CONTAINER_IP", ip.to_string());
            }
        }
        set("MESOS_AGENT_ENDPOINT", self.options.api_address.clone());
        set("MESOS_AGENT_ID", agent.clone());
        set("MESOS_ALLOCATION_ROLE", role);
        set("MESOS_CHECKPOINT", if framework.checkpoint() { "1" } else { "0" }.to_owned());
        set("MESOS_DIRECTORY", sandbox.clone());
        set("MESOS_EXECUTOR_ID", executor.to_owned());
        set("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", duration_text(grace));
        set("MESOS_FRAMEWORK_ID", framework.id.clone().unwrap_or_default().value);
        set("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned());
        set("MESOS_SANDBOX", sandbox);
        set("MESOS_SLAVE_ID", agent);
        set("MESOS_SLAVE_PID", format!("slave(1)@{}", self.options.api_address));
        // In an image its path names nothing.
        if let Some(library) =
            self.options.native_library.as_ref().filter(|_| !has_image(container))
        {
            let library = library.display().to_string();
            set("MESOS_NATIVE_JAVA_LIBRARY", library.clone());
            set("MESOS_NATIVE_LIBRARY", library);
        }
        if framework.checkpoint() {
            set("MESOS_RECOVERY_TIMEOUT", duration_text(RECOVERY_TIMEOUT));
            set("MESOS_SUBSCRIPTION_BACKOFF_MAX", duration_text(SUBSCRIPTION_BACKOFF_MAX));
        }
        match inhabitant {
            Inhabitant::Task(id) | Inhabitant::Member(_, id) => {
                set("MESOS_TASK_ID", id.to_string());
            }
            Inhabitant::Pod(_) => {}
            Inhabitant::Executor(_, _, token) => {
                set("MEZZ_EXECUTOR_TOKEN", token.0.clone());
                // What those that speak Mesos' HTTP API look for.
                set("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", token.0.clone());
            }
        }
        for (name, value) in variables(command)? {
            // A command that overwrites the token only locks itself out.
            set(&name, value);
        }
        Ok(environment)
    }

    /// As whom a command runs; `None` is the agent's own user.
    pub(super) fn user(
        &self,
        framework: &v1::FrameworkInfo,
        command: &v1::CommandInfo,
    ) -> Option<String> {
        if !self.options.switch_user {
            return None;
        }
        let user = command.user.as_deref().unwrap_or(&framework.user);
        (!user.is_empty()).then(|| user.to_owned())
    }

    /// Where an executor's grace stands: in its description, or in the options.
    pub(super) fn shutdown_grace(&self, info: &v1::ExecutorInfo) -> Duration {
        info.shutdown_grace_period
            .as_ref()
            .map_or(self.options.executor_shutdown_grace, nanoseconds)
    }
}

/// Whether a container has files of its own in place of the machine's.
fn has_image(container: Option<&v1::ContainerInfo>) -> bool {
    let image = container.and_then(|container| container.mesos.as_ref()?.image.as_ref());
    is_docker(container) || image.is_some()
}

/// From the wire; a negative one is nothing.
pub(super) fn nanoseconds(duration: &v1::DurationInfo) -> Duration {
    Duration::from_nanos(u64::try_from(duration.nanoseconds).unwrap_or(0))
}

/// Whether it has other addresses than its machine.
pub(super) fn has_own_network(container: Option<&v1::ContainerInfo>) -> bool {
    let Some(info) = container else { return false };
    match &info.docker {
        Some(docker) if is_docker(container) => docker.network() != Network::Host,
        _ => !info.network_infos.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_command() {
        let error = program(&v1::CommandInfo::default()).unwrap_err();
        assert!(error.contains("command.value"), "{error}");
    }

    #[test]
    fn takes_a_shell_line_or_an_argument_vector() {
        let shell = v1::CommandInfo { value: Some("echo 1".into()), ..Default::default() };
        assert_eq!(program(&shell), Ok(Program::Shell("echo 1".into())));
        let exec = v1::CommandInfo {
            value: Some("/bin/echo".into()),
            shell: Some(false),
            arguments: vec!["echo".into(), "1".into()],
            ..Default::default()
        };
        let argv = vec!["echo".into(), "1".into()];
        assert_eq!(program(&exec), Ok(Program::Exec { path: "/bin/echo".into(), argv }));
    }

    #[test]
    fn a_secret_by_reference_is_refused_by_name() {
        let variable = v1::environment::Variable {
            name: "KEY".into(),
            r#type: Some(variable::Type::Secret.into()),
            secret: Some(v1::Secret {
                r#type: Some(secret::Type::Reference.into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let command = v1::CommandInfo {
            environment: Some(v1::Environment { variables: vec![variable] }),
            ..Default::default()
        };
        let error = variables(&command).unwrap_err();
        assert!(error.contains("KEY"), "{error}");
    }
}
