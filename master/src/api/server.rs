//! One port for all of it.

use std::{collections::BTreeMap, sync::Arc};

use axum::Router;
use mezz_proto::{mezz::v1::operator_server::OperatorServer, time::Time};
use tonic::service::Routes;

use super::{
    agent_link, http,
    operator::OperatorService,
    operator_http,
    pages::{self, Pages},
    redirect, scheduler, scheduler_http,
};
use crate::shell::{
    clock::Clock, handle::CoreHandle, limits::MAX_OPERATOR_REQUEST_BYTES, metrics::Metrics,
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
    let pages = Pages::new(Arc::new(api));
    let api = &pages.api;
    let operator = OperatorServer::new(OperatorService {
        core: api.core.clone(),
        model: api.model.clone(),
        identity: api.identity.clone(),
        answers: pages.answers.clone(),
        quick: pages.quick.clone(),
    })
    .max_decoding_message_size(MAX_OPERATOR_REQUEST_BYTES);
    Routes::new(operator)
        .into_axum_router()
        .merge(scheduler::routes(api.core.clone()))
        .merge(scheduler_http::routes(api.core.clone()))
        .merge(redirect::routes(&api.identity.address))
        .merge(agent_link::routes(api.core.clone()))
        .merge(http::routes(pages.clone()))
        .merge(operator_http::routes(pages.clone()))
        .merge(pages::routes(pages.clone()))
        .fallback(http::not_found)
}
