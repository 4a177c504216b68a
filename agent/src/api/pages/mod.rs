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
    routing::{MethodRouter, get},
};
use mezz_http::with_below;
use mezz_proto::pages::{Jsonp, Version, parse_duration, snapshot};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

pub(super) use self::{files::refusal as file_refusal, metrics::metrics, statistics::containers};
use super::{
    PREFIXES, Served,
    refusal::{Refusal, stopping},
};

/// Pages that are written at the same time; others wait.
const WRITERS: usize = 4;

/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pages that are asked for, written or on their way at the same time.
const OPEN: usize = 256;

/// Files that are downloaded at the same time.
const DOWNLOADS: usize = 64;

/// Pages that are written and not read yet, all together, in KiB.
const UNREAD_KIB: u32 = 256 << 10;

/// What is handed to a connection at a time, in bytes.
const PART: usize = 64 << 10;

/// How long a reader may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// For each part, and once for all of them together...
    pub(super) slow: Duration,
    /// ... to which each part that was taken adds so much.
    pub(super) part: Duration,
}

/// Who takes nothing for half a minute, or less than 64 KiB a second, is cut off.
pub(super) const PACE: Pace = Pace { slow: Duration::from_secs(30), part: Duration::from_secs(1) };

impl Pace {
    /// When the next part must have been taken, after so many.
    pub(super) fn deadline(self, begun: Instant, taken: u32) -> Instant {
        let all = begun + self.slow + self.part * taken;
        all.min(Instant::now() + self.slow)
    }
}

/// What readers of pages share.
pub(crate) struct Pages {
    open: Arc<Semaphore>,
    writers: Arc<Semaphore>,
    unread: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    measured: statistics::Measured,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            open: Arc::new(Semaphore::new(OPEN)),
            writers: Arc::new(Semaphore::new(WRITERS)),
            unread: Arc::new(Semaphore::new(UNREAD_KIB as usize)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            measured: Default::default(),
        }
    }
}

/// A page and its turn, which ends when it has been read.
pub(super) struct Written<T> {
    page: T,
    turn: OwnedSemaphorePermit,
    unread: Arc<Semaphore>,
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
    let pages = &served.pages;
    let served = Arc::clone(served);
    pages.aside(turn, move || work(&served)).await
}

impl Pages {
    /// The work keeps its places until it has ended, for a reader that has gone does not
    /// end it.
    async fn aside<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Written<T>, Refusal> {
        let writer = Arc::clone(&self.writers).acquire_owned();
        let Ok(Ok(writer)) = tokio::time::timeout(PATIENCE, writer).await else {
            return Err(busy());
        };
        let unread = Arc::clone(&self.unread);
        let written = tokio::task::spawn_blocking(move || {
            let page = work();
            drop(writer);
            Written { page, turn, unread }
        });
        written.await.map_err(|_| stopping())
    }
}

impl<T, E> Written<Result<T, E>> {
    /// A page that could be written, or why it could not.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn transpose(self) -> Result<Written<T>, E> {
        let Self { page, turn, unread } = self;
        Ok(Written { page: page?, turn, unread })
    }
}

impl<T: Into<Bytes>> Written<T> {
    /// The answer. It is forgotten when its reader does not take it.
    ///
    /// # Errors
    /// When too much is unread already.
    pub(super) fn answer(self, content: &'static str) -> Result<Response, Refusal> {
        let Self { page, turn, unread } = self;
        let page = page.into();
        let body = if page.len() <= PART {
            Body::from(page)
        } else {
            let kib = u32::try_from(page.len().div_ceil(1024)).unwrap_or(UNREAD_KIB);
            let room = unread.try_acquire_many_owned(kib.min(UNREAD_KIB)).map_err(|_| busy())?;
            in_parts(page, (turn, room), PACE)
        };
        Ok(([(header::CONTENT_TYPE, content)], body).into_response())
    }
}

