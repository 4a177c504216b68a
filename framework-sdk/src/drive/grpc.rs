//! What all gRPC links share.

use std::time::Duration;

use tonic::{Code, Status, transport::Endpoint};

use super::LinkEnd;

/// Calls on their way into the socket.
pub(crate) const CALLS_IN_FLIGHT: usize = 64;
/// Largest event taken: offers of tens of thousands of agents at once.
pub(crate) const MAX_EVENT_BYTES: usize = 64 << 20;
/// How far the peer may be ahead of us, in bytes: HTTP/2's default of 64 KiB would
/// cost a round trip for each 64 KiB of a large event.
const WINDOW_BYTES: u32 = 4 << 20;
/// For TCP's handshake, which asks a second time after one second. A machine that does not
/// answer in this time is off, or cut off: another master may be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2 pings notice a dead peer sooner than three missed heartbeats do.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// An endpoint with the timeouts that long streams need.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let uri = if address.starts_with("http://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// What a status means for the link to this address.
pub(crate) fn status_end(address: &str, status: &Status) -> LinkEnd {
    match status.code() {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated => LinkEnd::Refused(status.message().to_owned()),
        code if status.message().is_empty() => {
            LinkEnd::Lost(format!("{address}: {}", code.description()))
        }
        _ => LinkEnd::Lost(format!("{address}: {}", status.message())),
    }
}

/// An error with its causes: tonic's own text is only "transport error".
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
