//! Paths below those of pages.

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};

use crate::Refusal;

/// Serves a path of Mesos' and all that is below it, as libprocess does: of a path that it does
/// not know the longest part is asked that it knows, and `/state/x` is `/state`. Other routes
/// below it come first.
pub fn with_below<S>(router: Router<S>, path: &str, method: MethodRouter<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let below = method.clone().layer(from_fn(no_parents));
    router
        .route(path, method)
        .route(&format!("{path}/"), below.clone())
        .route(&format!("{path}/{{*below}}"), below)
}

/// Whether a path is this one or below it.
#[must_use]
pub fn is_at(path: &str, page: &str) -> bool {
    path.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// libprocess answers nothing there.
async fn no_parents(request: Request, next: Next) -> Response {
    if request.uri().path().contains("/..") {
        return Refusal::new(StatusCode::NOT_FOUND, "404 Not Found.").into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use tower_service::Service as _;

    use super::*;

    #[tokio::test]
    async fn the_longest_known_part_of_a_path_is_asked() {
        let page = |text: &'static str| get(move || async move { text });
        let mut router = with_below(Router::new(), "/a", page("a"));
        router = with_below(router, "/a/b/c", page("c"));
        router = with_below(router, "/m(1)/a", page("m"));
        for (path, wanted) in [
            ("/a", "a"),
            ("/a/", "a"),
            ("/a//", "a"),
            ("/a/b", "a"),
            ("/a/b/x/y", "a"),
            ("/a/b/cc", "a"),
            ("/a/b/c", "c"),
            ("/a/b/c/", "c"),
            ("/a/b/c/d?e=f", "c"),
            ("/m(1)/a/x", "m"),
            ("/a/../b", "404 Not Found."),
            ("/aa", ""),
            ("/", ""),
            ("/m(1)", ""),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let body = router.call(request).await.unwrap().into_body();
            let text = axum::body::to_bytes(body, 100).await.unwrap();
            assert_eq!(&text[..], wanted.as_bytes(), "{path}");
        }
        assert!(is_at("/a", "/a") && is_at("/a/x", "/a") && !is_at("/ab", "/a"));
    }
}