/// `places` are kept as long as the page is.
fn in_parts(page: Bytes, places: impl Send + 'static, pace: Pace) -> Body {
    let (sender, parts) = mpsc::channel(1);
    let whole = page.len();
    tokio::spawn(async move {
        let begun = Instant::now();
        for (taken, part) in (0..).zip(page.chunks(PART)) {
            let deadline = pace.deadline(begun, taken);
            match tokio::time::timeout_at(deadline, sender.reserve()).await {
                // A copy, for a piece of the page would keep all of it.
                Ok(Ok(place)) => place.send(Bytes::copy_from_slice(part)),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        drop((page, places));
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
    /// Of `/metrics/snapshot` alone.
    timeout: Option<String>,
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
    written.await?.transpose()?.answer(content)
}

pub(super) fn routes(served: Arc<Served>) -> Router {
    let mut routes = Router::new();
    for prefix in PREFIXES {
        let at = |path: &str| format!("{prefix}{path}");
        let pages: [(&str, MethodRouter<Arc<Served>>); 12] = [
            ("/state", get(state_page)),
            ("/state.json", get(state_page)),
            ("/monitor/statistics", get(statistics::statistics_page)),
            ("/monitor/statistics.json", get(statistics::statistics_page)),
            ("/metrics/snapshot", get(metrics_page)),
            ("/metrics/snapshot.json", get(metrics_page)),
            ("/containers", get(statistics::containers_page)),
            ("/flags", get(flags_page)),
            ("/files/browse", get(files::browse_page)),
            ("/files/browse.json", get(files::browse_page)),
            ("/files/read", get(files::read_page)),
            ("/files/read.json", get(files::read_page)),
        ];
        for (path, method) in pages {
            routes = with_below(routes, &at(path), method);
        }
        // Nothing is below it, for it is no page but a process of its own.
        for path in ["/version", "/version/"] {
            routes = routes.route(&at(path), get(version_page));
        }
    }
    routes.with_state(served)
}

async fn state_page(State(served): State<Arc<Served>>, Query(asked): Query<Asked>) -> Response {
    page(&served, asked.jsonp.as_deref(), state::state).await
}

async fn metrics_page(State(served): State<Arc<Served>>, Query(asked): Query<Asked>) -> Response {
    // Nothing here takes long enough for it to matter, but it is to be a duration.
    if let Some(Err(error)) = asked.timeout.as_deref().map(parse_duration) {
        return Refusal::bad(format!("Unable to parse timeout: {error}")).into_response();
    }
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

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    /// As one who asks for pages and hangs up, again and again.
    #[tokio::test]
    async fn work_keeps_its_place_when_its_reader_has_gone() {
        let pages = Pages::default();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        for _ in 0..WRITERS {
            let turn = Arc::clone(&pages.open).try_acquire_owned().unwrap();
            let wait = Arc::clone(&wait);
            let mut asked = Box::pin(pages.aside(turn, move || wait.lock().unwrap().recv()));
            assert!(futures_util::poll!(&mut asked).is_pending());
        }
        assert_eq!(pages.writers.available_permits(), 0);
        assert_eq!(pages.open.available_permits(), OPEN - WRITERS);
        drop(go);
        let all = pages.writers.acquire_many(WRITERS as u32);
        let all = tokio::time::timeout(Duration::from_secs(30), all).await;
        assert!(all.is_ok(), "it ends");
    }

    #[tokio::test]
    async fn what_is_unread_is_bounded() {
        let pages = Pages::default();
        let written = |bytes: usize| Written {
            page: vec![b' '; bytes],
            turn: Arc::clone(&pages.open).try_acquire_owned().unwrap(),
            unread: Arc::clone(&pages.unread),
        };
        let all = pages.unread.try_acquire_many(UNREAD_KIB - 100).unwrap();
        let read = written(100 << 10).answer("text/plain").unwrap();
        assert!(written(PART + 1).answer("text/plain").is_err(), "there is no room");
        assert!(written(PART).answer("text/plain").is_ok(), "that is next to nothing");
        let bytes = axum::body::to_bytes(read.into_body(), usize::MAX).await.unwrap();
        assert_eq!(bytes.len(), 100 << 10);
        drop(all);
        let whole = pages.unread.acquire_many(UNREAD_KIB);
        let whole = tokio::time::timeout(Duration::from_secs(30), whole).await;
        assert!(whole.is_ok(), "it is read");
    }

    #[tokio::test]
    async fn who_reads_a_little_now_and_then_is_cut_off() {
        let pace = Pace { slow: Duration::from_millis(200), part: Duration::ZERO };
        let (places, mut kept) = mpsc::channel::<()>(1);
        let body = in_parts(Bytes::from(vec![b' '; 1000 * PART]), places, pace);
        let mut parts = body.into_data_stream();
        let reading = async {
            while let Some(part) = parts.next().await {
                if part.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("it got all of it");
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.expect("it is cut off");
        assert!(kept.recv().await.is_none(), "its places are free");
    }
}
