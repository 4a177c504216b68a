//! Who may be a framework: the principals that a master knows, and their secrets. Pure; the
//! file is read by the program.

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::credential::{Credential, CredentialError, Secret, claimed};
use serde_json::Value;
use thiserror::Error;

/// Who has proved who it is. Cheap to clone.
pub type Principal = Arc<str>;

/// The principals that a master knows, each with its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials(BTreeMap<Principal, Secret>);

/// What is wrong with a text of credentials. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// It begins as JSON and goes on otherwise.
    #[error("is no JSON at line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
    /// A field is not there, or is something else.
    #[error("{field}: has to be {wanted}")]
    Field {
        /// Where: `credentials[2].secret`.
        field: String,
        /// What has to be there.
        wanted: &'static str,
    },
    /// A line of the old form that is not of two words.
    #[error("line {0}: has to be a principal and its secret, with a space between them")]
    Line(usize),
    /// A principal or a secret that cannot be.
    #[error("{place}.{source}")]
    Credential {
        /// Where: `credentials[2]`, `line 3`.
        place: String,
        /// Why.
        source: CredentialError,
    },
    /// Of two secrets, none would be the right one.
    #[error("{place}.principal: `{principal}` has a secret already")]
    Twice {
        /// Where.
        place: String,
        /// Who.
        principal: String,
    },
    /// Nobody could prove who it is.
    #[error(
        r#"holds no credential; write {{"credentials": [{{"principal": "NAME", "secret": "SECRET"}}]}}"#
    )]
    None,
}

impl Credentials {
    /// Reads Mesos' JSON, `{"credentials": [{"principal": "…", "secret": "…"}]}`, whose other
    /// fields are ignored as by Mesos; or its old form, `principal secret` on each line.
    ///
    /// # Errors
    /// [`CredentialsError`] says where.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let given = if text.trim_start().starts_with('{') { json(text)? } else { lines(text)? };
        let mut known = BTreeMap::new();
        for (place, principal, secret) in given {
            let credential = match Credential::new(principal, secret) {
                Ok(credential) => credential,
                Err(source) => return Err(CredentialsError::Credential { place, source }),
            };
            let (principal, secret) = credential.into_parts();
            if known.insert(Arc::from(principal.as_str()), secret).is_some() {
                return Err(CredentialsError::Twice { place, principal });
            }
        }
        if known.is_empty() { Err(CredentialsError::None) } else { Ok(Self(known)) }
    }

    /// Who the value of a header `Authorization` proves the sender to be (rule 2); nobody
    /// without one, or by a wrong one.
    pub fn identify(&self, header: Option<&[u8]>) -> Option<Principal> {
        let (principal, given) = claimed(header?)?;
        let (principal, secret) = self.0.get_key_value(principal.as_str())?;
        secret.is(&given).then(|| Arc::clone(principal))
    }
}

/// Where it stands, the principal and the secret.
type Given = (String, String, String);

fn json(text: &str) -> Result<Vec<Given>, CredentialsError> {
    let value: Value = serde_json::from_str(text)
        // Its own words could show what is there.
        .map_err(|error| CredentialsError::Json { line: error.line(), column: error.column() })?;
    let wrong = |field: String, wanted| CredentialsError::Field { field, wanted };
    let Some(list) = value.get("credentials").and_then(Value::as_array) else {
        return Err(wrong("credentials".to_owned(), "a list"));
    };
    let each = list.iter().enumerate().map(|(index, entry)| {
        let place = format!("credentials[{index}]");
        let text = |name: &str| {
            let text = entry.get(name).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| wrong(format!("{place}.{name}"), "a text"))
        };
        let (principal, secret) = (text("principal")?, text("secret")?);
        Ok((place, principal, secret))
    });
    each.collect()
}

fn lines(text: &str) -> Result<Vec<Given>, CredentialsError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let each = lines.map(|(index, line)| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(principal), Some(secret), None) => {
                Ok((format!("line {}", index + 1), principal.to_owned(), secret.to_owned()))
            }
            _ => Err(CredentialsError::Line(index + 1)),
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"credentials": [
        {"principal": "spark", "secret": "s3cret", "comment": 1},
        {"principal": "ads", "secret": "a:b"}
    ], "more": {}}"#;

    fn header(principal: &str, secret: &str) -> String {
        Credential::new(principal, secret).unwrap().header()
    }

    #[test]
    fn both_forms_are_read() {
        let known = Credentials::parse(TWO).unwrap();
        assert_eq!(Credentials::parse("spark s3cret\n\n  ads\ta:b \n"), Ok(known.clone()));
        assert!(!format!("{known:?}").contains("s3cret"), "{known:?}");
    }

    #[test]
    fn who_shows_the_right_secret_is_who_it_says() {
        let known = Credentials::parse(TWO).unwrap();
        let who = |header: &str| known.identify(Some(header.as_bytes()));
        assert_eq!(who(&header("spark", "s3cret")).as_deref(), Some("spark"));
        assert_eq!(who(&header("ads", "a:b")).as_deref(), Some("ads"));
        for wrong in [
            header("spark", "a:b"),
            header("spark", "s3cre"),
            header("Spark", "s3cret"),
            header("nobody", "s3cret"),
            header("spark", "s3cret").replace("Basic", "Bearer"),
            String::new(),
        ] {
            assert_eq!(who(&wrong), None, "{wrong}");
        }
        assert_eq!(known.identify(None), None);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        let entry = |entry: &str| {
            format!(r#"{{"credentials": [{{"principal": "a", "secret": "hush"}}, {entry}]}}"#)
        };
        for (text, begins) in [
            (String::new(), "holds no credential"),
            ("{}".to_owned(), "credentials: "),
            (r#"{"credentials": []}"#.to_owned(), "holds no credential"),
            (r#"{"credentials": {"hush": 1}}"#.to_owned(), "credentials: "),
            ("{\"credentials\": [\n\"hush\": 1".to_owned(), "is no JSON at line 2, column 7"),
            (entry(r#""hush""#), "credentials[1].principal: "),
            (entry(r#"{"principal": "b", "secert": "hush"}"#), "credentials[1].secret: "),
            (entry(r#"{"principal": "b", "secret": ["hush"]}"#), "credentials[1].secret: "),
            (entry(r#"{"principal": "b", "secret": ""}"#), "credentials[1].secret: "),
            (entry(r#"{"principal": "", "secret": "hush"}"#), "credentials[1].principal: "),
            (entry(r#"{"principal": "b:c", "secret": "hush"}"#), "credentials[1].principal: "),
            (entry(r#"{"principal": "a", "secret": "hush"}"#), "credentials[1].principal: `a` "),
            ("a hush\nb hush hush".to_owned(), "line 2: "),
            ("a hush\nhush".to_owned(), "line 2: "),
            ("a hush\n\na hush".to_owned(), "line 3.principal: `a` "),
            (r#"["hush"]"#.to_owned(), "line 1: "),
        ] {
            let error = Credentials::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(begins), "{text}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
