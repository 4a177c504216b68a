//! Answers of the HTTP APIs that are errors.

use axum::{
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use mezz_proto::media::MediaError;

use crate::shell::{bodies::NoRoom, handle::Stopped};

/// The text is for people, and that of Mesos where Mesos has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    /// 400.
    pub fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    /// 405 where only POST will do.
    pub fn not_post(method: &Method) -> Self {
        let text = format!(
            "405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{method}'."
        );
        Self(StatusCode::METHOD_NOT_ALLOWED, text)
    }

    /// 501, for what clients of a later version may know.
    pub fn not_implemented() -> Self {
        Self(StatusCode::NOT_IMPLEMENTED, "501 Not Implemented.".to_owned())
    }
}

impl From<MediaError> for Refusal {
    fn from(error: MediaError) -> Self {
        let code = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self(code, error.to_string())
    }
}

impl From<Stopped> for Refusal {
    fn from(Stopped: Stopped) -> Self {
        let text = "the master is stopping; find the leader again".to_owned();
        Self(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

impl From<NoRoom> for Refusal {
    fn from(error: NoRoom) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(code, text) = self;
        let mut response = (code, text).into_response();
        if code == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}
