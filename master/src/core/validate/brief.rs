//! Texts of peers in sentences that the master makes.

use std::fmt::{self, Display, Write};

/// What is shown, in no more than `most` bytes: `…` stands for the rest. A peer's text may
/// be as long as its message, and a sentence may be told of each of a thousand tasks.
pub(in crate::core) fn brief(what: impl Display, most: usize) -> String {
    let mut out = Beginning { text: String::new(), most };
    // It says so when there is no more room, and then nothing more is written.
    let _ = write!(out, "{what}");
    out.text
}

struct Beginning {
    text: String,
    most: usize,
}

impl Write for Beginning {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let left = self.most.saturating_sub(self.text.len());
        if part.len() <= left {
            self.text.push_str(part);
            return Ok(());
        }
        let end = part.floor_char_boundary(left.saturating_sub('…'.len_utf8()));
        self.text.push_str(&part[..end]);
        self.text.push('…');
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::brief;

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(brief("short", 5), "short");
        assert_eq!(brief("longer", 5), "lo…");
        assert_eq!(brief("ééé", 6), "ééé");
        assert_eq!(brief("éééé", 6), "é…");
        assert!(brief(format_args!("{}{}", "x".repeat(9), "y".repeat(9)), 10).len() <= 12);
    }
}
