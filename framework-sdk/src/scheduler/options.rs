//! Settings of the scheduler driver.

use std::time::Duration;

use mezz_proto::{credential::Credential, v1};
use thiserror::Error;

/// Above this a framework would seem to be dead.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3600);

/// Who acknowledges status updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcknowledgeMode {
    /// The driver, when the application asks for the event after the update.
    #[default]
    Automatic,
    /// The application, with [`Scheduler::acknowledge`](super::Scheduler::acknowledge),
    /// for example once it has stored the update. The agent repeats an update
    /// until then.
    Explicit,
}

/// Settings of the scheduler driver.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerOptions {
    /// The masters as `host:port`, in any order; `http://host:port` also does.
    pub masters: Vec<String>,
    /// The framework. With an `id` set the driver takes that framework over:
    /// its tasks are reported by reconciliation.
    pub framework: v1::FrameworkInfo,
    /// Roles that want no offers at first; a subset of the framework's.
    pub suppressed_roles: Vec<String>,
    /// Which agents may be offered, per role (behaviour rule 32).
    pub offer_constraints: Option<v1::scheduler::OfferConstraints>,
    /// Proves to masters that ask who the framework is; others do not look at it. Its
    /// principal is the framework's, if that names none. A master to which it proves nothing
    /// refuses the framework: [`Event::Error`](super::Event::Error). The link is not encrypted.
    pub credential: Option<Credential>,
    /// Who acknowledges status updates.
    pub acknowledge: AcknowledgeMode,
    /// Shortest and longest pause before masters are tried again. Default:
    /// 100 ms and 5 s. The pause doubles from one to the other; each time a random
    /// part of it is waited.
    pub reconnect_backoff: (Duration, Duration),
}

/// An option that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionsError {
    /// `masters` is empty.
    #[error("masters: give at least one master as host:port")]
    NoMasters,
    /// An entry of `masters` is no address.
    #[error("masters: `{0}` is no address; write host:port, for example 127.0.0.1:5050")]
    Master(String),
    /// `framework.name` is empty.
    #[error("framework.name: give the framework a name")]
    NoName,
    /// A role in `suppressed_roles` is not one of the framework's.
    #[error("suppressed_roles: `{0}` is not one of the framework's roles")]
    SuppressedRole(String),
    /// A role in `offer_constraints` is not one of the framework's.
    #[error("offer_constraints: `{0}` is not one of the framework's roles")]
    ConstrainedRole(String),
    /// The shortest pause is zero or above the longest, or that is above an hour.
    #[error(
        "reconnect_backoff: {min:?} to {max:?} is no range; the shortest pause must be above zero and at most the longest, and that at most an hour"
    )]
    Backoff {
        /// The shortest pause.
        min: Duration,
        /// The longest pause.
        max: Duration,
    },
}

impl SchedulerOptions {
    /// The defaults, for these masters and this framework.
    pub fn new(
        masters: impl IntoIterator<Item = impl Into<String>>,
        framework: v1::FrameworkInfo,
    ) -> Self {
        Self {
            masters: masters.into_iter().map(Into::into).collect(),
            framework,
            suppressed_roles: Vec::new(),
            offer_constraints: None,
            credential: None,
            acknowledge: AcknowledgeMode::default(),
            reconnect_backoff: (Duration::from_millis(100), Duration::from_secs(5)),
        }
    }

    /// What `connect` refuses. The master checks the rest.
    pub(super) fn validate(&self) -> Result<(), OptionsError> {
        if self.masters.is_empty() {
            return Err(OptionsError::NoMasters);
        }
        if let Some(bad) = self.masters.iter().find(|m| !is_address(m)) {
            return Err(OptionsError::Master(bad.clone()));
        }
        if self.framework.name.is_empty() {
            return Err(OptionsError::NoName);
        }
        let roles = framework_roles(&self.framework);
        let foreign = |role: &&String| !roles.contains(role);
        if let Some(role) = self.suppressed_roles.iter().find(foreign) {
            return Err(OptionsError::SuppressedRole(role.clone()));
        }
        let constrained = self.offer_constraints.iter().flat_map(|c| c.role_constraints.keys());
        if let Some(role) = constrained.min_by_key(|r| (!foreign(r), *r)).filter(foreign) {
            return Err(OptionsError::ConstrainedRole(role.clone()));
        }
        let (min, max) = self.reconnect_backoff;
        if min.is_zero() || min > max || max > LONGEST_BACKOFF {
            return Err(OptionsError::Backoff { min, max });
        }
        Ok(())
    }
}

/// The roles that a framework is subscribed to (behaviour rule 17).
pub(super) fn framework_roles(info: &v1::FrameworkInfo) -> Vec<String> {
    if has_capability(info, v1::framework_info::capability::Type::MultiRole) {
        return info.roles.clone();
    }
    #[allow(deprecated)]
    let role = info.role.as_deref().unwrap_or("*");
    vec![role.to_owned()]
}

/// Whether the framework has this capability.
pub(super) fn has_capability(
    info: &v1::FrameworkInfo,
    wanted: v1::framework_info::capability::Type,
) -> bool {
    info.capabilities.iter().any(|c| c.r#type == Some(wanted as i32))
}

fn is_address(text: &str) -> bool {
    let text = text.strip_prefix("http://").unwrap_or(text);
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    !host.is_empty()
        && !host.contains(['/', ' ', '@', '?', '#'])
        && port.parse::<u16>().is_ok_and(|p| p != 0)
        // An IPv6 address has colons and so needs brackets.
        && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> SchedulerOptions {
        let framework = v1::FrameworkInfo { name: "f".to_owned(), ..Default::default() };
        SchedulerOptions::new(["127.0.0.1:5050"], framework)
    }

    #[test]
    fn addresses() {
        for good in ["localhost:5050", "10.0.0.1:1", "http://m:5050", "[::1]:5050"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "host", "host:", ":5050", "host:0", "host:99999", "a b:1", "::1:5050"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn wrong_options_are_named() {
        assert_eq!(options().validate(), Ok(()));
        let none = SchedulerOptions { masters: vec![], ..options() };
        assert_eq!(none.validate(), Err(OptionsError::NoMasters));
        let bad = SchedulerOptions { masters: vec!["x".into()], ..options() };
        assert_eq!(bad.validate(), Err(OptionsError::Master("x".into())));
        let anonymous = SchedulerOptions { framework: Default::default(), ..options() };
        assert_eq!(anonymous.validate(), Err(OptionsError::NoName));
        let role = SchedulerOptions { suppressed_roles: vec!["web".into()], ..options() };
        assert_eq!(role.validate(), Err(OptionsError::SuppressedRole("web".into())));
        let zero = SchedulerOptions {
            reconnect_backoff: (Duration::ZERO, Duration::from_secs(1)),
            ..options()
        };
        assert!(matches!(zero.validate(), Err(OptionsError::Backoff { .. })));
        let long = SchedulerOptions {
            reconnect_backoff: (Duration::from_secs(1), Duration::MAX),
            ..options()
        };
        assert!(matches!(long.validate(), Err(OptionsError::Backoff { .. })));
        let mut constrained = options();
        let role_constraints = [("*".into(), Default::default()), ("x".into(), Default::default())];
        constrained.offer_constraints = Some(v1::scheduler::OfferConstraints {
            role_constraints: role_constraints.into_iter().collect(),
        });
        assert_eq!(constrained.validate(), Err(OptionsError::ConstrainedRole("x".into())));
    }
}
