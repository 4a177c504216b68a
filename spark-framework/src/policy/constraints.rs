//! `spark.mezz.constraints`: which agents will do, by their attributes.

use std::collections::BTreeMap;

use mezz_proto::{
    resources::{NameSet, Range, Ranges},
    v1,
};
use thiserror::Error;

/// An agent's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// A number.
    Scalar(f64),
    /// Ranges of whole numbers.
    Ranges(Ranges),
    /// Names.
    Set(NameSet),
    /// Text.
    Text(String),
}

impl AttributeValue {
    /// From the wire; `None` when the value that its type calls for is missing
    /// or makes no sense.
    pub fn from_proto(a: &v1::Attribute) -> Option<Self> {
        match v1::value::Type::try_from(a.r#type).ok()? {
            v1::value::Type::Scalar => Some(Self::Scalar(a.scalar.as_ref()?.value)),
            v1::value::Type::Text => Some(Self::Text(a.text.as_ref()?.value.clone())),
            v1::value::Type::Set => {
                Some(Self::Set(NameSet::new(a.set.as_ref()?.item.iter().cloned())))
            }
            v1::value::Type::Ranges => {
                let ranges = a.ranges.as_ref()?.range.iter().map(|r| Range::new(r.begin, r.end));
                Some(Self::Ranges(Ranges::new(ranges.collect::<Result<Vec<_>, _>>().ok()?)))
            }
        }
    }

    fn allows(&self, wanted: &str) -> bool {
        match self {
            Self::Text(text) => text == wanted,
            Self::Scalar(value) => wanted.parse::<f64>().is_ok_and(|w| *value >= w),
            Self::Set(names) => names.iter().any(|n| n == wanted),
            Self::Ranges(ranges) => {
                wanted.parse().is_ok_and(|w: u64| ranges.iter().any(|r| r.begin <= w && w <= r.end))
            }
        }
    }
}

/// A constraint text that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "constraint `{part}`: {problem}; write attribute:value[,value…] or attribute, joined by `;`, \
     as in rack:a,b;ssd:true"
)]
pub struct ConstraintError {
    part: String,
    problem: &'static str,
}

/// Attributes that an agent must have, all of them; for each, the values of which
/// one will do (any, when there are none).
///
/// Text must be equal, a scalar at least the number, a set must hold the name,
/// ranges must hold the whole number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints(BTreeMap<String, Vec<String>>);

impl Constraints {
    /// Reads `rack:a,b;ssd:true;gpu`. Blank text constrains nothing.
    ///
    /// # Errors
    /// [`ConstraintError`] names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let mut all = BTreeMap::new();
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let bad = |problem| ConstraintError { part: part.to_owned(), problem };
            let (name, values) = match part.split_once(':') {
                Some((name, values)) => {
                    let values: Vec<String> =
                        values.split(',').map(|v| v.trim().to_owned()).collect();
                    if values.iter().any(String::is_empty) {
                        return Err(bad("a value is empty"));
                    }
                    (name.trim(), values)
                }
                None => (part, Vec::new()),
            };
            if name.is_empty() {
                return Err(bad("the attribute's name is missing"));
            }
            if all.insert(name.to_owned(), values).is_some() {
                return Err(bad("the attribute is constrained twice"));
            }
        }
        Ok(Self(all))
    }

    /// Whether an agent with these attributes will do.
    pub fn met_by(&self, attributes: &[(String, AttributeValue)]) -> bool {
        self.0.iter().all(|(name, wanted)| {
            attributes
                .iter()
                .filter(|(n, _)| n == name)
                .any(|(_, value)| wanted.is_empty() || wanted.iter().any(|w| value.allows(w)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, value: &str) -> (String, AttributeValue) {
        (name.into(), AttributeValue::Text(value.into()))
    }

    #[test]
    fn every_constraint_must_be_met_by_one_of_its_values() {
        let c = Constraints::parse("rack:a,b; ssd:true").unwrap();
        assert!(c.met_by(&[text("rack", "b"), text("ssd", "true"), text("x", "y")]));
        assert!(!c.met_by(&[text("rack", "c"), text("ssd", "true")]));
        assert!(!c.met_by(&[text("rack", "a")]));
        assert!(Constraints::parse(" ").unwrap().met_by(&[]));
    }

    #[test]
    fn other_kinds_of_attributes() {
        let attributes = [
            ("ghz".to_owned(), AttributeValue::Scalar(2.5)),
            ("ports".to_owned(), AttributeValue::Ranges(Ranges::new([Range::new(5, 9).unwrap()]))),
            ("zones".to_owned(), AttributeValue::Set(NameSet::new(["x", "y"]))),
        ];
        for (text, met) in [
            ("ghz:2", true),
            ("ghz:2.6", false),
            ("ghz:fast", false),
            ("ports:9", true),
            ("ports:10", false),
            ("zones:q,y", true),
            ("zones:q", false),
            ("zones", true),
            ("other", false),
        ] {
            assert_eq!(Constraints::parse(text).unwrap().met_by(&attributes), met, "{text}");
        }
    }

    #[test]
    fn wrong_text_is_named() {
        for (text, part) in
            [("rack:", "rack:"), ("a:1;:b", ":b"), ("a:1;a:2", "a:2"), ("a:,", "a:,")]
        {
            let e = Constraints::parse(text).unwrap_err().to_string();
            assert!(e.starts_with(&format!("constraint `{part}`:")), "{e}");
        }
    }
}
