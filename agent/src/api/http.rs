//! What a browser and a probe read.

use std::{io, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use mezz_http::{is_grpc, with_below};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use super::{
    PREFIXES, Served,
    agent::{files, no_files},
    files::Reader,
    pages::{self, PACE, file_refusal},
    refusal::Refusal,
    sandboxes::{Place, resolve},
};

pub(super) fn routes(served: Arc<Served>) -> Router {
    let mut routes = Router::new().route("/", get(index)).route("/metrics", get(metrics));
    for prefix in PREFIXES {
        routes = with_below(routes, &format!("{prefix}/health"), get(|| async { "ok\n" }));
        for form in ["", ".json"] {
            let path = format!("{prefix}/files/download{form}");
            routes = with_below(routes, &path, get(download));
        }
    }
    routes.with_state(served)
}

async fn index(State(served): State<Arc<Served>>) -> String {
    let id = served.index.agent_id().map_or("none yet".to_owned(), |id| id.to_string());
    let master = served.index.master().unwrap_or_else(|| "none at the moment".to_owned());
    format!(
        "Mezz agent {} at {}\n\
         id {id}\n\
         master {master}\n\n\
         This port serves\n\
         \x20 gRPC: mezz.v1.Executor, mezz.v1.Agent\n\
         \x20 Mesos' v1 HTTP API: POST /api/v1/executor (executors), POST /api/v1 (operators)\n\
         \x20 Mesos' pages: /state /containers /monitor/statistics /metrics/snapshot /flags\n\
         \x20   /version /files/browse /files/read /files/download; all of them also under /slave(1)\n\
         \x20 /health   200 while the agent answers\n\
         \x20 /metrics  for Prometheus\n",
        env!("CARGO_PKG_VERSION"),
        served.about.address,
    )
}

/// What no route takes: gRPC clients want a status, others a page.
pub(super) async fn not_found(request: Request) -> Response {
    if is_grpc(request.headers()) {
        let text = format!(
            "no service at {}; this is a Mezz agent: mezz.v1.Executor, Agent",
            request.uri().path()
        );
        return tonic::Status::unimplemented(text).into_http::<Body>().into_response();
    }
    (StatusCode::NOT_FOUND, "no such page; see /\n").into_response()
}

async fn metrics(State(served): State<Arc<Served>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], served.metrics.render())
}

/// What `/files/download` is asked for.
#[derive(Deserialize)]
struct Download {
    /// Both, or neither: then the path is one that tools of Mesos know.
    framework: Option<String>,
    task: Option<String>,
    path: Option<String>,
    /// First byte; below zero from the end.
    #[serde(default)]
    offset: i64,
}

/// Always as plain text, so that no task's output runs as a page of ours.
async fn download(State(served): State<Arc<Served>>, Query(query): Query<Download>) -> Response {
    let Some(path) = query.path.filter(|path| !path.is_empty()) else {
        return Refusal::bad("Expecting 'path=value' in query.\n").into_response();
    };
    let place = match (query.framework, query.task) {
        (Some(framework), Some(task)) => match files(&served, &framework, &task) {
            Some((_, files)) => Some(Place { sandbox: files.sandbox, rest: path }),
            None => {
                let text = no_files(&framework, &task);
                return (StatusCode::NOT_FOUND, text + "\n").into_response();
            }
        },
        (None, None) => resolve(&served, &path),
        _ => return Refusal::bad("framework and task go together\n").into_response(),
    };
    let Some(place) = place else { return StatusCode::NOT_FOUND.into_response() };
    let turn = match pages::download(&served) {
        Ok(turn) => turn,
        Err(refusal) => return refusal.into_response(),
    };
    // With its place, which one who hangs up must not free before.
    let opened = tokio::task::spawn_blocking(move || {
        Reader::open(&place.sandbox, &place.rest, query.offset).map(|reader| (reader, turn))
    });
    match opened.await {
        Ok(Ok((reader, turn))) => {
            let headers = [
                (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CONTENT_SECURITY_POLICY, "sandbox"),
            ];
            (headers, Body::from_stream(parts(reader, turn))).into_response()
        }
        Ok(Err(error)) => file_refusal(&error).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Until the end of the file as it is now, or until its reader is too slow ([`PACE`]).
fn parts(
    mut reader: Reader,
    turn: OwnedSemaphorePermit,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    // An empty part is the end: a sender that goes without it has given up.
    let (sender, parts) = mpsc::channel(1);
    let end = reader.size();
    tokio::spawn(async move {
        let _turn = turn;
        let begun = Instant::now();
        for taken in 0.. {
            let read = tokio::task::spawn_blocking(move || {
                let part = reader.next(end.saturating_sub(reader.offset));
                (part, reader)
            });
            let Ok((part, again)) = read.await else { return };
            reader = again;
            let part = part.map(Bytes::from).map_err(io::Error::other);
            let last = part.as_ref().map_or(true, Bytes::is_empty);
            let deadline = PACE.deadline(begun, taken);
            let sent = tokio::time::timeout_at(deadline, sender.send(part)).await;
            if last || !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    });
    futures_util::stream::try_unfold(parts, |mut parts| async move {
        match parts.recv().await {
            Some(part) => {
                let part = part?;
                Ok((!part.is_empty()).then_some((part, parts)))
            }
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    })
}
