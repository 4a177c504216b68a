//! Sets of names.

use std::{collections::BTreeSet, fmt};

/// A set of names, as in `zones:{a,b}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NameSet(pub(super) BTreeSet<String>);

impl NameSet {
    /// Of these names; a repeated one counts once.
    pub fn new(items: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(items.into_iter().map(Into::into).collect())
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How many names.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every name of `other` is in this.
    pub fn contains(&self, other: &NameSet) -> bool {
        other.0.is_subset(&self.0)
    }

    /// Whether some name is in both.
    pub fn intersects(&self, other: &NameSet) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    /// The union.
    #[must_use]
    pub fn union(&self, other: &NameSet) -> NameSet {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// What is in this and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &NameSet) -> NameSet {
        Self(self.0.difference(&other.0).cloned().collect())
    }
}

impl fmt::Display for NameSet {
    /// Mesos' text form: `{a, b}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for NameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
