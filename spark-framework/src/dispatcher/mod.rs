//! `mezz spark dispatcher`: runs Spark's drivers as tasks on the cluster.
//!
//! Clients talk to it by Spark's own REST protocol ([`rest`](self), `/v1/submissions`),
//! so that a stock `spark-submit --deploy-mode cluster` reaches it, and by a few
//! addresses of our own (`/mezz/v1`), which [`Client`] knows. It is a framework of its
//! own: [`core`] decides which driver runs where, and everything it decides is in a
//! [`store`] before it is said or done.
//!
//! Several [`Dispatcher`]s may share a [store of keys](keyed), which only the one that
//! leads may write; the others pass on to it what they are asked. Who leads is not decided
//! here: `mezz` has the election.

mod client;
pub mod core;
mod files;
mod front;
pub mod job;
pub mod keyed;
mod metrics;
mod owner;
pub mod properties;
mod rest;
pub mod store;
mod submit;
mod view;

use std::path::PathBuf;

use mezz_sdk::{Credential, scheduler::OptionsError};
use thiserror::Error;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use client::{Client, ClientError, NewSubmission};
pub use submit::{ArgumentError, ClusterSubmit, dispatcher_of};
pub use view::DriverView;

use self::{
    core::CoreOptions,
    files::{Files, Limits},
    front::Front,
    owner::{Owner, Request},
    store::{StoreError, StoreOp, SubmissionStore},
};

/// Requests that wait for the core; more wait in their connections.
const MAX_REQUESTS: usize = 256;

/// What a dispatcher is told.
#[derive(Clone, Debug)]
pub struct DispatcherOptions {
    /// Its name among the frameworks.
    pub name: String,
    /// The user that drivers run as.
    pub user: String,
    /// Proves who it is to masters that ask; its drivers have their own.
    pub credential: Option<Credential>,
    /// Folder of uploaded files. Dispatchers with one store should have one folder, too.
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
    #[error("the submissions cannot be read or stored")]
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

/// A dispatcher's process, from its start to its end, however often it leads.
#[derive(Debug)]
pub struct Dispatcher {
    options: DispatcherOptions,
    front: Front,
}

impl Dispatcher {
    /// A standby that knows nobody yet.
    ///
    /// # Errors
    /// [`DispatcherError::Http`] when this machine has no means to ask others.
    pub fn new(options: DispatcherOptions) -> Result<Self, DispatcherError> {
        let front = Front::new(options.files.clone())?;
        Ok(Self { options, front })
    }

    /// From now on requests are passed on to the leader at this host:port, if there is
    /// one.
    pub fn stand_by(&self, leader: Option<String>) {
        self.front.stand_by(leader);
    }

    /// Leads until `over` is cancelled, or until the store says that another dispatcher
    /// leads. Drivers go on, for a week: whoever leads next finds them in the store.
    ///
    /// # Errors
    /// [`DispatcherError`].
    pub async fn lead(
        &self,
        store: impl SubmissionStore,
        over: CancellationToken,
    ) -> Result<(), DispatcherError> {
        let led = over.run_until_cancelled(self.begin(store)).await.transpose();
        let led = match led {
            Ok(Some((owner, inbox))) => owner.run(inbox, over).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.stand_by(None);
        match led {
            Err(DispatcherError::Store(error)) if error.is_anothers_turn() => {
                let error = mezz_proto::error::chain(&error);
                warn!(error, "this dispatcher leads no more");
                Ok(())
            }
            led => led,
        }
    }

    async fn begin<S: SubmissionStore>(
        &self,
        mut store: S,
    ) -> Result<(Owner<S>, mpsc::Receiver<Request>), DispatcherError> {
        let options = &self.options;
        let snapshot = store.load().await?;
        let key = match &snapshot.file_key {
            Some(key) => key.clone(),
            None => {
                let random = || uuid::Uuid::new_v4().simple().to_string();
                let key = random() + &random();
                store.apply(vec![StoreOp::FileKey(key.clone())]).await?;
                key
            }
        };
        let limits = Limits { file: options.max_file_bytes, all: options.max_files_bytes };
        let unkept = |source| DispatcherError::Files { folder: options.files.clone(), source };
        let files = Files::open(options.files.clone(), key, limits, store.is_shared())
            .await
            .map_err(unkept)?;
        let (requests, inbox) = mpsc::channel(MAX_REQUESTS);
        let address = options.core.address.clone();
        let owner = Owner::new(options.clone(), store, files.clone(), snapshot).map_err(unkept)?;
        self.front.lead(rest::routes(requests, files, address));
        Ok((owner, inbox))
    }

    /// Serves the socket until `work` is done.
    ///
    /// # Errors
    /// Those of `work`, and [`DispatcherError::Http`].
    pub async fn serve_while<E: From<DispatcherError>>(
        &self,
        listener: TcpListener,
        work: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let serving = axum::serve(listener, self.front.clone().router());
        tokio::select! {
            result = work => result,
            result = serving => Ok(result.map_err(DispatcherError::Http)?),
        }
    }
}

/// Runs a dispatcher that shares its store with nobody until `shutdown`.
///
/// # Errors
/// [`DispatcherError`].
pub async fn serve(
    options: DispatcherOptions,
    store: impl SubmissionStore,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), DispatcherError> {
    let dispatcher = Dispatcher::new(options)?;
    dispatcher.serve_while(listener, dispatcher.lead(store, shutdown)).await
}
