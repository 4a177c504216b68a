//! As much of HTTP/1.1 as the measurements need: nothing that a client library does
//! beside reading the answer shall be in the figures.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The longest head of an answer, and the longest line of a chunk.
const MAX_HEAD: usize = 64 * 1024;

/// A connection, with an answer that is being read.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    host: String,
}

/// The head of an answer.
pub struct Head {
    /// The status.
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value; names in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Connection {
    /// To `host:port`.
    pub async fn open(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await.with_context(|| host.to_owned())?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(64 * 1024), host: host.to_owned() })
    }

    /// Sends a request and reads the head of its answer. The body of the one before must
    /// have been read.
    pub async fn ask(
        &mut self,
        request: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Head> {
        let mut text = format!("{request} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes).await?;
        let first = self.line().await?;
        let status = first.split(' ').nth(1).context("a status line")?.parse()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Head { status, headers })
    }

    /// The whole body of an answer: its length.
    pub async fn body(&mut self, head: &Head) -> Result<usize> {
        if let Some(length) = head.header("content-length") {
            let length: usize = length.parse()?;
            self.skip(length).await?;
            return Ok(length);
        }
        ensure!(head.header("transfer-encoding") == Some("chunked"), "a body without an end");
        let mut length = 0;
        while let Some(chunk) = self.chunk().await? {
            length += chunk.len();
        }
        Ok(length)
    }

    /// Reads and forgets: a hundred whole pages would be most of the program's memory.
    async fn skip(&mut self, mut length: usize) -> Result<()> {
        loop {
            let here = self.buffer.len().min(length);
            self.buffer.advance(here);
            length -= here;
            if length == 0 {
                return Ok(());
            }
            self.fill(1).await?;
        }
    }

    /// The next chunk of a body; none at its end.
    pub async fn chunk(&mut self) -> Result<Option<BytesMut>> {
        let line = self.line().await?;
        let length = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)?;
        self.fill(length + 2).await?;
        let chunk = self.buffer.split_to(length);
        self.buffer.advance(2);
        Ok((length > 0).then_some(chunk))
    }

    async fn line(&mut self) -> Result<String> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.buffer[seen..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(seen + at + 1);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            seen = self.buffer.len();
            ensure!(seen < MAX_HEAD, "a line longer than {MAX_HEAD} bytes");
            self.fill(seen + 1).await?;
        }
    }

    async fn fill(&mut self, length: usize) -> Result<()> {
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the master closed the connection");
            }
        }
        Ok(())
    }
}
