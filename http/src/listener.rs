//! The port: connections of HTTP/1 and HTTP/2, from their first byte to their last.
//!
//! One that is idle is never closed from here. Schedulers of Mesos keep a connection for
//! their calls beside the one of their events, and take the end of either for the loss of
//! their master; hours may lie between two calls. A peer that is gone is found by HTTP/2's
//! pings or by TCP's probes. What one that is slow may hold is bounded by [`HTTP1_BUFFER`]
//! and [`ANSWERS_PER_CONNECTION`], and a request that never becomes whole by
//! [`ANSWER_WITHIN`](crate::limits::ANSWER_WITHIN).

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    BoxError, Router,
    body::{Body, HttpBody},
    http::{HeaderMap, Request, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    pin, select,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower_service::Service;
use tracing::{debug, warn};

use crate::{
    Refusal,
    connection::{Connection, Ends, Places, set_up},
    limits::{
        ACCEPT_PAUSE, ANSWERS_PER_CONNECTION, COMPLAINTS, CONNECTION_WINDOW, HTTP1_BUFFER,
        KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_HEADER_BYTES, STREAM_WINDOW,
        STREAMS_PER_CONNECTION,
    },
    readers::{Readers, only_reads},
};

/// Serves at most so many connections until `stop` resolves and every one has ended.
/// Dropped, it cuts those that are left.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    most: usize,
    stop: impl Future<Output = ()>,
) {
    let builder = Arc::new(builder());
    let places = Places::new(most);
    let ending = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut complaints = Complaints::default();
    let readers = Readers::start();
    pin!(stop);
    loop {
        select! {
            biased;
            () = &mut stop => break,
            // So that those which have ended hold nothing.
            Some(_) = connections.join_next() => {}
            (stream, ends) = accept(&listener, &mut complaints) => {
                let Some(place) = places.take(ends) else {
                    if complaints.may() {
                        warn!("there are as many connections as may be: one was closed");
                    }
                    continue;
                };
                let answers = Arc::new(Semaphore::new(ANSWERS_PER_CONNECTION));
                let service = Connected { router: router.clone(), ends, answers };
                let (builder, ending) = (builder.clone(), ending.clone());
                let readers = readers.handle();
                connections.spawn(async move {
                    let looked = ending.run_until_cancelled(only_reads(&stream)).await;
                    let readers = readers.filter(|_| looked == Some(true));
                    let stream = Connection::new(stream, place);
                    let conversation = converse(builder, stream, service, ending);
                    match readers {
                        // It ends with this one.
                        Some(readers) => {
                            let served = AbortOnDropHandle::new(readers.spawn(conversation));
                            if let Err(error) = served.await {
                                debug!(%error, "a connection's task ended");
                            }
                        }
                        None => conversation.await,
                    }
                });
            }
        }
    }
    // Who connects now is told so at once.
    drop(listener);
    ending.cancel();
    while connections.join_next().await.is_some() {}
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().header_read_timeout(None).max_buf_size(HTTP1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

/// A connection, from its first byte to its last.
async fn converse(
    builder: Arc<auto::Builder<TokioExecutor>>,
    stream: Connection,
    service: Connected,
    ending: CancellationToken,
) {
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    pin!(connection);
    let ended = select! {
        ended = &mut connection => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

/// The next connection; a failure is logged, and the next attempt waits a moment.
async fn accept(listener: &TcpListener, complaints: &mut Complaints) -> (TcpStream, Ends) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = set_up(&stream) {
                    debug!(%peer, %error, "cannot set a connection's options");
                }
                let ends = Ends::of(&stream, peer);
                return (stream, ends);
            }
            Err(error) => {
                if complaints.may() {
                    warn!(%error, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whoever tries again and again must not fill the log.
#[derive(Debug, Default)]
struct Complaints(Option<Instant>);

impl Complaints {
    fn may(&mut self) -> bool {
        let now = Instant::now();
        let may = self.0.is_none_or(|last| now.duration_since(last) >= COMPLAINTS);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

/// The routes, as one connection has them.
#[derive(Clone, Debug)]
struct Connected {
    router: Router,
    ends: Ends,
    answers: Arc<Semaphore>,
}

impl<B> Service<Request<B>> for Connected
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.ends);
        // Streams of agents and frameworks may share a connection by thousands, and have
        // bounds of their own.
        if is_grpc(request.headers()) {
            return Box::pin(self.router.call(request));
        }
        let Ok(place) = Arc::clone(&self.answers).try_acquire_owned() else {
            let text = "this connection has as many requests under way as one may have";
            return Box::pin(std::future::ready(Ok(Refusal::busy(text).into_response())));
        };
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| Body::new(Placed { body, _place: place })))
        })
    }
}

/// Whether a gRPC client asks.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content = headers.get(header::CONTENT_TYPE);
    content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
}

/// An answer's body, which keeps its place until it has been sent.
struct Placed {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
