//! Labels of tasks: the user's words, for people and tools that look at the cluster.

use mezz_proto::v1;
use thiserror::Error;

/// What the keys of Mezz's own labels begin with.
const OURS: &str = "dev.mezz.";

/// A label: key and value.
pub type Label = (String, String);

/// A list of labels that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "label `{0}`: write KEY:VALUE, between commas; a colon or comma of a key or value is \
     written after a backslash; keys that begin with dev.mezz. are Mezz's own"
)]
pub struct LabelError(pub String);

/// Reads `key:value,key:value`, as `spark.mesos.task.labels` was written.
///
/// # Errors
/// [`LabelError`] has the label that is wrong.
pub fn parse(text: &str) -> Result<Vec<Label>, LabelError> {
    let mut labels = Vec::new();
    for part in split(text, ',').iter().filter(|part| !part.trim().is_empty()) {
        match split(part, ':').as_slice() {
            [key, value] if !key.trim().is_empty() && !plain(key).starts_with(OURS) => {
                labels.push((plain(key), plain(value)));
            }
            _ => return Err(LabelError(part.trim().to_owned())),
        }
    }
    Ok(labels)
}

/// As the cluster is told.
pub(crate) fn to_proto(labels: &[Label]) -> Vec<v1::Label> {
    let label = |(key, value): &Label| v1::Label { key: key.clone(), value: Some(value.clone()) };
    labels.iter().map(label).collect()
}

/// After the labels that the task has.
pub(crate) fn add(task: &mut v1::TaskInfo, labels: &[v1::Label]) {
    if !labels.is_empty() {
        task.labels.get_or_insert_default().labels.extend_from_slice(labels);
    }
}

/// The parts between separators that no backslash is before; backslashes stay.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c == separator && !escaped {
            parts.push(&text[start..at]);
            start = at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// Without blanks around it and without the backslashes.
fn plain(part: &str) -> String {
    let mut text = String::new();
    let mut chars = part.trim().chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values() {
        let labels = parse(r"team:search, cost:a\:b\,c,, path:c\\d ,empty:").unwrap();
        let expected = [("team", "search"), ("cost", "a:b,c"), ("path", r"c\d"), ("empty", "")];
        assert_eq!(labels, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(to_proto(&labels)[1].value.as_deref(), Some("a:b,c"));
        assert_eq!(parse(" ").unwrap(), []);
        assert_eq!(to_proto(&[]), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wrong) in [("a", "a"), ("a:b,c:d:e", "c:d:e"), (":x", ":x"), (r"a\:b", r"a\:b")]
        {
            assert_eq!(parse(text), Err(LabelError(wrong.to_owned())), "{text}");
        }
    }
}
