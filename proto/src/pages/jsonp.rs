//! `?jsonp=callback`: the answer as a script that calls a function with it (rule 83).

use thiserror::Error;

/// The longest name of a callback, in characters.
pub const MAX_CALLBACK: usize = 128;

/// A callback's name that could be a script of its own. Status 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "jsonp: a callback is a name of at most {MAX_CALLBACK} letters, digits, `_`, `$`, `.`, `[` and `]`"
)]
pub struct BadCallback;

/// Whom the answer calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jsonp(String);

impl Jsonp {
    /// From the query's value. Mesos takes any; ours must be a name, for the browser runs
    /// what is answered.
    ///
    /// # Errors
    /// [`BadCallback`].
    pub fn new(callback: &str) -> Result<Self, BadCallback> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_$.[]".contains(c);
        let begins =
            callback.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$');
        if !begins || callback.len() > MAX_CALLBACK || !callback.chars().all(allowed) {
            return Err(BadCallback);
        }
        Ok(Self(callback.to_owned()))
    }

    /// The script.
    pub fn wrap(&self, json: &str) -> String {
        let json = escaped(json.as_bytes().to_vec());
        let [before, after] = self.around();
        format!("{before}{}{after}", String::from_utf8_lossy(&json))
    }

    /// What comes before and after the JSON, which must be [`escaped`].
    pub fn around(&self) -> [String; 2] {
        [format!("{}(", self.0), ");".to_owned()]
    }

    /// The script's `Content-Type`.
    pub const CONTENT_TYPE: &'static str = "text/javascript";
}

/// The JSON with the line separators escaped that it allows and scripts once did not. It
/// says the same, so that one page serves those who want a script and those who do not.
pub fn escaped(json: Vec<u8>) -> Vec<u8> {
    // U+2028 and U+2029, which stand nowhere but in strings.
    let is_separator = |at: &[u8]| matches!(at, [0xe2, 0x80, 0xa8 | 0xa9]);
    if !json.windows(3).any(is_separator) {
        return json;
    }
    let mut out = Vec::with_capacity(json.len() + 64);
    let mut rest = &*json;
    while let Some(at) = rest.windows(3).position(is_separator) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(if rest[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    out
}
