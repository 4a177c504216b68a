//! What agents speak.

use std::future::ready;

use axum::{Router, routing::post};
use mezz_proto::{
    mezz::v1::{AgentMessage, MasterMessage},
    weight,
};

use super::stream::{Kind, open_stream};
use crate::{
    core::Event,
    shell::{
        dispatch::Peer,
        handle::{CoreHandle, Line},
        limits::{AGENT_OUTBOX_BYTES, MAX_AGENT_MESSAGE_BYTES},
    },
};

pub(super) static AGENTS: Kind<AgentMessage, MasterMessage> = Kind {
    largest: MAX_AGENT_MESSAGE_BYTES,
    outbox: AGENT_OUTBOX_BYTES,
    check: weight::check_of_agent,
    line: Line::Agents,
    to_peer: Peer::Agent,
    to_event: |connection, message| Event::AgentMessage { connection, message },
};

/// The gRPC service `AgentLink`.
pub fn routes(core: CoreHandle) -> Router {
    let connect = move |request| ready(open_stream(core.clone(), &AGENTS, request, |_| Ok(())));
    Router::new().route("/mezz.v1.AgentLink/Connect", post(connect))
}
