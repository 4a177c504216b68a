//! Builds a `FrameworkInfo`.

use std::time::Duration;

use mezz_proto::v1::{self, framework_info::capability::Type as Capability};

use super::label;

/// Builds a `FrameworkInfo`. Every framework gets the capabilities MULTI_ROLE,
/// RESERVATION_REFINEMENT, PARTITION_AWARE and TASK_KILLING_STATE, which this
/// crate understands.
///
/// ```
/// use std::time::Duration;
/// use mezz_sdk::build::FrameworkBuilder;
///
/// let info = FrameworkBuilder::new("batch")
///     .user("nobody")
///     .roles(["ads"])
///     .failover_timeout(Duration::from_secs(600))
///     .build();
/// assert_eq!(info.roles, ["ads"]);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct FrameworkBuilder(v1::FrameworkInfo);

impl FrameworkBuilder {
    /// A framework of this name, in role `*`, whose tasks run as the user that
    /// this process runs as (`$USER`, else `root`).
    pub fn new(name: impl Into<String>) -> Self {
        let user = std::env::var("USER").ok().filter(|u| !u.is_empty());
        let capabilities = [
            Capability::MultiRole,
            Capability::ReservationRefinement,
            Capability::PartitionAware,
            Capability::TaskKillingState,
        ];
        Self(v1::FrameworkInfo {
            name: name.into(),
            user: user.unwrap_or_else(|| "root".to_owned()),
            roles: vec!["*".to_owned()],
            capabilities: capabilities.map(capability).to_vec(),
            ..Default::default()
        })
    }

    /// The id that this framework was given before: takes it over.
    pub fn id(mut self, id: v1::FrameworkId) -> Self {
        self.0.id = Some(id);
        self
    }

    /// The user that tasks run as.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.0.user = user.into();
        self
    }

    /// The roles to be offered resources for, in place of `*`.
    pub fn roles(mut self, roles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// How long the framework and its tasks live without a subscription. Default:
    /// no time at all.
    pub fn failover_timeout(mut self, timeout: Duration) -> Self {
        self.0.failover_timeout = Some(timeout.as_secs_f64());
        self
    }

    /// Whether tasks survive a restart of their agent. Default: no.
    pub fn checkpoint(mut self, checkpoint: bool) -> Self {
        self.0.checkpoint = Some(checkpoint);
        self
    }

    /// The framework's host, for people.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.0.hostname = Some(hostname.into());
        self
    }

    /// A link to the framework's own pages.
    pub fn webui_url(mut self, url: impl Into<String>) -> Self {
        self.0.webui_url = Some(url.into());
        self
    }

    /// Who it authenticates as.
    pub fn principal(mut self, principal: impl Into<String>) -> Self {
        self.0.principal = Some(principal.into());
        self
    }

    /// One more capability, for example GPU_RESOURCES.
    pub fn capability(mut self, wanted: Capability) -> Self {
        let wanted = capability(wanted);
        if !self.0.capabilities.contains(&wanted) {
            self.0.capabilities.push(wanted);
        }
        self
    }

    /// One more label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let labels = self.0.labels.get_or_insert_default();
        labels.labels.push(label(key.into(), value.into()));
        self
    }

    /// The message.
    pub fn build(self) -> v1::FrameworkInfo {
        self.0
    }
}

fn capability(kind: Capability) -> v1::framework_info::Capability {
    v1::framework_info::Capability { r#type: Some(kind as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_has_the_four_capabilities_and_each_once() {
        let info = FrameworkBuilder::new("f")
            .capability(Capability::GpuResources)
            .capability(Capability::MultiRole)
            .build();
        let mut kinds: Vec<_> = info.capabilities.iter().map(|c| c.r#type()).collect();
        kinds.sort();
        let mut wanted = vec![
            Capability::MultiRole,
            Capability::ReservationRefinement,
            Capability::PartitionAware,
            Capability::TaskKillingState,
            Capability::GpuResources,
        ];
        wanted.sort();
        assert_eq!(kinds, wanted);
    }
}
