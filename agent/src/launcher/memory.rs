//! Memory that a process which only waits does not need.

use std::fs;

use nix::{libc, sys::signal::Signal, unistd::alarm};

/// Comes when it is time to [`give_back`]; blocked since the launcher's start.
pub(super) const TIME_TO_GIVE_BACK: Signal = Signal::SIGALRM;

/// Seconds before it: what a short task's launcher gave back it would soon need again,
/// at about a tenth of all that such a task costs.
const LATER: u32 = 1;

/// Asks for [`TIME_TO_GIVE_BACK`] in a while.
pub(super) fn give_back_later() {
    alarm::set(LATER);
}

/// Gives back the pages of program files that nobody has written to. The kernel
/// brings them back from its cache when they are wanted.
///
/// A launcher is the whole program `mezz`, most of which it touched but once, while
/// it was linked.
pub(super) fn give_back() {
    let Ok(text) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, end) in clean(&text) {
        // SAFETY: only whole mappings of files without a private page are named; what
        // is read from them later is the same as before.
        unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
    }
}

/// The mappings of files that cannot be written and hold no page of our own.
fn clean(smaps: &str) -> Vec<(usize, usize)> {
    let (mut found, mut candidate) = (Vec::new(), None);
    for line in smaps.lines() {
        if let Some(range) = header(line) {
            candidate = range;
        } else if line.strip_prefix("Anonymous:").is_some_and(|rest| rest.trim() == "0 kB") {
            found.extend(candidate.take());
        }
    }
    found
}

/// Of a mapping; `Some(None)` for one that is to stay.
fn header(line: &str) -> Option<Option<(usize, usize)>> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let hex = |text| usize::from_str_radix(text, 16).ok();
    let range = (hex(start)?, hex(end)?);
    let mode = rest.get(..4)?;
    let file = rest.contains(" /");
    Some((file && (mode == "r--p" || mode == "r-xp")).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_mappings_of_files_are_given_back() {
        let text = "\
55e111c10000-55e112c48000 r-xp 004f1000 fe:00 12 /usr/bin/mezz
Rss:                1972 kB
Anonymous:             0 kB
55e112c48000-55e112cdf000 r--p 01529000 fe:00 12 /usr/bin/mezz
Rss:                 604 kB
Anonymous:           600 kB
55e112cdf000-55e112ce7000 rw-p 015c0000 fe:00 12 /usr/bin/mezz
Anonymous:             0 kB
7faa6ae90000-7faa6aea0000 r--p 00000000 00:00 0
Anonymous:             0 kB
7faa6ae90000-7faa6aea0000 r--p 00000000 00:00 0 [vvar]
Anonymous:             0 kB
";
        assert_eq!(clean(text), [(0x55e1_11c1_0000, 0x55e1_12c4_8000)]);
    }

    #[test]
    fn it_goes_on_afterwards() {
        let before = fs::read("/proc/self/maps").unwrap().len();
        give_back();
        assert!(before > 0 && "still here".to_owned().len() == 10);
    }
}
