//! Scalars by a dense number in place of their name.

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::resources::{Amount, Resource, Resources, Scalar};
use smallvec::SmallVec;

use crate::allocator::MinAllocatable;

/// Thousandths of each scalar, by the number that [`Names`] gave its name;
/// names beyond the end count as 0. Reservations and the like do not matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Quantities(SmallVec<[u64; 4]>);

impl Quantities {
    pub(super) fn get(&self, name: usize) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|v| *v == 0)
    }

    pub(super) fn add(&mut self, other: &Quantities) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = a.saturating_add(*b);
        }
    }

    pub(super) fn sub(&mut self, other: &Quantities) {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = a.saturating_sub(*b);
        }
    }

    /// The largest part of `total` that any of these is, not weighted.
    pub(super) fn share_of(&self, total: &Quantities) -> f64 {
        let mut share = 0.0;
        for (held, total) in self.0.iter().zip(&total.0) {
            if *total > 0 {
                let part = *held as f64 / *total as f64;
                if part > share {
                    share = part;
                }
            }
        }
        share
    }
}

impl PartialEq for Quantities {
    fn eq(&self, other: &Self) -> bool {
        (0..self.0.len().max(other.0.len())).all(|i| self.get(i) == other.get(i))
    }
}

/// Numbers for the names of scalars, in the order in which they were first seen.
#[derive(Debug, Default)]
pub(super) struct Names {
    index: BTreeMap<Arc<str>, usize>,
    names: Vec<Arc<str>>,
}

impl Names {
    pub(super) fn number(&mut self, name: &str) -> usize {
        if let Some(&i) = self.index.get(name) {
            return i;
        }
        let name: Arc<str> = Arc::from(name);
        self.index.insert(name.clone(), self.names.len());
        self.names.push(name);
        self.names.len() - 1
    }

    pub(super) fn measure(&mut self, resources: &Resources) -> Quantities {
        let mut out = Quantities::default();
        for r in resources {
            if let Amount::Scalar(s) = r.amount {
                let i = self.number(r.identity.name());
                if out.0.len() <= i {
                    out.0.resize(i + 1, 0);
                }
                out.0[i] = out.0[i].saturating_add(s.millis());
            }
        }
        out
    }

    /// Like [`measure`](Self::measure), of resources whose names are known.
    pub(super) fn measure_known(&self, resources: &Resources) -> Quantities {
        let mut out = Quantities::default();
        for r in resources {
            if let (Amount::Scalar(s), Some(&i)) = (&r.amount, self.index.get(r.identity.name())) {
                if out.0.len() <= i {
                    out.0.resize(i + 1, 0);
                }
                out.0[i] = out.0[i].saturating_add(s.millis());
            }
        }
        out
    }

    /// `quantities` without the names that do not count in shares.
    pub(super) fn counted(&self, quantities: &Quantities, excluded: &[String]) -> Quantities {
        let mut out = quantities.clone();
        for name in excluded {
            if let Some(v) = self.index.get(name.as_str()).and_then(|&i| out.0.get_mut(i)) {
                *v = 0;
            }
        }
        out
    }

    /// As unreserved scalars.
    pub(super) fn resources(&self, quantities: &Quantities) -> Resources {
        self.names
            .iter()
            .zip(&quantities.0)
            .map(|(name, v)| Resource::scalar(name, Scalar::from_millis(*v)))
            .collect()
    }
}

/// The smallest offer: all quantities of at least one entry; none means any.
#[derive(Clone, Debug, Default)]
pub(super) struct Minimum(Vec<Vec<(usize, u64)>>);

impl Minimum {
    pub(super) fn new(entries: &[MinAllocatable], names: &mut Names) -> Self {
        let entry = |e: &MinAllocatable, names: &mut Names| {
            e.iter().map(|(name, least)| (names.number(name), least.millis())).collect()
        };
        Self(entries.iter().map(|e| entry(e, names)).collect())
    }

    /// `cpus:0.01 or mem:32`.
    pub(super) fn describe(&self, names: &Names) -> String {
        let entry = |e: &Vec<(usize, u64)>| {
            let one = |&(name, least): &(usize, u64)| {
                Some(Resource::scalar(names.names.get(name)?, Scalar::from_millis(least)))
            };
            e.iter().filter_map(one).collect::<Resources>().to_string()
        };
        self.0.iter().map(entry).collect::<Vec<_>>().join(" or ")
    }

    pub(super) fn is_met(&self, quantities: &Quantities) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|e| e.iter().all(|&(name, least)| quantities.get(name) >= least))
    }
}
