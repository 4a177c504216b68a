//! HTTP/1.1 by hand, as Mesos' clients speak it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use mezz_proto::{media::Format, recordio, v1::master};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::*;

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub async fn request(
    master: &TestMaster,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = send(master, method, path, headers, body, true).await;
    let mut bytes = Vec::new();
    soon("an answer", stream.read_to_end(&mut bytes)).await.unwrap();
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[at + 4..].to_vec() }
}

async fn send(
    master: &TestMaster,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    close: bool,
) -> TcpStream {
    let mut stream = TcpStream::connect(&master.address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n");
    if close {
        head.push_str("connection: close\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

pub async fn get(master: &TestMaster, path: &str) -> Answer {
    request(master, "GET", path, &[], b"").await
}

/// A call of the operator API, in JSON.
pub async fn operate(master: &TestMaster, call: &str) -> Answer {
    let headers = [("content-type", "application/json")];
    request(master, "POST", "/api/v1", &headers, call.as_bytes()).await
}

/// The stream of events.
pub struct Events {
    stream: TcpStream,
    form: Format,
    chunks: Vec<u8>,
    records: recordio::Decoder,
}

impl Events {
    pub async fn subscribe(master: &TestMaster, form: Format) -> Self {
        let call = master::Call {
            r#type: Some(master::call::Type::Subscribe as i32),
            ..Default::default()
        };
        let headers = [("content-type", form.name()), ("accept", form.name())];
        let mut stream =
            send(master, "POST", "/api/v1", &headers, &form.encode(&call), false).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon("the head", stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains(form.name()), "{head}");
        Self { stream, form, chunks: Vec::new(), records: recordio::Decoder::new(64 << 20) }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<master::Event> {
        loop {
            if let Some(record) = self.records.next_record().unwrap() {
                return Some(self.form.decode(&record).unwrap());
            }
            // One chunk: its length in hexadecimal, and what follows.
            if let Some(at) = self.chunks.windows(2).position(|w| w == b"\r\n") {
                let length = std::str::from_utf8(&self.chunks[..at]).unwrap();
                let length = usize::from_str_radix(length, 16).unwrap();
                if length == 0 {
                    return None;
                }
                if self.chunks.len() >= at + 4 + length {
                    self.records.feed(&self.chunks[at + 2..at + 2 + length]);
                    self.chunks.drain(..at + 4 + length);
                    continue;
                }
            }
            let mut piece = vec![0; 64 << 10];
            let read = soon("an event", self.stream.read(&mut piece)).await.unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.chunks.extend_from_slice(&piece[..read]);
        }
    }

    /// The next one but heartbeats.
    pub async fn news(&mut self) -> master::Event {
        loop {
            let event = self.next().await.expect("the stream ended");
            if event.r#type() != master::event::Type::Heartbeat {
                return event;
            }
        }
    }
}
