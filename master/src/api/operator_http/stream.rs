//! SUBSCRIBE: what there is, and from then on what changes (rule 81).

use std::sync::Arc;

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use mezz_proto::{
    media::Format,
    recordio,
    v1::master::{Event, event},
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::answers;
use crate::{
    api::pages::{Pages, unavailable},
    shell::{
        limits::SUBSCRIBER_HEARTBEAT,
        stream::{Subscription, heartbeat},
    },
};

/// Events that are written together at most.
const TOGETHER: usize = 64;

/// Where a stream stands.
struct Open {
    form: Format,
    /// SUBSCRIBED and the first HEARTBEAT, until they are sent.
    first: Option<Bytes>,
    subscription: Subscription,
    beats: Interval,
}

pub(super) async fn subscribe(pages: &Arc<Pages>, form: Format) -> Response {
    let model = pages.api.model.clone();
    let joined = pages.answers.make(move || {
        let (snapshot, subscription) = model.subscribe();
        let subscribed = Event {
            r#type: Some(event::Type::Subscribed as i32),
            subscribed: Some(event::Subscribed {
                get_state: Some(answers::state(&snapshot)),
                heartbeat_interval_seconds: Some(SUBSCRIBER_HEARTBEAT.as_secs_f64()),
            }),
            ..Default::default()
        };
        let mut first = BytesMut::from(record(form, &subscribed));
        first.extend_from_slice(&record(form, &heartbeat()));
        (first.freeze(), subscription)
    });
    let (first, subscription) = match joined.await {
        Ok(joined) => joined,
        Err(error) => return unavailable(&error),
    };
    let mut beats = interval_at(Instant::now() + SUBSCRIBER_HEARTBEAT, SUBSCRIBER_HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = Open { form, first: Some(first), subscription, beats };
    let records = stream::unfold(open, |mut open| async move {
        let piece = next(&mut open).await?;
        Some((Ok::<_, std::convert::Infallible>(piece), open))
    });
    ([(header::CONTENT_TYPE, form.name())], Body::from_stream(records)).into_response()
}

/// `None`: the stream has ended.
async fn next(open: &mut Open) -> Option<Bytes> {
    if let Some(first) = open.first.take() {
        return Some(first);
    }
    let mut events = Vec::new();
    tokio::select! {
        came = open.subscription.events.recv_many(&mut events, TOGETHER) => {
            if came == 0 {
                return None;
            }
            let mut out = BytesMut::new();
            for event in events {
                out.extend_from_slice(&record(open.form, &event));
            }
            Some(out.freeze())
        }
        _ = open.beats.tick() => Some(record(open.form, &heartbeat())),
    }
}

fn record(form: Format, event: &Event) -> Bytes {
    recordio::encode(&form.encode(event))
}
