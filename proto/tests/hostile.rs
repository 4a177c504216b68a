//! What the fuzzer runs (`fuzz/`), over its corpus and inputs made of it: as many as a
//! second allows, the same every time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../../fuzz/targets.rs"]
mod targets;

mod dice;

use std::path::Path;

use dice::Dice;

/// Inputs made of each of the corpus.
const MUTATIONS: usize = 400;

impl Dice {
    fn pick(&mut self, n: usize) -> usize {
        self.roll(n as u64) as usize
    }

    /// A few bytes changed, removed, doubled, or taken from another input.
    fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut out = input.to_vec();
        for _ in 0..1 + self.pick(4) {
            let at = self.pick(out.len());
            let end = (at + 1 + self.pick(8)).min(out.len());
            match self.pick(5) {
                0 if !out.is_empty() => out[at] = self.pick(256) as u8,
                1 if !out.is_empty() => out[at] ^= 1 << self.pick(8),
                2 => drop(out.drain(at..end)),
                3 => {
                    let piece = out[at..end].to_vec();
                    out.splice(at..at, piece);
                }
                _ => {
                    let from = self.pick(other.len());
                    let to = (from + self.pick(40)).min(other.len());
                    out.splice(at..end, other[from..to].iter().copied());
                }
            }
        }
        out
    }
}

fn endures(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty());
    let mut dice = Dice(6);
    target(b"");
    for input in &corpus {
        target(input);
        for _ in 0..MUTATIONS {
            let other = &corpus[dice.pick(corpus.len())];
            target(&dice.mutate(input, other));
        }
    }
}

#[test]
fn any_json_is_read_or_refused() {
    endures("json", targets::json);
}

#[test]
fn any_protobuf_is_read_or_refused() {
    endures("protobuf", targets::protobuf);
}

#[test]
fn any_stream_is_taken_apart_or_refused() {
    endures("recordio", targets::recordio);
}

#[test]
fn any_text_is_read_or_refused() {
    endures("text", targets::text);
}

#[test]
fn any_head_is_read_or_refused() {
    endures("head", targets::head);
}
