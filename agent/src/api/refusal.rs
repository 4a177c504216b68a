//! Answers of the HTTP APIs that are errors.

use axum::http::StatusCode;
pub(super) use mezz_http::Refusal;
use tonic::{Code, Status};

/// To come again, to the next agent.
pub(super) fn stopping() -> Refusal {
    Refusal::busy("the agent is stopping")
}

/// What the core said to an executor.
pub(super) fn told(status: &Status) -> Refusal {
    let code = match status.code() {
        Code::InvalidArgument | Code::NotFound => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::FailedPrecondition => StatusCode::FORBIDDEN,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(code, status.message())
}
