//! Canonical collections of resources.

use std::{
    fmt,
    ops::{Add, AddAssign},
};

use thiserror::Error;

use super::{Amount, Identity, Resource, Scalar};

/// Sorted by identity, one entry each, none empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Resources(Vec<Resource>);

/// What was asked for is not there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{wanted} is not contained in {available}")]
pub struct Insufficient {
    /// The first resource that is missing, wholly or in part.
    pub wanted: Resource,
    /// What there is of its name, as text.
    pub available: String,
}

impl Resources {
    /// Nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// `cpus` and `mem` (MiB), unreserved; the pair that most tasks ask for.
    ///
    /// # Panics
    /// Never; numbers that are no amounts count as nothing.
    pub fn cpus_mem(cpus: f64, mem: f64) -> Self {
        let scalar = |v| Scalar::from_f64(v).unwrap_or(Scalar::ZERO);
        [Resource::scalar("cpus", scalar(cpus)), Resource::scalar("mem", scalar(mem))]
            .into_iter()
            .collect()
    }

    /// The entries, sorted by identity.
    pub fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.0.iter()
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The amount of exactly this identity.
    pub fn get(&self, identity: &Identity) -> Option<&Amount> {
        self.position(identity).ok().map(|i| &self.0[i].amount)
    }

    /// The sum of all scalars of this name, whatever their reservation.
    pub fn scalar(&self, name: &str) -> Scalar {
        self.named(name).fold(Scalar::ZERO, |sum, r| match &r.amount {
            Amount::Scalar(s) => sum.saturating_add(*s),
            _ => sum,
        })
    }

    /// The entries of this name.
    pub fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Resource> + use<'a> {
        let from = self.0.partition_point(|r| r.identity.name() < name);
        let to = from + self.0[from..].partition_point(|r| r.identity.name() <= name);
        self.0[from..to].iter()
    }

    /// Each scalar name with its sum, sorted by name.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, Scalar)> {
        self.0
            .chunk_by(|a, b| a.identity.name() == b.identity.name())
            .map(|same| (same[0].identity.name(), self.scalar(same[0].identity.name())))
            .filter(|(_, s)| !s.is_zero())
    }

    /// Only the entries that `keep` wants.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Resource) -> bool) -> Resources {
        Self(self.0.iter().filter(|r| keep(r)).cloned().collect())
    }

    /// Whether all of `other` is in this.
    pub fn contains(&self, other: &Resources) -> bool {
        self.missing(other).is_none()
    }

    /// Takes `other` out.
    ///
    /// # Errors
    /// [`Insufficient`] when it is not contained; then nothing has changed.
    pub fn try_sub(&mut self, other: &Resources) -> Result<(), Insufficient> {
        if let Some(wanted) = self.missing(other) {
            let available = self.filter(|r| r.identity.name() == wanted.identity.name());
            return Err(Insufficient { wanted: wanted.clone(), available: available.to_string() });
        }
        self.saturating_sub(other);
        Ok(())
    }

    /// Takes out as much of `other` as there is.
    pub fn saturating_sub(&mut self, other: &Resources) {
        for r in &other.0 {
            let Ok(i) = self.position(&r.identity) else { continue };
            let mine = &mut self.0[i].amount;
            match (&mut *mine, &r.amount) {
                (Amount::Scalar(a), Amount::Scalar(b)) => *a = a.saturating_sub(*b),
                (Amount::Ranges(a), Amount::Ranges(b)) => *a = a.difference(b),
                (Amount::Set(a), Amount::Set(b)) => *a = a.difference(b),
                _ => {}
            }
            if mine.is_empty() {
                self.0.remove(i);
            }
        }
    }

    /// Adds one resource. Where its identity is there with another kind of
    /// amount it is ignored: `wire` refuses such input at the border.
    pub fn insert(&mut self, resource: Resource) {
        if resource.amount.is_empty() {
            return;
        }
        match self.position(&resource.identity) {
            Err(i) => self.0.insert(i, resource),
            Ok(i) => self.0[i].amount.add(&resource.amount),
        }
    }

    /// Of entries in any order. One whose identity is there with another kind of amount is
    /// ignored.
    pub(super) fn of(mut entries: Vec<Resource>) -> Self {
        entries.retain(|r| !r.amount.is_empty());
        // Stable: of two kinds the first counts.
        entries.sort_by(|a, b| a.identity.cmp(&b.identity));
        if entries.is_sorted_by(|a, b| a.identity < b.identity) {
            return Self(entries);
        }
        // All of an identity at once: one by one, many ranges would be sorted many times.
        let mut out: Vec<Resource> = Vec::with_capacity(entries.len());
        let mut entries = entries.into_iter().peekable();
        while let Some(Resource { identity, amount }) = entries.next() {
            let same = std::iter::from_fn(|| entries.next_if(|r| r.identity == identity));
            let amount = amount.with_all(same.map(|r| r.amount));
            out.push(Resource { identity, amount });
        }
        Self(out)
    }

    fn missing<'a>(&self, other: &'a Resources) -> Option<&'a Resource> {
        other.0.iter().find(|r| !self.get(&r.identity).is_some_and(|a| a.contains(&r.amount)))
    }

    fn position(&self, identity: &Identity) -> Result<usize, usize> {
        self.0.binary_search_by(|r| r.identity.cmp(identity))
    }
}

impl AddAssign<&Resources> for Resources {
    fn add_assign(&mut self, other: &Resources) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        for r in &other.0 {
            // Mostly there is some of it already: nothing is copied then.
            match self.position(&r.identity) {
                Ok(i) => self.0[i].amount.add(&r.amount),
                Err(i) => self.0.insert(i, r.clone()),
            }
        }
    }
}

impl Add<&Resources> for Resources {
    type Output = Resources;
    fn add(mut self, other: &Resources) -> Resources {
        self += other;
        self
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(iter: I) -> Self {
        Self::of(iter.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Resources {
    type Item = &'a Resource;
    type IntoIter = std::slice::Iter<'a, Resource>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Resources {
    /// Mesos' text form: `cpus:4; mem:8192; ports:[31000-32000]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{r}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
