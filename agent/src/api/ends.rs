//! The two ends of a connection: who on this machine calls, and who from elsewhere.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::net::{TcpListener, TcpStream};

/// The agent's listener.
pub(super) struct Port(pub(super) TcpListener);

impl Listener for Port {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        // Small messages both ways: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        (stream, peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
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
        let own = stream.io().local_addr().ok().map(|address| address.ip());
        Self { local: is_local(stream.remote_addr().ip(), own) }
    }
}

/// Whether `peer` is this machine, reached at `own`. A container with a network of its own
/// is elsewhere.
fn is_local(peer: IpAddr, own: Option<IpAddr>) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || own.is_some_and(|own| own.to_canonical() == peer)
}

#[cfg(test)]
mod tests {
    use super::*;

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
