//! The pages that tools of Mesos read (behaviour rules 83 to 90), each at `/x` and at
//! `/slave(1)/x`.

mod files;
mod metrics;
mod state;
mod statistics;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use mezz_proto::pages::{Jsonp, Version, snapshot};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub(super) use self::{files::refusal as file_refusal, metrics::metrics, statistics::containers};
use super::{Served, refusal::Refusal};

/// Pages that are written at the same time; others wait.
const WRITERS: usize = 4;

/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pages that are asked for, written or on their way at the same time.
const OPEN: usize = 256;

/// Files that are downloaded at the same time.
const DOWNLOADS: usize = 64;

/// A reader that takes no more for so long is cut off.
pub(super) const SLOW: Duration = Duration::from_secs(30);

/// What is handed to a connection at a time, in bytes.
const PART: usize = 64 << 10;

/// What readers of pages share.
pub(crate) struct Pages {
    open: Arc<Semaphore>,
    writers: Semaphore,
    downloads: Arc<Semaphore>,
    measured: statistics::Measured,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            open: Arc::new(Semaphore::new(OPEN)),
            writers: Semaphore::new(WRITERS),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            measured: Default::default(),
        }
    }
}

/// A page and its turn, which ends when it has been read.
pub(super) struct Written<T> {
    page: T,
    turn: OwnedSemaphorePermit,
}

fn busy() -> Refusal {
    Refusal::busy("the agent answers as many readers as it may; try again later")
}

/// A place among those who read, for who waits for something before there is a page.
///
/// # Errors
/// When there are too many already.
pub(super) fn turn(served: &Served) -> Result<OwnedSemaphorePermit, Refusal> {
    Arc::clone(&served.pages.open).try_acquire_owned().map_err(|_| busy())
}

/// A place among those who download.
///
/// # Errors
/// When there are too many already.
pub(super) fn download(served: &Served) -> Result<OwnedSemaphorePermit, Refusal> {
    Arc::clone(&served.pages.downloads).try_acquire_owned().map_err(|_| busy())
}

/// Does what may take long aside, and not too much of it at a time.
///
/// # Errors
/// When those who write are too slow.
pub(super) async fn write<T: Send + 'static>(
    turn: OwnedSemaphorePermit,
    served: &Arc<Served>,
    work: impl FnOnce(&Served) -> T + Send + 'static,
) -> Result<Written<T>, Refusal> {
    let writer = tokio::time::timeout(PATIENCE, served.pages.writers.acquire()).await;
    let Ok(Ok(_writer)) = writer else { return Err(busy()) };
    let served = Arc::clone(served);
    let page = tokio::task::spawn_blocking(move || work(&served));
    let page = page.await.map_err(|_| Refusal::stopping())?;
    Ok(Written { page, turn })
}

impl<T, E> Written<Result<T, E>> {
    /// A page that could be written, or why it could not.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn transpose(self) -> Result<Written<T>, E> {
        let Self { page, turn } = self;
        Ok(Written { page: page?, turn })
    }
}

impl<T: Into<Bytes>> Written<T> {
    /// The answer. It is forgotten when its reader does not take it.
    pub(super) fn answer(self, content: &'static str) -> Response {
        let Self { page, turn } = self;
        ([(header::CONTENT_TYPE, content)], body(page.into(), turn)).into_response()
    }
}

fn body(mut rest: Bytes, turn: OwnedSemaphorePermit) -> Body {
    if rest.len() <= PART {
        return Body::from(rest);
    }
    let (sender, parts) = mpsc::channel(1);
    let whole = rest.len();
    tokio::spawn(async move {
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PART));
            match tokio::time::timeout(SLOW, sender.send(part)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        drop(turn);
    });
    let next = |(mut parts, left): (mpsc::Receiver<Bytes>, usize)| async move {
        match parts.recv().await {
            Some(part) => {
                let left = left - part.len();
                Ok(Some((part, (parts, left))))
            }
            None if left == 0 => Ok(None),
            None => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    };
    Body::from_stream(futures_util::stream::try_unfold((parts, whole), next))
}

/// What every page can be asked.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    jsonp: Option<String>,
}

/// Writes JSON, or a script that calls a function with it.
async fn page(
    served: &Arc<Served>,
    jsonp: Option<&str>,
    text: impl FnOnce(&Served) -> String + Send + 'static,
) -> Response {
    let written = match turn(served) {
        Ok(turn) => page_at(turn, served, jsonp, |served| Ok(text(served))).await,
        Err(refusal) => Err(refusal),
    };
    written.unwrap_or_else(IntoResponse::into_response)
}

/// The same, for who has a place; the text may turn out to be none.
///
/// # Errors
/// What the reader is told.
async fn page_at(
    turn: OwnedSemaphorePermit,
    served: &Arc<Served>,
    jsonp: Option<&str>,
    text: impl FnOnce(&Served) -> Result<String, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let jsonp = jsonp.map(Jsonp::new).transpose();
    let jsonp = jsonp.map_err(|error| Refusal::bad(error.to_string()))?;
    let content = if jsonp.is_some() { Jsonp::CONTENT_TYPE } else { "application/json" };
    let written = write(turn, served, move |served| {
        let text = text(served)?;
        Ok::<_, Refusal>(match jsonp {
            Some(jsonp) => jsonp.wrap(&text),
            None => text,
        })
    });
    Ok(written.await?.transpose()?.answer(content))
}

pub(super) fn routes(served: Arc<Served>) -> Router {
    let mut routes = Router::new();
    for prefix in ["", "/slave(1)"] {
        let at = |path: &str| format!("{prefix}{path}");
        for name in ["/state", "/state.json"] {
            routes = routes.route(&at(name), get(state_page));
        }
        for name in ["/monitor/statistics", "/monitor/statistics.json"] {
            routes = routes.route(&at(name), get(statistics::statistics_page));
        }
        for name in ["/metrics/snapshot", "/metrics/snapshot.json"] {
            routes = routes.route(&at(name), get(metrics_page));
        }
        routes = routes
            .route(&at("/containers"), get(statistics::containers_page))
            .route(&at("/flags"), get(flags_page))
            .route(&at("/version"), get(version_page));
        for form in ["", ".json"] {
            routes = routes
                .route(&at(&format!("/files/browse{form}")), get(files::browse_page))
                .route(&at(&format!("/files/read{form}")), get(files::read_page));
        }
    }
    routes.with_state(served)
}

async fn state_page(State(served): State<Arc<Served>>, Query(asked): Query<Asked>) -> Response {
    page(&served, asked.jsonp.as_deref(), state::state).await
}

async fn metrics_page(State(served): State<Arc<Served>>, Query(asked): Query<Asked>) -> Response {
    page(&served, asked.jsonp.as_deref(), |served| snapshot(&metrics(served))).await
}

async fn flags_page(State(served): State<Arc<Served>>, Query(asked): Query<Asked>) -> Response {
    let text = |served: &Served| serde_json::json!({ "flags": served.about.flags }).to_string();
    page(&served, asked.jsonp.as_deref(), text).await
}

async fn version_page(State(served): State<Arc<Served>>, Query(asked): Query<Asked>) -> Response {
    let text = |_: &Served| serde_json::to_string(&Version::of_build()).unwrap_or_default();
    page(&served, asked.jsonp.as_deref(), text).await
}
