//! `mezz spark dispatcher`: runs Spark's drivers as tasks on the cluster.
//!
//! Clients talk to it by Spark's own REST protocol ([`rest`](self), `/v1/submissions`),
//! so that a stock `spark-submit --deploy-mode cluster` reaches it, and by a few
//! addresses of our own (`/mezz/v1`), which [`Client`] knows. It is a framework of its
//! own: [`core`] decides which driver runs where, and everything it decides is in a
//! [`store`] before it is said or done.

mod client;
pub mod core;
mod files;
pub mod job;
mod owner;
pub mod properties;
mod rest;
pub mod store;
mod submit;
mod view;

use std::path::PathBuf;

use mezz_sdk::scheduler::OptionsError;
use thiserror::Error;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

pub use client::{Client, ClientError, NewSubmission};
pub use submit::{ArgumentError, ClusterSubmit, dispatcher_of};
pub use view::DriverView;

use self::{
    core::CoreOptions,
    files::{Files, Limits},
    owner::Owner,
    store::{StoreError, StoreOp, SubmissionStore},
};

/// Requests that wait for the core; more wait in their connections.
const MAX_REQUESTS: usize = 256;

/// What a dispatcher is told.
#[derive(Clone, Debug)]
pub struct DispatcherOptions {
    /// host:port by which agents and clients reach it.
    pub address: String,
    /// Its name among the frameworks.
    pub name: String,
    /// The user that drivers run as.
    pub user: String,
    /// Folder of uploaded files.
    pub files: PathBuf,
    /// Largest file that is taken, in bytes.
    pub max_file_bytes: u64,
    /// Bytes of all uploaded files together.
    pub max_files_bytes: u64,
    /// Of drivers and their queue.
    pub core: CoreOptions,
}

/// Why a dispatcher ended early.
#[derive(Debug, Error)]
pub enum DispatcherError {
    /// The store failed; what was decided since is not done.
    #[error("the submissions cannot be stored")]
    Store(#[from] StoreError),
    /// Uploaded files cannot be kept.
    #[error("{}: uploaded files cannot be kept there", folder.display())]
    Files {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An option of the scheduler driver makes no sense.
    #[error("the masters")]
    Options(#[from] OptionsError),
    /// The master will have no more of it.
    #[error("the master refuses the dispatcher: {0}")]
    Refused(String),
    /// The listener failed.
    #[error("the HTTP server")]
    Http(#[source] std::io::Error),
}

/// Runs a dispatcher until `shutdown`. Its drivers go on then, for a week: it finds
/// them again when it is started with the same store.
///
/// # Errors
/// [`DispatcherError`].
pub async fn serve(
    options: DispatcherOptions,
    mut store: impl SubmissionStore,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), DispatcherError> {
    let snapshot = store.load().await?;
    let key = match &snapshot.file_key {
        Some(key) => key.clone(),
        None => {
            let key = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
            store.apply(vec![StoreOp::FileKey(key.clone())]).await?;
            key
        }
    };
    let limits = Limits { file: options.max_file_bytes, all: options.max_files_bytes };
    let files = Files::open(options.files.clone(), key, limits)
        .await
        .map_err(|source| DispatcherError::Files { folder: options.files.clone(), source })?;
    let (requests, inbox) = mpsc::channel(MAX_REQUESTS);
    let routes = rest::routes(requests, files.clone(), options.address.clone());
    let serving = axum::serve(listener, routes);
    let owner = Owner::new(options, store, files, snapshot);
    tokio::select! {
        result = owner.run(inbox, shutdown) => result,
        result = serving => result.map_err(DispatcherError::Http),
    }
}
