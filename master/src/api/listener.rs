//! The port: connections of HTTP/1 and HTTP/2, from their first byte to their last.
//!
//! One that is idle is never closed from here. Schedulers of Mesos keep a connection for
//! their calls beside the one of their events, and take the end of either for the loss of
//! their master; hours may lie between two calls. A peer that is gone is found by HTTP/2's
//! pings or by TCP's probes, and what one that is slow may hold is bounded by
//! [`HTTP1_BUFFER`].

use std::{future::Future, sync::Arc};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    pin, select,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::shell::limits::{
    ACCEPT_PAUSE, CONNECTION_WINDOW, HTTP1_BUFFER, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    MAX_HEADER_BYTES, PROBE_AFTER, STREAM_WINDOW, STREAMS_PER_CONNECTION, UNREAD_TIMEOUT,
};

/// Serves until `stop` resolves and every connection has ended. Dropped, it cuts those that
/// are left.
pub async fn serve_api(router: Router, listener: TcpListener, stop: impl Future<Output = ()>) {
    let builder = Arc::new(builder());
    let ending = CancellationToken::new();
    let mut connections = JoinSet::new();
    pin!(stop);
    loop {
        select! {
            biased;
            () = &mut stop => break,
            // So that those which have ended hold nothing.
            Some(_) = connections.join_next() => {}
            stream = accept(&listener) => {
                connections.spawn(serve(builder.clone(), stream, router.clone(), ending.clone()));
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
async fn serve(
    builder: Arc<auto::Builder<TokioExecutor>>,
    stream: TcpStream,
    router: Router,
    ending: CancellationToken,
) {
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
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
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = set_up(&stream) {
                    debug!(%peer, %error, "cannot set a connection's options");
                }
                return stream;
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    let unread = u32::try_from(UNREAD_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, unread)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_AFTER / 6)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn start() -> (TcpStream, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "served" }));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve_api(router, listener, stop.clone().cancelled_owned()));
        (TcpStream::connect(address).await.unwrap(), stop, server)
    }

    async fn ask(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"served") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed: {answer:?}");
        }
    }

    async fn hours_pass() {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10 * 3600)).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn an_idle_connection_is_not_closed() {
        let (mut stream, _stop, _server) = start().await;
        hours_pass().await;
        for _ in 0..3 {
            ask(&mut stream).await;
            hours_pass().await;
        }
    }

    #[tokio::test]
    async fn idle_connections_end_with_the_server() {
        let (mut stream, stop, server) = start().await;
        ask(&mut stream).await;
        stop.cancel();
        server.await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn connections_are_cut_when_nobody_waits_for_them() {
        let (mut stream, _stop, server) = start().await;
        ask(&mut stream).await;
        // In the middle of a request.
        stream.write_all(b"GET / HT").await.unwrap();
        server.abort();
        server.await.unwrap_err();
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn headers_without_end_are_refused() {
        let (mut stream, _stop, _server) = start().await;
        let mut header = vec![b'x'; 2 * HTTP1_BUFFER];
        header.splice(0..0, *b"GET / HTTP/1.1\r\nx: ");
        // It may be closed before it is written.
        let _ = stream.write_all(&header).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.is_empty() || answer.contains("431"), "{answer}");
    }
}
