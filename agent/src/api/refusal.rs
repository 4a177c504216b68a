//! Answers of the HTTP APIs that are errors.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use mezz_proto::media::MediaError;
use tonic::{Code, Status};

/// An answer that is an error: the text is for people.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    text: String,
    /// The connection ends in place of the answer.
    cut: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), cut: false }
    }

    /// The connection is closed without an answer: what Mesos' executor library takes as
    /// a reason to subscribe again, with all that was not acknowledged. A 503 it only logs,
    /// and what it had sent is lost; a 408 ends it.
    pub(super) fn cut(text: impl Into<String>) -> Self {
        Self { cut: true, ..Self::busy(text) }
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
        self.status
    }

    #[cfg(test)]
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }
}

impl From<MediaError> for Refusal {
    fn from(error: MediaError) -> Self {
        let code = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status: code, text, cut } = self;
        if cut {
            tracing::warn!(reason = text, "a connection is closed in place of an answer");
            // A body that fails before its first byte: the head has not gone either.
            let failed = || async { Err::<Bytes, _>(io::Error::other(text)) };
            return (code, Body::from_stream(futures_util::stream::once(failed()))).into_response();
        }
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
        tokio::spawn(axum::serve(listener, routes).into_future());
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(30), read).await.expect("it is closed");
        assert_eq!(String::from_utf8_lossy(&answer), "");
    }
}
