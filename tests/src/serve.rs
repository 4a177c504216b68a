//! A web server of files, in tests.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;

/// Serves files on loopback for as long as the test runs, and remembers what was asked for.
pub struct FileServer {
    /// host:port of it.
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FileServer {
    /// Of these files, by their paths, which begin with `/`.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn start(files: Vec<(&'static str, Vec<u8>)>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                // The head is read whole, or closing would reset the connection.
                lines.find(String::is_empty);
                let name = request.split(' ').nth(1).unwrap_or_default();
                let body = files.iter().find(|(n, _)| *n == name).map(|(_, body)| body.as_slice());
                let (status, body) = body.map_or((404, &[][..]), |body| (200, body));
                log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                let head = format!(
                    "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        Ok(Self { address, asked })
    }

    /// The first lines of all requests so far, sorted.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.sort();
        asked
    }
}
