//! Conditions on agents.

use mezz_proto::{resources::Scalar, v1};

/// A condition on an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// It has this attribute with this value: the text, the number, or a member
    /// of its ranges or set.
    Is {
        /// The attribute.
        attribute: String,
        /// The value.
        value: String,
    },
    /// It lacks this attribute, or has it with other values only.
    IsNot {
        /// The attribute.
        attribute: String,
        /// The value.
        value: String,
    },
    /// It has this attribute.
    Has(String),
    /// It lacks this attribute.
    HasNot(String),
    /// It is this host.
    Host(String),
    /// It is not this host.
    NotHost(String),
}

impl Constraint {
    /// Whether the offer's agent meets it.
    pub fn is_met_by(&self, offer: &v1::Offer) -> bool {
        let any = |name: &String, check: &dyn Fn(&v1::Attribute) -> bool| {
            offer.attributes.iter().any(|a| a.name == *name && check(a))
        };
        match self {
            Self::Is { attribute, value } => any(attribute, &|a| has_value(a, value)),
            Self::IsNot { attribute, value } => !any(attribute, &|a| has_value(a, value)),
            Self::Has(attribute) => any(attribute, &|_| true),
            Self::HasNot(attribute) => !any(attribute, &|_| true),
            Self::Host(host) => offer.hostname == *host,
            Self::NotHost(host) => offer.hostname != *host,
        }
    }
}

fn has_value(attribute: &v1::Attribute, value: &str) -> bool {
    let text = attribute.text.as_ref().is_some_and(|t| t.value == value);
    let scalar = attribute.scalar.as_ref().is_some_and(|s| {
        let wanted = value.parse().ok().and_then(|v| Scalar::from_f64(v).ok());
        wanted.is_some() && wanted == Scalar::from_f64(s.value).ok()
    });
    let ranges = attribute.ranges.as_ref().is_some_and(|r| {
        value.parse::<u64>().is_ok_and(|v| r.range.iter().any(|r| (r.begin..=r.end).contains(&v)))
    });
    let set = attribute.set.as_ref().is_some_and(|s| s.item.iter().any(|i| i == value));
    text || scalar || ranges || set
}
