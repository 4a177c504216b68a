//! The HTTP pages: for load balancers, Prometheus, and people who try the port
//! with a browser.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use mezz_http::{is_grpc, with_below};

use super::{
    delivery,
    pages::{
        Pages,
        answers::{Answers, NoPage},
        unavailable, version_page,
    },
    server::{Api, Identity},
};
use crate::shell::{limits::HEALTH_TIMEOUT, metrics::Metrics};

/// What Prometheus reads.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The pages' routes.
pub fn routes(pages: Arc<Pages>) -> Router {
    let api = pages.api.clone();
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(pages);
    let mut router = Router::new().route("/", get(index));
    for prefix in ["", "/master"] {
        router = with_below(router, &format!("{prefix}/health"), get(health));
        // Nothing is below it, for it is no page but a process of its own.
        for path in ["/version", "/version/"] {
            router = router.route(&format!("{prefix}{path}"), get(version));
        }
    }
    router.with_state(api).merge(metrics)
}

async fn index(State(api): State<Arc<Api>>) -> String {
    let identity = &api.identity;
    let cluster = identity.cluster.as_ref().map(|c| format!(", cluster `{c}`")).unwrap_or_default();
    format!(
        "Mezz master {} at {}{cluster}\n\
         id {}\n\n\
         This port serves\n\
         \x20 gRPC: mezz.v1.Scheduler, mezz.v1.AgentLink, mezz.v1.Operator\n\
         \x20 Mesos' v1 HTTP API: POST /api/v1/scheduler (frameworks), POST /api/v1 (operators)\n\
         \x20 Mesos' pages: /state /state-summary /slaves /frameworks /tasks /roles /weights\n\
         \x20   /flags /metrics/snapshot /redirect; POST /teardown; all but the metrics also under\n\
         \x20   /master\n\
         \x20 /health   200 while the master answers\n\
         \x20 /version  what it was built from\n\
         \x20 /metrics  for Prometheus\n\n\
         Look around with: mezz agents|frameworks|tasks|offers|roles --master {}\n",
        identity.version, identity.address, identity.id, identity.address,
    )
}

async fn health(State(api): State<Arc<Api>>) -> Response {
    match api.core.probe(HEALTH_TIMEOUT).await {
        Ok(_) => "ok".into_response(),
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the master's core does not answer").into_response()
        }
    }
}

async fn version(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    version_page(&api.identity, &uri)
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let api = pages.api.clone();
    // What a silent core does not tell is left out; the rest shows why it is silent.
    let counters = async { Ok(pages.api.core.probe(HEALTH_TIMEOUT).await.ok()) };
    let make = move |counters: Option<_>| {
        let tasks = api.model.tasks_by_state();
        let uptime = api.identity.clock.now().since(api.identity.clock.start_time());
        api.metrics.render(counters.as_ref(), &tasks, uptime, true).into_bytes()
    };
    for_prometheus(pages.prometheus.get_after(&pages.quick, counters, make).await)
}

/// `/metrics` of a standby.
pub async fn standby_prometheus(
    answers: &Answers,
    metrics: Arc<Metrics>,
    identity: Arc<Identity>,
    leader_known: bool,
) -> Response {
    let make = move || {
        let uptime = identity.clock.now().since(identity.clock.start_time());
        metrics.render(None, &[], uptime, leader_known).into_bytes()
    };
    for_prometheus(answers.page(make).await)
}

fn for_prometheus(page: Result<bytes::Bytes, NoPage>) -> Response {
    match page {
        Ok(page) => delivery::response(PROMETHEUS, vec![page]),
        Err(error) => unavailable(&error),
    }
}

/// What no route takes: gRPC clients want a status, others a page.
pub async fn not_found(headers: HeaderMap, request: Request) -> Response {
    if is_grpc(&headers) {
        return tonic::Status::unimplemented(format!(
            "no service at {}; this is a Mezz master: mezz.v1.Scheduler, AgentLink, Operator",
            request.uri().path()
        ))
        .into_http::<axum::body::Body>()
        .into_response();
    }
    (StatusCode::NOT_FOUND, "no such page; see /\n").into_response()
}
