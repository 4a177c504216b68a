//! One connection to all members of an etcd cluster.

use std::{future::Future, path::Path, time::Duration};

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};

use super::{Doing, EtcdError, EtcdOptions, Keys};

/// One request gets so long; a slow disk of etcd's takes a second now and then.
pub const ATTEMPT: Duration = Duration::from_secs(3);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds a member whose machine has gone without a word. etcd cuts off whoever pings
/// it more often than every 5 s, or while nothing is asked.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// A page of large records.
const MAX_ANSWER_BYTES: usize = 512 << 20;

/// A client that knows its place and keeps its password fresh. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
    place: String,
    keys: Keys,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Connects: without a user nothing is sent yet, with one etcd is asked for a token.
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
        let connecting = Client::connect(&options.endpoints, Some(connect));
        let client = within(&place, "connecting", connecting).await?;
        Ok(Self { client, place, keys: Keys::new(&options.prefix) })
    }

    /// Where it is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Where everything lies in it.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// One request, with a deadline. A token that has ended is renewed, and the
    /// request is made once more.
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
        match within(&self.place, doing, request(self.client.clone())).await {
            Err(EtcdError::TokenExpired { .. }) => {
                within(&self.place, doing, self.client.refresh_token()).await?;
                within(&self.place, doing, request(self.client.clone())).await
            }
            done => done,
        }
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
