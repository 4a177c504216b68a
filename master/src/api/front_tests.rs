use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    body::to_bytes,
    http::{StatusCode, header},
    routing::{get, post},
};
use mezz_proto::{credential::Credential, mezz::v1 as mezz};
use prost::Message;
use tokio::time::Instant;

use super::*;
use crate::{credentials::Credentials, options::Authentication, shell::clock::Clock};

const STREAM: &str = "/mezz.v1.Scheduler/Subscribe";

fn front() -> Front {
    let identity = Arc::new(Identity {
        id: "the-id".to_owned(),
        address: "me:5050".to_owned(),
        version: "0",
        cluster: None,
        clock: Clock::start(),
        flags: Default::default(),
    });
    let stop = CancellationToken::new();
    Front::new(identity, Arc::new(Metrics::new().unwrap()), stop, Door::default())
}

/// Whoever waits does so for ever: what is answered was answered without waiting.
fn patient() -> Front {
    Front { hold: Duration::from_secs(3600), ..front() }
}

fn grpc(path: &str, tried: Option<&str>) -> Request {
    let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/grpc");
    if let Some(tried) = tried {
        request = request.header(TRIED_KEY, tried);
    }
    // An empty message, as gRPC frames it.
    request.body(Body::from(vec![0; 5])).unwrap()
}

/// The leader that a status names.
async fn told(front: &Front, path: &str, tried: Option<&str>) -> String {
    let response = front.answer(grpc(path, tried)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("grpc-status"), "14");
    header(LEADER_KEY)
}

#[tokio::test]
async fn streams_wait_for_a_leader_that_is_news() {
    let front = patient();
    // Nobody is known, and what is not a stream does not wait.
    assert_eq!(told(&front, "/mezz.v1.Operator/ListTasks", None).await, "");
    front.stand_by(Some("a:1".to_owned()));
    assert_eq!(told(&front, STREAM, None).await, "a:1");
    assert_eq!(told(&front, STREAM, Some("b:1")).await, "a:1");
    let waiting = tokio::spawn({
        let front = front.clone();
        async move { told(&front, STREAM, Some("a:1")).await }
    });
    tokio::task::yield_now().await;
    front.stand_by(None);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    front.stand_by(Some("b:1".to_owned()));
    assert_eq!(waiting.await.unwrap(), "b:1");
    // Also when the process is to stop.
    front.stop.cancel();
    assert_eq!(told(&front, STREAM, Some("b:1")).await, "");
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let front = Front { hold: Duration::from_millis(50), ..front() };
    let began = Instant::now();
    assert_eq!(told(&front, STREAM, None).await, "");
    front.stand_by(Some("a:1".to_owned()));
    // Not to where it has just failed.
    assert_eq!(told(&front, STREAM, Some("a:1")).await, "");
    assert!(began.elapsed() >= 2 * front.hold);
    // Nor is one named that is known no more.
    let waiting = tokio::spawn({
        let front = front.clone();
        async move { told(&front, STREAM, Some("a:1")).await }
    });
    while front.role.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    front.stand_by(None);
    assert_eq!(waiting.await.unwrap(), "");
}

#[tokio::test]
async fn who_came_together_does_not_leave_together() {
    const CROWD: u32 = 20;
    let front = Front { hold: Duration::from_millis(200), ..front() };
    let began = Instant::now();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..CROWD {
        let front = front.clone();
        crowd.spawn(async move {
            told(&front, STREAM, None).await;
            began.elapsed()
        });
    }
    let left = crowd.join_all().await;
    let (first, last) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!(*first >= front.hold, "{left:?}");
    // All of 20 in a quarter of the time: 1 in 10^11.
    assert!(*last - *first >= front.hold.mul_f64(HOLD_SPREAD / 4.0), "{left:?}");
}

#[tokio::test]
async fn who_waits_at_the_next_leader_is_served_by_it() {
    let front = patient();
    let waiting = tokio::spawn({
        let front = front.clone();
        async move { front.answer(grpc(STREAM, None)).await }
    });
    tokio::task::yield_now().await;
    front.lead(Router::new().fallback(|| async { "served" }));
    let response = waiting.await.unwrap();
    assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "served");
    // And no more once it leads no more.
    front.stand_by(Some("a:1".to_owned()));
    assert_eq!(told(&front, STREAM, None).await, "a:1");
}

