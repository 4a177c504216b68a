//! What a request meets: the routes of the dispatcher that leads, or a standby, which
//! passes it on to the leader and the answer back.
//!
//! It passes on rather than redirects, because Spark's clients do not follow a redirect of
//! a POST.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tower_service::Service as _;
use tracing::debug;

use super::{
    DispatcherError, files, metrics,
    rest::{self, MAX_REQUEST},
};

/// A request that comes while nobody leads waits so long for one who does: less than
/// Spark's client waits for an answer, which is 10 s.
const HOLD: Duration = Duration::from_secs(8);

/// Before a leader that could not be reached is tried once more.
const AGAIN: Duration = Duration::from_millis(500);

/// A leader that does not take the connection within this is not there.
const CONNECT: Duration = Duration::from_secs(2);

/// The leader may take so long for its answer to a small request.
const ANSWER: Duration = Duration::from_secs(30);

/// Set on what a standby passes on: it is passed on once.
const PASSED_ON: HeaderName = HeaderName::from_static("mezz-passed-on");

/// Set on the answer of a standby that was taken for the leader: nothing was done.
const NOBODY_LEADS: HeaderName = HeaderName::from_static("mezz-nobody-leads");

/// Of one connection alone.
const NOT_PASSED_ON: [HeaderName; 7] = [
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::TE,
    HeaderName::from_static("keep-alive"),
];

#[derive(Clone, Debug)]
enum Role {
    Leads(Router),
    /// With the leader's address, when there is one.
    StandsBy(Option<String>),
}

impl Role {
    /// Whether there is somebody to ask other than the one that was `tried`.
    fn is_news(&self, tried: Option<&str>) -> bool {
        match self {
            Self::Leads(_) => true,
            Self::StandsBy(leader) => leader.is_some() && leader.as_deref() != tried,
        }
    }
}

/// One for a process, from its start to its end. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Front {
    role: Arc<watch::Sender<Role>>,
    folder: Arc<PathBuf>,
    http: reqwest::Client,
    hold: Duration,
}

/// A body that can be sent again, or only once.
enum Sent {
    Whole(Bytes),
    Once(Option<Body>),
}

impl Front {
    /// A standby that knows nobody yet; uploaded files are in this folder.
    pub(super) fn new(folder: PathBuf) -> Result<Self, DispatcherError> {
        // Fails where the process has one already, which then is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Plain HTTP: no certificates are needed, and none are looked for.
            .tls_certs_only([])
            .build()
            .map_err(|error| DispatcherError::Http(std::io::Error::other(error)))?;
        let role = Arc::new(watch::Sender::new(Role::StandsBy(None)));
        Ok(Self { role, folder: Arc::new(folder), http, hold: HOLD })
    }

    /// From now on this router answers.
    pub(super) fn lead(&self, router: Router) {
        self.role.send_replace(Role::Leads(router));
    }

    /// From now on everything is passed on to the leader.
    pub(super) fn stand_by(&self, leader: Option<String>) {
        self.role.send_if_modified(|role| {
            if matches!(role, Role::StandsBy(known) if *known == leader) {
                return false;
            }
            *role = Role::StandsBy(leader);
            true
        });
    }

    /// Answers everything.
    pub(super) fn router(self) -> Router {
        Router::new().fallback(move |request: Request| {
            let front = self.clone();
            async move { front.answer(request).await }
        })
    }

    async fn answer(&self, request: Request) -> Response {
        let role = self.role.borrow().clone();
        let leader = match role {
            Role::Leads(router) => return led(router, request).await,
            Role::StandsBy(leader) => leader,
        };
        let path = request.uri().path();
        match path {
            "/health" => {
                let leader = leader.as_deref().unwrap_or("not known");
                return format!("standby; the leader is {leader}\n").into_response();
            }
            "/metrics" => return metrics::page(None).into_response(),
            _ => {}
        }
        // In a folder that they share, any of them has it.
        if request.method() == Method::GET
            && let Some(token) = path.strip_prefix(files::PATH).and_then(|p| p.split('/').nth(1))
            && let Some(file) = rest::serve_file(&self.folder, token).await
        {
            return file;
        }
        if request.headers().contains_key(PASSED_ON) {
            return nobody();
        }
        self.pass_on(request).await
    }

