//! [`Raw`]: sends arbitrary bytes, and reads the responses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::client::Answer;
use super::{PATIENCE, Stopwatch, Took};

/// A connection without a protocol.
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
    /// When this client last did something that may start a timer in the gateway.
    acted: Instant,
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.expect("the gateway accepts")
    }

    /// Like [`Self::open`], with an error if the gateway is gone.
    pub async fn try_open(address: SocketAddr) -> io::Result<Self> {
        let acted = Instant::now();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new(), acted })
    }

    /// Opens a connection with a small receive buffer, which fills soon if the client does not read.
    pub async fn open_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("an option of TCP");
        let acted = Instant::now();
        let stream = socket.connect(address).await.expect("the gateway accepts");
        Self { stream, read: Vec::new(), acted }
    }

    /// Sends bytes. Fails if the gateway has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.acted = Instant::now();
        self.write(bytes.as_ref()).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the gateway reads")
    }

    /// Sends a GET.
    pub async fn get(&mut self, target: &str) -> io::Result<()> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    /// Sends an append.
    pub async fn post(&mut self, target: &str, json: &str) -> io::Result<()> {
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        self.send(format!("{head}Content-Length: {}\r\n\r\n{json}", json.len())).await
    }

    /// Sends each of `pieces` separately, with pauses for the gateway to read: its reads are not visible from outside.
    pub async fn send_in_pieces(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        for piece in pieces {
            self.send(piece).await?;
            sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }

    /// Returns the connection, and bytes that were read and belong to no response yet.
    pub(super) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.read)
    }

    /// Closes the sending half.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }

    /// Sends bytes, and reads the response only after that. Fails if the connection is reset before the whole response is read;
    /// `None` if it ends without a response.
    pub async fn exchange(mut self, bytes: impl AsRef<[u8]>) -> io::Result<Option<Answer>> {
        self.send(bytes).await?;
        self.answer().await
    }

    /// Returns the next response; an end of the connection is an error.
    pub async fn whole_answer(&mut self) -> io::Result<Answer> {
        self.answer().await?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"))
    }

    /// Returns the next response; `None` at the end of the connection. An incomplete response or a reset is an error.
    pub async fn answer(&mut self) -> io::Result<Option<Answer>> {
        timeout(PATIENCE, self.read_answer()).await.expect("an answer or the end in time")
    }

    async fn read_answer(&mut self) -> io::Result<Option<Answer>> {
        loop {
            if let Some((answer, length)) = parse(&self.read) {
                self.read.drain(..length);
                return Ok(Some(answer));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                if self.read.is_empty() {
                    return Ok(None);
                }
                let read = String::from_utf8_lossy(&self.read).into_owned();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("cut after {read:?}")));
            }
        }
    }

    /// Sends one byte at a time with pauses, until the gateway ends the connection, and returns how long that took. The
    /// gateway's response can be read afterwards.
    pub async fn drip(&mut self, bytes: impl IntoIterator<Item = u8>, pause: Duration) -> Took {
        let since = Stopwatch::start_since(self.acted);
        for byte in bytes {
            match timeout(pause, self.stream.read_buf(&mut self.read)).await {
                Ok(Ok(0) | Err(_)) => return since.took(),
                Ok(Ok(_)) => {}
                Err(_) if self.write(&[byte]).await.is_err() => return since.took(),
                Err(_) => {}
            }
        }
        panic!("the gateway took every byte");
    }

    /// Reads available bytes, or waits for some.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).await
    }

    /// Reads and discards `count` bytes.
    pub async fn take(&mut self, count: usize) {
        let mut thrown_away = vec![0; count];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut thrown_away)).await;
        read.expect("bytes in time").expect("an open connection");
    }

    /// Reads everything until the gateway ends the connection.
    pub async fn rest(mut self) -> String {
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        ended.expect("the end of the connection in time").expect("no reset");
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Waits for the end of the connection, before which no more bytes may arrive.
    pub async fn end(mut self) -> io::Result<()> {
        let more = self.stream.read(&mut [0]).await?;
        assert_eq!((more, self.read.len()), (0, 0), "bytes behind the last answer");
        Ok(())
    }

    /// Resets the connection.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a socket");
    }

    /// Reads and discards bytes until the gateway ends the connection in any way. Returns how long that took.
    pub async fn closed(&mut self) -> Took {
        let since = Stopwatch::start_since(self.acted);
        let mut thrown_away = vec![0; 64 * 1024];
        let ended = async { while !matches!(self.stream.read(&mut thrown_away).await, Ok(0) | Err(_)) {} };
        timeout(PATIENCE, ended).await.expect("the gateway closes the connection");
        since.took()
    }
}

/// Parses the first response in `bytes` if it is complete, and returns its length.
fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let head_length = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_length]).expect("a head in ASCII");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
        .collect();
    let status: StatusCode = status.parse().expect("a status");
    let body_length =
        headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
    let body = bytes.get(head_length..head_length + body_length)?.to_vec().into();
    Some((Answer { status, headers, body }, head_length + body_length))
}
