//! The two forms in which Mesos' HTTP APIs write messages, and how a request says
//! which one it has and which one it takes (behaviour rules 2, 3, 4 and 9).
//!
//! Nothing here reads a socket: what the header says goes in, what the client is told
//! comes out.

use prost::{Message, Name};
use thiserror::Error;

use crate::{
    error::chain,
    json::{self, JsonError},
    strict,
};

/// The JSON form's name.
pub const JSON: &str = "application/json";

/// The protobuf form's name.
pub const PROTOBUF: &str = "application/x-protobuf";

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [`JSON`], in Mesos' dialect.
    Json,
    /// [`PROTOBUF`].
    Protobuf,
}

/// Why a request is refused. The texts are those of Mesos.
#[derive(Debug, Error)]
pub enum MediaError {
    /// Status 400.
    #[error("Expecting 'Content-Type' to be present")]
    NoContentType,
    /// Status 415.
    #[error("Expecting 'Content-Type' of {JSON} or {PROTOBUF}")]
    UnsupportedContentType,
    /// Status 406.
    #[error("Expecting 'Accept' to allow '{PROTOBUF}' or '{JSON}'")]
    NotAcceptable,
    /// Status 400: the body is no such message. The text names the field, if there is one.
    #[error("{0}")]
    Body(String),
}

impl MediaError {
    /// The HTTP status that goes with it.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoContentType | Self::Body(_) => 400,
            Self::UnsupportedContentType => 415,
            Self::NotAcceptable => 406,
        }
    }
}

impl Format {
    /// The media type's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The form that a `Content-Type` names. It is compared as a whole: with a charset it
    /// is another one (rule 3).
    ///
    /// # Errors
    /// [`MediaError::NoContentType`], [`MediaError::UnsupportedContentType`].
    pub fn of_content(given: Option<&[u8]>) -> Result<Self, MediaError> {
        match given {
            None => Err(MediaError::NoContentType),
            Some(given) if given == JSON.as_bytes() => Ok(Self::Json),
            Some(given) if given == PROTOBUF.as_bytes() => Ok(Self::Protobuf),
            Some(_) => Err(MediaError::UnsupportedContentType),
        }
    }

    /// The form that the values of `Accept` take: JSON where both would do, and where
    /// there is no such header (rule 4). As in Mesos an empty one takes nothing, and of the
    /// ranges that fit a form the most exact decides, the first of them if there are more.
    ///
    /// # Errors
    /// [`MediaError::NotAcceptable`].
    pub fn accepted<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, MediaError> {
        let values: Vec<&[u8]> = values.into_iter().collect();
        // What is no text is the name of no form.
        let mut given = String::from_utf8_lossy(&values.join(&b","[..])).to_ascii_lowercase();
        given.retain(|c| !matches!(c, ' ' | '\t' | '\n'));
        let takes = |wanted: &str| {
            let fits = |exact: &&str| given.split(',').find_map(|range| quality(range, exact));
            values.is_empty()
                || [wanted, "application/*", "*/*"].iter().find_map(fits) == Some(true)
        };
        if takes(JSON) {
            Ok(Self::Json)
        } else if takes(PROTOBUF) {
            Ok(Self::Protobuf)
        } else {
            Err(MediaError::NotAcceptable)
        }
    }

    /// The message in a body of this form.
    ///
    /// # Errors
    /// [`MediaError::Body`].
    pub fn decode<M: Message + Name + Default>(self, body: &[u8]) -> Result<M, MediaError> {
        let name = M::NAME;
        let wrong = |text| Err(MediaError::Body(text));
        match self {
            Self::Json => {
                let text = match std::str::from_utf8(body) {
                    Ok(text) => text,
                    Err(error) => return wrong(format!("Failed to parse body into JSON: {error}")),
                };
                json::from_str(text).or_else(|error| match &error {
                    JsonError::Syntax(syntax) => {
                        wrong(format!("Failed to parse body into JSON: {syntax}"))
                    }
                    JsonError::Field { .. } | JsonError::TooMany(_) => {
                        wrong(format!("Failed to convert JSON into {name} protobuf: {error}"))
                    }
                })
            }
            Self::Protobuf => strict::decode(body).or_else(|error| {
                wrong(format!("Failed to parse body into {name} protobuf: {}", chain(&error)))
            }),
        }
    }

