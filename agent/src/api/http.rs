//! What a browser and a probe read.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{
    Served,
    agent::{files, no_files},
    files::{FileError, Reader},
};

pub(super) fn routes(served: Arc<Served>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/files/download", get(download))
        .with_state(served)
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

async fn metrics(State(served): State<Arc<Served>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], served.metrics.render())
}

/// What `/files/download` is asked for.
#[derive(Deserialize)]
struct Download {
    framework: String,
    task: String,
    path: String,
    /// First byte; below zero from the end.
    #[serde(default)]
    offset: i64,
}

/// Always as plain text, so that no task's output runs as a page of ours.
async fn download(State(served): State<Arc<Served>>, Query(query): Query<Download>) -> Response {
    let Some((_, files)) = files(&served, &query.framework, &query.task) else {
        let text = no_files(&query.framework, &query.task);
        return (StatusCode::NOT_FOUND, text + "\n").into_response();
    };
    let opened = tokio::task::spawn_blocking(move || {
        Reader::open(&files.sandbox, &query.path, query.offset)
    });
    match opened.await {
        Ok(Ok(reader)) => {
            let headers = [
                (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CONTENT_SECURITY_POLICY, "sandbox"),
            ];
            (headers, Body::from_stream(parts(reader))).into_response()
        }
        Ok(Err(error)) => {
            let status = match &error {
                FileError::Missing(_) => StatusCode::NOT_FOUND,
                FileError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, format!("{error}\n")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn parts(reader: Reader) -> impl futures_util::Stream<Item = Result<Bytes, FileError>> {
    futures_util::stream::try_unfold(reader, |mut reader| async move {
        let read = tokio::task::spawn_blocking(move || {
            let part = reader.next(u64::MAX);
            part.map(|part| (part, reader))
        });
        match read.await {
            Ok(Ok((part, _))) if part.is_empty() => Ok(None),
            Ok(Ok((part, reader))) => Ok(Some((Bytes::from(part), reader))),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(None),
        }
    })
}
