//! Over HTTP.

use std::{path::Path, time::Duration};

use reqwest::{Client, StatusCode, redirect::Policy};
use tokio::io::AsyncWriteExt as _;

use super::{FetchReason, file_error};

/// A server that does not answer the call for so long is given up.
const CONNECT: Duration = Duration::from_secs(30);

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;

/// A server that cannot be reached, breaks off, or fails is asked so often.
const TRIES: u32 = 3;

/// How long servers are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// One that sends nothing for so long is given up.
    pub(super) stall: Duration,
    /// Before the second try; each further one waits twice as long.
    pub(super) first_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { stall: Duration::from_secs(60), first_pause: Duration::from_secs(1) }
    }
}

/// Downloads. Proxies are those of the agent's environment, as reqwest reads it.
#[derive(Debug)]
pub(super) struct Downloader {
    client: Client,
    /// Why nothing can be fetched by https here, if so.
    no_tls: Option<String>,
    first_pause: Duration,
}

impl Downloader {
    /// Without certificates it works for http alone, and says so in the log.
    pub(super) fn new(patience: Patience) -> Result<Self, reqwest::Error> {
        // Fails where the process has one already, which then is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = |https: bool| {
            Client::builder()
                .redirect(redirects(https))
                .connect_timeout(CONNECT)
                .read_timeout(patience.stall)
                .user_agent(concat!("mezz/", env!("CARGO_PKG_VERSION")))
        };
        let (client, no_tls) = match builder(true).build() {
            Ok(client) => (client, None),
            Err(error) => {
                let why = super::chain(&error);
                tracing::warn!(
                    "https URIs cannot be fetched by this agent: {why}; install the machine's CA \
                     certificates (package ca-certificates), or name a file of them by \
                     SSL_CERT_FILE, and start the agent again"
                );
                // Trusts nobody, so that nothing passes unchecked whatever comes.
                (builder(false).tls_certs_only([]).build()?, Some(why))
            }
        };
        Ok(Self { client, no_tls, first_pause: patience.first_pause })
    }

    /// Into a new file, of at most `max` bytes.
    pub(super) async fn get(&self, url: &str, to: &Path, max: u64) -> Result<(), FetchReason> {
        let scheme = url.split(':').next().unwrap_or_default();
        if let Some(why) = &self.no_tls
            && scheme.eq_ignore_ascii_case("https")
        {
            return Err(FetchReason::NoCertificates(why.clone()));
        }
        let mut pause = self.first_pause;
        let mut tries = 1;
        loop {
            let reason = match self.once(url, to, max).await {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            };
            if !may_pass(&reason) {
                return Err(reason);
            }
            if tries == TRIES {
                return Err(FetchReason::Tried { tries, last: Box::new(reason) });
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
            match tokio::fs::remove_file(to).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(file_error("removing what came of the last try")(e));
                }
                _ => {}
            }
        }
    }

    async fn once(&self, url: &str, to: &Path, max: u64) -> Result<(), FetchReason> {
        let http = |e: reqwest::Error| FetchReason::Http(e.without_url());
        let mut response = self.client.get(url).send().await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchReason::Status(response.status()));
        }
        if response.content_length().is_some_and(|n| n > max) {
            return Err(FetchReason::TooLarge(max));
        }
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(to)
            .await
            .map_err(file_error("creating the file"))?;
        let mut left = max;
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            left = left.checked_sub(chunk.len() as u64).ok_or(FetchReason::TooLarge(max))?;
            file.write_all(&chunk).await.map_err(file_error("writing the file"))?;
        }
        file.flush().await.map_err(file_error("writing the file"))
    }
}

fn redirects(https: bool) -> Policy {
    Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
        } else if !https && attempt.url().scheme() == "https" {
            attempt.error("a redirect to https, for which this agent has no CA certificates")
        } else {
            attempt.follow()
        }
    })
}

/// Whether another try may help: the server's trouble or the network's, and no answer
/// to what was asked.
fn may_pass(reason: &FetchReason) -> bool {
    match reason {
        FetchReason::Http(error) => !error.is_redirect() && !error.is_builder(),
        FetchReason::Status(status) => status.is_server_error(),
        _ => false,
    }
}
