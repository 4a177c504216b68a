//! Where HTTP clients find the leader (rules 2 and 83).

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use mezz_http::{is_at, with_below};

/// The paths that are answered by the leader's address alone, by the leader as well.
const PATHS: [&str; 2] = ["/redirect", "/master/redirect"];

/// Those paths at a leader of this address.
pub fn routes(address: &str) -> Router {
    let mut router = Router::new();
    for path in PATHS {
        let address = address.to_owned();
        let answer = move |request: Request| {
            let response = to_leader(Some(&address), &request);
            std::future::ready(response)
        };
        router = with_below(router, path, any(answer));
    }
    router
}

/// 307 to the same path at the leader, 503 while there is none. The address has no scheme,
/// so that the client's own counts.
pub fn to_leader(leader: Option<&str>, request: &Request) -> Response {
    let path = request.uri().path();
    let rest = if PATHS.contains(&path) {
        ""
    } else if PATHS.into_iter().any(|known| is_at(path, known)) {
        // It would lead here for ever.
        return (StatusCode::NOT_FOUND, "404 Not Found.").into_response();
    } else {
        request.uri().path_and_query().map_or("/", |p| p.as_str())
    };
    let target = leader.and_then(|l| HeaderValue::try_from(format!("//{l}{rest}")).ok());
    match target {
        Some(target) => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target)]).into_response()
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, HeaderValue::from_static("1"))],
            "No leader elected",
        )
            .into_response(),
    }
}
