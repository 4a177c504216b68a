//! Keys of the DRF order, and the order itself.

use std::collections::{BTreeSet, btree_set};

/// Stands for a role's own frameworks among its child roles.
pub(super) const OWN: u32 = u32::MAX;

/// A place in the order: share first, then fewer allocations, then name
/// (rule 68).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The bits of a weighted share; shares are not negative, so bits order as
    /// numbers do.
    share: u64,
    allocations: u64,
    /// Stands for the name.
    rank: u64,
    /// Role or client, or [`OWN`].
    pub(super) id: u32,
}

impl Key {
    pub(super) fn new(share: f64, allocations: u64, rank: u64, id: u32) -> Self {
        Self { share: share.to_bits(), allocations, rank, id }
    }
}

/// Siblings, sorted.
#[derive(Debug, Default)]
pub(super) struct Order(BTreeSet<Key>);

impl Order {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> btree_set::Iter<'_, Key> {
        self.0.iter()
    }

    /// Moves an entry; `from` is its present place if it has one.
    pub(super) fn place(&mut self, from: &mut Option<Key>, to: Option<Key>) {
        if *from == to {
            return;
        }
        if let Some(old) = from.take() {
            self.0.remove(&old);
        }
        if let Some(new) = to {
            self.0.insert(new);
            *from = Some(new);
        }
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.0.contains(key)
    }
}

/// Distance between neighbours when ranks are given out at the end.
const RANK_STEP: u64 = 1 << 32;

/// A rank between two neighbours in name order, or `None` when there is no room
/// left and all must be given new ones.
pub(super) fn rank_between(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    match (before, after) {
        (None, None) => Some(u64::MAX / 2),
        (Some(b), None) => b.checked_add(RANK_STEP),
        (None, Some(a)) => a.checked_sub(RANK_STEP),
        (Some(b), Some(a)) => (a - b > 1).then(|| b + (a - b) / 2),
    }
}

/// Fresh ranks for `count` names.
pub(super) fn spread_ranks(count: usize) -> impl Iterator<Item = u64> {
    let first = (u64::MAX / 2).saturating_sub(count as u64 / 2 * RANK_STEP);
    (0..count as u64).map(move |i| first.saturating_add(i.saturating_mul(RANK_STEP)))
}
