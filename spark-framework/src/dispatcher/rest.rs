//! Spark's REST protocol for submissions, version 1, and our own addresses.
//!
//! Field names, actions and statuses are those of Spark's `RestSubmissionServer`; 468
//! is its status for another version of the protocol.

use std::time::Duration;

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::ReaderStream;
use tracing::warn;

use super::{
    DriverView,
    core::KillAnswer,
    files::{self, Files, UploadError},
    job::{CreateRequest, Job},
    metrics,
    owner::Request,
};

/// Largest `CreateSubmissionRequest`, in bytes.
pub(super) const MAX_REQUEST: usize = 1 << 20;

/// A client that takes longer to send its request is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// To a client whose uploads another dispatcher has taken.
const FILES_GONE: &str = "Files that were uploaded for this submission are not here any more: \
    another dispatcher took them, or that was long ago. Upload them again; dispatchers whose \
    --upload-dir is on storage that they share have the same files.";

/// Version of the protocol.
const VERSION: &str = "v1";

/// What answers call the server's version; there is no Spark here.
const SERVER_VERSION: &str = concat!("mezz-", env!("CARGO_PKG_VERSION"));

#[derive(Clone)]
struct Api {
    requests: mpsc::Sender<Request>,
    files: Files,
    address: String,
}

/// All routes; `address` is how agents reach this server.
pub(super) fn routes(requests: mpsc::Sender<Request>, files: Files, address: String) -> Router {
    let missing = |what: &'static str| async move {
        error(StatusCode::BAD_REQUEST, &format!("Submission ID is missing in {what} request."))
    };
    let file = format!("{}/{{token}}/{{name}}", files::PATH);
    Router::new()
        .route("/v1/submissions/create", post(create))
        .route("/v1/submissions/status/{id}", get(status))
        .route("/v1/submissions/status", get(move || missing("status")))
        .route("/v1/submissions/status/", get(move || missing("status")))
        .route("/v1/submissions/kill/{id}", post(kill))
        .route("/v1/submissions/kill", post(move || missing("kill")))
        .route("/v1/submissions/kill/", post(move || missing("kill")))
        .route("/v1/submissions/killall", post(kill_all))
        .route("/v1/submissions/clear", post(clear))
        .route("/v1/submissions/readyz", get(ready))
        .route("/health", get(|| async { "ok\n" }))
        .route("/metrics", get(page))
        .route("/mezz/v1/submissions", get(list))
        .route("/mezz/v1/submissions/{id}", get(one))
        .route(&format!("{}/{{name}}", files::PATH), put(upload))
        .route(&file, get(download))
        .fallback(elsewhere)
        .with_state(Api { requests, files, address })
}

impl Api {
    /// Asks the owner.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Response> {
        let (reply, answer) = oneshot::channel();
        let stopping = "The dispatcher is stopping.";
        let ended = |_| error(StatusCode::SERVICE_UNAVAILABLE, stopping);
        self.requests.send(request(reply)).await.map_err(ended)?;
        // It may be in the store, and the next dispatcher's already.
        answer.await.map_err(|_| unknown(stopping))
    }
}

/// An answer of Spark's protocol.
fn answer(action: &str, success: bool, fields: &[(&str, Option<&str>)]) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("action".to_owned(), action.into());
    for (name, value) in fields {
        if let Some(value) = value {
            map.insert((*name).to_owned(), (*value).into());
        }
    }
    map.insert("serverSparkVersion".to_owned(), SERVER_VERSION.into());
    map.insert("success".to_owned(), success.into());
    map
}

/// As Spark's server says what went wrong.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    let body = json!({
        "action": "ErrorResponse",
        "message": message,
        "serverSparkVersion": SERVER_VERSION,
        "success": false,
    });
    (status, Json(body)).into_response()
}

