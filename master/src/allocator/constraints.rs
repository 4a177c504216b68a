//! Offer constraints: which agents a framework wants offers of (rule 32).

use mezz_proto::v1::{
    self,
    scheduler::{
        AttributeConstraint, OfferConstraints,
        attribute_constraint::{
            predicate::Predicate,
            selector::{PseudoattributeType, Selector},
        },
        offer_constraints::RoleConstraints,
    },
};
use regex::{Regex, RegexBuilder};
use thiserror::Error;

use super::AgentSpec;

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 4096;

/// Largest compiled pattern, in bytes. Stands for RE2's program size of 100 in
/// Mesos: it allows any pattern that Mesos does.
pub const MAX_COMPILED: usize = 256 * 1024;

/// Why constraints are not valid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConstraintError {
    /// A role without a group: no agent could match.
    #[error(
        "offer_constraints for role `{role}`: groups is empty; give at least one group, or leave the role out"
    )]
    NoGroups {
        /// The role.
        role: String,
    },
    /// A group without a constraint.
    #[error(
        "offer_constraints for role `{role}`: groups[{group}].attribute_constraints is empty; give at least one constraint"
    )]
    EmptyGroup {
        /// The role.
        role: String,
        /// Index of the group.
        group: usize,
    },
    /// A constraint that says nothing, or not what we know.
    #[error(
        "offer_constraints for role `{role}`: groups[{group}].attribute_constraints[{constraint}].{problem}"
    )]
    Constraint {
        /// The role.
        role: String,
        /// Index of the group.
        group: usize,
        /// Index of the constraint in the group.
        constraint: usize,
        /// The field, what is wrong with it, and what is accepted.
        problem: String,
    },
}

/// Checks the constraints of a SUBSCRIBE or UPDATE_FRAMEWORK call. That the
/// roles are the framework's is not checked here.
///
/// # Errors
/// [`ConstraintError`] names the role and the place of the first fault.
pub fn validate_constraints(constraints: &OfferConstraints) -> Result<(), ConstraintError> {
    for (role, c) in &constraints.role_constraints {
        Constraints::compile(role, c)?;
    }
    Ok(())
}

/// Constraints of one role, ready to be matched.
#[derive(Debug, Default)]
pub(super) struct Constraints {
    groups: Vec<Vec<Constraint>>,
}

#[derive(Debug)]
struct Constraint {
    selector: Subject,
    predicate: Test,
}

#[derive(Debug)]
enum Subject {
    Attribute(String),
    Hostname,
    Region,
    Zone,
}

#[derive(Debug)]
enum Test {
    Exists,
    NotExists,
    Equals(String),
    NotEquals(String),
    Matches(Regex),
    NotMatches(Regex),
}

/// What an agent has under a selector.
enum Value<'a> {
    Absent,
    Text(&'a str),
    NotText,
}

impl Constraints {
    pub(super) fn compile(role: &str, c: &RoleConstraints) -> Result<Self, ConstraintError> {
        if c.groups.is_empty() {
            return Err(ConstraintError::NoGroups { role: role.to_owned() });
        }
        let mut groups = Vec::with_capacity(c.groups.len());
        for (group, g) in c.groups.iter().enumerate() {
            if g.attribute_constraints.is_empty() {
                return Err(ConstraintError::EmptyGroup { role: role.to_owned(), group });
            }
            let compiled = g.attribute_constraints.iter().enumerate().map(|(constraint, c)| {
                Constraint::compile(c).map_err(|problem| ConstraintError::Constraint {
                    role: role.to_owned(),
                    group,
                    constraint,
                    problem,
                })
            });
            groups.push(compiled.collect::<Result<_, _>>()?);
        }
        Ok(Self { groups })
    }

    /// Constraints that no agent meets.
    pub(super) fn nothing() -> Self {
        Self::default()
    }

    /// Whether all constraints of some group hold.
    pub(super) fn admit(&self, agent: &AgentSpec) -> bool {
        self.groups.iter().any(|g| g.iter().all(|c| c.holds(agent)))
    }
}

