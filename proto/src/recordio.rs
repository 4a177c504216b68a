//! Mesos' framing of streams over HTTP (behaviour rule 10): each record is its
//! length in decimal digits, a line feed, and so many bytes.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Digits of the largest length.
const MAX_DIGITS: usize = 20;

/// Why a stream is no RecordIO. Nothing after it can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No length where one must be.
    #[error("expected a record's length in decimal digits and a line feed, got {0:?}")]
    Length(String),
    /// More than the reader takes.
    #[error("a record of {length} bytes is too large; the limit is {limit} bytes")]
    TooLarge {
        /// Of the record.
        length: u64,
        /// Of the reader.
        limit: usize,
    },
    /// The stream ended too early.
    #[error("the stream ended within a record")]
    Truncated,
}

/// The record with its frame.
pub fn encode(record: &[u8]) -> Bytes {
    let head = head(record.len());
    let mut out = BytesMut::with_capacity(head.len() + record.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(record);
    out.freeze()
}

/// What stands before a record of this length, in bytes: for one that is too large to be copied.
pub fn head(length: usize) -> String {
    format!("{length}\n")
}

/// Takes a stream apart, however it is cut into pieces.
///
/// ```
/// # use mezz_proto::recordio::{Decoder, RecordError, encode};
/// # fn f() -> Result<(), RecordError> {
/// let mut decoder = Decoder::new(1024);
/// decoder.feed(b"5\nhel");
/// assert_eq!(decoder.next_record()?, None);
/// decoder.feed(b"lo");
/// assert_eq!(decoder.next_record()?.as_deref(), Some(&b"hello"[..]));
/// decoder.finish()
/// # }
/// # f().unwrap();
/// ```
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    waiting: BytesMut,
    /// Of the record that is being received.
    length: Option<usize>,
    failed: Option<RecordError>,
}

impl Decoder {
    /// No record may be longer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, waiting: BytesMut::new(), length: None, failed: None }
    }

    /// Takes in the next piece. What is held is never more than the pieces that
    /// were fed since [`next_record`](Self::next_record) last said `None`, and one
    /// record.
    pub fn feed(&mut self, piece: &[u8]) {
        if self.failed.is_none() {
            self.waiting.extend_from_slice(piece);
        }
    }

    /// The next record that is there as a whole; `None`: feed more.
    ///
    /// # Errors
    /// [`RecordError`], from then on always the same.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let read = self.read();
        if let Err(error) = &read {
            self.failed = Some(error.clone());
            self.waiting = BytesMut::new();
        }
        read
    }

    /// To be called at the stream's end.
    ///
    /// # Errors
    /// [`RecordError`], if it ended within a record.
    pub fn finish(self) -> Result<(), RecordError> {
        match self.failed {
            Some(failed) => Err(failed),
            None if self.length.is_none() && self.waiting.is_empty() => Ok(()),
            None => Err(RecordError::Truncated),
        }
    }

    fn read(&mut self) -> Result<Option<Bytes>, RecordError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.read_length()? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        self.length = Some(length);
        if self.waiting.len() < length {
            return Ok(None);
        }
        self.length = None;
        Ok(Some(self.waiting.split_to(length).freeze()))
    }

    fn read_length(&mut self) -> Result<Option<usize>, RecordError> {
        let digits = self.waiting.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let after = self.waiting.get(digits).copied();
        let bad = || {
            let start = self.waiting.get(..self.waiting.len().min(MAX_DIGITS + 1));
            RecordError::Length(String::from_utf8_lossy(start.unwrap_or_default()).into_owned())
        };
        match after {
            None if digits <= MAX_DIGITS => return Ok(None),
            Some(b'\n') if digits > 0 && digits <= MAX_DIGITS => {}
            _ => return Err(bad()),
        }
        let text = self.waiting.get(..digits).unwrap_or_default();
        let length = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
        let length = length.ok_or_else(bad)?;
        match usize::try_from(length).ok().filter(|length| *length <= self.limit) {
            Some(length) => {
                self.waiting.advance(digits + 1);
                Ok(Some(length))
            }
            None => Err(RecordError::TooLarge { length, limit: self.limit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], piece: usize, limit: usize) -> Result<Vec<Bytes>, RecordError> {
        let mut decoder = Decoder::new(limit);
        let mut records = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.feed(piece);
            while let Some(record) = decoder.next_record()? {
                records.push(record);
            }
        }
        decoder.finish().map(|()| records)
    }

    #[test]
    fn a_record_is_its_length_a_line_feed_and_itself() {
        assert_eq!(&encode(b"hello")[..], b"5\nhello");
        assert_eq!(&encode(b"")[..], b"0\n");
        assert_eq!(all(b"0\n2\nab", 3, 2).unwrap(), [&b""[..], b"ab"]);
        // As Mesos' own reader has it.
        assert_eq!(all(b"005\nhello", 9, 5).unwrap(), [&b"hello"[..]]);
    }

    #[test]
    fn what_is_no_record_is_told_apart_and_stays_an_error() {
        for (bytes, shown) in [
            (&b"x"[..], "x"),
            (b"\n", "\n"),
            (b"-1\n", "-1\n"),
            (b" 5\nhello", " 5\nhello"),
            (b"5\r\nhello", "5\r\nhello"),
            (b"111111111111111111111", "111111111111111111111"),
            (b"99999999999999999999\n", "99999999999999999999\n"),
            (b"{\"type\":\"SUBSCRIBE\"}", "{\"type\":\"SUBSCRIBE\"}"),
        ] {
            let mut decoder = Decoder::new(10);
            decoder.feed(bytes);
            let error = RecordError::Length(shown.to_owned());
            assert_eq!(decoder.next_record(), Err(error.clone()), "{bytes:?}");
            decoder.feed(b"1\na");
            assert_eq!(decoder.next_record(), Err(error.clone()));
            assert_eq!(decoder.finish(), Err(error));
        }
        let error = all(b"11\n", 1, 10).unwrap_err();
        assert_eq!(error, RecordError::TooLarge { length: 11, limit: 10 });
        for cut in 1..7 {
            assert_eq!(all(&b"5\nhello"[..cut], 1, 10), Err(RecordError::Truncated), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            piece in 1usize..60,
        ) {
            let bytes: Vec<u8> = records.iter().flat_map(|r| encode(r)).collect();
            let read = all(&bytes, piece, 40).unwrap();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn no_bytes_make_it_panic_or_hold_more_than_it_may(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), b'0'..=b'9', Just(b'\n')], 0..200),
            piece in 1usize..30,
        ) {
            let mut decoder = Decoder::new(50);
            for piece in bytes.chunks(piece) {
                decoder.feed(piece);
                while let Ok(Some(record)) = decoder.next_record() {
                    prop_assert!(record.len() <= 50);
                }
                prop_assert!(decoder.waiting.len() <= 50 + MAX_DIGITS);
            }
        }
    }
}
