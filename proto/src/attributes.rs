//! The text form of agents' attributes: `rack:r1;ssd:true;cores:[0-3];gen:4`.

use thiserror::Error;

use crate::{
    json::{self, JsonError},
    text::{self, Value},
    v1,
};

/// Why a text is no list of attributes.
#[derive(Debug, Error)]
pub enum ParseError {
    /// One of the items between `;` is wrong.
    #[error(
        "`{item}`: {problem}; write NAME:VALUE, where VALUE is a text, a number or [BEGIN-END,...]"
    )]
    Item {
        /// As written.
        item: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The JSON form cannot be read.
    #[error("not a JSON list of attributes")]
    Json(#[from] JsonError),
}

/// From Mesos' text form, or from JSON when the text begins with `[`: a list of
/// `Attribute` messages (behaviour rule 51). Order is kept, for constraints look
/// at the first attribute of a name (rule 32).
///
/// # Errors
/// [`ParseError`] tells which item is wrong and what is accepted.
pub fn parse(input: &str) -> Result<Vec<v1::Attribute>, ParseError> {
    let input = input.trim();
    if input.starts_with('[') {
        return Ok(json::list_from_str(input)?);
    }
    input
        .split(';')
        .map(str::trim)
        .filter(|i| !i.is_empty())
        .map(|item| {
            parse_item(item).map_err(|problem| ParseError::Item { item: item.to_owned(), problem })
        })
        .collect()
}

fn parse_item(item: &str) -> Result<v1::Attribute, String> {
    let (name, value) = item.split_once(':').ok_or("there is no `:`")?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    let mut attribute = v1::Attribute { name: name.to_owned(), ..Default::default() };
    match text::parse_value(value)? {
        Value::Scalar(s) => {
            attribute.set_type(v1::value::Type::Scalar);
            attribute.scalar = Some(v1::value::Scalar { value: s.to_f64() });
        }
        Value::Ranges(r) => {
            attribute.set_type(v1::value::Type::Ranges);
            let range = r.iter().map(|r| v1::value::Range { begin: r.begin, end: r.end }).collect();
            attribute.ranges = Some(v1::value::Ranges { range });
        }
        Value::Set(_) => return Err("an attribute cannot be a set".to_owned()),
        Value::Text(value) => {
            attribute.set_type(v1::value::Type::Text);
            attribute.text = Some(v1::value::Text { value });
        }
    }
    Ok(attribute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::value::Type;

    #[test]
    fn each_kind_is_told_by_its_shape() {
        let all = parse("rack:r1; gen:4; cores:[0-3,8-9]; addr:10.0.0.1:80").unwrap();
        let kinds: Vec<Type> = all.iter().map(v1::Attribute::r#type).collect();
        assert_eq!(kinds, [Type::Text, Type::Scalar, Type::Ranges, Type::Text]);
        assert_eq!(all[3].text.as_ref().unwrap().value, "10.0.0.1:80");
    }

    #[test]
    fn json_form() {
        let all = parse(r#"[{"name":"rack","type":"TEXT","text":{"value":"r1"}}]"#).unwrap();
        assert_eq!(all, parse("rack:r1").unwrap());
    }

    #[test]
    fn each_mistake_has_its_error() {
        for (text, tells) in [
            ("rack", "there is no `:`"),
            (":r1", "the name is empty"),
            ("rack:", "the value is empty"),
            ("zones:{a}", "cannot be a set"),
            ("cores:[3-1]", "ends before it begins"),
            ("[nonsense", "not a JSON list"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(tells), "{text}: {error}");
        }
    }
}
