//! What frameworks speak.

use std::future::ready;

use axum::{Router, extract::Request, routing::post};
use mezz_proto::{
    v1::scheduler::{Call, Event as SchedulerEvent},
    weight,
};

use super::{
    door,
    stream::{Kind, open_stream},
};
use crate::{
    core::{CallError, Event, claim},
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

/// Its only method, to which [`door`] lets only those who prove who they are.
pub const PATH: &str = "/mezz.v1.Scheduler/Subscribe";

/// The gRPC service `Scheduler`.
pub fn routes(core: CoreHandle) -> Router {
    let subscribe = move |request: Request| {
        let principal = door::principal(&request);
        let admit =
            move |call: &mut Call| claim(call, principal.as_deref()).map_err(CallError::Invalid);
        ready(open_stream(core.clone(), &FRAMEWORKS, request, admit))
    };
    Router::new().route(PATH, post(subscribe))
}
