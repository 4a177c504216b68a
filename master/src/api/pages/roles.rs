//! `/roles`, and the same of GET_ROLES (rule 87).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mezz_proto::{
    pages::{QuantitiesPage, Reserved},
    resources::{Dialect, Resources},
    v1,
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::shell::{read_state::Sums, snapshot::Snapshot, view};

/// One role: with frameworks, with a weight, or with something that is held, offered or
/// reserved.
#[derive(Debug, Default)]
pub struct Role {
    weight: Option<f64>,
    frameworks: BTreeSet<String>,
    sums: Arc<Sums>,
    reserved: Resources,
}

/// All of them, by name.
pub fn roles(snapshot: &Snapshot) -> BTreeMap<String, Role> {
    let mut roles: BTreeMap<String, Role> = BTreeMap::new();
    for (framework, _) in snapshot.frameworks.iter().filter(|(f, _)| view::is_live(f)) {
        let info = &framework.framework;
        let id = view::framework_id(info);
        for role in roles_of(info) {
            roles.entry(role.to_owned()).or_default().frameworks.insert(id.to_owned());
        }
    }
    for (role, sums) in &snapshot.roles {
        roles.entry(role.to_string()).or_default().sums = sums.clone();
    }
    for (role, weight) in &*snapshot.weights {
        roles.entry(role.clone()).or_default().weight = Some(*weight);
    }
    for (agent, _) in snapshot.agents.iter().filter(|(a, _)| view::is_registered(a.rest())) {
        for (role, reserved) in Reserved::of(agent.total()).reserved {
            roles.entry(role).or_default().reserved += &reserved;
        }
    }
    roles
}

// `role` is what frameworks without MULTI_ROLE have.
#[allow(deprecated)]
fn roles_of(info: &v1::FrameworkInfo) -> Vec<&str> {
    use v1::framework_info::capability::Type;
    if info.capabilities.iter().any(|c| c.r#type() == Type::MultiRole) {
        info.roles.iter().map(String::as_str).collect()
    } else {
        vec![info.role()]
    }
}

impl Role {
    fn weight(&self) -> f64 {
        self.weight.unwrap_or(1.0)
    }

    fn resources(&self) -> Resources {
        self.sums.allocated.clone() + &self.sums.offered
    }

    /// For GET_ROLES.
    pub fn to_proto(&self, name: &str) -> v1::Role {
        v1::Role {
            name: name.to_owned(),
            weight: self.weight(),
            frameworks: self
                .frameworks
                .iter()
                .map(|id| v1::FrameworkId { value: id.clone() })
                .collect(),
            resources: self.resources().to_proto(Dialect::Refined, None),
        }
    }
}

/// `/roles`.
pub struct RolesPage<'a>(pub &'a Snapshot);

impl Serialize for RolesPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let roles = roles(self.0);
        let pages: Vec<_> = roles.keys().map(|name| RolePage { name, roles: &roles }).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("roles", &pages)?;
        map.end()
    }
}

struct RolePage<'a> {
    name: &'a str,
    roles: &'a BTreeMap<String, Role>,
}

impl Serialize for RolePage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let none = Role::default();
        let role = self.roles.get(self.name).unwrap_or(&none);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("weight", &role.weight())?;
        map.serialize_entry("quota", &Quota(self))?;
        map.serialize_entry("resources", &QuantitiesPage::of(&role.resources()))?;
        map.serialize_entry("allocated", &QuantitiesPage::of(&role.sums.allocated))?;
        map.serialize_entry("offered", &QuantitiesPage::of(&role.sums.offered))?;
        map.serialize_entry("reserved", &QuantitiesPage::of(&role.reserved))?;
        map.serialize_entry("frameworks", &role.frameworks)?;
        map.end()
    }
}

/// There is none; what the role and those below it hold is told all the same.
struct Quota<'a>(&'a RolePage<'a>);

impl Serialize for Quota<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let RolePage { name, roles } = self.0;
        let below = format!("{name}/");
        let itself = roles.get(*name).into_iter();
        // They stand together: `a/b` and `a/b/c` before `a0`.
        let others = roles.range(below.clone()..).take_while(|(n, _)| n.starts_with(&below));
        let mut consumed = Resources::new();
        for role in itself.chain(others.map(|(_, role)| role)) {
            consumed += &role.sums.allocated;
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", name)?;
        map.serialize_entry("guarantee", &serde_json::Map::new())?;
        map.serialize_entry("limit", &serde_json::Map::new())?;
        map.serialize_entry("consumed", &QuantitiesPage::of(&consumed))?;
        map.end()
    }
}