impl Constraint {
    fn compile(c: &AttributeConstraint) -> Result<Self, String> {
        let selector = match &c.selector.selector {
            Some(Selector::AttributeName(name)) => Subject::Attribute(name.clone()),
            Some(Selector::PseudoattributeType(kind)) => {
                match PseudoattributeType::try_from(*kind) {
                    Ok(PseudoattributeType::Hostname) => Subject::Hostname,
                    Ok(PseudoattributeType::Region) => Subject::Region,
                    Ok(PseudoattributeType::Zone) => Subject::Zone,
                    Ok(PseudoattributeType::Unknown) | Err(_) => {
                        return Err(format!(
                            "selector.pseudoattribute_type: {kind} is none of HOSTNAME, REGION and ZONE"
                        ));
                    }
                }
            }
            None => {
                return Err(
                    "selector is empty; set attribute_name or pseudoattribute_type".to_owned()
                );
            }
        };
        let predicate = match &c.predicate.predicate {
            Some(Predicate::Exists(_)) => Test::Exists,
            Some(Predicate::NotExists(_)) => Test::NotExists,
            Some(Predicate::TextEquals(p)) => Test::Equals(p.value.clone()),
            Some(Predicate::TextNotEquals(p)) => Test::NotEquals(p.value.clone()),
            Some(Predicate::TextMatches(p)) => {
                Test::Matches(whole("predicate.text_matches.regex", &p.regex)?)
            }
            Some(Predicate::TextNotMatches(p)) => {
                Test::NotMatches(whole("predicate.text_not_matches.regex", &p.regex)?)
            }
            None => {
                return Err("predicate is empty; set exists, not_exists, text_equals, \
                     text_not_equals, text_matches or text_not_matches"
                    .to_owned());
            }
        };
        Ok(Self { selector, predicate })
    }

    fn holds(&self, agent: &AgentSpec) -> bool {
        match (&self.predicate, self.selector.of(agent)) {
            (Test::Exists, value) => !matches!(value, Value::Absent),
            (Test::NotExists, value) => matches!(value, Value::Absent),
            // A test of text says nothing about other kinds (rule 32).
            (_, Value::NotText) => true,
            (Test::Equals(wanted), Value::Text(text)) => text == wanted,
            (Test::NotEquals(wanted), Value::Text(text)) => text != wanted,
            (Test::Matches(regex), Value::Text(text)) => regex.is_match(text),
            (Test::NotMatches(regex), Value::Text(text)) => !regex.is_match(text),
            (Test::Equals(_) | Test::Matches(_), Value::Absent) => false,
            (Test::NotEquals(_) | Test::NotMatches(_), Value::Absent) => true,
        }
    }
}

impl Subject {
    fn of<'a>(&self, agent: &'a AgentSpec) -> Value<'a> {
        let place = agent.domain.as_ref().and_then(|d| d.fault_domain.as_ref());
        match self {
            Subject::Hostname => Value::Text(&agent.hostname),
            Subject::Region => place.map_or(Value::Absent, |p| Value::Text(&p.region.name)),
            Subject::Zone => place.map_or(Value::Absent, |p| Value::Text(&p.zone.name)),
            Subject::Attribute(name) => match agent.attributes.iter().find(|a| a.name == *name) {
                None => Value::Absent,
                Some(a) if a.r#type() == v1::value::Type::Text => {
                    Value::Text(a.text.as_ref().map_or("", |t| &t.value))
                }
                Some(_) => Value::NotText,
            },
        }
    }
}

/// A pattern that must match the whole value.
fn whole(field: &str, pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!(
            "{field} has {} bytes; at most {MAX_PATTERN} are accepted",
            pattern.len()
        ));
    }
    // The pattern by itself first, so that a `)` cannot close our group, and
    // errors show what the user wrote.
    let build = |p: &str| RegexBuilder::new(p).size_limit(MAX_COMPILED).build();
    build(pattern)
        .and_then(|_| build(&format!(r"\A(?:{pattern})\z")))
        .map_err(|e| format!("{field}: {e}; RE2 syntax without look-around is accepted"))
}

#[cfg(test)]
mod tests {
    use mezz_proto::{
        ids::AgentId,
        resources::Resources,
        v1::scheduler::{
            attribute_constraint::{
                Predicate as PredicateMessage, Selector as SelectorMessage,
                predicate::{
                    Exists, NotExists, TextEquals, TextMatches, TextNotEquals, TextNotMatches,
                },
            },
            offer_constraints::role_constraints::Group,
        },
    };

    use super::*;

    fn agent(attributes: Vec<v1::Attribute>) -> AgentSpec {
        AgentSpec {
            id: AgentId::new("a1"),
            hostname: "node7.example.org".to_owned(),
            attributes,
            domain: None,
            total: Resources::new(),
        }
    }

    fn text(name: &str, value: &str) -> v1::Attribute {
        v1::Attribute {
            name: name.into(),
            r#type: v1::value::Type::Text.into(),
            text: Some(v1::value::Text { value: value.into() }),
            ..Default::default()
        }
    }

    fn number(name: &str) -> v1::Attribute {
        v1::Attribute {
            name: name.into(),
            r#type: v1::value::Type::Scalar.into(),
            scalar: Some(v1::value::Scalar { value: 3.0 }),
            ..Default::default()
        }
    }

