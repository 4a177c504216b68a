//! SUBSCRIBE: what there is, and from then on what changes (rule 81).

use std::sync::Arc;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use mezz_proto::{
    media::Format,
    recordio,
    v1::master::{Event, event},
};
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::answers;
use crate::{
    api::{
        delivery::{self, Writer},
        pages::{Pages, answers::NoPage, unavailable},
    },
    shell::{
        limits::SUBSCRIBER_HEARTBEAT,
        stream::{Subscription, heartbeat},
    },
};

/// Events that are written together at most.
const TOGETHER: usize = 64;

pub(super) async fn subscribe(pages: &Arc<Pages>, form: Format) -> Response {
    let model = pages.api.model.clone();
    let (told, joined) = oneshot::channel();
    let make = move || {
        let (snapshot, subscription) = model.subscribe();
        // Whoever asked may have given up.
        let _ = told.send(subscription);
        let subscribed = Event {
            r#type: Some(event::Type::Subscribed as i32),
            subscribed: Some(event::Subscribed {
                get_state: Some(answers::state(&snapshot)),
                heartbeat_interval_seconds: Some(SUBSCRIBER_HEARTBEAT.as_secs_f64()),
            }),
            ..Default::default()
        };
        let mut first = Vec::from(record(form, &subscribed));
        first.extend_from_slice(&record(form, &heartbeat()));
        first
    };
    let first = match pages.answers.page(make).await {
        Ok(first) => first,
        Err(error) => return unavailable(&error),
    };
    let Ok(subscription) = joined.await else { return unavailable(&NoPage::Busy) };
    let (writer, body) = delivery::open();
    tokio::spawn(follow(form, first, subscription, writer));
    ([(header::CONTENT_TYPE, form.name())], body).into_response()
}

/// Until the subscription is cut, or its reader has gone or reads too slowly. A task of its
/// own, for a body behind a closed window is not asked for anything: what waits for it is
/// dropped all the same.
async fn follow(form: Format, first: Bytes, mut subscription: Subscription, writer: Writer) {
    if !writer.write(&first).await {
        return;
    }
    drop(first);
    let mut beats = interval_at(Instant::now() + SUBSCRIBER_HEARTBEAT, SUBSCRIBER_HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events = Vec::new();
    loop {
        let mut out = BytesMut::new();
        tokio::select! {
            came = subscription.events.recv_many(&mut events, TOGETHER) => {
                if came == 0 {
                    return;
                }
                for event in events.drain(..) {
                    out.extend_from_slice(&record(form, &event));
                }
            }
            _ = beats.tick() => out.extend_from_slice(&record(form, &heartbeat())),
            () = writer.closed() => return,
        }
        if !writer.write(&out).await {
            return;
        }
    }
}

fn record(form: Format, event: &Event) -> Bytes {
    recordio::encode(&form.encode(event))
}