    /// The message in this form.
    pub fn encode<M: Message + Name>(self, message: &M) -> Vec<u8> {
        match self {
            Self::Json => json::to_string(message).into_bytes(),
            Self::Protobuf => message.encode_to_vec(),
        }
    }
}

/// Whether a range of `Accept` takes what it names, if that is `name`: not with a `q` of 0,
/// or one that is no number. Of two `q` none counts.
fn quality(range: &str, name: &str) -> Option<bool> {
    let mut parts = range.split(';').filter(|part| !part.is_empty());
    if parts.next() != Some(name) {
        return None;
    }
    let mut qs = parts.filter_map(|part| part.strip_prefix("q=")).filter(|q| !q.is_empty());
    match (qs.next(), qs.next()) {
        (Some(q), None) => Some(q.parse::<f64>().is_ok_and(|q| q > 0.0)),
        _ => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::executor::Call;

    fn accepted(values: &[&str]) -> Option<Format> {
        Format::accepted(values.iter().map(|value| value.as_bytes())).ok()
    }

    #[test]
    fn json_is_the_first_choice() {
        let [json, protobuf] = [Some(Format::Json), Some(Format::Protobuf)];
        for values in [&[][..], &["*/*"], &["application/*"], &[JSON], &["x,,*/*"]] {
            assert_eq!(accepted(values), json, "{values:?}");
        }
        assert_eq!(accepted(&["application/x-protobuf, application/json"]), json);
        assert_eq!(accepted(&[PROTOBUF, JSON]), json);
        assert_eq!(accepted(&[PROTOBUF]), protobuf);
        assert_eq!(accepted(&["application/json;q=0, application/x-protobuf;q=0.5"]), protobuf);
        assert_eq!(accepted(&["text/html"]), None);
    }

    /// Mesos' `Request::_acceptsMediaType`.
    #[test]
    fn the_most_exact_range_decides() {
        let [json, protobuf] = [Some(Format::Json), Some(Format::Protobuf)];
        for (value, wanted) in [
            ("", None),
            (" , ", None),
            ("application/json;q=0, */*", protobuf),
            ("*/*, application/json;q=0", protobuf),
            ("application/*;q=0, */*", None),
            ("application/json;q=0, application/json", None),
            ("Application/JSON", json),
            ("application / x-protobuf ; q = 0.5", protobuf),
            ("application/json;q=x", None),
            ("application/json;q=", json),
            ("application/json;q=0;q=0", json),
            ("application/json;level=1;q=0.1", json),
            ("*/*;q=0", None),
        ] {
            assert_eq!(accepted(&[value]), wanted, "{value}");
        }
        assert_eq!(Format::accepted([&b"\xff"[..]]).ok(), None);
        assert_eq!(Format::accepted([&b"\xff"[..], b"*/*"]).ok(), json);
    }

    #[test]
    fn a_content_type_is_taken_as_a_whole() {
        let status = |given: Option<&str>| {
            Format::of_content(given.map(str::as_bytes)).map_err(|error| error.status())
        };
        assert_eq!(status(Some(JSON)), Ok(Format::Json));
        assert_eq!(status(Some(PROTOBUF)), Ok(Format::Protobuf));
        assert_eq!(status(Some("application/json; charset=utf-8")), Err(415));
        assert_eq!(status(None), Err(400));
    }

    #[test]
    fn a_body_that_is_no_message_is_told_why() {
        for (format, body, tells) in [
            (Format::Json, &b"x"[..], "Failed to parse body into JSON: "),
            (Format::Json, b"\xff", "Failed to parse body into JSON: invalid utf-8"),
            (Format::Json, b"{}", "Failed to convert JSON into Call protobuf: executor_id: is re"),
            (Format::Protobuf, b"", "Failed to parse body into Call protobuf: executor_id: is re"),
            (Format::Protobuf, b"\xff", "Failed to parse body into Call protobuf: the bytes are"),
        ] {
            let error = format.decode::<Call>(body).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.to_string().contains(tells), "{error}");
        }
    }
}
