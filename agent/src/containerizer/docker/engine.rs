//! The way to the engine, and whether it answers.

use std::{
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use mezz_proto::error::chain;
use thiserror::Error as ThisError;

use super::identity::{Identity, Objection};
use crate::containerizer::Ability;

/// What the engine is asked for is done by then, or never.
const CALL_PATIENCE: Duration = Duration::from_secs(120);

/// An engine that works says its version by then.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineAddress(String);

impl EngineAddress {
    /// `unix:///PATH`, or `http://HOST:PORT` without TLS.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
        let host = text.strip_prefix("http://").is_some_and(|rest| {
            rest.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
            })
        });
        if path || host {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is no address of a Docker engine: unix:///PATH, such as \
             unix:///var/run/docker.sock, or http://HOST:PORT"
        ))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn connect(&self) -> Result<Docker, Error> {
        // Longer than our own patience, which tells what was waited for.
        let timeout = 2 * CALL_PATIENCE.as_secs();
        match self.0.strip_prefix("unix://") {
            Some(path) => Docker::connect_with_unix(path, timeout, API_DEFAULT_VERSION),
            None => Docker::connect_with_http(&self.0, timeout, API_DEFAULT_VERSION),
        }
    }
}

/// Why the engine did not do something.
#[derive(Debug, ThisError)]
pub(super) enum EngineError {
    /// There is none, or it has gone away meanwhile.
    #[error(
        "the Docker engine does not answer at {address}: {why}. Start it, or name another one \
         by the agent's --docker"
    )]
    Away { address: String, why: String },
    /// Who answers is not the engine that has this agent's containers.
    #[error("the Docker engine at {address} is not the one that was used before: {why}")]
    Another { address: String, why: String },
    /// It does not end an answer that it began.
    #[error("the Docker engine said nothing more for {0:?}")]
    Silent(Duration),
    /// It does not want to. In its own words.
    #[error("{message}")]
    Refused { status: u16, message: String },
    /// It says what nobody understands.
    #[error(transparent)]
    Other(Error),
}

impl EngineError {
    /// Also while another stands in its place.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Another { .. })
    }

    pub(super) fn is_another(&self) -> bool {
        matches!(self, Self::Another { .. })
    }

    /// There is no such container, image or exec.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// It is in no state for that.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }
}

impl From<EngineError> for std::io::Error {
    fn from(error: EngineError) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            EngineError::Away { .. } | EngineError::Another { .. } => ErrorKind::NotConnected,
            EngineError::Refused { status: 404, .. } => ErrorKind::NotFound,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// One engine.
pub(super) struct Engine {
    address: EngineAddress,
    identity: Arc<Identity>,
    patience: Duration,
    link: Mutex<Option<Docker>>,
    ability: Mutex<Ability>,
}

impl Engine {
    pub(super) fn new(address: EngineAddress, identity: Arc<Identity>) -> Self {
        let problem = Some(format!("the Docker engine at {} was not asked yet", address.as_str()));
        let ability = Ability { name: "docker", version: None, problem };
        let (link, ability) = (Mutex::default(), Mutex::new(ability));
        Self { address, identity, patience: CALL_PATIENCE, link, ability }
    }

    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// So long it may take over anything that has an end.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// As it was when it was last asked.
    pub(super) fn ability(&self) -> Ability {
        lock(&self.ability).clone()
    }

    /// Asks it who it is. Whether it is there.
    pub(super) async fn probe(&self) -> bool {
        match self.greet().await {
            Ok(version) => {
                let mut ability = lock(&self.ability);
                if ability.problem.take().is_some() {
                    let address = self.address.as_str();
                    let version = version.as_deref().unwrap_or("unknown");
                    tracing::info!(address, version, "the Docker engine answers");
                }
                ability.version = version;
                true
            }
            Err(_) => false,
        }
    }