/// Whoever asked must not ask again without having looked. `why` is a sentence.
pub(super) fn unknown(why: &str) -> Response {
    let message = format!(
        "{why} Whether it has done what it was asked is not known; `mezz spark list` tells \
         what there is."
    );
    error(StatusCode::BAD_GATEWAY, &message)
}

async fn create(State(api): State<Api>, body: Body) -> Result<Response, Response> {
    let malformed =
        |why: String| error(StatusCode::BAD_REQUEST, &format!("Malformed request: {why}"));
    let bytes = match tokio::time::timeout(REQUEST_TIMEOUT, to_bytes(body, MAX_REQUEST)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(why)) => {
            return Err(malformed(format!("{why}; at most {MAX_REQUEST} bytes are taken")));
        }
        Err(_) => return Err(error(StatusCode::REQUEST_TIMEOUT, "The request did not end.")),
    };
    let request: CreateRequest =
        serde_json::from_slice(&bytes).map_err(|why| malformed(why.to_string()))?;
    let unknown: Vec<String> = request.unknown.keys().cloned().collect();
    let uploaded = files::tokens(request.uploaded_files.iter().map(String::as_str));
    let mut job = Job::read(request).map_err(|why| malformed(why.to_string()))?;
    job.uploads = api.files.held(job.tokens()).map_err(|why| {
        let message = format!("The dispatcher cannot look for uploaded files: {why}");
        error(StatusCode::INTERNAL_SERVER_ERROR, &message)
    })?;
    if !uploaded.is_subset(&job.uploads) {
        return Err(error(StatusCode::GONE, FILES_GONE));
    }
    let result = api.ask(|reply| Request::Create(Box::new(job), reply)).await?;
    let message = match &result {
        Ok(id) => format!("Driver successfully submitted as {id}"),
        Err(full) => full.to_string(),
    };
    let id = result.as_deref().ok();
    let fields = [("message", Some(message.as_str())), ("submissionId", id)];
    let mut map = answer("CreateSubmissionResponse", id.is_some(), &fields);
    if !unknown.is_empty() {
        map.insert("unknownFields".to_owned(), unknown.into());
    }
    Ok(Json(map).into_response())
}

