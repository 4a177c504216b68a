//! What every server does: bind, find out its own address, stop on a signal.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
};

use anyhow::{Context, anyhow};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Port 0 is any free one.
    pub address: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
    }
}

impl Listen {
    /// Binds; `flag` is the option that an error tells to change.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub async fn bind(self, flag: &str) -> anyhow::Result<TcpListener> {
        let address = self.address;
        listen(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => anyhow!(
                "port {} of {} is in use, perhaps by another mezz; stop that one or choose another \
                 with {flag}",
                address.port(),
                address.ip()
            ),
            io::ErrorKind::PermissionDenied => {
                anyhow!("no right to listen on {address}; choose a port from 1024 on with {flag}")
            }
            _ => {
                anyhow!("cannot listen on {address} ({error}); choose another address with {flag}")
            }
        })
    }
}

/// Connections that may wait to be accepted: after a master's restart thousands of
/// agents come at once, and one that finds no place is refused or waits a second.
/// The kernel has its own limit (`net.core.somaxconn`, 4096 by default).
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What peers are told: the option, or the bound address, or, when that is every
/// address of the machine, the one by which `peer` (or, without one, the rest of
/// the world) is reached.
pub fn advertised(option: Option<String>, bound: SocketAddr, peer: Option<&str>) -> String {
    match option {
        Some(address) => address,
        None if bound.ip().is_unspecified() => {
            SocketAddr::new(outgoing_address(peer), bound.port()).to_string()
        }
        None => bound.to_string(),
    }
}

/// The local address of a route, as the kernel would choose it. Nothing is sent:
/// a datagram socket's `connect` only looks the route up.
fn outgoing_address(peer: Option<&str>) -> IpAddr {
    // Of the block that is reserved for documentation: routed like any stranger.
    let target = peer.unwrap_or("192.0.2.1:9");
    let look_up = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(target)?;
        Ok(socket.local_addr()?.ip())
    };
    match look_up() {
        Ok(ip) if !ip.is_unspecified() => ip,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// Makes the folder of a server.
///
/// # Errors
/// A sentence that says which option to change.
pub fn make_work_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| {
        format!("cannot make the work dir {}; choose another with --work-dir", dir.display())
    })
}

/// Cancels the token on SIGINT or SIGTERM. A second signal ends the process at
/// once, for those who cannot wait.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn cancel_on_signal(token: &CancellationToken) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first && !token.is_cancelled() {
                token.cancel();
            } else {
                eprintln!("stopping at once");
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_names_the_flag() {
        let first = Listen::default().bind("--listen").await.unwrap();
        let second = Listen { address: first.local_addr().unwrap() };
        let error = second.bind("--port").await.unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("--port"), "{error}");
        let elsewhere = Listen { address: "192.0.2.1:1".parse().unwrap() };
        let error = elsewhere.bind("--listen").await.unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:1") && error.contains("--listen"), "{error}");
    }

    #[test]
    fn what_peers_are_told() {
        let any = "0.0.0.0:5050".parse().unwrap();
        let one = "10.1.2.3:5050".parse().unwrap();
        assert_eq!(advertised(Some("m:1".to_owned()), any, None), "m:1");
        assert_eq!(advertised(None, one, None), "10.1.2.3:5050");
        assert_eq!(advertised(None, any, Some("127.0.0.1:5050")), "127.0.0.1:5050");
        assert!(!advertised(None, any, None).starts_with("0.0.0.0"));
    }
}
