//! An engine that answers as a test wants.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    engine::{Engine, EngineAddress},
    identity::Identity,
    pull::Pulls,
};
use crate::containerizer::table::Table;

/// A file may be written meanwhile, on a disk that is busy.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) enum Answer {
    /// All of it.
    Json(String),
    /// Output of a container, and then nothing, though the answer does not end.
    Output(&'static str),
    Missing,
}

/// Ends with the runtime.
pub(super) struct Fake {
    dir: TempDir,
}

impl Fake {
    /// Answers to paths, without the version before them.
    pub(super) fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer)));
            }
        });
        Self { dir }
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Of an agent with so many GPUs, that has not much patience.
    pub(super) fn inner(&self, gpus: u64) -> Inner {
        let socket = self.dir.path().join("docker.sock");
        let address = EngineAddress::parse(&format!("unix://{}", socket.display())).unwrap();
        let identity = Arc::new(Identity::open(self.dir.path()).unwrap());
        let engine = Engine::new(address, Arc::clone(&identity)).with_patience(PATIENCE);
        let engine = Arc::new(engine);
        Inner {
            pulls: Pulls::new(Arc::clone(&engine), None),
            engine,
            directory: self.dir.path().to_owned(),
            identity,
            cpu_quota: false,
            pids_limit: 1,
            isolation: Default::default(),
            gpus,
            containers: Table::default(),
            recovered: AtomicBool::new(true),
            stop: CancellationToken::new(),
        }
    }
}

async fn serve(mut stream: UnixStream, answer: Arc<impl Fn(&str) -> Answer>) {
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
        let path = text.split(' ').nth(1).unwrap();
        let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/'));
        let path = versioned.map_or(&path[1..], |(_, path)| path);
        let whole = |status, text: String| {
            let length = text.len();
            format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: \
                 {length}\r\n\r\n{text}"
            )
            .into_bytes()
        };
        let bytes = match path {
            "version" => whole(200, r#"{"ApiVersion": "1.41"}"#.to_owned()),
            path => match answer(path) {
                Answer::Json(text) => whole(200, text),
                Answer::Missing => whole(404, r#"{"message": "no such thing"}"#.to_owned()),
                Answer::Output(text) => {
                    let length = u32::try_from(text.len()).unwrap();
                    let frame = [&[1, 0, 0, 0], &length.to_be_bytes()[..], text.as_bytes()];
                    let frame = frame.concat();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                        frame.len()
                    );
                    [head.as_bytes(), &frame, b"\r\n"].concat()
                }
            },
        };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
