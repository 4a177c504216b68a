//! Who a framework says it is, and the secret that proves it, as HTTP Basic carries them
//! (RFC 7617; Mesos' `BasicAuthenticator`). The same header goes over gRPC.

use std::fmt;

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// Longest principal and longest secret, in bytes: both fit into a header, and the principal
/// into a `FrameworkInfo`.
pub const MAX_CREDENTIAL_BYTES: usize = 4096;

/// Mesos' own reader asks for no padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Whether `given` is this secret. How long that takes tells nothing of where they differ,
    /// only whether they are of one length.
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A principal and its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    principal: String,
    secret: Secret,
}

/// Why these cannot be a credential. The secret is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// Nobody.
    #[error("principal: is empty")]
    NoPrincipal,
    /// HTTP Basic ends the principal at its first colon.
    #[error("principal: `{0}` holds a colon, which cannot be told over HTTP; choose another name")]
    Colon(String),
    /// A principal or a secret that no header would hold.
    #[error("{field}: is longer than {MAX_CREDENTIAL_BYTES} bytes")]
    TooLong {
        /// Which.
        field: &'static str,
    },
    /// It would prove nothing.
    #[error("secret: is empty")]
    NoSecret,
}

impl Credential {
    /// Checks both.
    ///
    /// # Errors
    /// [`CredentialError`] names the field.
    pub fn new(
        principal: impl Into<String>,
        secret: impl Into<String>,
    ) -> Result<Self, CredentialError> {
        let (principal, secret) = (principal.into(), secret.into());
        if principal.is_empty() {
            return Err(CredentialError::NoPrincipal);
        }
        for (field, text) in [("principal", &principal), ("secret", &secret)] {
            if text.len() > MAX_CREDENTIAL_BYTES {
                return Err(CredentialError::TooLong { field });
            }
        }
        if principal.contains(':') {
            return Err(CredentialError::Colon(principal));
        }
        if secret.is_empty() {
            return Err(CredentialError::NoSecret);
        }
        Ok(Self { principal, secret: Secret(secret) })
    }

    /// Who.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Both parts.
    pub fn into_parts(self) -> (String, Secret) {
        (self.principal, self.secret)
    }

    /// The value of the header `Authorization`: as secret as the secret.
    pub fn header(&self) -> String {
        let both = format!("{}:{}", self.principal, self.secret.0);
        format!("Basic {}", STANDARD.encode(both))
    }
}

/// What the value of a header `Authorization` claims: a principal and the secret that shall
/// prove it. `None` for what is not HTTP Basic. A secret may hold colons, as RFC 7617 has it.
pub fn claimed(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let encoded = header.strip_prefix(b"Basic ")?;
    let mut both = LENIENT.decode(encoded).ok()?;
    let colon = both.iter().position(|byte| *byte == b':')?;
    let secret = both.split_off(colon + 1);
    both.truncate(colon);
    Some((String::from_utf8(both).ok()?, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_was_put_into_it() {
        for (principal, secret) in [("spark", "s3cret"), ("a b", "with:colon"), ("ü", "☃ ")] {
            let credential = Credential::new(principal, secret).unwrap();
            let (who, proof) = claimed(credential.header().as_bytes()).unwrap();
            assert_eq!(who, principal);
            assert!(credential.into_parts().1.is(&proof), "{principal}");
        }
        // RFC 7617's own example, and what Mesos' reader takes as well: no padding.
        let mut example = b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_vec();
        let known = Some(("Aladdin".to_owned(), b"open sesame".to_vec()));
        assert_eq!(claimed(&example), known);
        example.truncate(example.len() - 2);
        assert_eq!(claimed(&example), known);
    }

    #[test]
    fn other_headers_claim_nothing() {
        // `a`, without a colon; `\xff:a`, which is no text.
        for header in ["", "Basic", "Basic ", "Basic YQ==", "Basic /zph", "Basic !", "basic YTpi"] {
            assert_eq!(claimed(header.as_bytes()), None, "{header}");
        }
        for header in ["Bearer YTpi", "Basic YTpi x", "Basic  YTpi", "Digest a=b"] {
            assert_eq!(claimed(header.as_bytes()), None, "{header}");
        }
    }

    #[test]
    fn secrets_differ_and_are_not_shown() {
        let credential = Credential::new("p", "hush").unwrap();
        assert!(!format!("{credential:?}").contains("hush"), "{credential:?}");
        let (_, secret) = credential.into_parts();
        assert!(secret.is(b"hush"));
        for wrong in ["", "hus", "hush ", "Hush", "husk"] {
            assert!(!secret.is(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_a_credential_names_its_field() {
        let long = "x".repeat(MAX_CREDENTIAL_BYTES + 1);
        for (principal, secret, field) in [
            ("", "s", "principal"),
            ("a:b", "s", "principal"),
            (&long, "s", "principal"),
            ("p", "", "secret"),
            ("p", &long, "secret"),
        ] {
            let error = Credential::new(principal, secret).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
