//! A connection: from where, its place among all, and how long an answer may take.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    net::sockopt,
    process::{Resource, getrlimit},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

use crate::limits::{ANSWER_WITHIN, PROBE_AFTER, PROBE_INTERVAL, SPARE_FILES, UNREAD_TIMEOUT};

/// Where a connection comes from. It is among the extensions of each of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// From this machine.
    pub local: bool,
}

impl Ends {
    pub(crate) fn of(stream: &TcpStream, peer: SocketAddr) -> Self {
        let own = stream.local_addr().ok().map(|address| address.ip());
        Self { local: is_local(peer.ip(), own) }
    }
}

/// Whether `peer` is this machine, reached at `own`. A container with a network of its own
/// is elsewhere, unless a process on the machine makes its connections (docs/adr/0015).
fn is_local(peer: IpAddr, own: Option<IpAddr>) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || own.is_some_and(|own| own.to_canonical() == peer)
}

/// Places of connections. A quarter of them is for this machine alone, so that nobody from
/// elsewhere keeps its executors or its operator out.
#[derive(Debug)]
pub(crate) struct Places {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

impl Places {
    /// So many, but no more than the process has files to spare.
    pub(crate) fn new(most: usize) -> Self {
        let most = match getrlimit(Resource::Nofile).current {
            Some(files) => {
                let free = files - SPARE_FILES.min(files / 4);
                most.min(usize::try_from(free).unwrap_or(most))
            }
            None => most,
        };
        let own = most / 4;
        Self { own: Arc::new(Semaphore::new(own)), all: Arc::new(Semaphore::new(most - own)) }
    }

    pub(crate) fn take(&self, ends: Ends) -> Option<OwnedSemaphorePermit> {
        let own = ends.local.then(|| Arc::clone(&self.own).try_acquire_owned().ok()).flatten();
        own.or_else(|| Arc::clone(&self.all).try_acquire_owned().ok())
    }
}

/// Small messages go at once, and a peer that reads no more, or is gone, is noticed by the
/// kernel.
pub(crate) fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let unread = u32::try_from(UNREAD_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, unread)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

/// What a connection is, as far as is known.
#[derive(Debug)]
enum Kind {
    /// It has said nothing.
    New,
    /// HTTP/1: since bytes came, nothing was answered. Without a timer it may be idle for as
    /// long as it likes: libmesos opens the connection of its calls long before the first.
    One(Option<Pin<Box<Sleep>>>),
    /// HTTP/2, which has pings.
    Two,
}

/// A connection that keeps its place until it ends.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    kind: Kind,
    within: Duration,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self { stream, kind: Kind::New, within: ANSWER_WITHIN, _place: place }
    }

    fn came(&mut self, bytes: &[u8]) {
        match &mut self.kind {
            // How HTTP/2 begins, and no method of HTTP/1.
            Kind::New if bytes.starts_with(b"PRI") => self.kind = Kind::Two,
            Kind::New => self.kind = Kind::One(Some(Box::pin(sleep(self.within)))),
            Kind::One(timer) => {
                timer.get_or_insert_with(|| Box::pin(sleep(self.within)));
            }
            Kind::Two => {}
        }
    }

    fn answered(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Kind::One(timer), Poll::Ready(Ok(1..))) = (&mut self.kind, written) {
            *timer = None;
        }
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        match &mut self.kind {
            Kind::One(Some(timer)) => timer.as_mut().poll(context).is_ready(),
            _ => false,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, into);
        match &read {
            Poll::Ready(Ok(())) => match into.filled().get(before..) {
                Some([]) | None => {}
                Some(bytes) => this.came(bytes),
            },
            Poll::Pending if this.is_late(context) => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.answered(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.answered(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair(within: Duration) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (peer, Connection { within, ..Connection::new(stream, place) })
    }

    #[tokio::test]
    async fn connections_are_watched() {
        let (_peer, connection) = pair(ANSWER_WITHIN).await;
        set_up(&connection.stream).unwrap();
        let unread = sockopt::tcp_user_timeout(&connection.stream).unwrap();
        assert_eq!(u128::from(unread), UNREAD_TIMEOUT.as_millis());
        assert!(sockopt::socket_keepalive(&connection.stream).unwrap());
    }

    #[test]
    fn some_places_are_kept_for_this_machine() {
        let places = Places::new(8);
        let [near, far] = [Ends { local: true }, Ends { local: false }];
        let mut taken: Vec<_> = (0..6).map(|_| places.take(far).unwrap()).collect();
        assert!(places.take(far).is_none());
        taken.extend((0..2).map(|_| places.take(near).unwrap()));
        assert!(places.take(near).is_none());
        taken.clear();
        taken.extend((0..8).map(|_| places.take(near).unwrap()));
        assert!(places.take(near).is_none());
    }

    #[tokio::test]
    async fn who_is_owed_an_answer_for_too_long_is_cut_off() {
        let within = Duration::from_millis(50);
        let late = |error: io::Error| error.kind() == io::ErrorKind::TimedOut;
        let patience = Duration::from_secs(30);
        let (mut peer, mut connection) = pair(within).await;
        let mut bytes = [0; 16];
        // It has said nothing.
        let nothing = tokio::time::timeout(5 * within, connection.read(&mut bytes)).await;
        assert!(nothing.is_err(), "{nothing:?}");
        peer.write_all(b"GET ").await.unwrap();
        assert_eq!(connection.read(&mut bytes).await.unwrap(), 4);
        let read = tokio::time::timeout(patience, connection.read(&mut bytes)).await.unwrap();
        assert!(late(read.unwrap_err()));

        let (mut peer, mut connection) = pair(within).await;
        peer.write_all(b"GET ").await.unwrap();
        assert_eq!(connection.read(&mut bytes).await.unwrap(), 4);
        connection.write_all(b"HTTP/1.1").await.unwrap();
        let idle = tokio::time::timeout(5 * within, connection.read(&mut bytes)).await;
        assert!(idle.is_err(), "{idle:?}");
        // The next request is owed its own.
        peer.write_all(b"G").await.unwrap();
        assert_eq!(connection.read(&mut bytes).await.unwrap(), 1);
        let read = tokio::time::timeout(patience, connection.read(&mut bytes)).await.unwrap();
        assert!(late(read.unwrap_err()));

        let (mut peer, mut connection) = pair(within).await;
        peer.write_all(b"PRI * HTTP/2.0").await.unwrap();
        assert_eq!(connection.read(&mut bytes).await.unwrap(), 14);
        let second = tokio::time::timeout(5 * within, connection.read(&mut bytes)).await;
        assert!(second.is_err(), "{second:?}");
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
