//! The two ends of a connection: who on this machine calls, and who from elsewhere.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Connections at the same time; more wait until one ends.
const CONNECTIONS: usize = 16_384;

/// A connection ends when its peer takes, or acknowledges, nothing for so long.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);

/// One on which nothing is said for so long is asked whether its peer is still there; it
/// may stay silent for as long as it likes.
const SILENCE: Duration = Duration::from_secs(30);

/// Between two such questions.
const QUESTIONS: Duration = Duration::from_secs(10);

/// The agent's listener.
pub(super) struct Port {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Port {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Port {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Nobody closes it.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        // Small messages both ways: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        if let Err(error) = watch(&stream) {
            tracing::debug!(%peer, %error, "cannot see when this connection's peer is gone");
        }
        (Connection { stream, _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn watch(stream: &TcpStream) -> rustix::io::Result<()> {
    let unread = u32::try_from(UNREAD_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, unread)?;
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, QUESTIONS)?;
    sockopt::set_socket_keepalive(stream, true)
}

/// A connection, and its place among all.
pub(super) struct Connection {
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// From this machine.
    pub(super) local: bool,
}

impl Connected<IncomingStream<'_, Port>> for Ends {
    fn connect_info(stream: IncomingStream<'_, Port>) -> Self {
        let own = stream.io().stream.local_addr().ok().map(|address| address.ip());
        Self { local: is_local(stream.remote_addr().ip(), own) }
    }
}

/// Whether `peer` is this machine, reached at `own`. A container with a network of its own
/// is elsewhere, unless a process on the machine makes its connections (docs/adr/0015).
fn is_local(peer: IpAddr, own: Option<IpAddr>) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || own.is_some_and(|own| own.to_canonical() == peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that reads no more, or is gone, is noticed by the kernel.
    #[tokio::test]
    async fn connections_are_watched_and_have_places() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut port = Port { listener, places: Arc::new(Semaphore::new(1)) };
        let _peers = [TcpStream::connect(address).await, TcpStream::connect(address).await];
        let (first, _) = port.accept().await;
        let unread = sockopt::tcp_user_timeout(&first.stream).unwrap();
        assert_eq!(u128::from(unread), UNREAD_TIMEOUT.as_millis());
        assert!(sockopt::socket_keepalive(&first.stream).unwrap());
        assert!(futures_util::poll!(Box::pin(port.accept())).is_pending(), "there is one place");
        drop(first);
        let second = tokio::time::timeout(Duration::from_secs(30), port.accept()).await;
        assert!(second.is_ok(), "and it is free again");
    }

    #[test]
    fn this_machine_is_known_by_both_ends() {
        for (peer, own, local) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.9", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.0.0.5", "10.0.0.5", true),
            ("::ffff:10.0.0.5", "10.0.0.5", true),
            ("10.0.0.6", "10.0.0.5", false),
            ("172.17.0.2", "172.17.0.1", false),
            ("::ffff:10.0.0.6", "::ffff:10.0.0.5", false),
        ] {
            let own = own.parse().unwrap();
            assert_eq!(is_local(peer.parse().unwrap(), Some(own)), local, "{peer} {own}");
        }
        assert!(!is_local("10.0.0.5".parse().unwrap(), None));
    }
}
