//! Resources other than cores and memory: GPUs, licences, whatever agents have.
//!
//! Spark wants to know of each which ones an executor has, its addresses. An
//! agent that gives names or numbers (`fpga:{f0,f1}`, `slots:[0-3]`) gives those
//! away one by one, and they are the addresses. Of plain amounts (`gpus:2`) an
//! executor's are counted from 0: a container sees its own GPUs only, and numbers
//! them so.

use std::collections::BTreeMap;

use mezz_proto::resources::{Amount, NameSet, Range, Ranges, Resource, Resources};

/// What an executor needs of each: the cluster's names, and whole units above 0.
pub type CustomNeeds = BTreeMap<String, u64>;

/// The addresses that an executor has got of each.
pub type Addresses = BTreeMap<String, Vec<String>>;

/// Whole units of `name`.
pub(super) fn units(free: &Resources, name: &str) -> u64 {
    free.named(name).fold(0, |sum, r| sum.saturating_add(units_of(&r.amount)))
}

fn units_of(amount: &Amount) -> u64 {
    match amount {
        Amount::Scalar(s) => s.millis() / 1000,
        Amount::Ranges(r) => r.count(),
        Amount::Set(s) => s.count() as u64,
    }
}

/// Whether there is any of it.
pub(crate) fn has_any(free: &Resources, name: &str) -> bool {
    units(free, name) > 0
}

/// Whether all of it is there.
pub(crate) fn has(free: &Resources, needs: &CustomNeeds) -> bool {
    needs.iter().all(|(name, wanted)| units(free, name) >= *wanted)
}

/// Takes it out of `free`, reserved ones first; `None`, with nothing changed, when
/// it is not there.
pub(crate) fn carve(free: &mut Resources, needs: &CustomNeeds) -> Option<(Resources, Addresses)> {
    let (mut taken, mut addresses) = (Resources::new(), Addresses::new());
    for (name, wanted) in needs {
        let mut found = Vec::new();
        for source in super::place::reserved_first(free, name) {
            let left = wanted.saturating_sub(found.len() as u64);
            if left > 0 {
                taken.insert(take(source, left, &mut found));
            }
        }
        if (found.len() as u64) < *wanted {
            return None;
        }
        addresses.insert(name.clone(), found);
    }
    free.saturating_sub(&taken);
    Some((taken, addresses))
}

/// As much of `source` as is wanted; adds the addresses.
fn take(source: Resource, wanted: u64, found: &mut Vec<String>) -> Resource {
    let n = units_of(&source.amount).min(wanted);
    let count = usize::try_from(n).unwrap_or(usize::MAX);
    let amount = match source.amount {
        Amount::Scalar(_) => {
            let first = found.len() as u64;
            found.extend((first..first + n).map(|i| i.to_string()));
            Amount::Scalar(mezz_proto::resources::Scalar::from_units(n))
        }
        Amount::Ranges(all) => {
            let numbers: Vec<u64> = all.numbers().take(count).collect();
            found.extend(numbers.iter().map(ToString::to_string));
            Amount::Ranges(Ranges::new(numbers.iter().filter_map(|i| Range::new(*i, *i).ok())))
        }
        Amount::Set(all) => {
            let names: Vec<&str> = all.iter().take(count).collect();
            found.extend(names.iter().map(ToString::to_string));
            Amount::Set(NameSet::new(names))
        }
    };
    Resource { identity: source.identity, amount }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(all: &[(&str, u64)]) -> CustomNeeds {
        all.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn named_and_numbered_ones_are_given_away_one_by_one() {
        let mut free = Resources::parse("cpus:1;fpga:{f0,f1,f2};slots:[4-5,9-9];gpus:2").unwrap();
        let (taken, addresses) =
            carve(&mut free, &needs(&[("fpga", 2), ("slots", 3), ("gpus", 1)])).unwrap();
        assert_eq!(taken, Resources::parse("fpga:{f0,f1};slots:[4-5,9-9];gpus:1").unwrap());
        assert_eq!(addresses["fpga"], ["f0", "f1"]);
        assert_eq!(addresses["slots"], ["4", "5", "9"]);
        assert_eq!(addresses["gpus"], ["0"]);
        assert_eq!(free, Resources::parse("cpus:1;fpga:{f2};gpus:1").unwrap());
        let (_, addresses) = carve(&mut free, &needs(&[("fpga", 1)])).unwrap();
        assert_eq!(addresses["fpga"], ["f2"]);
    }

    #[test]
    fn what_is_not_all_there_is_left_alone() {
        let whole = Resources::parse("gpus:2;licenses:0.5").unwrap();
        for wanted in [needs(&[("gpus", 3)]), needs(&[("gpus", 1), ("licenses", 1)])] {
            let mut free = whole.clone();
            assert!(!has(&free, &wanted));
            assert_eq!(carve(&mut free, &wanted), None);
            assert_eq!(free, whole);
        }
        assert!(has(&whole, &needs(&[("gpus", 2)])));
    }
}