    /// Makes sure that who answers now is the engine that should; its version.
    pub(super) async fn greet(&self) -> Result<Option<String>, EngineError> {
        let answer = match self.link().await {
            Ok(link) => self.recognise(&link).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &answer {
            self.failed(error);
        }
        answer
    }

    /// A connection to the engine that speaks its version.
    pub(super) async fn link(&self) -> Result<Docker, EngineError> {
        if let Some(link) = &*lock(&self.link) {
            return Ok(link.clone());
        }
        let link = self.address.connect().map_err(|error| self.explain(error))?;
        let link = self.soon(link.negotiate_version()).await?;
        self.recognise(&link).await?;
        *lock(&self.link) = Some(link.clone());
        Ok(link)
    }

    /// The version of who answers, if nothing is wrong with that.
    async fn recognise(&self, link: &Docker) -> Result<Option<String>, EngineError> {
        let info = self.soon(link.info()).await?;
        // One that does not say who it is may be any. Those of one machine may share an id,
        // and have folders of their own.
        if let Some(id) = info.id.filter(|id| !id.is_empty()) {
            let id = format!("{id} ({})", info.docker_root_dir.unwrap_or_default());
            let identity = Arc::clone(&self.identity);
            let admitted = tokio::task::spawn_blocking(move || identity.admit(&id))
                .await
                .unwrap_or_else(|error| Err(Objection::Io(io::Error::other(error))));
            let address = self.address.as_str().to_owned();
            admitted.map_err(|objection| match objection {
                Objection::Another(why) => EngineError::Another { address, why },
                Objection::Io(error) => EngineError::Other(error.into()),
            })?;
        }
        Ok(info.server_version)
    }

    async fn soon<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(GREETING_PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| self.explain(error)),
            Err(_) => Err(self.too_slow(GREETING_PATIENCE)),
        }
    }

    /// One question with one answer.
    pub(super) async fn call<T, F>(&self, ask: impl FnOnce(Docker) -> F) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let asked = async {
            let link = self.link().await?;
            ask(link).await.map_err(|error| self.explain(error))
        };
        let answer = match tokio::time::timeout(self.patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.too_slow(self.patience)),
        };
        if let Err(error) = &answer {
            self.failed(error);
        }
        answer
    }

    /// What an error of the library means.
    pub(super) fn explain(&self, error: Error) -> EngineError {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                EngineError::Refused { status: status_code, message: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => {
                EngineError::Refused { status: 500, message: error }
            }
            Error::SocketNotFoundError(_) => self.away("there is no such socket".to_owned()),
            Error::RequestTimeoutError => self.away("it takes too long".to_owned()),
            Error::HyperLegacyError { err } => self.away(chain(&err)),
            Error::HyperResponseError { err } => self.away(chain(&err)),
            Error::IOError { err } => self.away(chain(&err)),
            other => EngineError::Other(other),
        }
    }

    /// The answer ended before its time.
    pub(super) fn broken_off(&self) -> EngineError {
        self.away("it broke off".to_owned())
    }

    fn too_slow(&self, patience: Duration) -> EngineError {
        self.away(format!("it said nothing for {patience:?}"))
    }

    fn away(&self, why: String) -> EngineError {
        EngineError::Away { address: self.address.as_str().to_owned(), why }
    }

    /// What is known of an engine that is away may not be true of the one that comes back.
    fn failed(&self, error: &EngineError) {
        if !error.is_away() {
            return;
        }
        *lock(&self.link) = None;
        let mut ability = lock(&self.ability);
        if ability.problem.is_none() || ability.version.is_some() {
            tracing::warn!(%error, "Docker containers cannot be run");
        }
        ability.version = None;
        ability.problem = Some(error.to_string());
    }
}

/// Nothing panics while one is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sockets_or_plain_http() {
        for good in ["unix:///var/run/docker.sock", "http://127.0.0.1:2375", "http://[::1]:2375"] {
            assert_eq!(EngineAddress::parse(good).unwrap().as_str(), good);
        }
        for bad in
            ["", "/var/run/docker.sock", "unix://relative", "tcp://h:1", "http://h", "http://:1"]
        {
            let error = EngineAddress::parse(bad).unwrap_err();
            assert!(error.starts_with(&format!("`{bad}` is no address")), "{error}");
            assert!(error.contains("unix:///var/run/docker.sock"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_absent_engine_is_named_with_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Arc::new(Identity::open(dir.path()).unwrap());
        let address = EngineAddress::parse("unix:///nowhere/docker.sock").unwrap();
        let engine = Engine::new(address, identity);
        assert!(engine.ability().problem.unwrap().contains("not asked yet"));
        assert!(!engine.probe().await);
        let problem = engine.ability().problem.unwrap();
        assert!(problem.contains("does not answer at unix:///nowhere/docker.sock"), "{problem}");
        let error = engine.call(|d| async move { d.ping().await }).await.unwrap_err();
        assert!(error.is_away(), "{error}");
    }
}
