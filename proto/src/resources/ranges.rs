//! Sets of whole numbers kept as ranges: ports.

use std::fmt;

use thiserror::Error;

/// Both ends included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Range {
    /// First number.
    pub begin: u64,
    /// Last number; never below `begin`.
    pub end: u64,
}

/// A range whose end is before its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("range [{begin}-{end}] ends before it begins")]
pub struct RangeError {
    /// As given.
    pub begin: u64,
    /// As given.
    pub end: u64,
}

impl Range {
    /// # Errors
    /// [`RangeError`] when `end < begin`.
    pub fn new(begin: u64, end: u64) -> Result<Self, RangeError> {
        if end < begin { Err(RangeError { begin, end }) } else { Ok(Self { begin, end }) }
    }
}

/// Sorted, disjoint, and never touching: the canonical form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ranges(pub(super) Vec<Range>);

impl Ranges {
    /// Brought to canonical form.
    pub fn new(ranges: impl IntoIterator<Item = Range>) -> Self {
        let mut all: Vec<Range> = ranges.into_iter().collect();
        all.sort_unstable();
        let mut out: Vec<Range> = Vec::with_capacity(all.len());
        for r in all {
            match out.last_mut() {
                Some(last) if r.begin <= last.end.saturating_add(1) => {
                    last.end = last.end.max(r.end)
                }
                _ => out.push(r),
            }
        }
        Self(out)
    }

    /// The ranges, sorted.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.0.iter().copied()
    }

    /// Whether there is no number in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are; saturates.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0u64, |n, r| n.saturating_add((r.end - r.begin).saturating_add(1)))
    }

    /// Every number in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|r| r.begin..=r.end)
    }

    /// Whether every number of `other` is in this.
    pub fn contains(&self, other: &Ranges) -> bool {
        let mut mine = self.0.iter();
        let mut current = mine.next();
        'next: for r in &other.0 {
            while let Some(c) = current {
                if c.end < r.begin {
                    current = mine.next();
                } else if c.begin <= r.begin && r.end <= c.end {
                    continue 'next;
                } else {
                    return false;
                }
            }
            return false;
        }
        true
    }

    /// Whether some number is in both.
    pub fn intersects(&self, other: &Ranges) -> bool {
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            if a.end < b.begin {
                i += 1;
            } else if b.end < a.begin {
                j += 1;
            } else {
                return true;
            }
        }
        false
    }

    /// The union.
    #[must_use]
    pub fn union(&self, other: &Ranges) -> Ranges {
        if other.is_empty() {
            return self.clone();
        }
        Self::new(self.iter().chain(other.iter()))
    }

    /// What is in this and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Ranges) -> Ranges {
        let mut out = Vec::with_capacity(self.0.len());
        let mut cuts = other.0.iter().peekable();
        for r in &self.0 {
            let mut begin = r.begin;
            let mut open = true;
            while let Some(c) = cuts.peek() {
                if c.end < begin {
                    cuts.next();
                    continue;
                }
                if c.begin > r.end {
                    break;
                }
                if c.begin > begin {
                    out.push(Range { begin, end: c.begin - 1 });
                }
                if c.end >= r.end {
                    open = false;
                    break;
                }
                begin = c.end + 1;
                cuts.next();
            }
            if open {
                out.push(Range { begin, end: r.end });
            }
        }
        Self(out)
    }
}

impl fmt::Display for Ranges {
    /// Mesos' text form: `[31000-31009, 31020-31020]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, r) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}-{}", r.begin, r.end)?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
