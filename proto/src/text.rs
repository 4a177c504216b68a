//! Values in text, as resources and attributes share them.

use std::collections::BTreeSet;

use crate::resources::{NameSet, Range, Ranges, Scalar};

/// A value by its shape: a number, `[begin-end,…]`, `{name,…}`, or other text.
pub(crate) enum Value {
    Scalar(Scalar),
    Ranges(Ranges),
    Set(NameSet),
    Text(String),
}

/// Reads one value; the error is a sentence without the value's name.
pub(crate) fn parse_value(text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Err("the value is empty".to_owned());
    }
    if let Some(rest) = text.strip_prefix('[') {
        let inner = rest.strip_suffix(']').ok_or("the `[` is not closed")?;
        return inner
            .split(',')
            .map(str::trim)
            .filter(|r| !r.is_empty())
            .map(parse_range)
            .collect::<Result<Vec<_>, _>>()
            .map(|ranges| Value::Ranges(Ranges::new(ranges)));
    }
    if let Some(rest) = text.strip_prefix('{') {
        let inner = rest.strip_suffix('}').ok_or("the `{` is not closed")?;
        if inner.trim().is_empty() {
            return Ok(Value::Set(NameSet::default()));
        }
        let names: BTreeSet<&str> = inner.split(',').map(str::trim).collect();
        if names.contains("") {
            return Err("the set has an empty name".to_owned());
        }
        return Ok(Value::Set(NameSet::new(names)));
    }
    // `f64::from_str` also takes "nan" and "inf", which are texts to us.
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match text.parse::<f64>() {
        Ok(number) if numeric => {
            Scalar::from_f64(number).map(Value::Scalar).map_err(|e| e.to_string())
        }
        _ => Ok(Value::Text(text.to_owned())),
    }
}

fn parse_range(text: &str) -> Result<Range, String> {
    let (begin, end) =
        text.split_once('-').ok_or_else(|| format!("`{text}` is no range BEGIN-END"))?;
    let number = |t: &str| {
        let t = t.trim();
        t.parse::<u64>().map_err(|_| format!("`{t}` is no whole number"))
    };
    Range::new(number(begin)?, number(end)?).map_err(|e| e.to_string())
}
