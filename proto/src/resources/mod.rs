//! The resource algebra.
//!
//! A [`Resource`] is an identity (name, reservations, disk, revocable, shared)
//! and an amount. [`Resources`] is a canonical collection of them: sorted by
//! identity, one entry each, none empty. So equality is structural and
//! `a + b - b == a` holds exactly.
//!
//! The role that resources are *allocated* to (`allocation_info` on the wire)
//! is no part of the identity here: an offer, an executor or a task has one
//! role, kept beside its resources and written when they go out.

mod collection;
mod identity;
mod ranges;
mod scalar;
mod set;
mod text;
mod wire;

pub use collection::{Insufficient, Resources};
pub use identity::{Disk, Identity, Reservation, ReservationKind};
pub use ranges::{Range, RangeError, Ranges};
pub use scalar::{Scalar, ScalarError};
pub use set::NameSet;
pub use text::ParseError;
pub use wire::{Dialect, ResourceError};

use std::fmt;

/// How much of a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Amount {
    /// A fixed-point number: cpus, mem (MiB), disk (MiB), gpus, licences.
    Scalar(Scalar),
    /// Whole numbers: ports.
    Ranges(Ranges),
    /// Names.
    Set(NameSet),
}

impl Amount {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Amount::Scalar(s) => s.is_zero(),
            Amount::Ranges(r) => r.is_empty(),
            Amount::Set(s) => s.is_empty(),
        }
    }

    /// Adds another one; of another kind it is ignored.
    fn add(&mut self, other: &Amount) {
        match (self, other) {
            (Amount::Scalar(a), Amount::Scalar(b)) => *a = a.saturating_add(*b),
            (Amount::Ranges(a), Amount::Ranges(b)) => *a = a.union(b),
            (Amount::Set(a), Amount::Set(b)) => *a = a.union(b),
            _ => {}
        }
    }

    /// With these added to it; those of other kinds are ignored.
    fn with_all(self, more: impl Iterator<Item = Amount>) -> Self {
        match self {
            Amount::Scalar(first) => Amount::Scalar(more.fold(first, |sum, amount| match amount {
                Amount::Scalar(other) => sum.saturating_add(other),
                _ => sum,
            })),
            Amount::Ranges(first) => {
                let more = more.filter_map(|amount| match amount {
                    Amount::Ranges(other) => Some(other.0),
                    _ => None,
                });
                Amount::Ranges(Ranges::new(first.0.into_iter().chain(more.flatten())))
            }
            Amount::Set(first) => {
                let more = more.filter_map(|amount| match amount {
                    Amount::Set(other) => Some(other.0),
                    _ => None,
                });
                Amount::Set(NameSet::new(first.0.into_iter().chain(more.flatten())))
            }
        }
    }

    /// Whether `other` is the same kind and no more than this.
    pub fn contains(&self, other: &Amount) -> bool {
        match (self, other) {
            (Amount::Scalar(a), Amount::Scalar(b)) => a >= b,
            (Amount::Ranges(a), Amount::Ranges(b)) => a.contains(b),
            (Amount::Set(a), Amount::Set(b)) => a.contains(b),
            _ => false,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Scalar(s) => s.fmt(f),
            Amount::Ranges(r) => r.fmt(f),
            Amount::Set(s) => s.fmt(f),
        }
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An identity and how much of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Everything but the amount.
    pub identity: Identity,
    /// How much.
    pub amount: Amount,
}

impl Resource {
    /// An unreserved scalar.
    pub fn scalar(name: &str, amount: Scalar) -> Self {
        Self { identity: Identity::named(name), amount: Amount::Scalar(amount) }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.identity, self.amount)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
