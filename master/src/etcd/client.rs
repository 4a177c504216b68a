//! Requests to an etcd cluster, each with a deadline.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};

use super::{
    Doing, EtcdError, EtcdOptions, Keys,
    members::{Attempt, Members},
};

/// One request gets so long; a slow disk of etcd's takes a second now and then.
pub const ATTEMPT: Duration = Duration::from_secs(3);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds a member whose machine has gone without a word. etcd cuts off whoever pings
/// it more often than every 5 s, or while nothing is asked.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// A page of large records.
const MAX_ANSWER_BYTES: usize = 512 << 20;

/// All members of an etcd cluster, of which one is asked until it does not answer.
/// Cheap to clone; clones share the choice.
#[derive(Clone)]
pub struct Etcd {
    members: Arc<Members>,
    place: String,
    keys: Keys,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Connects: without a user nothing is sent yet, with one the members are asked for a
    /// token, until one of them gives it.
    ///
    /// # Errors
    /// [`EtcdError`]: TLS files, or what etcd says of the user.
    pub async fn connect(options: &EtcdOptions) -> Result<Self, EtcdError> {
        let place = options.place();
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(false)
            // A member that is cut off from the others must not answer.
            .with_require_leader(true);
        if let Some((user, password)) = &options.user {
            connect = connect.with_user(user, password.reveal());
        }
        if options.endpoints.iter().any(|e| e.starts_with("https://")) {
            connect = connect.with_tls(tls(options)?);
        }
        let members = Arc::new(Members::new(options.endpoints.clone(), connect));
        let etcd = Self { members, place, keys: Keys::new(&options.prefix) };
        let mut attempts = options.endpoints.len();
        loop {
            attempts = attempts.saturating_sub(1);
            let attempt = etcd.members.attempt();
            match etcd.connected(&attempt).await {
                // The next member, as the attempt is given up.
                Err(EtcdError::Unreachable { .. }) if attempts > 0 => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    attempt.answered();
                    return Ok(etcd);
                }
            }
        }
    }

    /// Where it is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Where everything lies in it.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// One request to one member, with a deadline. A token that has ended is renewed, and
    /// the request is made once more. After a member that does not answer, or that the
    /// caller does not wait for any longer, the next one is asked, over a new connection:
    /// whoever wants an answer tries again.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn ask<T, F>(
        &self,
        doing: Doing,
        mut request: impl FnMut(Client) -> F,
    ) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let attempt = self.members.attempt();
        let client = self.connected(&attempt).await?;
        let done = match within(&self.place, doing, request(client.clone())).await {
            Err(EtcdError::TokenExpired { .. }) => {
                within(&self.place, doing, client.refresh_token()).await?;
                within(&self.place, doing, request(client)).await
            }
            done => done,
        };
        if !matches!(done, Err(EtcdError::Unreachable { .. })) {
            attempt.answered();
        }
        done
    }

    async fn connected(&self, attempt: &Attempt<'_>) -> Result<Client, EtcdError> {
        within(&self.place, "connecting", attempt.client()).await
    }

    /// A client for answers that may be large.
    pub fn reader(client: &Client) -> etcd_client::KvClient {
        client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

async fn within<T>(
    place: &str,
    doing: Doing,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, EtcdError> {
    match tokio::time::timeout(ATTEMPT, request).await {
        Ok(done) => done.map_err(|error| EtcdError::new(place, doing, error)),
        Err(_) => Err(EtcdError::Unreachable { place: place.to_owned(), doing, source: None }),
    }
}

fn tls(options: &EtcdOptions) -> Result<TlsOptions, EtcdError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| EtcdError::File { path: path.to_owned(), source })
    };
    let mut tls = TlsOptions::new();
    tls = match &options.tls.ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    if let Some((certificate, key)) = &options.tls.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}