    async fn pass_on(&self, request: Request) -> Response {
        let deadline = Instant::now() + self.hold;
        let (parts, body) = request.into_parts();
        let mut body = match Sent::read(&parts, body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let mut tried: Option<String> = None;
        loop {
            let leader = match self.leader(tried.as_deref(), deadline).await {
                Some(Role::StandsBy(Some(leader))) => leader,
                Some(Role::Leads(router)) => {
                    return match body.take() {
                        Some(body) => led(router, Request::from_parts(parts, body)).await,
                        None => unknown("the dispatcher that led"),
                    };
                }
                Some(Role::StandsBy(None)) | None => return nobody(),
            };
            let (whole, sent) = match &mut body {
                Sent::Whole(bytes) => (true, bytes.clone().into()),
                Sent::Once(body) => match body.take() {
                    Some(body) => (false, reqwest::Body::wrap_stream(body.into_data_stream())),
                    None => return unknown(&leader),
                },
            };
            match self.ask(&leader, &parts, sent, whole).await {
                Asked::Answered(answer) => return answer,
                Asked::NotThere if whole => {}
                // What is read, or done twice to the same end, is asked again.
                Asked::Unknown if whole && parts.method.is_idempotent() => {}
                Asked::NotThere => return nobody(),
                Asked::Unknown => return unknown(&leader),
            }
            tried = Some(leader);
        }
    }

    /// Who leads, other than the one that was tried; that one too after a while.
    async fn leader(&self, tried: Option<&str>, deadline: Instant) -> Option<Role> {
        let mut roles = self.role.subscribe();
        let mut patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return None;
        }
        if tried.is_some() {
            patience = patience.min(AGAIN);
        }
        match timeout(patience, roles.wait_for(|role| role.is_news(tried))).await {
            Ok(role) => role.ok().map(|role| role.clone()),
            Err(_) => Some(self.role.borrow().clone()).filter(|_| tried.is_some()),
        }
    }

    async fn ask(&self, leader: &str, parts: &Parts, body: reqwest::Body, small: bool) -> Asked {
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let request = self
            .http
            .request(parts.method.clone(), format!("http://{leader}{path}"))
            .headers(passed_on(&parts.headers))
            .header(PASSED_ON, HeaderValue::from_static("1"))
            .body(body);
        let mut roles = self.role.subscribe();
        let patience = if small { ANSWER } else { Duration::MAX };
        let sent = tokio::select! {
            sent = timeout(patience, request.send()) => sent,
            // It leads no more: whatever it was asked, it may not have done it.
            _ = roles.wait_for(|role| role.is_news(Some(leader))) => return Asked::Unknown,
        };
        match sent {
            Ok(Ok(answer)) if answer.headers().contains_key(NOBODY_LEADS) => Asked::NotThere,
            Ok(Ok(answer)) => {
                let headers = passed_on(answer.headers());
                let mut response = Response::new(Body::empty());
                *response.status_mut() = answer.status();
                *response.headers_mut() = headers;
                *response.body_mut() = Body::from_stream(answer.bytes_stream());
                Asked::Answered(response)
            }
            Ok(Err(error)) if error.is_connect() => {
                debug!(leader, %error, "the leader cannot be reached");
                Asked::NotThere
            }
            Ok(Err(_)) | Err(_) => Asked::Unknown,
        }
    }
}

enum Asked {
    Answered(Response),
    /// Nothing was sent, or it was not done.
    NotThere,
    /// It may have been done, or not.
    Unknown,
}

impl Sent {
    async fn read(parts: &Parts, body: Body) -> Result<Self, Response> {
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        // Uploads are long, and are not kept here.
        if parts.method == Method::PUT || length.is_some_and(|length| length > MAX_REQUEST) {
            return Ok(Self::Once(Some(body)));
        }
        match timeout(ANSWER, to_bytes(body, MAX_REQUEST)).await {
            Ok(Ok(bytes)) => Ok(Self::Whole(bytes)),
            Ok(Err(why)) => Err(rest::error(StatusCode::BAD_REQUEST, &why.to_string())),
            Err(_) => Err(rest::error(StatusCode::REQUEST_TIMEOUT, "The request did not end.")),
        }
    }

    fn take(&mut self) -> Option<Body> {
        match self {
            Self::Whole(bytes) => Some(Body::from(bytes.clone())),
            Self::Once(body) => body.take(),
        }
    }
}

async fn led(mut router: Router, request: Request) -> Response {
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in NOT_PASSED_ON {
        headers.remove(name);
    }
    headers
}

fn nobody() -> Response {
    let message =
        "No dispatcher leads, or the one that did cannot be reached. Try again in a moment.";
    let mut response = rest::error(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response.headers_mut().insert(NOBODY_LEADS, HeaderValue::from_static("1"));
    response
}

fn unknown(leader: &str) -> Response {
    rest::unknown(&format!("{leader} did not answer, and leads no more or is very busy."))
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
