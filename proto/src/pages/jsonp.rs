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

    /// The script. Line separators that JSON allows and scripts once did not are escaped.
    pub fn wrap(&self, json: &str) -> String {
        let json = json.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        format!("{}({json});", self.0)
    }

    /// The script's `Content-Type`.
    pub const CONTENT_TYPE: &'static str = "text/javascript";
}
