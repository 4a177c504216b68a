//! What must not be seen: `Secret` messages wherever they stand, values of environment
//! variables of the type SECRET, credentials in URIs, what is given to Docker and its drivers
//! beside them, and the opaque `data` that frameworks send.

use std::borrow::Cow;

use crate::v1;

/// Takes what is secret out of a task's record.
pub fn hide_in_task(task: &mut v1::Task) {
    if let Some(container) = &mut task.container {
        hide_in_container(container);
    }
    if let Some(command) = task.health_check.as_mut().and_then(|check| check.command.as_mut()) {
        hide_in_command(command);
    }
    hide_in_resources(&mut task.resources);
    for status in &mut task.statuses {
        status.data = None;
        if let Some(limitation) = &mut status.limitation {
            hide_in_resources(&mut limitation.resources);
        }
    }
}

/// Takes what is secret, and `data`, out of an executor's description.
pub fn hide_in_executor(executor: &mut v1::ExecutorInfo) {
    executor.data = None;
    hide_in_resources(&mut executor.resources);
    if let Some(command) = &mut executor.command {
        hide_in_command(command);
    }
    if let Some(container) = &mut executor.container {
        hide_in_container(container);
    }
}

/// Takes credentials out of a framework's description. The query of its page stays: it is
/// there to be followed.
pub fn hide_in_framework(framework: &mut v1::FrameworkInfo) {
    if let Some(url) = &mut framework.webui_url
        && let Cow::Owned(shown) = without_user(url)
    {
        *url = shown;
    }
}

fn hide_in_command(command: &mut v1::CommandInfo) {
    if let Some(environment) = &mut command.environment {
        hide_in_environment(environment);
    }
    for uri in &mut command.uris {
        if let Cow::Owned(shown) = without_credentials(&uri.value) {
            uri.value = shown;
        }
    }
}

pub(super) fn hide_in_environment(environment: &mut v1::Environment) {
    for variable in &mut environment.variables {
        variable.secret = None;
        if variable.r#type() == v1::environment::variable::Type::Secret {
            variable.value = None;
        }
    }
}

fn hide_in_container(container: &mut v1::ContainerInfo) {
    container.volumes.iter_mut().for_each(hide_in_volume);
    // `docker run --env=NAME=value`: the same that an environment says, with no type SECRET.
    let parameters = container.docker.iter_mut().flat_map(|docker| &mut docker.parameters);
    for parameter in parameters.filter(|p| matches!(&*p.key, "env" | "e" | "label" | "l")) {
        if let Some(end) = parameter.value.find('=') {
            parameter.value.replace_range(end + 1.., "…");
        }
    }
    hide_in_image(container.mesos.as_mut().and_then(|mesos| mesos.image.as_mut()));
}

fn hide_in_resources(resources: &mut [v1::Resource]) {
    let disks = resources.iter_mut().filter_map(|resource| resource.disk.as_mut());
    disks.filter_map(|disk| disk.volume.as_mut()).for_each(hide_in_volume);
}

fn hide_in_volume(volume: &mut v1::Volume) {
    if let Some(source) = &mut volume.source {
        source.secret = None;
        let csi = source.csi_volume.as_mut();
        if let Some(provisioning) = csi.and_then(|csi| csi.static_provisioning.as_mut()) {
            provisioning.node_stage_secrets.clear();
            provisioning.node_publish_secrets.clear();
        }
        let docker = source.docker_volume.as_mut();
        if let Some(options) = docker.and_then(|docker| docker.driver_options.as_mut()) {
            options.parameter.iter_mut().for_each(|option| option.value.clear());
        }
    }
    hide_in_image(volume.image.as_mut());
}

fn hide_in_image(image: Option<&mut v1::Image>) {
    if let Some(docker) = image.and_then(|image| image.docker.as_mut()) {
        docker.config = None;
    }
}

/// A URI that is fetched, without what lets others fetch it: `user:password@`, and the
/// query, in which signatures stand.
pub fn without_credentials(uri: &str) -> Cow<'_, str> {
    let shown = without_user(uri);
    // What has no scheme is a path, and `?` a part of its name.
    match shown.find('?').filter(|_| shown.contains("://")) {
        Some(query) => Cow::Owned(format!("{}?…", &shown[..query])),
        None => shown,
    }
}

/// A URI without `user:password@`.
fn without_user(uri: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = uri.split_once("://") else { return Cow::Borrowed(uri) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let at = authority.rfind('@').or_else(|| {
        // A password may hold `/`, `?` or `#` as they are, and fetchers take it: what is no
        // port is one. Of a password that begins like a port, `u:8/x@host`, nobody can tell:
        // it is a host and a path as well.
        let (_, port) = authority.rsplit_once(':')?;
        let is_port = port.bytes().all(|b| b.is_ascii_digit());
        if is_port || authority.ends_with(']') { None } else { rest.rfind('@') }
    });
    match at {
        None => Cow::Borrowed(uri),
        Some(at) => Cow::Owned(format!("{scheme}://{}", &rest[at + 1..])),
    }
}
