use std::{sync::Arc, time::Duration};

use futures_util::stream;
use mezz_proto::v1::scheduler::{Call, call::Type};
use tokio::sync::Notify;

use super::*;
use crate::shell::limits::{MAX_CALL_BYTES as LIMIT, ROOM_TIMEOUT};

fn bodies() -> Bodies {
    Bodies::new(1024, 2 * LIMIT / 1024)
}

fn call() -> Body {
    Body::from(r#"{"type":"REVIVE"}"#)
}

/// A body without a length, that brings so many bytes and then waits for the other part.
fn halves(first: usize, go: &Arc<Notify>, second: usize) -> Body {
    let piece = |bytes| Ok::<_, std::io::Error>(vec![b' '; bytes]);
    let go = go.clone();
    let rest = stream::once(async move {
        go.notified().await;
        piece(second)
    });
    Body::from_stream(stream::iter([piece(first)]).chain(rest))
}

fn unfinished(bytes: usize) -> Body {
    halves(bytes, &Arc::default(), 0)
}

async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

fn begin(bodies: &Bodies, body: Body) -> tokio::task::JoinHandle<Result<usize, Refusal>> {
    let bodies = bodies.clone();
    tokio::spawn(async move { collect(&bodies, body, LIMIT).await.map(|(bytes, _)| bytes.len()) })
}

#[tokio::test(start_paused = true)]
async fn large_bodies_that_do_not_come_keep_no_call_out() {
    let bodies = bodies();
    let stalled: Vec<_> = (0..10).map(|_| begin(&bodies, unfinished(LIMIT - 1))).collect();
    settle().await;
    for _ in 0..1_000 {
        let read = read::<Call>(&bodies, call(), LIMIT, Format::Json);
        let (call, room) = timeout(BODY_PACE / 2, read).await.expect("it waits").unwrap();
        assert_eq!((call.r#type(), room.num_permits()), (Type::Revive, 4));
    }
    // And they do not last; some never found room.
    for task in stalled {
        let error = task.await.unwrap().unwrap_err();
        let late = [StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE];
        assert!(late.contains(&error.0), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn large_bodies_do_not_wait_for_each_other() {
    let bodies = bodies();
    let go = Arc::new(Notify::new());
    let all: Vec<_> = (0..6).map(|_| begin(&bodies, halves(LIMIT - 1, &go, 1))).collect();
    while all.iter().any(|task| !task.is_finished()) {
        settle().await;
        go.notify_waiters();
    }
    for task in all {
        assert_eq!(task.await.unwrap().unwrap(), LIMIT);
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_is_told_to_come_again() {
    let bodies = bodies();
    let kept = [bodies.room(LIMIT).await.unwrap(), bodies.room(LIMIT).await.unwrap()];
    let began = Instant::now();
    let error = begin(&bodies, Body::from(vec![0; LIMIT])).await.unwrap().unwrap_err();
    assert_eq!(error.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(began.elapsed().as_secs(), ROOM_TIMEOUT.as_secs());
    // The time of waiting is not the client's, who may be as slow as ever.
    let go = Arc::new(Notify::new());
    let slow = begin(&bodies, halves(SMALL_BODY_BYTES + 1, &go, 7));
    tokio::time::sleep(ROOM_TIMEOUT - Duration::from_secs(1)).await;
    drop(kept);
    tokio::time::sleep(BODY_PACE - Duration::from_secs(1)).await;
    go.notify_waiters();
    assert_eq!(slow.await.unwrap().unwrap(), SMALL_BODY_BYTES + 8);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_given_up() {
    let bodies = bodies();
    let piece = |wait: Duration, bytes: usize| {
        Body::from_stream(stream::repeat(()).then(move |()| async move {
            tokio::time::sleep(wait).await;
            Ok::<_, std::io::Error>(vec![b' '; bytes])
        }))
    };
    for (body, lasts) in [
        (piece(Duration::from_secs(1), 10), BODY_PACE),
        (piece(BODY_PACE / 2, SMALL_BODY_BYTES), BODY_TIMEOUT),
    ] {
        let began = Instant::now();
        let error = begin(&bodies, body).await.unwrap().unwrap_err();
        assert_eq!(error.0, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(began.elapsed().as_secs(), lasts.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_read_for_a_while() {
    let bodies = bodies();
    let error = begin(&bodies, Body::from(vec![0; LIMIT + 1])).await.unwrap().unwrap_err();
    assert_eq!(error.0, StatusCode::PAYLOAD_TOO_LARGE);
    let go = Arc::new(Notify::new());
    let refused = begin(&bodies, halves(LIMIT + 1, &go, 10));
    settle().await;
    assert!(!refused.is_finished(), "the client still writes");
    go.notify_waiters();
    assert_eq!(refused.await.unwrap().unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
    // It held nothing meanwhile, and not for ever.
    let began = Instant::now();
    begin(&bodies, unfinished(LIMIT + 1)).await.unwrap().unwrap_err();
    assert_eq!(began.elapsed().as_secs(), DISCARD_TIMEOUT.as_secs());
}
