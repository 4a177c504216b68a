//! What frameworks speak.

use std::future::ready;

use axum::{Router, routing::post};
use mezz_proto::{
    v1::scheduler::{Call, Event as SchedulerEvent},
    weight,
};

use super::stream::{Kind, open_stream};
use crate::{
    core::Event,
    shell::{
        dispatch::Peer,
        handle::{CoreHandle, Line},
        limits::{MAX_CALL_BYTES, SCHEDULER_OUTBOX_BYTES},
    },
};

pub(super) static FRAMEWORKS: Kind<Call, SchedulerEvent> = Kind {
    largest: MAX_CALL_BYTES,
    outbox: SCHEDULER_OUTBOX_BYTES,
    check: weight::check::<Call>,
    line: Line::Frameworks,
    to_peer: Peer::Scheduler,
    to_event: |connection, call| Event::SchedulerCall { connection, call },
};

/// The gRPC service `Scheduler`.
pub fn routes(core: CoreHandle) -> Router {
    let subscribe = move |request| ready(open_stream(core.clone(), &FRAMEWORKS, request));
    Router::new().route("/mezz.v1.Scheduler/Subscribe", post(subscribe))
}
