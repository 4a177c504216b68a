//! The guide in `docs/` shows the program that the crate's documentation compiles.

#![allow(clippy::unwrap_used, clippy::expect_used)]

/// What stands between the fence that begins like this and the next one.
fn program<'a>(text: &'a str, fence: &str) -> &'a str {
    let from = text.find(fence).expect("a program") + fence.len();
    let to = text[from..].find("```").expect("its end");
    &text[from..from + to]
}

#[test]
fn both_guides_show_the_same_program() {
    let compiled = program(include_str!("../src/guide.md"), "```no_run\n");
    let shown = program(include_str!("../../docs/writing-a-framework.md"), "```rust\n");
    assert_eq!(shown, compiled);
    assert!(compiled.lines().count() <= 60, "{} lines", compiled.lines().count());
}
