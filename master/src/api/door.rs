//! Who calls, where frameworks have to prove it: asked before anything else (rule 2), over HTTP
//! and gRPC, of the leader and of standbys alike.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use mezz_http::{Refusal, is_at};
use tonic::Status;
use tracing::debug;

use super::{scheduler, scheduler_http};
use crate::{
    credentials::{Credentials, Principal},
    options::Authentication,
};

/// What is asked for (rule 2).
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="mesos-master-scheduler""#);

/// For gRPC clients, whose users read it.
const PROVE: &str = "this master takes frameworks only that prove who they are: give a principal \
                     and its secret that it knows (metadata `authorization`, HTTP Basic)";

/// Who the sender of a request has proved to be. Only the door makes one, as an extension of
/// the request; there is none where nobody is asked.
#[derive(Clone, Debug)]
struct Proved(Principal);

/// Lets frameworks in.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// Nobody is asked when absent.
    known: Option<Arc<Credentials>>,
}

impl Door {
    /// Asks for the proof that is wanted, if any.
    pub fn new(wanted: Option<&Authentication>) -> Self {
        Self { known: wanted.map(|wanted| Arc::clone(&wanted.credentials)) }
    }

    /// Notes who sends a framework's request.
    ///
    /// # Errors
    /// The answer to who does not prove it.
    #[allow(clippy::result_large_err)]
    pub fn pass(&self, request: &mut Request) -> Result<(), Response<Body>> {
        let Some(known) = &self.known else { return Ok(()) };
        let path = request.uri().path();
        let grpc = path == scheduler::PATH;
        if !grpc && !scheduler_http::PATHS.iter().any(|at| is_at(path, at)) {
            return Ok(());
        }
        let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if let Some(principal) = known.identify(shown) {
            request.extensions_mut().insert(Proved(principal));
            return Ok(());
        }
        debug!(path, shown = shown.is_some(), "a framework did not prove who it is");
        if grpc {
            return Err(Status::unauthenticated(PROVE).into_http());
        }
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "401 Unauthorized.");
        let mut response = refusal.into_response();
        response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        Err(response)
    }
}

/// Who sends a request; `None` where nobody is asked.
pub fn principal(request: &Request) -> Option<Principal> {
    request.extensions().get::<Proved>().map(|Proved(principal)| Arc::clone(principal))
}

#[cfg(test)]
mod tests {
    use mezz_proto::credential::Credential;

    use super::*;

    fn door() -> Door {
        let credentials = Arc::new(Credentials::parse("spark hush").unwrap());
        Door::new(Some(&Authentication { credentials, file: None }))
    }

    fn request(path: &str, secret: Option<&str>) -> Request {
        let mut request = Request::post(path);
        if let Some(secret) = secret {
            let header = Credential::new("spark", secret).unwrap().header();
            request = request.header(header::AUTHORIZATION, header);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn frameworks_prove_who_they_are_by_either_protocol() {
        let below = ["/api/v1/scheduler/", "/master/api/v1/scheduler/x"];
        for path in scheduler_http::PATHS.into_iter().chain(below).chain([scheduler::PATH]) {
            let mut right = request(path, Some("hush"));
            door().pass(&mut right).unwrap();
            assert_eq!(principal(&right).as_deref(), Some("spark"), "{path}");
            for mut wrong in [request(path, None), request(path, Some("hus"))] {
                let answer = door().pass(&mut wrong).unwrap_err();
                assert_eq!(principal(&wrong), None, "{path}");
                if path == scheduler::PATH {
                    assert_eq!(answer.headers()["grpc-status"], "16");
                } else {
                    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
                    assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], CHALLENGE);
                }
            }
        }
    }

    #[test]
    fn others_are_not_asked_and_without_credentials_nobody_is() {
        for path in ["/", "/state", "/api/v1", "/mezz.v1.AgentLink/Connect", "/master/redirect"] {
            door().pass(&mut request(path, None)).unwrap();
        }
        for secret in [None, Some("wrong")] {
            let mut any = request("/api/v1/scheduler", secret);
            Door::default().pass(&mut any).unwrap();
            assert_eq!(principal(&any), None);
        }
    }
}
