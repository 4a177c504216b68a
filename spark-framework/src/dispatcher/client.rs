//! A client of a dispatcher.

use std::{collections::BTreeMap, path::Path, time::Duration};

use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use thiserror::Error;
use tokio_util::io::ReaderStream;

use super::{DriverView, files};

/// A dispatcher that does not take the connection within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A dispatcher that sends nothing for so long is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Asks one dispatcher.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    http: reqwest::Client,
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
}

impl Client {
    /// Of the dispatcher at this host:port. Connects when it is asked.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when this machine has no means to.
    pub fn new(address: &str) -> Result<Self, ClientError> {
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
            .map_err(|error| unreachable(address, &error))?;
        Ok(Self { address: address.to_owned(), http })
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
        });
        let request = self
            .request(Method::POST, "/v1/submissions/create")
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer: Answer = self.ask(request).await?;
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
        self.ask(self.request(Method::GET, &format!("/mezz/v1/submissions/{id}"))).await
    }

    /// All drivers, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self) -> Result<Vec<DriverView>, ClientError> {
        let list: List = self.ask(self.request(Method::GET, "/mezz/v1/submissions")).await?;
        Ok(list.submissions)
    }

    /// Ends a driver, or takes it from the queue; returns what the dispatcher says
    /// about it.
    ///
    /// # Errors
    /// [`ClientError`]; also when it has ended, or there is none of this id.
    pub async fn kill(&self, id: &str) -> Result<String, ClientError> {
        let request = self.request(Method::POST, &format!("/v1/submissions/kill/{id}"));
        let answer: Answer = self.ask(request).await?;
        let message = answer.message.unwrap_or_default();
        if answer.success { Ok(message) } else { Err(ClientError::Refused(message)) }
    }

    /// Uploads a file; returns the address by which agents fetch it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload(&self, path: &Path) -> Result<String, ClientError> {
        let unread = |source| ClientError::File { path: path.display().to_string(), source };
        let file = tokio::fs::File::open(path).await.map_err(unread)?;
        let length = file.metadata().await.map_err(unread)?.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
        let name: String = name.chars().map(plain).collect();
        let request = self
            .request(Method::PUT, &format!("{}/{name}", files::PATH))
            .header("content-length", length)
            .body(reqwest::Body::wrap_stream(ReaderStream::new(file)));
        let uploaded: Uploaded = self.ask(request).await?;
        Ok(uploaded.url)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = request.send().await.map_err(|error| unreachable(&self.address, &error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| unreachable(&self.address, &error))?;
        let no_dispatcher =
            |why: String| ClientError::NoDispatcher { address: self.address.clone(), why };
        if !status.is_success() {
            return Err(match serde_json::from_slice::<Answer>(&body) {
                Ok(answer) => ClientError::Refused(answer.message.unwrap_or_default()),
                Err(_) => no_dispatcher(format!("it answers with status {status}")),
            });
        }
        serde_json::from_slice(&body).map_err(|error| no_dispatcher(error.to_string()))
    }
}

fn unreachable(address: &str, error: &reqwest::Error) -> ClientError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    ClientError::Unreachable { address: address.to_owned(), why: cause.to_string() }
}
