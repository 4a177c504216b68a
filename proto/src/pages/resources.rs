//! Resources and attributes on pages (rule 85).

use std::collections::{BTreeMap, HashSet};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::Float;
use crate::{
    resources::{Amount, Dialect, NameSet, Range, Ranges, Resource, Resources, Scalar},
    v1,
};

/// Always there, in the order in which Mesos writes them.
const ALWAYS: [&str; 4] = ["disk", "mem", "gpus", "cpus"];

/// Goes behind the name of what may be taken back.
const REVOCABLE: &str = "_revocable";

/// A resources object: scalars as numbers, `cpus`, `mem`, `disk` and `gpus` always,
/// ranges and sets as text (`"[31000-31010, 31020-31020]"`), with `_revocable` behind
/// the names of revocable ones. Reservations do not show.
#[derive(Clone, Debug, Default)]
pub struct ResourcesPage {
    sums: BTreeMap<String, Amount>,
}

impl ResourcesPage {
    /// Of these.
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        let mut page = Self::default();
        for resource in resources {
            let mut name = resource.identity.name().to_owned();
            if resource.identity.is_revocable() {
                name.push_str(REVOCABLE);
            }
            page.add(name, resource.amount.clone());
        }
        page
    }

    /// Of messages. What is no resource is left out: at the border it was refused.
    pub fn of_wire<'a>(wire: impl IntoIterator<Item = &'a v1::Resource>) -> Self {
        let mut page = Self::default();
        for resource in wire {
            let amount = match (&resource.scalar, &resource.ranges, &resource.set) {
                (Some(scalar), _, _) => Scalar::from_f64(scalar.value).ok().map(Amount::Scalar),
                (_, Some(ranges), _) => Some(Amount::Ranges(ranges_of(ranges))),
                (_, _, Some(set)) => Some(Amount::Set(NameSet::new(set.item.iter().cloned()))),
                _ => None,
            };
            let Some(amount) = amount else { continue };
            let mut name = resource.name.clone();
            if resource.revocable.is_some() {
                name.push_str(REVOCABLE);
            }
            page.add(name, amount);
        }
        page
    }

    fn add(&mut self, name: String, amount: Amount) {
        use Amount::{Ranges, Scalar, Set};
        match (self.sums.get_mut(&name), amount) {
            (None, amount) => {
                self.sums.insert(name, amount);
            }
            (Some(Scalar(sum)), Scalar(more)) => *sum = sum.saturating_add(more),
            (Some(Ranges(sum)), Ranges(more)) => *sum = sum.union(&more),
            (Some(Set(sum)), Set(more)) => *sum = sum.union(&more),
            // One name with two kinds of amount was refused at the border.
            (Some(_), _) => {}
        }
    }

    fn scalar(&self, name: &str) -> f64 {
        match self.sums.get(name) {
            Some(Amount::Scalar(sum)) => sum.to_f64(),
            _ => 0.0,
        }
    }
}

impl Serialize for ResourcesPage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for name in ALWAYS {
            map.serialize_entry(name, &self.scalar(name))?;
        }
        for (name, sum) in &self.sums {
            match sum {
                Amount::Scalar(_) if ALWAYS.contains(&name.as_str()) => {}
                Amount::Scalar(sum) => map.serialize_entry(name, &sum.to_f64())?,
                Amount::Ranges(sum) => map.serialize_entry(name, &sum.to_string())?,
                Amount::Set(sum) => map.serialize_entry(name, &sum.to_string())?,
            }
        }
        map.end()
    }
}

/// The other form, of `/roles`: no zeros, and whatever can be counted as a number
/// (ports, too).
#[derive(Clone, Debug, Default)]
pub struct QuantitiesPage(BTreeMap<String, f64>);

impl QuantitiesPage {
    /// Of these.
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        Self(resource_quantities(resources))
    }
}

impl Serialize for QuantitiesPage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(_, amount)| **amount > 0.0))
    }
}

