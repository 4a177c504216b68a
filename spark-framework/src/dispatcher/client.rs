//! A client of a dispatcher.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_util::io::ReaderStream;

use super::{DriverView, files};

/// A dispatcher that does not take the connection within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A dispatcher that sends nothing for so long is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// While dispatchers are there and none of them leads, they are asked again for so long:
/// twice the default of their lease.
const NOBODY_LEADS: Duration = Duration::from_secs(20);

/// Between those attempts.
const AGAIN: Duration = Duration::from_millis(500);

/// Why a dispatcher could not be asked, or refused.
#[derive(Debug, Error)]
pub enum ClientError {
    /// It cannot be reached.
    #[error(
        "cannot reach a dispatcher at {address} ({why})\nIs it running? Start one with `mezz spark \
         dispatcher`; say where another one is with --dispatcher HOST:PORT or MEZZ_DISPATCHER."
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What the machine said.
        why: String,
    },
    /// It refuses.
    #[error("the dispatcher refuses: {0}")]
    Refused(String),
    /// Several are there, and none of them leads.
    #[error("the dispatcher at {address} cannot do it now: {why}")]
    NobodyLeads {
        /// Which said so.
        address: String,
        /// In its words.
        why: String,
    },
    /// It may have been done, or not.
    #[error("the dispatcher at {address} was lost while it was asked: {why}")]
    Unknown {
        /// Which was asked.
        address: String,
        /// In its words.
        why: String,
    },
    /// What was uploaded is not there any more.
    #[error("the dispatcher refuses: {0}")]
    FilesGone(String),
    /// What answers is none.
    #[error("what answers at {address} is no dispatcher of this version of mezz: {why}")]
    NoDispatcher {
        /// Where.
        address: String,
        /// What is wrong with its answer.
        why: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Asks a dispatcher, or one of several that share their store.
#[derive(Debug)]
pub struct Client {
    addresses: Vec<String>,
    /// Index of the one that answered last.
    last: AtomicUsize,
    http: reqwest::Client,
}

/// What came of a request to one of them.
enum Failure {
    /// Another one may do it: it was not done here, or may be done again.
    Elsewhere(ClientError),
    /// Soon another one may lead.
    Soon(ClientError),
    Last(ClientError),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    #[serde(rename = "submissionId")]
    submission_id: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct List {
    submissions: Vec<DriverView>,
}

#[derive(Deserialize)]
struct Uploaded {
    url: String,
}

/// What is to be submitted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewSubmission {
    /// The jar or script.
    pub resource: String,
    /// The class with `main`, for a jar.
    pub main_class: Option<String>,
    /// The application's arguments.
    pub args: Vec<String>,
    /// Its settings.
    pub properties: BTreeMap<String, String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Addresses of what was uploaded for it.
    pub uploaded: Vec<String>,
}

impl Client {
    /// Of the dispatchers at these host:port, at least one. Connects when it is asked.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when this machine has no means to.
    pub fn new(addresses: &[String]) -> Result<Self, ClientError> {
        // Fails where the process has one already, which then is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .no_proxy()
            // Plain HTTP: no certificates are needed, and none are looked for.
            .tls_certs_only([])
            .user_agent(concat!("mezz/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unreachable(&addresses.join(","), &error))?;
        Ok(Self { addresses: addresses.to_vec(), last: AtomicUsize::new(0), http })
    }

    /// Submits a driver; returns its id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn submit(&self, new: &NewSubmission) -> Result<String, ClientError> {
        let body = json!({
            "action": "CreateSubmissionRequest",
            "appResource": new.resource,
            "mainClass": new.main_class.clone().unwrap_or_default(),
            "appArgs": new.args,
            "sparkProperties": new.properties,
            "environmentVariables": new.environment,
            "clientSparkVersion": concat!("mezz-", env!("CARGO_PKG_VERSION")),
            "uploadedFiles": new.uploaded,
        });
        let body = body.to_string();
        let create = async |at: &str| {
            let request = self.request(at, Method::POST, "/v1/submissions/create");
            Ok(request.header("content-type", "application/json").body(body.clone()))
        };
        let answer: Answer = self.ask(create).await?;
        match answer.submission_id.filter(|_| answer.success) {
            Some(id) => Ok(id),
            None => Err(ClientError::Refused(answer.message.unwrap_or_default())),
        }
    }

    /// One driver.
    ///
    /// # Errors
    /// [`ClientError`]; also when there is none of this id.
    pub async fn get(&self, id: &str) -> Result<DriverView, ClientError> {
        let path = format!("/mezz/v1/submissions/{id}");
        self.ask(async |at: &str| Ok(self.request(at, Method::GET, &path))).await
    }

    /// All drivers, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self) -> Result<Vec<DriverView>, ClientError> {
        let path = "/mezz/v1/submissions";
        let list: List = self.ask(async |at: &str| Ok(self.request(at, Method::GET, path))).await?;
        Ok(list.submissions)
    }

    /// Ends a driver, or takes it from the queue; returns what the dispatcher says
    /// about it.
    ///
    /// # Errors
    /// [`ClientError`]; also when it has ended, or there is none of this id.
    pub async fn kill(&self, id: &str) -> Result<String, ClientError> {
        let path = format!("/v1/submissions/kill/{id}");
        let answer: Answer =
            self.ask(async |at: &str| Ok(self.request(at, Method::POST, &path))).await?;
        let message = answer.message.unwrap_or_default();
        if answer.success { Ok(message) } else { Err(ClientError::Refused(message)) }
    }

    /// Uploads a file; returns the address by which agents fetch it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload(&self, path: &Path) -> Result<String, ClientError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
        let name: String = name.chars().map(plain).collect();
        let put = async |at: &str| {
            let unread = |source| ClientError::File { path: path.display().to_string(), source };
            let file = tokio::fs::File::open(path).await.map_err(unread)?;
            let length = file.metadata().await.map_err(unread)?.len();
            Ok(self
                .request(at, Method::PUT, &format!("{}/{name}", files::PATH))
                .header("content-length", length)
                .body(reqwest::Body::wrap_stream(ReaderStream::new(file))))
        };
        let uploaded: Uploaded = self.ask(put).await?;
        Ok(uploaded.url)
    }

    fn request(&self, address: &str, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{address}{path}"))
    }

    /// Asks one after the other, the one that answered last first; all again while some
    /// are there and none leads.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: impl AsyncFn(&str) -> Result<RequestBuilder, ClientError>,
    ) -> Result<T, ClientError> {
        let end = Instant::now() + NOBODY_LEADS;
        let first = self.last.load(Ordering::Relaxed);
        loop {
            let (mut soon, mut elsewhere) = (None, None);
            for n in 0..self.addresses.len() {
                let at = (first + n) % self.addresses.len();
                let address = &self.addresses[at];
                match self.ask_at(address, request(address).await?).await {
                    Ok(answer) => {
                        self.last.store(at, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(Failure::Last(error)) => return Err(error),
                    Err(Failure::Soon(error)) => soon = Some(error),
                    Err(Failure::Elsewhere(error)) => elsewhere = Some(error),
                }
            }
            match soon {
                Some(_) if Instant::now() < end => sleep(AGAIN).await,
                _ => {
                    let all = || ClientError::Unreachable {
                        address: self.addresses.join(","),
                        why: "no address is given".to_owned(),
                    };
                    return Err(soon.or(elsewhere).unwrap_or_else(all));
                }
            }
        }
    }

    async fn ask_at<T: DeserializeOwned>(
        &self,
        address: &str,
        request: RequestBuilder,
    ) -> Result<T, Failure> {
        let (http, request) = request.build_split();
        let request = request.map_err(|error| Failure::Last(unreachable(address, &error)))?;
        // What is done twice has the same end, but for a submission.
        let again = request.method().is_idempotent();
        let lost = |error: reqwest::Error| {
            let elsewhere = again || error.is_connect();
            let error = unreachable(address, &error);
            if elsewhere { Failure::Elsewhere(error) } else { Failure::Last(error) }
        };
        let response = http.execute(request).await.map_err(lost)?;
        let status = response.status();
        let body = response.bytes().await.map_err(lost)?;
        let no_dispatcher = |why: String| {
            Failure::Last(ClientError::NoDispatcher { address: address.to_owned(), why })
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| no_dispatcher(error.to_string()));
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
            return Err(no_dispatcher(format!("it answers with status {status}")));
        };
        let why = answer.message.unwrap_or_default();
        Err(match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                Failure::Soon(ClientError::NobodyLeads { address: address.to_owned(), why })
            }
            StatusCode::BAD_GATEWAY if again => {
                Failure::Soon(ClientError::NobodyLeads { address: address.to_owned(), why })
            }
            StatusCode::BAD_GATEWAY => {
                Failure::Last(ClientError::Unknown { address: address.to_owned(), why })
            }
            StatusCode::GONE => Failure::Last(ClientError::FilesGone(why)),
            _ => Failure::Last(ClientError::Refused(why)),
        })
    }
}

fn unreachable(address: &str, error: &reqwest::Error) -> ClientError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    ClientError::Unreachable { address: address.to_owned(), why: cause.to_string() }
}
