//! One port for all of it.

use std::{collections::BTreeMap, future::Future, io, sync::Arc};

use axum::Router;
use futures_util::{Stream, stream};
use mezz_proto::{mezz::v1::operator_server::OperatorServer, time::Time};
use tokio::net::{TcpListener, TcpStream};
use tonic::{
    service::Routes,
    transport::{Error, Server},
};
use tracing::{debug, warn};

use super::{
    Front, agent_link, http,
    operator::OperatorService,
    operator_http,
    pages::{self, Pages},
    redirect, scheduler, scheduler_http,
};
use crate::shell::{
    clock::Clock,
    handle::CoreHandle,
    limits::{
        ACCEPT_PAUSE, CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_HEADER_BYTES,
        MAX_OPERATOR_REQUEST_BYTES, STREAM_WINDOW, STREAMS_PER_CONNECTION, UNREAD_TIMEOUT,
    },
    metrics::Metrics,
    read_model::ReadModel,
};

/// Who this master is.
#[derive(Debug)]
pub struct Identity {
    /// A UUID, new at each start.
    pub id: String,
    /// host:port that peers are told.
    pub address: String,
    /// Of the program.
    pub version: &'static str,
    /// Name of the cluster, for people.
    pub cluster: Option<String>,
    /// Since when it runs.
    pub clock: Clock,
    /// Its settings as Mesos names them, for people; no secrets.
    pub flags: BTreeMap<String, String>,
}

/// What the services and pages need.
#[derive(Debug)]
pub struct Api {
    /// The way to the core.
    pub core: CoreHandle,
    /// For lists.
    pub model: Arc<ReadModel>,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Who this master is.
    pub identity: Arc<Identity>,
    /// Since when it leads.
    pub elected: Time,
}

/// The services and pages of a master that leads.
pub fn leader_routes(api: Api) -> Router {
    let operator = OperatorServer::new(OperatorService {
        core: api.core.clone(),
        model: api.model.clone(),
        identity: api.identity.clone(),
    })
    .max_decoding_message_size(MAX_OPERATOR_REQUEST_BYTES);
    Routes::new(operator)
        .into_axum_router()
        .merge(scheduler::routes(api.core.clone()))
        .merge(scheduler_http::routes(api.core.clone()))
        .merge(redirect::routes(&api.identity.address))
        .merge(agent_link::routes(api.core.clone()))
        .merge(pages_and_calls(Arc::new(api)))
        .fallback(http::not_found)
}

fn pages_and_calls(api: Arc<Api>) -> Router {
    let pages = Pages::new(api.clone());
    http::routes(api).merge(operator_http::routes(pages.clone())).merge(pages::routes(pages))
}

/// Serves until `stop` resolves and every connection has ended.
///
/// # Errors
/// tonic's, when it cannot serve at all.
pub async fn serve_api(
    front: Front,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(Routes::from(front.router()))
        .serve_with_incoming_shutdown(accept(listener), stop)
        .await
}

/// Accepts for ever; a failure is logged, and the next attempt waits a moment.
fn accept(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%peer, %error, "cannot set TCP_NODELAY");
                    }
                    let unread = u32::try_from(UNREAD_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
                    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, unread)
                    {
                        debug!(%peer, %error, "cannot set TCP_USER_TIMEOUT");
                    }
                    return Some((Ok(stream), listener));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}