/// How much there is of each name: scalars, and how many of ranges and sets.
pub fn resource_quantities<'a>(
    resources: impl IntoIterator<Item = &'a Resource>,
) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::<String, Scalar>::new();
    for resource in resources {
        let amount = match &resource.amount {
            Amount::Scalar(amount) => *amount,
            Amount::Ranges(ranges) => Scalar::from_units(ranges.count()),
            Amount::Set(set) => Scalar::from_units(set.count() as u64),
        };
        let sum = sums.entry(resource.identity.name().to_owned()).or_default();
        *sum = sum.saturating_add(amount);
    }
    sums.into_iter().map(|(name, sum)| (name, sum.to_f64())).collect()
}

/// Resources apart by whom they are reserved for.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    /// By role.
    pub reserved: BTreeMap<String, Resources>,
    /// The rest.
    pub unreserved: Resources,
}

impl Reserved {
    /// Of these.
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        let mut out = Self::default();
        for resource in resources {
            match resource.identity.reserved_for() {
                None => out.unreserved.insert(resource.clone()),
                Some(role) => {
                    out.reserved.entry(role.to_owned()).or_default().insert(resource.clone());
                }
            }
        }
        out
    }

    /// `reserved_resources`: by role.
    pub fn page(&self) -> BTreeMap<&str, ResourcesPage> {
        self.reserved.iter().map(|(role, all)| (role.as_str(), ResourcesPage::of(all))).collect()
    }

    /// `reserved_resources_full`: by role, as messages.
    pub fn full(&self) -> BTreeMap<&str, Vec<v1::Resource>> {
        let wire = |all: &Resources| full(all.to_proto(Dialect::Refined, None));
        self.reserved.iter().map(|(role, all)| (role.as_str(), wire(all))).collect()
    }
}

/// Resources as operators are shown them: with `role` (`*` if unreserved) and
/// `reservation`, beside the stack of `reservations`, as long as the older form can say
/// it.
// `role` is deprecated in what frameworks send, not here.
#[allow(deprecated)]
pub fn full(mut resources: Vec<v1::Resource>) -> Vec<v1::Resource> {
    use v1::resource::{ReservationInfo, reservation_info::Type};
    for resource in &mut resources {
        match resource.reservations.as_slice() {
            [] => {
                resource.role.get_or_insert_with(|| "*".to_owned());
            }
            [only] => {
                resource.role.clone_from(&only.role);
                if only.r#type == Some(Type::Dynamic as i32) {
                    resource.reservation = Some(ReservationInfo {
                        principal: only.principal.clone(),
                        labels: only.labels.clone(),
                        ..Default::default()
                    });
                }
            }
            _ => {}
        }
    }
    resources
}

/// An attributes object: numbers as numbers, everything else as text.
#[derive(Clone, Copy, Debug)]
pub struct AttributesPage<'a>(pub &'a [v1::Attribute]);

impl Serialize for AttributesPage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut seen = HashSet::new();
        for attribute in self.0 {
            // An object has each name once; the first counts, as in offer constraints.
            if !seen.insert(attribute.name.as_str()) {
                continue;
            }
            let name = &attribute.name;
            if let Some(scalar) = &attribute.scalar {
                map.serialize_entry(name, &Float(scalar.value))?;
            } else if let Some(ranges) = &attribute.ranges {
                map.serialize_entry(name, &ranges_of(ranges).to_string())?;
            } else if let Some(set) = &attribute.set {
                let set = NameSet::new(set.item.iter().cloned());
                map.serialize_entry(name, &set.to_string())?;
            } else if let Some(text) = &attribute.text {
                map.serialize_entry(name, &text.value)?;
            }
        }
        map.end()
    }
}

fn ranges_of(wire: &v1::value::Ranges) -> Ranges {
    Ranges::new(wire.range.iter().filter_map(|r| Range::new(r.begin, r.end).ok()))
}