    fn one(selector: Option<Selector>, predicate: Option<Predicate>) -> RoleConstraints {
        RoleConstraints {
            groups: vec![Group {
                attribute_constraints: vec![AttributeConstraint {
                    selector: SelectorMessage { selector },
                    predicate: PredicateMessage { predicate },
                }],
            }],
        }
    }

    fn named(name: &str) -> Option<Selector> {
        Some(Selector::AttributeName(name.into()))
    }

    fn matches(regex: &str) -> Option<Predicate> {
        Some(Predicate::TextMatches(TextMatches { regex: regex.into() }))
    }

    fn error(c: RoleConstraints) -> String {
        let role_constraints = [("web".to_owned(), c)].into();
        let e = validate_constraints(&OfferConstraints { role_constraints });
        e.expect_err("is not valid").to_string()
    }

    #[test]
    fn every_predicate_on_text_on_other_kinds_and_on_nothing() {
        let agent = agent(vec![text("rack", "r1"), number("rack"), number("cores")]);
        let predicates = [
            // On "rack" (the first one counts), "cores" (not text), "none".
            (Predicate::Exists(Exists {}), [true, true, false]),
            (Predicate::NotExists(NotExists {}), [false, false, true]),
            (Predicate::TextEquals(TextEquals { value: "r1".into() }), [true, true, false]),
            (Predicate::TextEquals(TextEquals { value: "r2".into() }), [false, true, false]),
            (Predicate::TextNotEquals(TextNotEquals { value: "r1".into() }), [false, true, true]),
            (Predicate::TextMatches(TextMatches { regex: "r[0-9]".into() }), [true, true, false]),
            (Predicate::TextMatches(TextMatches { regex: "r".into() }), [false, true, false]),
            (Predicate::TextNotMatches(TextNotMatches { regex: "r|1".into() }), [true, true, true]),
        ];
        for (predicate, expected) in predicates {
            let got = ["rack", "cores", "none"].map(|name| {
                let c = one(named(name), Some(predicate.clone()));
                Constraints::compile("web", &c).expect("is valid").admit(&agent)
            });
            assert_eq!(got, expected, "{predicate:?}");
        }
    }

    #[test]
    fn pseudo_attributes() {
        use v1::domain_info::{FaultDomain, fault_domain};
        let mut agent = agent(Vec::new());
        let holds = |agent: &AgentSpec, kind: PseudoattributeType, regex| {
            let c = one(Some(Selector::PseudoattributeType(kind.into())), matches(regex));
            Constraints::compile("web", &c).expect("is valid").admit(agent)
        };
        assert!(holds(&agent, PseudoattributeType::Hostname, r"node\d\.example\.org"));
        assert!(!holds(&agent, PseudoattributeType::Region, ".*"));
        agent.domain = Some(v1::DomainInfo {
            fault_domain: Some(FaultDomain {
                region: fault_domain::RegionInfo { name: "eu".into() },
                zone: fault_domain::ZoneInfo { name: "eu-1".into() },
            }),
        });
        assert!(holds(&agent, PseudoattributeType::Region, "eu"));
        assert!(!holds(&agent, PseudoattributeType::Zone, "eu"));
        assert!(holds(&agent, PseudoattributeType::Zone, "eu|eu-1"));
    }

    #[test]
    fn faults_are_named_by_their_place() {
        let place = "offer_constraints for role `web`: groups[0].attribute_constraints";
        assert!(error(RoleConstraints { groups: Vec::new() }).contains("groups is empty"));
        let empty = RoleConstraints { groups: vec![Group { attribute_constraints: Vec::new() }] };
        assert!(error(empty).starts_with(&format!("{place} is empty")));
        let exists = Some(Predicate::Exists(Exists {}));
        assert!(error(one(None, exists.clone())).starts_with(&format!("{place}[0].selector")));
        let unknown = Some(Selector::PseudoattributeType(99));
        assert!(error(one(unknown, exists)).contains("99 is none of HOSTNAME, REGION and ZONE"));
        assert!(error(one(named("x"), None)).starts_with(&format!("{place}[0].predicate")));
        assert!(error(one(named("x"), matches("("))).contains("predicate.text_matches.regex"));
        assert!(error(one(named("x"), matches("a)|(b"))).contains("text_matches.regex"));
    }

    #[test]
    fn patterns_are_limited() {
        assert!(error(one(named("x"), matches(&"a".repeat(MAX_PATTERN + 1)))).contains("4096"));
        let huge = one(named("x"), matches("((a{100}){100}){100}"));
        assert!(error(huge).contains("text_matches.regex"));
        let long = one(named("x"), matches(r"(foo|bar|[\w.-]+\.example\.org)(,\d{1,5})?"));
        assert!(Constraints::compile("web", &long).is_ok());
    }
}
