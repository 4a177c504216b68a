//! A way to the engine that holds some of its answers back.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use crate::fixture::SOCKET;

/// Ends with the test.
pub struct Proxy {
    dir: TempDir,
    asked: Arc<AtomicBool>,
}

impl Proxy {
    /// No answer comes on a connection any more once such a request was made there.
    pub fn holding(such: fn(&str) -> bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let asked = Arc::new(AtomicBool::new(false));
        let held = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, such, Arc::clone(&held)));
            }
        });
        Self { dir, asked }
    }

    pub fn address(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// Whether an answer is held back.
    pub fn holds(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn pass(client: UnixStream, such: fn(&str) -> bool, asked: Arc<AtomicBool>) {
    let engine = UnixStream::connect(SOCKET.strip_prefix("unix://").unwrap()).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let held = AtomicBool::new(false);
    let requests = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
            // A request's head comes in one piece.
            if such(&String::from_utf8_lossy(&bytes[..n])) {
                held.store(true, Ordering::SeqCst);
                asked.store(true, Ordering::SeqCst);
            }
            if to_engine.write_all(&bytes[..n]).await.is_err() {
                break;
            }
        }
        let _ = to_engine.shutdown().await;
    };
    let answers = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from_engine.read(&mut bytes).await {
            if !held.load(Ordering::SeqCst) && to_client.write_all(&bytes[..n]).await.is_err() {
                break;
            }
        }
        if !held.load(Ordering::SeqCst) {
            let _ = to_client.shutdown().await;
        }
    };
    tokio::join!(requests, answers);
}
