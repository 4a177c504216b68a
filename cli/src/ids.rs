//! Ids as people write and read them.
//!
//! A master makes ids like `8d5d0f6c-…-0003` and `8d5d0f6c-…-S0`: people see and
//! write only the end, or the beginning of names of their own, as long as that
//! means one thing.

use std::collections::{BTreeMap, BTreeSet};

/// At most so many candidates are listed.
const MAX_CANDIDATES: usize = 8;

/// The one of `ids` that `text` means: the id itself, or its beginning or end
/// where no other begins or ends so.
///
/// # Errors
/// A sentence; `noun` is what kind of id it is and `list` the command that lists
/// them.
pub fn resolve<'a>(
    text: &str,
    ids: impl IntoIterator<Item = &'a str>,
    noun: &str,
    list: &str,
) -> Result<&'a str, String> {
    let mut candidates = BTreeSet::new();
    for id in ids {
        if id == text {
            return Ok(id);
        }
        if !text.is_empty() && (id.starts_with(text) || id.ends_with(text)) {
            candidates.insert(id);
        }
    }
    let mut found = candidates.iter();
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(format!("no {noun} `{text}`; `{list}` lists them")),
        _ => {
            let shown: Vec<&str> = candidates.iter().copied().take(MAX_CANDIDATES).collect();
            let more = if candidates.len() > MAX_CANDIDATES { ", …" } else { "" };
            Err(format!(
                "`{text}` can mean {} {noun}s: {}{more}; write more of it",
                candidates.len(),
                shown.join(", ")
            ))
        }
    }
}

/// For each id the shortest end, cut at a dash, that no other of them has.
pub fn short<'a>(ids: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, &'a str> {
    let ids: BTreeSet<&str> = ids.into_iter().collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for id in &ids {
        for end in ends(id) {
            *counts.entry(end).or_default() += 1;
        }
    }
    ids.iter()
        .map(|id| (*id, ends(id).find(|end| counts.get(end) == Some(&1)).unwrap_or(id)))
        .collect()
}

/// The parts of an id from a dash to its end, shortest first, and then itself.
fn ends(id: &str) -> impl Iterator<Item = &str> {
    id.rmatch_indices('-').map(|(at, _)| &id[at + 1..]).filter(|e| !e.is_empty()).chain([id])
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "11111111-aaaa-0000";
    const B: &str = "11111111-aaaa-0001";
    const C: &str = "22222222-bbbb-0001";

    #[test]
    fn exact_beginning_or_end() {
        let ids = [A, B, C, "0000"];
        assert_eq!(resolve("0000", ids, "framework", "x"), Ok("0000"));
        assert_eq!(resolve(A, ids, "framework", "x"), Ok(A));
        assert_eq!(resolve("2222", ids, "framework", "x"), Ok(C));
        assert_eq!(resolve("bbbb-0001", ids, "framework", "x"), Ok(C));
    }

    #[test]
    fn nothing_or_too_much() {
        let error = resolve("9", [A, B], "framework", "mezz frameworks").unwrap_err();
        assert_eq!(error, "no framework `9`; `mezz frameworks` lists them");
        let error = resolve("0001", [A, B, C], "framework", "x").unwrap_err();
        assert_eq!(error, format!("`0001` can mean 2 frameworks: {B}, {C}; write more of it"));
        assert!(resolve("", [A], "framework", "x").is_err());
    }

    #[test]
    fn short_forms_are_unique_ends() {
        let short = short([A, B, C, "plain"]);
        assert_eq!(short[A], "0000");
        assert_eq!(short[B], "aaaa-0001");
        assert_eq!(short[C], "bbbb-0001");
        assert_eq!(short["plain"], "plain");
        for (id, end) in &short {
            assert_eq!(resolve(end, [A, B, C, "plain"], "id", "x"), Ok(*id));
        }
    }
}
