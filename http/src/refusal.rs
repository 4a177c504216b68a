//! Answers that are errors.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use mezz_proto::media::MediaError;

use crate::BodyError;

/// An answer that is an error. The text is for people, and that of Mesos where Mesos has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    text: String,
    /// The connection ends in place of the answer.
    cut: bool,
}

impl Refusal {
    /// With this status and text.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), cut: false }
    }

    /// 400.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 503: not now.
    pub fn busy(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// 405 where only POST will do, in libprocess' words.
    pub fn not_post(given: &Method) -> Self {
        let text = format!(
            "405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{given}'."
        );
        Self::new(StatusCode::METHOD_NOT_ALLOWED, text)
    }

    /// 501, for what clients of a later version may know.
    pub fn not_implemented() -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "501 Not Implemented.")
    }

    /// The connection is closed without an answer. Mesos' executor library takes that for a
    /// reason to subscribe again, with all that was not acknowledged, if its framework
    /// checkpoints. A 503 it only logs, and what it had sent is lost; a 408 ends it.
    pub fn cut(text: impl Into<String>) -> Self {
        Self { cut: true, ..Self::busy(text) }
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the connection ends in place of the answer.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

impl From<MediaError> for Refusal {
    fn from(error: MediaError) -> Self {
        let code = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(code, error.to_string())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::Media(error) => return error.into(),
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Late => StatusCode::REQUEST_TIMEOUT,
            BodyError::NoRoom | BodyError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::CutOff => StatusCode::BAD_REQUEST,
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, text, cut } = self;
        if cut {
            tracing::warn!(reason = text, "a connection is closed in place of an answer");
            // A body that fails before its first byte: the head has not gone either.
            let failed = || async { Err::<Bytes, _>(io::Error::other(text)) };
            let body = Body::from_stream(futures_util::stream::once(failed()));
            return (status, body).into_response();
        }
        let mut response = (status, text).into_response();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{Router, routing::post};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn one_that_is_cut_gets_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", post(|| async { Refusal::cut("no room") }));
        tokio::spawn(crate::serve(routes, listener, 8, std::future::pending()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(30), read).await.expect("it is closed");
        assert_eq!(String::from_utf8_lossy(&answer), "");
    }
}
