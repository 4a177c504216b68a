//! Answers of the HTTP APIs that are errors.

use axum::{
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use mezz_proto::media::MediaError;
use tonic::{Code, Status};

/// An answer that is an error: the text is for people.
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, String);

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self(status, text.into())
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn large(text: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    pub(super) fn late(text: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, text)
    }

    pub(super) fn busy(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    pub(super) fn stopping() -> Self {
        Self::busy("the agent is stopping")
    }

    /// A method other than POST, in libprocess' words.
    pub(super) fn method(given: &Method) -> Self {
        let text = format!(
            "405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{given}'."
        );
        Self::new(StatusCode::METHOD_NOT_ALLOWED, text)
    }

    /// What the core said to an executor.
    pub(super) fn of(status: &Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument | Code::NotFound => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::FailedPrecondition => StatusCode::FORBIDDEN,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(code, status.message())
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.0
    }
}

impl From<MediaError> for Refusal {
    fn from(error: MediaError) -> Self {
        let code = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self(code, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(code, text) = self;
        let mut response = (code, text).into_response();
        let (name, value) = match code {
            // Nothing else of the agent asks who comes.
            StatusCode::UNAUTHORIZED => {
                (header::WWW_AUTHENTICATE, "Bearer realm=\"mesos-agent-executor\"")
            }
            StatusCode::METHOD_NOT_ALLOWED => (header::ALLOW, "POST"),
            _ => return response,
        };
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        response
    }
}