/// A crowd that waited is let in bit by bit, but a framework does not stand behind agents.
#[tokio::test(start_paused = true)]
async fn who_waits_at_the_next_leader_is_not_served_in_one_instant() {
    const AGENT: &str = "/mezz.v1.AgentLink/Connect";
    const CROWD: usize = 2 * HELD_AT_ONCE + 500;
    let front = patient();
    let wait_at = |path: &'static str| {
        let front = front.clone();
        tokio::spawn(async move { front.answer(grpc(path, None)).await.status() })
    };
    let crowd: Vec<_> = (0..CROWD).map(|_| wait_at(AGENT)).collect();
    let framework = wait_at(STREAM);
    while front.role.receiver_count() <= CROWD {
        tokio::task::yield_now().await;
    }
    // Agents get their answers one by one, as `go` grows; with its request a stream keeps its
    // place.
    let (come, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (count, answers) = (come.clone(), go.clone());
    front.lead(Router::new().route(STREAM, post(|| async { "served" })).fallback(
        move |request: Request| {
            count.fetch_add(1, Ordering::Relaxed);
            let answers = answers.clone();
            async move {
                answers.acquire_owned().await.unwrap().forget();
                drop(request);
            }
        },
    ));
    // While all places of agents are taken.
    framework.await.unwrap();
    for answered in [0, 1, 700, CROWD - HELD_AT_ONCE - 1] {
        go.add_permits(answered - served(&crowd));
        while served(&crowd) < answered || come.load(Ordering::Relaxed) < HELD_AT_ONCE + answered {
            tokio::task::yield_now().await;
        }
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(come.load(Ordering::Relaxed), HELD_AT_ONCE + answered);
    }
    // The last one would not wait much longer.
    tokio::time::advance(LONGEST_HELD).await;
    while come.load(Ordering::Relaxed) < CROWD {
        tokio::task::yield_now().await;
    }
}

fn served<T>(crowd: &[tokio::task::JoinHandle<T>]) -> usize {
    crowd.iter().filter(|waiting| waiting.is_finished()).count()
}

#[tokio::test]
async fn a_standby_has_few_pages_and_sends_the_rest_on() {
    let front = front();
    let ask = |path: &str| front.answer(Request::get(path).body(Body::empty()).unwrap());
    let read = async |path: &str| {
        let page = ask(path).await;
        assert_eq!(page.status(), StatusCode::OK, "{path}");
        let body = to_bytes(page.into_body(), 1 << 20).await.unwrap();
        String::from_utf8_lossy(&body).into_owned()
    };
    let knows_nobody = async || {
        let nobody = ask("/state").await;
        assert_eq!(nobody.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(nobody.headers()[header::RETRY_AFTER], "1");
        assert!(read("/health").await.contains("the leader is not known"));
        assert!(read("/metrics").await.contains("mezz_master_leader_known 0"));
    };
    knows_nobody().await;
    front.stand_by(Some("a:1".to_owned()));
    let moved = ask("/state?x=1").await;
    assert_eq!(moved.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(moved.headers()[header::LOCATION], "//a:1/state?x=1");
    // Also what it would refuse if it led (rule 2).
    let call = Request::post("/api/v1/scheduler").body(Body::from("x")).unwrap();
    let moved = front.answer(call).await;
    assert_eq!(moved.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(moved.headers()[header::LOCATION], "//a:1/api/v1/scheduler");
    let redirect = ask("/master/redirect").await;
    assert_eq!(redirect.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(redirect.headers()[header::LOCATION], "//a:1");
    assert_eq!(ask("/redirect/x").await.status(), StatusCode::NOT_FOUND);
    for (path, text) in [
        ("/health", "the leader is a:1"),
        ("/master/health/", "the leader is a:1"),
        ("/flags/x", "flags"),
        ("/", "me:5050"),
        ("/version", "the-id"),
        ("/metrics", "mezz_master_leading 0"),
        ("/metrics", "mezz_master_leader_known 1"),
    ] {
        let body = read(path).await;
        assert!(body.contains(text), "{path}: {body}");
    }
    // As when it has not heard of one for a lease.
    front.stand_by(None);
    knows_nobody().await;
    front.lead(Router::new().route("/state", get(|| async { "mine" })));
    assert_eq!(ask("/state").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn every_master_tells_operators_who_leads() {
    let front = front();
    front.stand_by(Some("a:1".to_owned()));
    let response = front.answer(grpc("/mezz.v1.Operator/GetMaster", None)).await;
    let body = to_bytes(response.into_body(), 1000).await.unwrap();
    let answer = mezz::GetMasterResponse::decode(&body[5..]).unwrap();
    assert_eq!((answer.address.as_str(), answer.leader.as_deref()), ("me:5050", Some("a:1")));
}

#[tokio::test]
async fn a_standby_asks_who_frameworks_are_before_it_sends_them_on() {
    let credentials = Arc::new(Credentials::parse("spark hush").unwrap());
    let door = Door::new(Some(&Authentication { credentials, file: None }));
    let front = Front { door, ..patient() };
    let proof = Credential::new("spark", "hush").unwrap().header();
    for leader in [None, Some("a:1".to_owned())] {
        front.stand_by(leader.clone());
        // Who proves nothing does not wait for a leader either.
        let stream = front.answer(grpc(STREAM, None)).await;
        assert_eq!(stream.headers()["grpc-status"], "16", "{leader:?}");
        let call = || Request::post("/api/v1/scheduler");
        let answer = front.answer(call().body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{leader:?}");
        let call = call().header(header::AUTHORIZATION, &proof);
        let answer = front.answer(call.body(Body::empty()).unwrap()).await;
        let sent_on = match leader {
            Some(_) => StatusCode::TEMPORARY_REDIRECT,
            None => StatusCode::SERVICE_UNAVAILABLE,
        };
        assert_eq!(answer.status(), sent_on, "{leader:?}");
    }
    let mut stream = grpc(STREAM, None);
    stream.headers_mut().insert(header::AUTHORIZATION, proof.parse().unwrap());
    let answer = front.answer(stream).await;
    assert_eq!(answer.headers()[LEADER_KEY], "a:1");
}
