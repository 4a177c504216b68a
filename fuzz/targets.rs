//! What peers send, read by those who must endure anything: each function takes any bytes,
//! and panics only if something is wrong. Used by the fuzzer (`fuzz_targets/`) and by
//! `proto/tests/hostile.rs`.

#![allow(dead_code, reason = "each fuzz target uses one")]

use mezz_proto::{
    attributes,
    media::Format,
    recordio::{Decoder, encode},
    resources::Resources,
    v1,
};
use prost::{Message, Name};

/// The longest record that `recordio` takes.
const LIMIT: usize = 1 << 12;

/// A body in JSON; the first byte says of which message.
pub fn json(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    any(*kind, Format::Json, body);
}

/// A body in protobuf, likewise.
pub fn protobuf(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    any(*kind, Format::Protobuf, body);
}

fn any(kind: u8, format: Format, body: &[u8]) {
    match kind % 6 {
        0 => is_stable::<v1::scheduler::Call>(format, body),
        1 => is_stable::<v1::executor::Call>(format, body),
        2 => is_stable::<v1::master::Call>(format, body),
        3 => is_stable::<v1::agent::Call>(format, body),
        4 => is_stable::<v1::TaskInfo>(format, body),
        _ => is_stable::<v1::scheduler::Event>(format, body),
    }
}

/// What can be read can be written and read again, in both forms, and is the same then.
fn is_stable<M: Message + Name + Default>(format: Format, body: &[u8]) {
    let Ok(message) = format.decode::<M>(body) else { return };
    let text = Format::Json.encode(&message);
    let bytes = message.encode_to_vec();
    let again: M = Format::Protobuf.decode(&bytes).expect("our own protobuf");
    assert!(Format::Json.encode(&again) == text, "another message after protobuf");
    // A number that no name has, in an enum, is kept and cannot be read in JSON.
    if let Ok(again) = Format::Json.decode::<M>(&text) {
        let again = Format::Json.encode(&again);
        assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&text));
    }
}

/// A stream in pieces whose length the first byte says.
pub fn recordio(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let whole = records(stream, stream.len().max(1));
    let pieces = records(stream, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "it depends on how the stream is cut");
    let again: Vec<u8> = whole.iter().flat_map(|record| encode(record)).collect();
    assert_eq!(records(&again, again.len().max(1)), whole);
}

/// Those before the first error.
fn records(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new(LIMIT);
    let mut out = Vec::new();
    for piece in stream.chunks(piece) {
        decoder.feed(piece);
        while let Ok(Some(record)) = decoder.next_record() {
            assert!(record.len() <= LIMIT);
            out.push(record.to_vec());
        }
    }
    out
}

/// Resources and attributes as people write them, or as JSON.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Not all that JSON can say has a text.
    let is_json = text.trim_start().starts_with('[');
    if let Ok(resources) = Resources::parse(text)
        && !is_json
    {
        let printed = resources.to_string();
        assert_eq!(Resources::parse(&printed).expect("our own text").to_string(), printed);
    }
    let _ = attributes::parse(text);
}
