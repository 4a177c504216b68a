//! Columns for people.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::Row;

/// The texts of one row.
pub type Cells = Vec<String>;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// In capitals.
    name: &'static str,
    right: bool,
    wide: bool,
}

impl Column {
    /// Of texts.
    pub const fn left(name: &'static str) -> Self {
        Self { name, right: false, wide: false }
    }

    /// Of numbers.
    pub const fn right(name: &'static str) -> Self {
        Self { name, right: true, wide: false }
    }

    /// Only in wide tables.
    pub const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }
}

/// A line of names, then a line for each row.
pub fn render<R: Row>(rows: &[R], wide: bool) -> String {
    let shown: Vec<usize> =
        (0..R::COLUMNS.len()).filter(|i| wide || !R::COLUMNS[*i].wide).collect();
    let cell = |i: usize, text: &str| {
        let alignment =
            if R::COLUMNS[i].right { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(text).set_alignment(alignment)
    };
    let mut table = Table::new();
    // Lines are never wrapped: one row is one line, also for grep.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.add_row(shown.iter().map(|i| cell(*i, R::COLUMNS[*i].name)));
    for row in rows {
        let cells = row.cells();
        table.add_row(
            shown.iter().map(|i| cell(*i, &printable(cells.get(*i).map_or("", String::as_str)))),
        );
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if i + 1 == shown.len() { 0 } else { 2 }));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and messages come from frameworks: control characters among them would
/// break the line, or worse, the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
