//! Resources from and to `mesos.v1.Resource`.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{
    Amount, Disk, Identity, NameSet, Range, RangeError, Ranges, Reservation, ReservationKind,
    Resource, Resources, Scalar, ScalarError,
};
use crate::v1;

/// Which of the two ways of writing reservations a peer understands (behaviour
/// rule 21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// The `reservations` stack: frameworks with RESERVATION_REFINEMENT, agents,
    /// operators.
    Refined,
    /// `role` and `reservation`: all other frameworks. A stack deeper than one
    /// cannot be written and is left out.
    Plain,
}

/// Why a message is no resource.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ResourceError {
    /// No name.
    #[error("resource without a name")]
    NoName,
    /// The value that the type calls for is not set.
    #[error("resource `{name}`: type {kind} but no {field} value")]
    NoValue {
        /// The resource's name.
        name: String,
        /// The type as written.
        kind: &'static str,
        /// The field that should be set.
        field: &'static str,
    },
    /// A type that resources cannot have.
    #[error("resource `{name}`: a resource is SCALAR, RANGES or SET, not {kind}")]
    BadType {
        /// The resource's name.
        name: String,
        /// The type, by name where it has one.
        kind: String,
    },
    /// A number that is no amount.
    #[error("resource `{name}`: {source}")]
    Scalar {
        /// The resource's name.
        name: String,
        /// Why.
        source: ScalarError,
    },
    /// A range that is none.
    #[error("resource `{name}`: {source}")]
    Range {
        /// The resource's name.
        name: String,
        /// Why.
        source: RangeError,
    },
    /// One name with two kinds of amount.
    #[error("resource `{name}` appears with two types")]
    MixedTypes {
        /// The resource's name.
        name: String,
    },
    /// A reservation that says nothing, or both forms at once.
    #[error("resource `{name}`: {problem}")]
    Reservation {
        /// The resource's name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Resources of one message are allocated to two roles.
    #[error("resources are allocated to both `{first}` and `{second}`")]
    TwoRoles {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
}

impl Resources {
    /// From the wire, in either dialect; `allocation_info` is dropped.
    ///
    /// # Errors
    /// [`ResourceError`] names the resource and what is wrong with it.
    pub fn from_proto(wire: &[v1::Resource]) -> Result<Self, ResourceError> {
        let mut entries = Vec::with_capacity(wire.len());
        for w in wire {
            let resource = resource_from_proto(w)?;
            if !resource.amount.is_empty() {
                entries.push(resource);
            }
        }
        one_kind(&entries)?;
        Ok(Self::of(entries))
    }

    /// The role that these resources are allocated to; `None` when none says.
    ///
    /// # Errors
    /// [`ResourceError::TwoRoles`].
    pub fn allocation_role(wire: &[v1::Resource]) -> Result<Option<String>, ResourceError> {
        let mut found: Option<&str> = None;
        for role in wire.iter().filter_map(|w| w.allocation_info.as_ref()?.role.as_deref()) {
            match found {
                Some(first) if first != role => {
                    return Err(ResourceError::TwoRoles {
                        first: first.to_owned(),
                        second: role.to_owned(),
                    });
                }
                _ => found = Some(role),
            }
        }
        Ok(found.map(str::to_owned))
    }

    /// To the wire, with `allocation_info` when a role is given.
    pub fn to_proto(&self, dialect: Dialect, allocated_to: Option<&str>) -> Vec<v1::Resource> {
        // A collected vector would begin with room for four, and each is half a kilobyte.
        let mut wire = Vec::with_capacity(self.len());
        wire.extend(self.iter().filter_map(|r| resource_to_proto(r, dialect, allocated_to)));
        wire
    }
}

/// Each name has one kind of amount.
fn one_kind(entries: &[Resource]) -> Result<(), ResourceError> {
    let kind = |r: &Resource| std::mem::discriminant(&r.amount);
    // Most have few, and of one kind.
    if entries.iter().all(|r| kind(r) == kind(&entries[0])) {
        return Ok(());
    }
    let mut kinds = BTreeMap::new();
    for r in entries {
        if *kinds.entry(r.identity.name()).or_insert(kind(r)) != kind(r) {
            return Err(ResourceError::MixedTypes { name: r.identity.name().to_owned() });
        }
    }
    Ok(())
}

fn resource_from_proto(w: &v1::Resource) -> Result<Resource, ResourceError> {
    if w.name.is_empty() {
        return Err(ResourceError::NoName);
    }
    let name = || w.name.clone();
    let no_value = |kind, field| ResourceError::NoValue { name: name(), kind, field };
    let amount = match v1::value::Type::try_from(w.r#type) {
        Ok(v1::value::Type::Scalar) => {
            let v = w.scalar.as_ref().ok_or_else(|| no_value("SCALAR", "scalar"))?;
            let scalar = Scalar::from_f64(v.value)
                .map_err(|source| ResourceError::Scalar { name: name(), source })?;
            Amount::Scalar(scalar)
        }
        Ok(v1::value::Type::Ranges) => {
            let v = w.ranges.as_ref().ok_or_else(|| no_value("RANGES", "ranges"))?;
            let ranges =
                v.range.iter().map(|r| Range::new(r.begin, r.end)).collect::<Result<Vec<_>, _>>();
            let ranges = ranges.map_err(|source| ResourceError::Range { name: name(), source })?;
            Amount::Ranges(Ranges::new(ranges))
        }
        Ok(v1::value::Type::Set) => {
            let v = w.set.as_ref().ok_or_else(|| no_value("SET", "set"))?;
            Amount::Set(NameSet::new(v.item.iter().cloned()))
        }
        Ok(v1::value::Type::Text) => {
            return Err(ResourceError::BadType { name: name(), kind: "TEXT".to_owned() });
        }
        Err(_) => {
            return Err(ResourceError::BadType { name: name(), kind: w.r#type.to_string() });
        }
    };
    let identity = Identity::named(&w.name);
    if is_plain(w) {
        return Ok(Resource { identity, amount });
    }
    let identity = identity
        .with_reservations(reservations_from_proto(w)?)
        .with_disk(w.disk.as_deref().map(Disk::from_proto))
        .with_revocable(w.revocable.is_some())
        .with_shared(w.shared.is_some())
        .with_provider(w.provider_id.as_ref().map(|p| p.value.clone()));
    Ok(Resource { identity, amount })
}

/// Whether its name says all but how much, as of most.
#[allow(deprecated)]
fn is_plain(w: &v1::Resource) -> bool {
    let reserved = !w.reservations.is_empty() || w.reservation.is_some();
    let kind = w.disk.is_some() || w.revocable.is_some() || w.shared.is_some();
    !reserved
        && !kind
        && w.role.as_deref().is_none_or(|role| role == "*")
        && w.provider_id.is_none()
}

fn reservations_from_proto(w: &v1::Resource) -> Result<Vec<Reservation>, ResourceError> {
    let bad = |problem| ResourceError::Reservation { name: w.name.clone(), problem };
    #[allow(deprecated)]
    let (role, single) = (w.role.as_deref().filter(|r| *r != "*"), w.reservation.as_ref());
    if !w.reservations.is_empty() {
        if role.is_some() || single.is_some() {
            return Err(bad("`reservations` excludes `role` and `reservation`"));
        }
        return w
            .reservations
            .iter()
            .map(|r| {
                let kind = match r
                    .r#type
                    .and_then(|t| v1::resource::reservation_info::Type::try_from(t).ok())
                {
                    Some(v1::resource::reservation_info::Type::Static) => ReservationKind::Static,
                    Some(v1::resource::reservation_info::Type::Dynamic) => ReservationKind::Dynamic,
                    _ => return Err(bad("a reservation needs type STATIC or DYNAMIC")),
                };
                let role = r.role.clone().ok_or_else(|| bad("a reservation needs a role"))?;
                Ok(reservation(kind, role, r))
            })
            .collect();
    }
    match (role, single) {
        (None, None) => Ok(Vec::new()),
        (None, Some(_)) => Err(bad("`reservation` needs `role` to be set, and not to `*`")),
        (Some(role), None) => Ok(vec![Reservation {
            kind: ReservationKind::Static,
            role: role.to_owned(),
            principal: None,
            labels: None,
        }]),
        (Some(role), Some(r)) => {
            Ok(vec![reservation(ReservationKind::Dynamic, role.to_owned(), r)])
        }
    }
}

fn reservation(
    kind: ReservationKind,
    role: String,
    r: &v1::resource::ReservationInfo,
) -> Reservation {
    Reservation {
        kind,
        role,
        principal: r.principal.clone(),
        labels: r.labels.as_ref().map(prost::Message::encode_to_vec),
    }
}

fn resource_to_proto(
    r: &Resource,
    dialect: Dialect,
    allocated_to: Option<&str>,
) -> Option<v1::Resource> {
    let id = &r.identity;
    let mut w = v1::Resource { name: id.name().to_owned(), ..Default::default() };
    match &r.amount {
        Amount::Scalar(s) => {
            w.set_type(v1::value::Type::Scalar);
            w.scalar = Some(v1::value::Scalar { value: s.to_f64() });
        }
        Amount::Ranges(ranges) => {
            w.set_type(v1::value::Type::Ranges);
            let range =
                ranges.iter().map(|r| v1::value::Range { begin: r.begin, end: r.end }).collect();
            w.ranges = Some(v1::value::Ranges { range });
        }
        Amount::Set(set) => {
            w.set_type(v1::value::Type::Set);
            w.set = Some(v1::value::Set { item: set.iter().map(str::to_owned).collect() });
        }
    }
    let info = |s: &Reservation| v1::resource::ReservationInfo {
        principal: s.principal.clone(),
        labels: s.labels.as_deref().and_then(|l| prost::Message::decode(l).ok()),
        ..Default::default()
    };
    #[allow(deprecated)]
    match (dialect, id.reservations()) {
        (Dialect::Refined, stack) => {
            w.reservations = stack
                .iter()
                .map(|s| v1::resource::ReservationInfo {
                    r#type: Some(match s.kind {
                        ReservationKind::Static => {
                            v1::resource::reservation_info::Type::Static as i32
                        }
                        ReservationKind::Dynamic => {
                            v1::resource::reservation_info::Type::Dynamic as i32
                        }
                    }),
                    role: Some(s.role.clone()),
                    ..info(s)
                })
                .collect();
        }
        (Dialect::Plain, []) => w.role = Some("*".to_owned()),
        (Dialect::Plain, [one]) => {
            w.role = Some(one.role.clone());
            w.reservation = (one.kind == ReservationKind::Dynamic).then(|| info(one));
        }
        (Dialect::Plain, _) => return None,
    }
    w.disk = id.disk().map(|disk| Box::new(disk.to_proto()));
    w.revocable = id.is_revocable().then(Default::default);
    w.shared = id.is_shared().then(Default::default);
    w.provider_id = id.provider().map(|p| v1::ResourceProviderId { value: p.to_owned() });
    w.allocation_info =
        allocated_to.map(|role| v1::resource::AllocationInfo { role: Some(role.to_owned()) });
    Some(w)
}
