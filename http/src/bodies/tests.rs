use axum::http::StatusCode;
use futures_util::stream;
use mezz_proto::v1::scheduler::{Call, call::Type};
use tokio::sync::Notify;

use super::*;

const LIMIT: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(15);

fn bodies() -> Bodies {
    Bodies::new(Settings { small_kib: 1024, large_kib: 2 * LIMIT / 1024, patience: PATIENCE })
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
    tokio::spawn(async move {
        bodies.collect(body, LIMIT).await.map(|(bytes, _)| bytes.len()).map_err(Refusal::from)
    })
}

async fn calls_pass(bodies: &Bodies) {
    for _ in 0..1_000 {
        let read = bodies.read::<Call>(call(), Format::Json, LIMIT);
        let (call, room) = timeout(BODY_PACE / 2, read).await.expect("it waits").unwrap();
        assert_eq!((call.r#type(), room.num_permits()), (Type::Revive, 4));
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_do_not_come_keep_no_call_out() {
    let bodies = bodies();
    let mut stalled: Vec<_> = (0..10).map(|_| begin(&bodies, unfinished(LIMIT - 1))).collect();
    // Small ones count as what has come of them.
    stalled.extend((0..200).map(|_| begin(&bodies, unfinished(100))));
    // Those that wait for the room of large ones hold none of small ones.
    stalled.extend((0..100).map(|_| begin(&bodies, unfinished(SMALL_BODY_BYTES + 1))));
    settle().await;
    calls_pass(&bodies).await;
    // And they do not last; some never found room.
    for task in stalled {
        let error = task.await.unwrap().unwrap_err();
        let late = [StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE];
        assert!(late.contains(&error.status()), "{error:?}");
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
    assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    // The time of waiting is not the client's, who may be as slow as ever.
    let go = Arc::new(Notify::new());
    let slow = begin(&bodies, halves(SMALL_BODY_BYTES + 1, &go, 7));
    tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
    drop(kept);
    tokio::time::sleep(BODY_PACE - Duration::from_secs(1)).await;
    go.notify_waiters();
    assert_eq!(slow.await.unwrap().unwrap(), SMALL_BODY_BYTES + 8);
}

#[tokio::test(start_paused = true)]
async fn a_small_body_that_grows_takes_more_room() {
    let bodies = bodies();
    let go = Arc::new(Notify::new());
    let slow = begin(&bodies, halves(1, &go, SMALL_BODY_BYTES - 1));
    settle().await;
    let kept = bodies.small.clone().try_acquire_many_owned(1020).unwrap();
    go.notify_waiters();
    settle().await;
    assert!(!slow.is_finished(), "there is no room");
    assert_eq!(bodies.small.available_permits(), 0, "it waits for what is free");
    drop(kept);
    assert_eq!(slow.await.unwrap().unwrap(), SMALL_BODY_BYTES);
    assert_eq!(bodies.small.available_permits(), 1024);
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
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(began.elapsed().as_secs(), lasts.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_read_for_a_while() {
    let bodies = bodies();
    let error = begin(&bodies, Body::from(vec![0; LIMIT + 1])).await.unwrap().unwrap_err();
    assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let go = Arc::new(Notify::new());
    let refused = begin(&bodies, halves(LIMIT + 1, &go, 10));
    settle().await;
    assert!(!refused.is_finished(), "the client still writes");
    go.notify_waiters();
    let error = refused.await.unwrap().unwrap_err();
    assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // It held nothing meanwhile, and not for ever.
    let began = Instant::now();
    begin(&bodies, unfinished(LIMIT + 1)).await.unwrap().unwrap_err();
    assert_eq!(began.elapsed().as_secs(), DISCARD_TIMEOUT.as_secs());
}

/// As one who sends a body and hangs up, again and again.
#[test]
fn a_body_keeps_its_room_while_it_is_decoded() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let bodies = bodies();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        let text = vec![b' '; INLINE_JSON_BYTES + 1];
        let mut reading = Box::pin(bodies.read::<Call>(Body::from(text), Format::Json, LIMIT));
        assert!(futures_util::poll!(&mut reading).is_pending());
        drop(reading);
        assert_eq!(bodies.small.available_permits(), 1024 - 17);
        drop(go);
        busy.await.unwrap().unwrap_err();
        let whole = timeout(Duration::from_secs(30), bodies.small.acquire_many(1024)).await;
        assert!(whole.is_ok(), "it is free afterwards");
    });
}
