//! How results are printed: data on stdout as a table or JSON, talk on stderr.

mod amounts;
mod table;

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

pub use amounts::Amounts;
pub use table::{Cells, Column};

/// How to print data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// More columns, and whole ids
    Wide,
    /// JSON with stable names, for programs
    Json,
}

/// Options of every command that prints data.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// How to print it
    #[arg(long, short, env = "MEZZ_OUTPUT", value_enum, default_value = "table")]
    pub output: Format,
}

/// A row of a list. Its JSON form is a contract: names stay, new ones may come.
pub trait Row: Serialize {
    /// What one of them is called.
    const NOUN: &'static str;
    /// In order. Names stay.
    const COLUMNS: &'static [Column];
    /// As many as there are columns.
    fn cells(&self) -> Cells;
}

/// Prints a list.
///
/// # Errors
/// When stdout cannot be written.
pub fn print<R: Row>(rows: &[R], format: Format) -> io::Result<()> {
    let text = render(rows, format)?;
    if text.is_empty() {
        eprintln!("no {}s", R::NOUN);
        return Ok(());
    }
    write(&text)
}

/// Prints one object.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    write(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Writes to stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn write(text: &str) -> io::Result<()> {
    write_bytes(text.as_bytes())
}

/// Writes to stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn write_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// The text of a list; a table of nothing is no text.
fn render<R: Row>(rows: &[R], format: Format) -> io::Result<String> {
    match format {
        Format::Json => Ok(serde_json::to_string_pretty(rows)? + "\n"),
        _ if rows.is_empty() => Ok(String::new()),
        Format::Table => Ok(table::render(rows, false)),
        Format::Wide => Ok(table::render(rows, true)),
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// The text of a list.
    pub fn text<R: Row>(rows: &[R], format: Format) -> String {
        render(rows, format).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::text, *};

    #[derive(Serialize)]
    struct Thing {
        name: &'static str,
        size: f64,
    }

    impl Row for Thing {
        const NOUN: &'static str = "thing";
        const COLUMNS: &'static [Column] =
            &[Column::left("NAME"), Column::right("SIZE"), Column::left("MORE").wide()];
        fn cells(&self) -> Cells {
            vec![self.name.to_owned(), self.size.to_string(), "x".to_owned()]
        }
    }

    #[test]
    fn tables_are_aligned_without_trailing_space() {
        let things = [Thing { name: "a", size: 1.5 }, Thing { name: "long name", size: 100.0 }];
        assert_eq!(
            text(&things, Format::Table),
            "NAME       SIZE\na           1.5\nlong name   100\n"
        );
        assert_eq!(
            text(&things, Format::Wide),
            "NAME       SIZE  MORE\na           1.5  x\nlong name   100  x\n"
        );
    }

    #[test]
    fn json_is_a_list() {
        assert_eq!(
            text(&[Thing { name: "a", size: 1.5 }], Format::Json),
            "[\n  {\n    \"name\": \"a\",\n    \"size\": 1.5\n  }\n]\n"
        );
    }

    #[test]
    fn nothing() {
        assert_eq!(text::<Thing>(&[], Format::Table), "");
        assert_eq!(text::<Thing>(&[], Format::Wide), "");
        assert_eq!(text::<Thing>(&[], Format::Json), "[]\n");
    }
}
