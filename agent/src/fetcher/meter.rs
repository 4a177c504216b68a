//! Bounds what a tar makes us decompress, and keep in memory, beside its files' content.
//!
//! The reader of tars takes long names and attributes whole, and skips data that nobody
//! reads, however much a small archive says that there is.

use std::{
    cell::Cell,
    io::{self, Read},
};

use super::ArchiveError;

/// What stands before an entry's data (its name, link and attributes) is at most this,
/// padding included.
pub(super) const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Reads no more than is allowed; then the error is an [`ArchiveError`].
pub(super) struct Meter<'a, R> {
    pub(super) from: R,
    /// How much may be read until this is set again.
    pub(super) allowed: &'a Cell<u64>,
    /// How much may be read in all, and the limit to name when it is too little.
    pub(super) left: u64,
    pub(super) max_bytes: u64,
}

impl<R: Read> Read for Meter<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = self.allowed.get().min(self.left);
        if most == 0 && !into.is_empty() {
            return Err(io::Error::other(match self.left {
                0 => ArchiveError::TooLarge(self.max_bytes),
                _ => ArchiveError::LongHeader,
            }));
        }
        let part = into.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let read = self.from.read(&mut into[..part])?;
        self.allowed.set(self.allowed.get().saturating_sub(read as u64));
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_and_all_of_it_are_bounded() {
        let allowed = Cell::new(10);
        let mut meter = Meter { from: io::repeat(0), allowed: &allowed, left: 25, max_bytes: 20 };
        let mut read = || {
            let mut bytes = Vec::new();
            let error = meter.read_to_end(&mut bytes).unwrap_err();
            (bytes.len(), ArchiveError::from(error))
        };
        assert!(matches!(read(), (10, ArchiveError::LongHeader)));
        allowed.set(10);
        assert!(matches!(read(), (10, ArchiveError::LongHeader)));
        allowed.set(10);
        assert!(matches!(read(), (5, ArchiveError::TooLarge(20))));
    }
}
