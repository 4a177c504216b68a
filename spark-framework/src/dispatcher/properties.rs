//! Java's properties, the form of Spark's files of settings.

use std::collections::BTreeMap;

/// The text of a file that holds these settings, in ASCII.
pub fn write(properties: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in properties {
        escape(key, true, &mut text);
        text.push('=');
        escape(value, false, &mut text);
        text.push('\n');
    }
    text
}

/// Settings of a file: key and value on a line, with a blank, `=` or `:` between
/// them. A later line wins.
pub fn read(text: &str) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while continues(&whole) {
            whole.pop();
            match lines.next() {
                Some(next) => whole.push_str(next.trim_start()),
                None => break,
            }
        }
        let (key, value) = split(&whole);
        properties.insert(unescape(key), unescape(value).trim().to_owned());
    }
    properties
}

/// Whether the line ends in an odd number of backslashes.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '=' | ':' => return (&line[..at], line[at + 1..].trim_start()),
            c if c.is_whitespace() => {
                let rest = line[at..].trim_start();
                let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
                return (&line[..at], rest.trim_start());
            }
            _ => {}
        }
    }
    (line, "")
}

fn escape(part: &str, key: bool, out: &mut String) {
    let mut units = [0; 2];
    for (at, c) in part.chars().enumerate() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' ' if key || at == 0 => out.push_str("\\ "),
            '=' | ':' | '#' | '!' if key => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}

fn unescape(part: &str) -> String {
    let mut units: Vec<u16> = Vec::new();
    let mut chars = part.chars();
    let mut buffer = [0; 2];
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    let hex: String = chars.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&hex, 16).unwrap_or(0xFFFD));
                    continue;
                }
                Some(other) => other,
                None => continue,
            },
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut buffer));
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_spark_s_files_are_written() {
        let text = "# a comment\n\nspark.a   b c \nspark.d=e=f\nspark.g: h\\\n   i\n! no\nalone\n\
                    spark.u=\\u00e4\\ud83d\\ude00\n";
        let read = read(text);
        let pairs: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("alone", ""),
                ("spark.a", "b c"),
                ("spark.d", "e=f"),
                ("spark.g", "hi"),
                ("spark.u", "ä😀"),
            ]
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            map in prop::collection::btree_map("\\PC{1,8}", "(\\PC|[\n\t\\\\]){0,12}", 0..6)
        ) {
            // Spark itself drops blanks around values, and Java those before keys.
            let map: BTreeMap<String, String> = map
                .into_iter()
                .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
                .filter(|(k, _)| !k.is_empty())
                .collect();
            let text = write(&map);
            prop_assert!(text.is_ascii());
            prop_assert_eq!(read(&text), map);
        }
    }
}
