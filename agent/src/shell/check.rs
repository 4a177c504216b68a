//! Doing what checks ask for: programs inside of containers, HTTP and TCP as seen
//! from inside.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mezz_proto::{error::chain, ids::ContainerId};
use nix::sched::{CloneFlags, setns};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_rustls::TlsConnector;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Input;
use crate::{
    containerizer::{ContainerError, Containerizer, ExecSpec},
    core::{Answer, Event, NoAnswer, Probe, ProbeId},
};

/// Attempts that are made at one time in containers of each kind; others wait, and their time does not run yet.
const ATTEMPTS: usize = 256;

/// The longest first line of a response that is read, in bytes.
const STATUS_LINE: usize = 1024;

struct Shared {
    containerizer: Arc<dyn Containerizer>,
    inputs: mpsc::Sender<Input>,
    attempts: Semaphore,
    /// In containers of an engine, which may hang.
    engine_attempts: Semaphore,
    tls: TlsConnector,
}

/// Makes the attempts, and gives them up with their container.
pub(super) struct Checks {
    shared: Arc<Shared>,
    containers: Mutex<HashMap<ContainerId, CancellationToken>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Checks {
    pub(super) fn new(
        containerizer: Arc<dyn Containerizer>,
        inputs: mpsc::Sender<Input>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let shared = Shared {
            containerizer,
            inputs,
            attempts: Semaphore::new(ATTEMPTS),
            engine_attempts: Semaphore::new(ATTEMPTS),
            tls: connector(),
        };
        Self { shared: Arc::new(shared), containers: Mutex::default(), tasks, stop }
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, CancellationToken>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn probe(
        &self,
        container: ContainerId,
        probe: ProbeId,
        what: Probe,
        timeout: Option<Duration>,
    ) {
        let ended = self
            .containers()
            .entry(container.clone())
            .or_insert_with(|| self.stop.child_token())
            .clone();
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let outcome = ended.run_until_cancelled(shared.attempt(&container, what, timeout));
            let Some(outcome) = outcome.await else { return };
            match &outcome {
                Ok(_) => {}
                Err(NoAnswer::Failed(error)) => {
                    tracing::debug!(%container, error, "a check found no answer");
                }
                Err(NoAnswer::NotMade(error)) => {
                    tracing::warn!(%container, error, "a check could not be made");
                }
            }
            let event = Event::Probed { container, probe, outcome };
            let _ = shared.inputs.send(Input::Core(event)).await;
        });
    }

    /// Nothing of it can be found out any more.
    pub(super) fn ended(&self, container: &ContainerId) {
        if let Some(ended) = self.containers().remove(container) {
            ended.cancel();
        }
    }
}

impl Shared {
    async fn attempt(
        &self,
        container: &ContainerId,
        what: Probe,
        timeout: Option<Duration>,
    ) -> Result<Answer, NoAnswer> {
        // One that may take for ever must not keep others from being made.
        let Some(timeout) = timeout else { return self.find_out(container, what).await };
        let attempts = match self.containerizer.is_of_engine(container) {
            true => &self.engine_attempts,
            false => &self.attempts,
        };
        let _slot = attempts.acquire().await;
        tokio::time::timeout(timeout, self.find_out(container, what))
            .await
            .unwrap_or_else(|_| Err(NoAnswer::Failed(format!("no answer within {timeout:?}"))))
    }

    async fn find_out(&self, container: &ContainerId, what: Probe) -> Result<Answer, NoAnswer> {
        match what {
            Probe::Command(spec) => self.run(container, spec).await,
            Probe::Http { port, path, tls, ipv6 } => {
                let stream = self.connect(container, port, ipv6).await?;
                let stream =
                    stream.map_err(|error| NoAnswer::Failed(cannot_connect(port, &error)))?;
                let host = if ipv6 { "[::1]" } else { "127.0.0.1" };
                let status = if tls {
                    let name = ServerName::IpAddress(address(0, ipv6).ip().into());
                    let stream = self.tls.connect(name, stream).await;
                    status(
                        stream.map_err(|error| NoAnswer::Failed(format!("TLS: {error}")))?,
                        host,
                        port,
                        &path,
                    )
                    .await
                } else {
                    status(stream, host, port, &path).await
                };
                status.map(Answer::Http).map_err(NoAnswer::Failed)
            }
            Probe::Tcp { port, ipv6 } => {
                let stream = self.connect(container, port, ipv6).await?;
                Ok(Answer::Tcp(stream.is_ok()))
            }
        }
    }

    /// What it writes goes nowhere, as with Mesos.
    async fn run(&self, container: &ContainerId, spec: ExecSpec) -> Result<Answer, NoAnswer> {
        let started = self.containerizer.exec(container, spec).await;
        let mut exec = started.map_err(not_started)?;
        let mut ended = exec.ended;
        let failed = |error: ContainerError| NoAnswer::Failed(chain(&error));
        let status = loop {
            tokio::select! {
                status = &mut ended => break status.map_err(failed)?,
                output = exec.output.recv() => if output.is_none() {
                    break ended.await.map_err(failed)?;
                },
            }
        };
        Ok(Answer::Exit(match status & 0x7f {
            0 => (status >> 8) & 0xff,
            signal => 128 + signal,
        }))
    }

