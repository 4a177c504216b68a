//! What peers send, read by those who must endure anything: each function takes any bytes,
//! and panics only if something is wrong. Used by the fuzzer (`fuzz_targets/`) and by
//! `proto/tests/hostile.rs`.

#![allow(dead_code, reason = "each fuzz target uses one")]

use mezz_proto::{
    attributes, json as dialect,
    media::Format,
    pages::{
        ExecutorPage, Jsonp, TaskPage, duration_text, hide_in_executor, hide_in_task,
        parse_duration, without_credentials,
    },
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
        4 => {
            is_stable::<v1::TaskInfo>(format, body);
            pages(format, body);
        }
        _ => is_stable::<v1::scheduler::Event>(format, body),
    }
}

/// What can be read can be written and read again, in both forms, and is the same then.
fn is_stable<M: Message + Name + Default>(format: Format, body: &[u8]) {
    let Ok(message) = format.decode::<M>(body) else { return };
    let text = Format::Json.encode(&message);
    if format == Format::Json {
        is_the_tree::<M>(body, &text);
    }
    let bytes = message.encode_to_vec();
    let again: M = Format::Protobuf.decode(&bytes).expect("our own protobuf");
    assert!(Format::Json.encode(&again) == text, "another message after protobuf");
    let again: M = match Format::Json.decode(&text) {
        Ok(again) => again,
        // JSON says defaults, and a list of messages that say nothing weighs more in it.
        Err(error) if error.to_string().contains("too many parts") => return,
        Err(error) => panic!("our own JSON: {error}"),
    };
    let again = Format::Json.encode(&again);
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&text));
}

/// What is read straight from a text is what a tree of its values says, which has of each name
/// the last value alone.
fn is_the_tree<M: Message + Name + Default>(body: &[u8], text: &[u8]) {
    let Ok(tree) = serde_json::from_slice::<serde_json::Value>(body) else { return };
    let Ok(message) = dialect::from_value::<M>(&tree) else { return };
    assert_eq!(dialect::to_string(&message).as_bytes(), text, "another message by the tree");
}

/// The pages on which a task or an executor stands.
fn pages(format: Format, body: &[u8]) {
    if let Ok(mut task) = format.decode::<v1::Task>(body) {
        hide_in_task(&mut task);
        serde_json::to_string(&TaskPage(&task)).expect("a page of a task");
    }
    if let Ok(mut info) = format.decode::<v1::ExecutorInfo>(body) {
        hide_in_executor(&mut info);
        let page = ExecutorPage { info: &info, agent: Some("a") };
        serde_json::to_string(&page).expect("a page of an executor");
    }
}

/// Lines of a request: each part by itself.
pub fn head(data: &[u8]) {
    let _ = Format::accepted(data.split(|b| *b == b'\n'));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shown = without_credentials(text);
    // Parts are left out of it, and nothing is put in.
    let kept = shown.strip_suffix("?…").unwrap_or(&shown);
    assert!(text.contains(&kept[kept.find("://").map_or(0, |at| at + 3)..]));
    if let Ok(duration) = parse_duration(text) {
        parse_duration(&duration_text(duration)).expect("our own text");
    }
    if let Ok(jsonp) = Jsonp::new(text) {
        assert!(jsonp.wrap("\u{2028}").is_ascii());
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
