//! Requests as bytes on a socket: the lightest client there is, so that ten thousand cost the test little, and
//! one that tells a reset from an end.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection on which nothing happens that the test did not ask for.
pub(crate) struct Raw(pub(crate) TcpStream);

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(TcpStream::connect(address).await?))
    }

    pub(crate) async fn get(&mut self, target: &str) -> io::Result<()> {
        self.0.write_all(format!("GET {target} HTTP/1.1\r\nHost: pollgate\r\n\r\n").as_bytes()).await
    }

    pub(crate) async fn post(&mut self, target: &str, json: &str) -> io::Result<()> {
        let head = format!("POST {target} HTTP/1.1\r\nHost: pollgate\r\nContent-Type: application/json\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{json}", json.len());
        self.0.write_all(request.as_bytes()).await
    }

    /// The next answer, whole. An end before that is an error, as is a reset.
    pub(crate) async fn answer(&mut self) -> io::Result<RawAnswer> {
        let mut read = Vec::new();
        loop {
            if let Some(answer) = RawAnswer::parse(&read) {
                return Ok(answer);
            }
            if self.0.read_buf(&mut read).await? == 0 {
                let read = String::from_utf8_lossy(&read).into_owned();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("cut after {read:?}")));
            }
        }
    }

    /// Waits for the end of the connection, at which nothing more may come.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        let more = self.0.read(&mut [0]).await?;
        assert_eq!(more, 0, "bytes behind the last answer");
        Ok(())
    }
}

impl RawAnswer {
    fn parse(read: &[u8]) -> Option<Self> {
        let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(read[..end].to_vec()).expect("a head of ASCII");
        let answer = Self { head, body: read[end..].to_vec() };
        let length = answer.field("content-length").unwrap_or("0").parse().expect("a length");
        (answer.body.len() >= length).then_some(answer)
    }

    pub(crate) fn status(&self) -> u16 {
        self.head[9..12].parse().expect("a status")
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.into_iter().find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(crate) fn says_close(&self) -> bool {
        self.field("connection") == Some("close")
    }

    /// The cursor that every answer to a poll carries.
    pub(crate) fn cursor(&self) -> &str {
        self.field("stream-next-offset").unwrap_or_else(|| panic!("an answer without a cursor: {self:?}"))
    }
}
