//! What the agent serves, all on one port: gRPC for executors, operators and
//! frameworks, and a little HTTP.

mod about;
mod agent;
mod attach;
mod exec;
mod executor;
mod executor_http;
mod executors;
mod files;
mod gate;
mod http;
mod index;
mod operator;
mod pages;
mod refusal;
mod rooms;
mod roster;
mod sandboxes;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use mezz_proto::mezz::v1::{agent_server::AgentServer, executor_server::ExecutorServer};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    about::About,
    executor::Peer,
    executors::Executors,
    files::Reader,
    gate::Turn,
    index::{DiskUse, Index},
    pages::Pages,
    rooms::Rooms,
    roster::Roster,
};
use crate::{containerizer::Containerizer, metrics::Metrics, shell::Input};

/// Largest message that a peer may send, in bytes.
const MAX_MESSAGE: usize = mezz_proto::MAX_EXECUTOR_CALL_BYTES;

/// Where the paths of Mesos' agents are: by themselves, below the name of its process, and as
/// clients write that name which escape all that they may.
const PREFIXES: [&str; 3] = ["", "/slave(1)", "/slave%281%29"];

/// What requests are answered from.
pub(crate) struct Served {
    pub(crate) index: Arc<Index>,
    pub(crate) executors: Arc<Executors>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) about: About,
    pub(crate) pages: Pages,
    pub(crate) containerizer: Arc<dyn Containerizer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) work_dir: PathBuf,
    /// To the core.
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Events that may wait for one executor.
    pub(crate) executor_queue: usize,
    /// Executors that speak HTTP have to show their token, those on this machine too.
    pub(crate) authenticate_executors: bool,
    pub(crate) rooms: Rooms,
    pub(crate) stop: CancellationToken,
}

/// What is still being answered when the agent stops gets so long to end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Connections at the same time, or what the process has files for.
const CONNECTIONS: usize = 1 << 14;

/// Serves until `stop`. Connections are told to go then: executors and readers
/// come back to the next agent.
pub(crate) async fn serve(listener: TcpListener, served: Arc<Served>) {
    let connections = Arc::new(AtomicU64::new(0));
    let executors =
        ExecutorServer::new(executor::Service::new(Arc::clone(&served), Arc::clone(&connections)))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(usize::MAX);
    let agents = AgentServer::new(agent::Service::new(Arc::clone(&served)))
        .max_decoding_message_size(MAX_MESSAGE);
    let stop = served.stop.clone();
    let routes = tonic::service::Routes::new(executors)
        .add_service(agents)
        .into_axum_router()
        .merge(executor_http::routes(Arc::clone(&served), connections))
        .merge(pages::routes(Arc::clone(&served)))
        .merge(operator::routes(Arc::clone(&served)))
        .merge(http::routes(served))
        .fallback(http::not_found);
    let serving = mezz_http::serve(routes, listener, CONNECTIONS, stop.clone().cancelled_owned());
    let too_long = async {
        stop.cancelled().await;
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        () = serving => {}
        () = too_long => {}
    }
}
