//! [`LeanConnection`]: a connection for loads with thousands on one thread; reading a response costs little more than the
//! kernel's part.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::WireError;
use super::answer::RawAnswer;

/// Bytes per read: more than most responses have.
const READ_BYTES: usize = 8192;

/// A connection for one request at a time. A drop closes it.
#[derive(Debug)]
pub struct LeanConnection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl LeanConnection {
    /// Uses `stream` for HTTP/1.1.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// Sends a request without a body.
    pub async fn send<B>(&mut self, request: &hyper::Request<B>) -> Result<(), WireError> {
        Ok(self.stream.write_all(&encoded(request)).await?)
    }

    /// Sends a request with this body in place of its own.
    pub async fn send_with<B>(&mut self, request: &hyper::Request<B>, body: &[u8]) -> Result<(), WireError> {
        let mut bytes = encoded(request);
        let end = bytes.len().saturating_sub(b"\r\n".len());
        bytes.truncate(end);
        bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend(body);
        Ok(self.stream.write_all(&bytes).await?)
    }

    /// Returns the response, and the time when its last part was read.
    pub async fn answer(&mut self) -> Result<(Instant, RawAnswer), WireError> {
        self.received.clear();
        loop {
            let at = self.read_more().await?;
            if let Some(answer) = RawAnswer::parse(&self.received)? {
                return Ok((at, answer));
            }
        }
    }

    async fn read_more(&mut self) -> Result<Instant, WireError> {
        poll_fn(|task| {
            // On the stack, which stays in the CPU cache: one buffer per task, with ten thousand tasks, would not.
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(task, &mut buffer))?;
            self.received.extend_from_slice(buffer.filled());
            let is_closed = buffer.filled().is_empty();
            Poll::Ready(if is_closed { Err(WireError::Closed) } else { Ok(Instant::now()) })
        })
        .await
    }
}

/// Encodes the head of a request.
fn encoded<B>(request: &hyper::Request<B>) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_encoded_with_its_target_and_fields() {
        let request = hyper::Request::get("/a?b=c").header("host", "here").header("if-none-match", "7");
        let text = encoded(&request.body(()).unwrap());
        assert_eq!(text, b"GET /a?b=c HTTP/1.1\r\nhost: here\r\nif-none-match: 7\r\n\r\n");
    }
}
