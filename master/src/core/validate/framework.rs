//! What a framework says of itself when it subscribes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mezz_proto::{
    resources::Scalar,
    v1::{
        self,
        framework_info::capability::Type as Capability,
        scheduler::{OfferConstraints, offer_constraints::RoleConstraints},
    },
};

use prost::Message;

use super::{MAX_RECORD_BYTES, constraints, roles};
use crate::{
    allocator::{FrameworkCapabilities, MinAllocatable},
    core::state::Abilities,
};

/// Roles of one framework.
const MAX_ROLES: usize = 1000;
/// Longest `user`, `name`, `principal`, `hostname` or `webui_url`, in bytes.
const MAX_TEXT: usize = 4096;

/// A subscription whose every part has been checked.
#[derive(Clone, Debug)]
pub(in crate::core) struct Subscription {
    /// As given.
    pub info: v1::FrameworkInfo,
    /// Sorted, each once.
    pub roles: Vec<Arc<str>>,
    /// A part of `roles`.
    pub suppressed: BTreeSet<Arc<str>>,
    pub min_allocatable: BTreeMap<Arc<str>, Vec<MinAllocatable>>,
    pub constraints: BTreeMap<Arc<str>, RoleConstraints>,
    pub abilities: Abilities,
    pub failover_timeout: Duration,
}

impl Subscription {
    /// Checks rules 7, 17, 18, 31 and 32.
    pub fn parse(
        info: v1::FrameworkInfo,
        suppressed_roles: &[String],
        offer_constraints: Option<OfferConstraints>,
    ) -> Result<Self, String> {
        texts(&info)?;
        let size = info.encoded_len();
        if size > MAX_RECORD_BYTES {
            return Err(format!(
                "framework_info: is {size} bytes long; {MAX_RECORD_BYTES} are allowed"
            ));
        }
        let abilities = abilities(&info);
        let roles = subscribed_roles(&info, abilities.multi_role)?;
        Ok(Self {
            suppressed: suppressed(suppressed_roles, &roles)?,
            min_allocatable: min_allocatable(&info, &roles)?,
            constraints: constraints::constraints(offer_constraints.unwrap_or_default(), &roles)?,
            failover_timeout: failover_timeout(info.failover_timeout())?,
            abilities,
            roles,
            info,
        })
    }

    /// Of a framework that was admitted before. What cannot be read any more is
    /// left out; the framework tells it anew when it subscribes.
    pub fn recovered(info: v1::FrameworkInfo) -> Self {
        Self::parse(info.clone(), &[], None).unwrap_or_else(|_| Self {
            roles: Vec::new(),
            suppressed: BTreeSet::new(),
            min_allocatable: BTreeMap::new(),
            constraints: BTreeMap::new(),
            abilities: abilities(&info),
            failover_timeout: failover_timeout(info.failover_timeout()).unwrap_or_default(),
            info,
        })
    }
}

fn texts(info: &v1::FrameworkInfo) -> Result<(), String> {
    let fields = [
        ("user", Some(info.user.as_str())),
        ("name", Some(info.name.as_str())),
        ("principal", info.principal.as_deref()),
        ("hostname", info.hostname.as_deref()),
        ("webui_url", info.webui_url.as_deref()),
    ];
    for (name, value) in fields {
        if value.is_some_and(|v| v.len() > MAX_TEXT) {
            return Err(format!("framework_info.{name}: is longer than {MAX_TEXT} bytes"));
        }
    }
    Ok(())
}

fn abilities(info: &v1::FrameworkInfo) -> Abilities {
    let has = |wanted: Capability| info.capabilities.iter().any(|c| c.r#type() == wanted);
    Abilities {
        multi_role: has(Capability::MultiRole),
        partition_aware: has(Capability::PartitionAware),
        offers: FrameworkCapabilities {
            revocable_resources: has(Capability::RevocableResources),
            shared_resources: has(Capability::SharedResources),
            gpu_resources: has(Capability::GpuResources),
            reservation_refinement: has(Capability::ReservationRefinement),
            region_aware: has(Capability::RegionAware),
        },
    }
}

/// Rule 17.
#[allow(deprecated)]
fn subscribed_roles(info: &v1::FrameworkInfo, multi_role: bool) -> Result<Vec<Arc<str>>, String> {
    if !multi_role {
        if !info.roles.is_empty() {
            return Err(
                "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
                    .to_owned(),
            );
        }
        roles::role(info.role())
            .map_err(|text| format!("'FrameworkInfo.role' is not a valid role: {text}"))?;
        return Ok(vec![Arc::from(info.role())]);
    }
    if info.role.is_some() {
        return Err(
            "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
                .to_owned(),
        );
    }
    if info.roles.len() > MAX_ROLES {
        return Err(format!(
            "framework_info.roles: has {} roles; {MAX_ROLES} are allowed",
            info.roles.len()
        ));
    }
    let mut out: Vec<Arc<str>> = Vec::with_capacity(info.roles.len());
    for role in &info.roles {
        roles::role(role)
            .map_err(|text| format!("'FrameworkInfo.roles' contains invalid role: {text}"))?;
        out.push(Arc::from(role.as_str()));
    }
    out.sort();
    if let Some(twice) = out.windows(2).find(|w| w[0] == w[1]) {
        return Err(format!("'FrameworkInfo.roles' contains duplicate items: {{ {} }}", twice[0]));
    }
    Ok(out)
}

/// The role of this name among the sorted ones.
pub(super) fn own<'a>(roles: &'a [Arc<str>], name: &str) -> Option<&'a Arc<str>> {
    roles.binary_search_by(|role| (**role).cmp(name)).ok().map(|at| &roles[at])
}

/// Rule 18.
fn suppressed(given: &[String], roles: &[Arc<str>]) -> Result<BTreeSet<Arc<str>>, String> {
    given
        .iter()
        .map(|name| {
            own(roles, name).cloned().ok_or_else(|| {
                format!("suppressed_roles: the framework is not subscribed to `{name}`")
            })
        })
        .collect()
}

/// Rule 31.
fn min_allocatable(
    info: &v1::FrameworkInfo,
    roles: &[Arc<str>],
) -> Result<BTreeMap<Arc<str>, Vec<MinAllocatable>>, String> {
    let mut out = BTreeMap::new();
    for (name, filters) in &info.offer_filters {
        let field = format!("framework_info.offer_filters[{name}]");
        let Some(role) = own(roles, name) else {
            return Err(format!("{field}: the framework is not subscribed to this role"));
        };
        let Some(min) = &filters.min_allocatable_resources else { continue };
        let mut entries = Vec::with_capacity(min.quantities.len());
        for entry in &min.quantities {
            let mut quantities = MinAllocatable::new();
            for (resource, amount) in &entry.quantities {
                let amount = Scalar::from_f64(amount.value).map_err(|error| {
                    format!("{field}.min_allocatable_resources: {resource}: {error}")
                })?;
                quantities.insert(Arc::from(resource.as_str()), amount);
            }
            entries.push(quantities);
        }
        out.insert(Arc::clone(role), entries);
    }
    Ok(out)
}

/// Rule 7: it must fit into 64 bits of nanoseconds.
fn failover_timeout(seconds: f64) -> Result<Duration, String> {
    let fits = seconds.is_finite() && seconds >= 0.0 && seconds <= i64::MAX as f64 / 1e9;
    if !fits {
        return Err(format!(
            "framework_info.failover_timeout: {seconds} is not between 0 and 9223372036 seconds"
        ));
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| format!("framework_info.failover_timeout: {seconds}: {error}"))
}
