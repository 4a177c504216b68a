//! SUBSCRIBE: what there is, and from then on what changes (rule 81).

use std::sync::Arc;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use mezz_proto::{media::Format, recordio};
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
        limits::{RECORDS_PIECE, SUBSCRIBER_HEARTBEAT},
        stream::{Subscription, Told, heartbeat},
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
        let mut first = Vec::from(recordio::encode(&answers::subscribed(&snapshot, form)));
        first.extend_from_slice(&beat(form));
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
    loop {
        tokio::select! {
            next = subscription.next(TOGETHER) => match next {
                Some(events) if pass(form, &events, &writer).await => {}
                _ => return,
            },
            _ = beats.tick() => if !writer.write(&beat(form)).await { return },
            () = writer.closed() => return,
        }
    }
}

/// `false`: its reader has gone or is too slow.
async fn pass(form: Format, events: &[Arc<Told>], writer: &Writer) -> bool {
    let mut out = BytesMut::new();
    for told in events {
        let record = told.record(form);
        if out.len() + record.len() > RECORDS_PIECE {
            // A large one goes by itself, and is not copied.
            if !writer.write(&out).await {
                return false;
            }
            out.clear();
        }
        if record.len() > RECORDS_PIECE {
            if !writer.write(record).await {
                return false;
            }
        } else {
            out.extend_from_slice(record);
        }
    }
    writer.write(&out).await
}

fn beat(form: Format) -> Bytes {
    recordio::encode(&form.encode(&heartbeat()))
}
