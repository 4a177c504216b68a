//! What tasks write, line by line, under the names of the tasks.

use std::io::{self, Write};

/// A longer line is printed in pieces: a task cannot fill our memory.
const MAX_LINE: usize = 64 * 1024;

/// Where a task's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Our standard output.
    Stdout,
    /// Our standard error.
    Stderr,
}

/// Passes one stream of one task on.
#[derive(Debug)]
pub struct Printer {
    target: Target,
    /// Before each line; nothing when there is one task only.
    prefix: String,
    line: Vec<u8>,
}

impl Printer {
    /// With a prefix, output is passed on in whole lines, else as it comes.
    pub fn new(target: Target, prefix: String) -> Self {
        Self { target, prefix, line: Vec::new() }
    }

    /// The next piece.
    ///
    /// # Errors
    /// When our own output cannot be written.
    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        let ready = self.take(data);
        self.write(&ready)
    }

    /// The end: what is left becomes a line.
    ///
    /// # Errors
    /// When our own output cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.line.is_empty() {
            return Ok(());
        }
        let ready = self.take(b"\n");
        self.write(&ready)
    }

    /// What can be printed now.
    fn take(&mut self, data: &[u8]) -> Vec<u8> {
        if self.prefix.is_empty() {
            return data.to_vec();
        }
        let mut out = Vec::new();
        for piece in data.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") || self.line.len() >= MAX_LINE {
                out.extend_from_slice(self.prefix.as_bytes());
                out.append(&mut self.line);
                if !out.ends_with(b"\n") {
                    out.push(b'\n');
                }
            }
        }
        out
    }

    fn write(&self, data: &[u8]) -> io::Result<()> {
        match self.target {
            Target::Stdout => crate::output::write_bytes(data),
            Target::Stderr => io::stderr().lock().write_all(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_their_prefix_whole() {
        let mut printer = Printer::new(Target::Stdout, "a-1: ".to_owned());
        assert_eq!(printer.take(b"one\ntw"), b"a-1: one\n");
        assert_eq!(printer.take(b"o"), b"");
        assert_eq!(printer.take(b"\n\nthree\n"), b"a-1: two\na-1: \na-1: three\n");
        assert_eq!(printer.take(b"rest"), b"");
        assert_eq!(printer.take(b"\n"), b"a-1: rest\n");
    }

    #[test]
    fn one_task_is_passed_on_as_it_is() {
        let mut printer = Printer::new(Target::Stdout, String::new());
        assert_eq!(printer.take(b"no line\x00"), b"no line\x00");
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut printer = Printer::new(Target::Stdout, "p ".to_owned());
        let out = printer.take(&vec![b'x'; MAX_LINE]);
        assert_eq!(out.len(), MAX_LINE + 3);
        assert!(printer.line.is_empty());
    }
}
