//! The text form of resources: `cpus:4;mem(ads):8192;ports:[31000-32000];zones:{a,b}`.

use thiserror::Error;

use super::{Amount, Identity, Reservation, ReservationKind, Resource, ResourceError, Resources};
use crate::{
    json::{self, JsonError},
    text::{self, Value},
    v1,
};

/// Why a text is no list of resources.
#[derive(Debug, Error)]
pub enum ParseError {
    /// One of the items between `;` is wrong.
    #[error(
        "`{item}`: {problem}; write NAME:AMOUNT or NAME(ROLE):AMOUNT, where AMOUNT is a number, \
         [BEGIN-END,...] or {{NAME,...}}"
    )]
    Item {
        /// As written.
        item: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One name with two kinds of amount.
    #[error("`{name}` appears with two types")]
    MixedTypes {
        /// The resource's name.
        name: String,
    },
    /// The JSON form cannot be read.
    #[error("not a JSON list of resources")]
    Json(#[from] JsonError),
    /// The JSON form can be read, but one of its resources is wrong.
    #[error(transparent)]
    Resource(#[from] ResourceError),
}

impl Resources {
    /// From Mesos' text form, or from JSON when the text begins with `[`: a list
    /// of `Resource` messages (behaviour rule 51). `NAME(ROLE)` is a static
    /// reservation. An empty text is no resources.
    ///
    /// # Errors
    /// [`ParseError`] tells which item is wrong and what is accepted.
    pub fn parse(input: &str) -> Result<Self, ParseError> {
        let input = input.trim();
        if input.starts_with('[') {
            let wire: Vec<v1::Resource> = json::list_from_str(input)?;
            return Ok(Self::from_proto(&wire)?);
        }
        let mut out = Self::new();
        for item in input.split(';').map(str::trim).filter(|i| !i.is_empty()) {
            let resource = parse_item(item)
                .map_err(|problem| ParseError::Item { item: item.to_owned(), problem })?;
            let kind = std::mem::discriminant(&resource.amount);
            let name = resource.identity.name();
            if out.named(name).any(|r| std::mem::discriminant(&r.amount) != kind) {
                return Err(ParseError::MixedTypes { name: name.to_owned() });
            }
            out.insert(resource);
        }
        Ok(out)
    }
}

fn parse_item(item: &str) -> Result<Resource, String> {
    let (head, amount) = item.split_once(':').ok_or("there is no `:`")?;
    let head = head.trim();
    let (name, role) = match head.split_once('(') {
        None => (head, None),
        Some((name, rest)) => {
            let role = rest.strip_suffix(')').ok_or("the `(` is not closed")?.trim();
            if role.is_empty() {
                return Err("the role is empty".to_owned());
            }
            (name.trim(), Some(role).filter(|r| *r != "*"))
        }
    };
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    // Printed first, it would be read as JSON.
    if name.starts_with('[') {
        return Err("a name cannot begin with `[`".to_owned());
    }
    let amount = match text::parse_value(amount.trim())? {
        Value::Scalar(s) => Amount::Scalar(s),
        Value::Ranges(r) => Amount::Ranges(r),
        Value::Set(s) => Amount::Set(s),
        Value::Text(t) => return Err(format!("`{t}` is no amount")),
    };
    let reservations = role
        .map(|role| Reservation {
            kind: ReservationKind::Static,
            role: role.to_owned(),
            principal: None,
            labels: None,
        })
        .into_iter()
        .collect();
    Ok(Resource { identity: Identity::named(name).with_reservations(reservations), amount })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Resources::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn a_name_is_not_the_beginning_of_json() {
        assert!(error("cpus:1;[ports:[1-2]").contains("cannot begin with `[`"));
    }

    #[test]
    fn text_form_reads_and_prints_the_same() {
        let text = "cpus:4; disk:100000; gpus:0.5; licenses:3; mem(ads):8192; \
                    ports:[31000-32000, 33000-33000]; zones:{a, b}";
        assert_eq!(Resources::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn equal_items_are_added_up_and_nothing_is_left_out() {
        let r = Resources::parse("cpus:1;cpus:0.5;ports:[1-2,2-5];mem(*):3;gpus:0").unwrap();
        assert_eq!(r.to_string(), "cpus:1.5; mem:3; ports:[1-5]");
        assert!(Resources::parse(" ; ").unwrap().is_empty());
    }

    #[test]
    fn json_form() {
        let json = r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":1.5}},
            {"name":"mem","type":"SCALAR","scalar":{"value":64},"role":"ads"}]"#;
        assert_eq!(Resources::parse(json).unwrap().to_string(), "cpus:1.5; mem(ads):64");
    }

    #[test]
    fn each_mistake_has_its_error() {
        for (text, tells) in [
            ("cpus", "there is no `:`"),
            ("cpus:", "the value is empty"),
            (":4", "the name is empty"),
            ("cpus(:4", "the `(` is not closed"),
            ("cpus():4", "the role is empty"),
            ("cpus:four", "`four` is no amount"),
            ("cpus:-1", "-1 is negative"),
            ("cpus:nan", "`nan` is no amount"),
            ("cpus:1e30", "largest amount"),
            ("ports:[2-1]", "range [2-1] ends before it begins"),
            ("ports:[1-2", "the `[` is not closed"),
            ("ports:[1]", "`1` is no range"),
            ("ports:[a-b]", "`a` is no whole number"),
            ("zones:{a,b", "the `{` is not closed"),
            ("zones:{a,,b}", "an empty name"),
            ("cpus:1;cpus:[1-2]", "`cpus` appears with two types"),
            ("[{]", "not a JSON list"),
            (r#"[{"name":"cpus","type":"SCALAR"}]"#, "no scalar value"),
        ] {
            let error = error(text);
            assert!(error.contains(tells), "{text}: {error}");
        }
    }
}
