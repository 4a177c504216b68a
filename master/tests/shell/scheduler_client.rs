//! A hand-written HTTP/1.1 client: what it sends and gets is what is on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use mezz_proto::{
    media::Format,
    recordio,
    v1::{
        self,
        scheduler::{Call, Event, call, event},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::*;

/// An answer, as far as its head.
pub struct Head {
    pub status: u16,
    /// By name, in small letters.
    pub headers: BTreeMap<String, String>,
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A connection with one request on it.
pub struct Exchange {
    stream: TcpStream,
    waiting: Vec<u8>,
}

impl Exchange {
    pub async fn begin(
        address: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        // A server that answers early may close before it has read all.
        let _ = stream.write_all(body).await;
        Self { stream, waiting: Vec::new() }
    }

    /// More bytes; `false` at the end.
    async fn more(&mut self) -> bool {
        matches!(soon("an answer", self.stream.read_buf(&mut self.waiting)).await, Ok(1..))
    }

    /// The bytes before `end`, which is taken, too.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.waiting.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                let rest = self.waiting.split_off(at + end.len());
                let mut taken = std::mem::replace(&mut self.waiting, rest);
                taken.truncate(at);
                return Some(taken);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.waiting.len() < count {
            if !self.more().await {
                return None;
            }
        }
        let rest = self.waiting.split_off(count);
        Some(std::mem::replace(&mut self.waiting, rest))
    }

    pub async fn head(&mut self) -> Head {
        let head = self.until(b"\r\n\r\n").await.expect("no answer");
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_lowercase(), value.trim().to_owned())
        });
        Head { status, headers: headers.collect() }
    }

    /// The next chunk of a body; `None` at its proper end.
    ///
    /// # Panics
    /// When the connection breaks before that.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.until(b"\r\n").await.expect("the answer is cut off");
        let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap(), 16).unwrap();
        let mut chunk = self.exactly(size + 2).await.expect("the answer is cut off");
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// All of the answer.
    pub async fn answer(mut self) -> Answer {
        let Head { status, headers } = self.head().await;
        let body = match headers.get("content-length") {
            Some(length) => self.exactly(length.parse().unwrap()).await.expect("cut off"),
            None => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk().await {
                    body.extend(chunk);
                }
                body
            }
        };
        Answer { status, headers, body }
    }
}

/// One request and its answer.
pub async fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    Exchange::begin(address, method, path, headers, body).await.answer().await
}

pub const SCHEDULER: &str = "/api/v1/scheduler";

/// A framework that speaks HTTP.
pub struct HttpFramework {
    pub id: String,
    pub stream_id: String,
    address: String,
    format: Format,
    exchange: Exchange,
    decoder: recordio::Decoder,
    pub head: Head,
}

impl HttpFramework {
    /// Sends SUBSCRIBE and reads the answer's head.
    pub async fn open(address: &str, format: Format, call: &Call) -> Self {
        let headers = [("content-type", format.name()), ("accept", format.name())];
        let body = format.encode(call);
        let mut exchange = Exchange::begin(address, "POST", SCHEDULER, &headers, &body).await;
        let head = exchange.head().await;
        let stream_id = head.headers.get("mesos-stream-id").cloned().unwrap_or_default();
        let decoder = recordio::Decoder::new(64 << 20);
        let (id, address) = (String::new(), address.to_owned());
        Self { id, stream_id, address, format, exchange, decoder, head }
    }

    pub async fn subscribe(address: &str, format: Format, call: &Call) -> Self {
        let mut framework = Self::open(address, format, call).await;
        assert_eq!(framework.head.status, 200);
        let event = framework.hear().await.unwrap();
        assert_eq!(event.r#type(), event::Type::Subscribed, "{event:?}");
        framework.id = event.subscribed.unwrap().framework_id.value;
        framework
    }

    /// The next record; `None` at the end.
    pub async fn record(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(record) = self.decoder.next_record().unwrap() {
                return Some(record.to_vec());
            }
            let chunk = self.exchange.chunk().await?;
            self.decoder.feed(&chunk);
        }
    }

    pub async fn hear(&mut self) -> Option<Event> {
        let record = self.record().await?;
        Some(self.format.decode(&record).unwrap())
    }

    /// The next event but heartbeats, which must be of this type.
    pub async fn next(&mut self, kind: event::Type) -> Event {
        loop {
            let event = self.hear().await.expect("the stream ended");
            match event.r#type() {
                event::Type::Heartbeat => {}
                other if other == kind => return event,
                _ => panic!("wanted {kind:?}, got {event:?}"),
            }
        }
    }

    /// A call with this stream's id, and its answer.
    pub async fn call(&self, call: Call) -> Answer {
        self.call_with(call, &[("mesos-stream-id", &self.stream_id)]).await
    }

    pub async fn call_with(&self, mut call: Call, more: &[(&str, &str)]) -> Answer {
        let id = mezz_proto::v1::FrameworkId { value: self.id.clone() };
        call.framework_id.get_or_insert(id);
        let mut headers = vec![("content-type", self.format.name())];
        headers.extend(more);
        let body = self.format.encode(&call);
        request(&self.address, "POST", SCHEDULER, &headers, &body).await
    }
}

/// A call of this type, with nothing else.
pub fn of(kind: call::Type) -> Call {
    Call { r#type: Some(kind as i32), ..Default::default() }
}

/// A subscription to these roles.
pub fn multi_role(mut call: Call, roles: &[&str]) -> Call {
    let info = &mut call.subscribe.as_mut().unwrap().framework_info;
    info.roles = roles.iter().map(|&role| role.to_owned()).collect();
    let kind = v1::framework_info::capability::Type::MultiRole as i32;
    info.capabilities.push(v1::framework_info::Capability { r#type: Some(kind) });
    call
}
