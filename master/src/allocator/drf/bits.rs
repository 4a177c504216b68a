//! Sets of small numbers, one bit each.

/// A growing set of small numbers (slots of agents or clients).
#[derive(Clone, Debug, Default)]
pub(super) struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    /// Puts `i` in or takes it out; whether that changed anything.
    pub(super) fn assign(&mut self, i: usize, on: bool) -> bool {
        if on { self.insert(i) } else { self.remove(i) }
    }

    /// Whether `i` is new.
    pub(super) fn insert(&mut self, i: usize) -> bool {
        let (word, bit) = (i / 64, 1u64 << (i % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Whether `i` was there.
    pub(super) fn remove(&mut self, i: usize) -> bool {
        let (word, bit) = (i / 64, 1u64 << (i % 64));
        let Some(w) = self.words.get_mut(word) else { return false };
        let was = *w & bit != 0;
        *w &= !bit;
        was
    }

    pub(super) fn contains(&self, i: usize) -> bool {
        self.words.get(i / 64).is_some_and(|w| w >> (i % 64) & 1 == 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Empties it and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    pub(super) fn copy_from(&mut self, other: &BitSet) {
        self.words.clear();
        self.words.extend_from_slice(&other.words);
    }

    pub(super) fn union_with(&mut self, other: &BitSet) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a |= b;
        }
    }

    pub(super) fn intersect_with(&mut self, other: &BitSet) {
        self.words.truncate(other.words.len());
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a &= b;
        }
    }

    /// Becomes `a` without `b`; how many are left.
    pub(super) fn set_difference(&mut self, a: &BitSet, b: &BitSet) -> usize {
        self.words.clear();
        let common = a.words.len().min(b.words.len());
        let mut left = 0;
        for (x, y) in a.words[..common].iter().zip(&b.words) {
            let word = x & !y;
            left += word.count_ones() as usize;
            self.words.push(word);
        }
        for &word in &a.words[common..] {
            left += word.count_ones() as usize;
            self.words.push(word);
        }
        left
    }

    /// In ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(i * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_bits_is_a_set() {
        let mut a = BitSet::default();
        assert!(a.insert(3) && a.insert(200) && !a.insert(3));
        assert!(a.contains(200) && !a.contains(199) && !a.contains(100_000));
        assert_eq!(a.iter().collect::<Vec<_>>(), [3, 200]);
        let mut b = BitSet::default();
        b.insert(3);
        let mut c = BitSet::default();
        assert_eq!(c.set_difference(&a, &b), 1);
        assert_eq!(c.iter().collect::<Vec<_>>(), [200]);
        assert_eq!(c.set_difference(&b, &a), 0);
        b.union_with(&a);
        assert_eq!(b.len(), 2);
        c.copy_from(&a);
        c.intersect_with(&BitSet::default());
        assert!(c.is_empty());
        assert!(a.remove(3) && !a.remove(3) && a.assign(200, false));
        assert!(a.is_empty());
    }
}
