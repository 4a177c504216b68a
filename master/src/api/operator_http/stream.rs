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
        limits::{ANSWER_PIECE, RECORDS_PIECE, SUBSCRIBER_HEARTBEAT},
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
        answers::subscribed(&snapshot, form)
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
    if !begin(form, first, &writer).await {
        return;
    }
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

/// The first event, which may be as large as the state of the cluster and is not copied, and a
/// heartbeat. `false`: its reader has gone or is too slow.
async fn begin(form: Format, mut first: Bytes, writer: &Writer) -> bool {
    let head = recordio::head(first.len());
    let rest = first.split_off(first.len().min(ANSWER_PIECE - head.len()));
    let piece = [head.as_bytes(), &first].concat();
    drop(first);
    if !writer.write(&piece).await || !writer.write(&rest).await {
        return false;
    }
    drop(rest);
    writer.write(&beat(form)).await
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

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn the_first_event_comes_whole_however_long_it_is() {
        for length in [2, ANSWER_PIECE - 6, ANSWER_PIECE, 3 * ANSWER_PIECE + 5] {
            let state = Bytes::from((0..length).map(|n| n as u8).collect::<Vec<_>>());
            let (writer, body) = delivery::open();
            let read = tokio::spawn(to_bytes(body, usize::MAX));
            assert!(begin(Format::Json, state.clone(), &writer).await);
            drop(writer);
            let all = read.await.unwrap().unwrap();
            let wanted = [recordio::encode(&state), beat(Format::Json)].concat();
            assert!(all == wanted, "{length}");
        }
    }
}