    /// As the container's own processes would. The inner error: nobody listens there, or
    /// does not answer. The outer error: it could not be tried.
    async fn connect(
        &self,
        container: &ContainerId,
        port: u16,
        ipv6: bool,
    ) -> Result<io::Result<TcpStream>, NoAnswer> {
        let network = self.containerizer.network(container).await;
        let network = network.map_err(|error| NoAnswer::NotMade(chain(&error)))?;
        let socket = match network {
            None => socket(ipv6),
            Some(path) => socket_in(path, ipv6).await,
        };
        let socket = socket.map_err(|error| {
            NoAnswer::NotMade(format!("its network cannot be entered: {error}"))
        })?;
        match socket.connect(address(port, ipv6)).await {
            Err(error) if !is_answer(&error) => {
                Err(NoAnswer::NotMade(cannot_connect(port, &error)))
            }
            tried => Ok(tried),
        }
    }
}

/// Whether a connection that did not come about tells of the other side. Otherwise it
/// is ours: ports, memory or file descriptors are short.
fn is_answer(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionRefused
            | ConnectionReset
            | ConnectionAborted
            | TimedOut
            | HostUnreachable
            | NetworkUnreachable
    )
}

fn cannot_connect(port: u16, error: &io::Error) -> String {
    format!("cannot connect to port {port}: {error}")
}

fn address(port: u16, ipv6: bool) -> SocketAddr {
    match ipv6 {
        true => (Ipv6Addr::LOCALHOST, port).into(),
        false => (Ipv4Addr::LOCALHOST, port).into(),
    }
}

fn socket(ipv6: bool) -> io::Result<TcpSocket> {
    if ipv6 { TcpSocket::new_v6() } else { TcpSocket::new_v4() }
}

/// A socket belongs to the network in which it was made, whoever uses it then. Only a
/// thread that ends at once can enter another network, and never comes back from it.
async fn socket_in(network: PathBuf, ipv6: bool) -> io::Result<TcpSocket> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("check".to_owned()).spawn(move || {
        let made = std::fs::File::open(network)
            .and_then(|network| Ok(setns(network, CloneFlags::CLONE_NEWNET)?))
            .and_then(|()| socket(ipv6));
        let _ = sender.send(made);
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}

/// The status code of the response to a GET.
async fn status(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    port: u16,
    path: &str,
) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: mezz-check\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    let failed = |error: io::Error| format!("the connection broke: {error}");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut line = Vec::with_capacity(STATUS_LINE);
    while !line.contains(&b'\n') && line.len() < STATUS_LINE {
        let mut part = [0; STATUS_LINE];
        match stream.read(&mut part).await.map_err(failed)? {
            0 => break,
            read => line.extend_from_slice(&part[..read]),
        }
    }
    status_code(&line).ok_or_else(|| {
        let start = String::from_utf8_lossy(&line[..line.len().min(64)]).into_owned();
        format!("the response is no HTTP: it starts with {start:?}")
    })
}

/// Of `HTTP/1.1 200 OK`.
fn status_code(line: &[u8]) -> Option<u16> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| *byte == b' ' || *byte == b'\r');
    if !words.next()?.starts_with(b"HTTP/") {
        return None;
    }
    let code = std::str::from_utf8(words.next()?).ok()?;
    code.parse().ok().filter(|code| (100..1000).contains(code) && line.len() > 12)
}

/// Takes every certificate: it is asked on the loopback whether a service answers, and
/// its certificate is hardly ever for that address.
fn connector() -> TlsConnector {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
                .with_no_client_auth()
        });
    match config {
        Ok(config) => TlsConnector::from(Arc::new(config)),
        // The provider speaks both versions; this is decided when Mezz is built.
        Err(error) => unreachable!("{error}"),
    }
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A program that is not there fails its check; what the agent lacks says nothing of the
/// task.
fn not_started(error: ContainerError) -> NoAnswer {
    let text = chain(&error);
    match &error {
        ContainerError::Operation { source, .. } | ContainerError::Launch { source, .. }
            if source.kind() == io::ErrorKind::InvalidInput =>
        {
            NoAnswer::Failed(text)
        }
        _ => NoAnswer::NotMade(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_status_line_and_nothing_else() {
        assert_eq!(status_code(b"HTTP/1.1 204 No Content\r\nA: b\r\n"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 404\r\n"), Some(404));
        assert_eq!(status_code(b"HTTP/2 20"), None);
        for wrong in [&b"SSH-2.0-OpenSSH"[..], b"", b"HTTP/1.1", b"HTTP/1.1 ok\r\n", b"\xff\n"] {
            assert_eq!(status_code(wrong), None, "{wrong:?}");
        }
    }

    async fn answered_with(response: &'static [u8]) -> Result<u16, String> {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let server = async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(theirs.read_u8().await.unwrap());
            }
            theirs.write_all(response).await.unwrap();
            String::from_utf8(request).unwrap()
        };
        let (status, request) = tokio::join!(status(ours, "127.0.0.1", 80, "/a?b"), server);
        assert!(request.starts_with("GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"), "{request}");
        status
    }

    #[test]
    fn only_what_the_other_side_does_is_an_answer() {
        use nix::errno::Errno;
        for of_it in [
            Errno::ECONNREFUSED,
            Errno::ECONNRESET,
            Errno::ETIMEDOUT,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
        ] {
            assert!(is_answer(&of_it.into()), "{of_it}");
        }
        for of_us in [Errno::EADDRNOTAVAIL, Errno::EMFILE, Errno::ENOBUFS, Errno::EPERM] {
            assert!(!is_answer(&of_us.into()), "{of_us}");
        }
    }

    #[tokio::test]
    async fn asks_for_the_path() {
        assert_eq!(answered_with(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n").await, Ok(302));
        let error = answered_with(b"SSH-2.0\r\n").await.unwrap_err();
        assert!(error.contains("no HTTP") && error.contains("SSH-2.0"), "{error}");
        let error = answered_with(b"").await.unwrap_err();
        assert!(error.contains("no HTTP"), "{error}");
    }
}
