use axum::routing::{get, post};
use tokio::net::TcpListener;

use super::*;
use crate::dispatcher::{
    files::{Files, Limits},
    owner::Request as Asking,
};

/// A front on a socket of its own, and its address.
async fn serve(folder: &std::path::Path, hold: Duration) -> (Front, String) {
    let front = Front { hold, ..Front::new(folder.to_owned()).unwrap() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = front.clone().router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (front, address)
}

/// What it says and was told.
fn leader(name: &'static str) -> Router {
    Router::new().route("/who", get(move || async move { name })).route(
        "/echo",
        post(move |body: String| async move { format!("{name}: {body}") })
            .put(move |body: String| async move { format!("{name} has {} bytes", body.len()) }),
    )
}

async fn ask(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_standby_passes_everything_on_to_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let (first, first_at) = serve(dir.path(), HOLD).await;
    let (second, second_at) = serve(dir.path(), HOLD).await;
    first.lead(leader("first"));
    second.stand_by(Some(first_at.clone()));
    let http = first.http.clone();
    let at = |path: &str| format!("http://{second_at}{path}");
    assert_eq!(ask(http.get(at("/who"))).await, (200, "first".to_owned()));
    assert_eq!(ask(http.post(at("/echo")).body("x=1")).await, (200, "first: x=1".to_owned()));
    let large = vec![b'a'; 3 << 20];
    let sent = ask(http.put(at("/echo")).body(large)).await;
    assert_eq!(sent.0, 413, "axum's own limit for a text, and not ours: {}", sent.1);
    assert_eq!(ask(http.get(at("/none"))).await.0, 404);

    // What it answers itself.
    let health = ask(http.get(at("/health"))).await.1;
    assert_eq!(health, format!("standby; the leader is {first_at}\n"));
    assert!(ask(http.get(at("/metrics"))).await.1.contains("mezz_dispatcher_leading 0"));
    let token = "0123456789abcdef0123456789abcdef";
    std::fs::write(dir.path().join(token), "content").unwrap();
    let file = at(&format!("{}/{token}/a.jar", files::PATH));
    assert_eq!(ask(http.get(file)).await, (200, "content".to_owned()));
}

#[tokio::test]
async fn a_request_waits_for_the_next_leader() {
    let dir = tempfile::tempdir().unwrap();
    let (front, address) = serve(dir.path(), HOLD).await;
    // Nobody is there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    front.stand_by(Some(gone));
    let request = front.http.post(format!("http://{address}/echo")).body("once");
    let asked = tokio::spawn(ask(request));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished());
    front.stand_by(None);
    let (next, next_at) = serve(dir.path(), HOLD).await;
    next.lead(leader("next"));
    front.stand_by(Some(next_at));
    assert_eq!(asked.await.unwrap(), (200, "next: once".to_owned()));

    // It may be this one.
    front.stand_by(None);
    let asked = tokio::spawn(ask(front.http.get(format!("http://{address}/who"))));
    tokio::time::sleep(Duration::from_millis(50)).await;
    front.lead(leader("this"));
    assert_eq!(asked.await.unwrap(), (200, "this".to_owned()));
}

#[tokio::test]
async fn no_request_waits_for_ever_or_is_done_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (front, address) = serve(dir.path(), Duration::from_millis(200)).await;
    let http = front.http.clone();
    let (status, text) = ask(http.get(format!("http://{address}/who"))).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("No dispatcher leads"), "{text}");

    // One that takes a request and says nothing is deposed.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = silent.local_addr().unwrap().to_string();
    front.stand_by(Some(silent_at));
    let post = tokio::spawn(ask(http.post(format!("http://{address}/echo")).body("x")));
    let read = tokio::spawn(ask(http.get(format!("http://{address}/who"))));
    let _held = (silent.accept().await.unwrap(), silent.accept().await.unwrap());
    let (next, next_at) = serve(dir.path(), HOLD).await;
    next.lead(leader("next"));
    front.stand_by(Some(next_at));
    let (status, text) = post.await.unwrap();
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("is not known"), "{text}");
    assert_eq!(read.await.unwrap(), (200, "next".to_owned()));

    // One that does not lead yet has done nothing, and is asked again.
    let (early, early_at) = serve(dir.path(), HOLD).await;
    let (waits, waits_at) = serve(dir.path(), HOLD).await;
    waits.stand_by(Some(early_at));
    let request = http.post(format!("http://{waits_at}/echo")).body("x");
    let asked = tokio::spawn(ask(request));
    tokio::time::sleep(Duration::from_millis(50)).await;
    early.lead(leader("early"));
    assert_eq!(asked.await.unwrap(), (200, "early: x".to_owned()));

    // Two standbys that take each other for the leader.
    let (other, other_at) = serve(dir.path(), Duration::from_millis(200)).await;
    other.stand_by(Some(address.clone()));
    front.stand_by(Some(other_at));
    assert_eq!(ask(http.get(format!("http://{address}/who"))).await.0, 503);
}

/// What was stored before it ended is done; a client that asked again would do it twice.
#[tokio::test]
async fn a_leader_that_ends_in_the_middle_of_a_submission_does_not_ask_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { file: 10, all: 10 };
    let files = Files::open(dir.path().to_owned(), "key".to_owned(), limits, false).await.unwrap();
    let (requests, mut inbox) = tokio::sync::mpsc::channel(1);
    let (front, address) = serve(dir.path(), HOLD).await;
    front.lead(rest::routes(requests, files, address.clone()));
    let submission = serde_json::json!({
        "action": "CreateSubmissionRequest",
        "appArgs": [],
        "appResource": "file:/opt/app.jar",
        "clientSparkVersion": "4.3.0",
        "environmentVariables": {},
        "mainClass": "org.example.Pi",
        "sparkProperties": {"spark.app.name": "pi", "spark.master": "spark://h:7077"},
    });
    let submit = || {
        let request = front.http.post(format!("http://{address}/v1/submissions/create"));
        tokio::spawn(ask(request.body(submission.to_string())))
    };
    let asked = submit();
    assert!(matches!(inbox.recv().await, Some(Asking::Create(..))));
    assert_eq!(asked.await.unwrap().0, 502);
    // It has never heard of this one.
    drop(inbox);
    assert_eq!(submit().await.unwrap().0, 503);
}
