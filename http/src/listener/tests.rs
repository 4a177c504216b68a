use std::time::Duration;

use axum::{Extension, http::StatusCode, routing::get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Served where the tests' clock is.
const WORK: &str = "/api/v1/scheduler";

async fn start() -> (TcpStream, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = |Extension(ends): Extension<Ends>| async move {
        if ends.local { "served" } else { "from elsewhere" }
    };
    let router = Router::new().route(WORK, get(served)).route("/", get(served));
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(router, listener, 100, stop.clone().cancelled_owned()));
    (TcpStream::connect(address).await.unwrap(), stop, server)
}

async fn ask(stream: &mut TcpStream) {
    let _ = ask_for(WORK, stream).await;
}

async fn ask_for(path: &str, stream: &mut TcpStream) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: m\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"served") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed: {answer:?}");
    }
    String::from_utf8(answer).unwrap()
}

async fn hours_pass() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10 * 3600)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_idle_connection_is_not_closed() {
    let (mut stream, _stop, _server) = start().await;
    hours_pass().await;
    for _ in 0..3 {
        ask(&mut stream).await;
        hours_pass().await;
    }
}

#[tokio::test]
async fn idle_connections_end_with_the_server() {
    for path in [WORK, "/"] {
        let (mut stream, stop, server) = start().await;
        ask_for(path, &mut stream).await;
        stop.cancel();
        server.await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_connection_that_has_said_nothing_ends_with_the_server() {
    let (mut stream, stop, server) = start().await;
    stop.cancel();
    server.await.unwrap();
    assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn connections_are_cut_when_nobody_waits_for_them() {
    for path in [WORK, "/"] {
        let (mut stream, _stop, server) = start().await;
        ask_for(path, &mut stream).await;
        // In the middle of a request.
        stream.write_all(b"GET / HT").await.unwrap();
        server.abort();
        server.await.unwrap_err();
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await;
        assert!(matches!(read.expect("it is cut"), Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn who_only_reads_is_served_by_threads_that_give_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let priority =
        || async { rustix::process::getpriority_process(None).unwrap().to_string() + "served" };
    let router = Router::new().route(WORK, get(priority)).route("/", get(priority));
    let _server = tokio::spawn(serve(router, listener, 100, std::future::pending()));
    let own = rustix::process::getpriority_process(None).unwrap();
    for (path, expected) in [(WORK, own), ("/", own.max(crate::limits::READER_PRIORITY))] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = ask_for(path, &mut stream).await;
        assert!(answer.ends_with(&format!("\n{expected}served")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let (mut stream, _stop, _server) = start().await;
    let mut header = vec![b'x'; 2 * HTTP1_BUFFER];
    header.splice(0..0, *b"GET / HTTP/1.1\r\nx: ");
    // It may be closed before it is written.
    let _ = stream.write_all(&header).await;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("it is closed");
    assert!(answer.is_empty() || answer.contains("431"), "{answer}");
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let (mut stream, _stop, _server) = start().await;
    stream.write_all(format!("GET {WORK} HT").as_bytes()).await.unwrap();
    let begun = std::time::Instant::now();
    let mut byte = [0];
    while tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it is still open");
        hours_pass().await;
    }
}

#[tokio::test]
async fn answers_of_a_connection_are_bounded() {
    let forever = || async {
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>())
    };
    let router = Router::new().route("/", get(forever));
    let answers = Arc::new(Semaphore::new(2));
    let mut connected = Connected { router, ends: Ends { local: true }, answers };
    let mut ask = async |content: &str| {
        let request = Request::get("/").header("content-type", content);
        connected.call(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let mut kept = vec![ask("").await, ask("").await];
    assert_eq!(ask("").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask("application/grpc+proto").await.status(), StatusCode::OK);
    kept.pop();
    assert_eq!(ask("").await.status(), StatusCode::OK);
}

/// Nothing of it is read, and who writes all that it has before it reads sees the answer.
#[tokio::test]
async fn a_large_body_to_a_wrong_path_is_answered() {
    const WHOLE: usize = 10 << 20;
    let (mut stream, _stop, _server) = start().await;
    let head = format!("POST /nowhere HTTP/1.1\r\nHost: m\r\nContent-Length: {WHOLE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may be closed before it is written.
    let _ = stream.write_all(&vec![b' '; WHOLE]).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("it is closed");
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
}