async fn status(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Map<String, Value>>, Response> {
    let view = api.ask(|reply| Request::Get(id.clone(), reply)).await?;
    let of = |field: fn(&DriverView) -> Option<&str>| view.as_ref().and_then(field);
    let place = of(|v| v.agent_address.as_deref()).or(of(|v| v.host.as_deref()));
    let fields = [
        ("driverState", of(|v| Some(&v.state))),
        ("message", of(|v| v.message.as_deref())),
        ("submissionId", Some(id.as_str())),
        ("workerHostPort", place),
        ("workerId", of(|v| v.agent_id.as_deref())),
    ];
    Ok(Json(answer("SubmissionStatusResponse", view.is_some(), &fields)))
}

async fn kill(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Map<String, Value>>, Response> {
    let (success, message) = match api.ask(|reply| Request::Kill(id.clone(), reply)).await? {
        KillAnswer::Asked => (true, format!("Kill request for {id} submitted")),
        KillAnswer::Removed => (true, format!("Driver {id} did not run and was removed")),
        KillAnswer::Ended => (false, format!("Driver {id} has already finished")),
        KillAnswer::Unknown => (false, format!("Driver {id} does not exist")),
    };
    let fields = [("message", Some(message.as_str())), ("submissionId", Some(id.as_str()))];
    Ok(Json(answer("KillSubmissionResponse", success, &fields)))
}

async fn kill_all(State(api): State<Api>) -> Result<Json<Map<String, Value>>, Response> {
    let killed = api.ask(Request::KillAll).await?;
    let message = format!("Kill request for all drivers submitted: {killed}");
    Ok(Json(answer("KillAllSubmissionResponse", true, &[("message", Some(message.as_str()))])))
}

async fn clear(State(api): State<Api>) -> Result<Json<Map<String, Value>>, Response> {
    let cleared = api.ask(Request::Clear).await?;
    let message = format!("Drivers that had ended, forgotten: {cleared}");
    Ok(Json(answer("ClearResponse", true, &[("message", Some(message.as_str()))])))
}

async fn ready(State(api): State<Api>) -> Result<Response, Response> {
    let ready = api.ask(Request::Ready).await?;
    let message = (!ready).then_some("The dispatcher is not subscribed to a master.");
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Json(answer("ReadyzResponse", ready, &[("message", message)]));
    Ok((status, body).into_response())
}

/// As Spark's server explains an address that it does not have.
async fn elsewhere(uri: Uri) -> Response {
    let parts: Vec<&str> = uri.path().split('/').filter(|p| !p.is_empty()).collect();
    let (what, mismatch) = match parts.as_slice() {
        [] => ("Missing protocol version.".to_owned(), false),
        [VERSION] => ("Missing the /submissions prefix.".to_owned(), false),
        [VERSION, "submissions", ..] => (
            "Missing an action: please specify one of /create, /kill, /killall, /clear, \
             /status or /readyz."
                .to_owned(),
            false,
        ),
        [other, ..] => (format!("Unknown protocol version '{other}'."), *other != VERSION),
    };
    let message = format!(
        "{what} Please submit requests through http://[host]:[port]/{VERSION}/submissions/..."
    );
    let mut body = json!({
        "action": "ErrorResponse",
        "message": message,
        "serverSparkVersion": SERVER_VERSION,
        "success": false,
    });
    let mut status = StatusCode::BAD_REQUEST;
    if mismatch {
        body["highestProtocolVersion"] = VERSION.into();
        status = StatusCode::from_u16(468).unwrap_or(StatusCode::BAD_REQUEST);
    }
    (status, Json(body)).into_response()
}

async fn list(State(api): State<Api>) -> Result<Json<Value>, Response> {
    let all = api.ask(Request::List).await?;
    Ok(Json(json!({ "submissions": all })))
}

async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<DriverView>, Response> {
    let view = api.ask(|reply| Request::Get(id.clone(), reply)).await?;
    view.map(Json)
        .ok_or_else(|| error(StatusCode::NOT_FOUND, &format!("Driver {id} does not exist")))
}

async fn upload(
    State(api): State<Api>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Response> {
    let part = uuid::Uuid::new_v4().simple().to_string();
    let uploaded = api.files.store(&part, body.into_data_stream()).await.map_err(|why| {
        let status = match why {
            UploadError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            UploadError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            UploadError::Broken(_) => StatusCode::BAD_REQUEST,
            UploadError::Store(ref cause) => {
                warn!(error = %cause, "an uploaded file cannot be stored");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        error(status, &why.to_string())
    })?;
    // Agents name the file by it; what an address would have to encode is left out.
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    let url = format!("http://{}{}/{}/{name}", api.address, files::PATH, uploaded.token);
    let body = Json(json!({ "url": url, "sha256": uploaded.sha256 }));
    Ok((StatusCode::CREATED, body).into_response())
}

async fn download(
    State(api): State<Api>,
    Path((token, name)): Path<(String, String)>,
) -> Result<Response, Response> {
    let none = || error(StatusCode::NOT_FOUND, &format!("There is no file {name} here."));
    serve_file(api.files.folder(), &token).await.ok_or_else(none)
}

/// The file of this token, if it is in this folder.
pub(super) async fn serve_file(folder: &std::path::Path, token: &str) -> Option<Response> {
    let file = tokio::fs::File::open(files::path(folder, token)?).await.ok()?;
    let length = file.metadata().await.ok()?.len();
    let mut response = Body::from_stream(ReaderStream::new(file)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, octets);
    Some(response)
}

async fn page(State(api): State<Api>) -> Result<String, Response> {
    let subscribed = api.ask(Request::Ready).await?;
    let all = api.ask(Request::List).await?;
    Ok(metrics::page(Some((subscribed, &all))))
}
