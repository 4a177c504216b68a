//! Mezz.
fn main() {}
