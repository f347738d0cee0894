//! A WebSocket client. It reads with a strict library, and can write arbitrary bytes.

use std::io::{self, Cursor};
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, join};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use super::PATIENCE;
use super::client::Answer;
use super::raw::Raw;

/// The underlying connection.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open WebSocket. A drop closes the socket without a close frame.
pub struct WebSocket(WebSocketStream<Box<dyn Io>>);

/// Code and reason of the gateway's close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close(pub u16, pub String);

/// Returns the head of a handshake without the empty line, so that fields can be added.
pub fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

/// Encodes a client's frame. The first byte holds the flags and the opcode; the mask is zero, which leaves the payload
/// unchanged.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

impl WebSocket {
    /// Opens a WebSocket, or returns the response that refuses it.
    pub async fn open(address: SocketAddr, target: &str) -> Result<Self, Answer> {
        Self::open_on(Raw::open(address).await, target).await
    }

    /// Opens a WebSocket with a token.
    pub async fn open_as(address: SocketAddr, target: &str, token: &str) -> Result<Self, Answer> {
        let head = handshake(target) + &format!("authorization: Bearer {token}\r\n");
        Self::open_with(Raw::open(address).await, head).await
    }

    /// Like [`Self::open`], on an existing connection.
    pub async fn open_on(raw: Raw, target: &str) -> Result<Self, Answer> {
        Self::open_with(raw, handshake(target)).await
    }

    /// Like [`Self::open_on`], with the head of the handshake, without the empty line.
    pub async fn open_with(mut raw: Raw, head: String) -> Result<Self, Answer> {
        raw.send(head + "\r\n").await.expect("the gateway reads");
        let answer = raw.answer().await.expect("no reset").expect("an answer");
        if answer.status != 101 {
            return Err(answer);
        }
        // This key and proof are from RFC 6455, section 1.3.
        assert_eq!(answer.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (stream, read) = raw.into_parts();
        let (reader, writer) = stream.into_split();
        Ok(Self::over(join(Cursor::new(read).chain(reader), writer)))
    }

    /// Uses a connection whose handshake is done.
    pub fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let client = ClientBuilder::new().limits(Limits::unlimited());
        Self(client.take_over(Box::new(io)))
    }

    /// Returns the next text frame as JSON; an error is the end.
    pub async fn json(&mut self) -> Result<serde_json::Value, Close> {
        self.text().await.map(|text| serde_json::from_str(&text).expect("JSON"))
    }

    /// Returns the next text frame.
    pub async fn text(&mut self) -> Result<String, Close> {
        loop {
            let message = self.message().await;
            if let Some((code, reason)) = message.as_close() {
                return Err(Close(code.into(), reason.to_owned()));
            }
            if message.is_text() {
                return Ok(message.as_text().expect("UTF-8").to_owned());
            }
        }
    }

    /// Returns the next message of any kind.
    pub async fn message(&mut self) -> Message {
        let message = timeout(PATIENCE, self.0.next()).await.expect("a frame in time");
        message.expect("a close frame before the end").expect("frames of RFC 6455")
    }

    /// Reads to the end, which must be a close frame followed by the end of the connection.
    pub async fn closed(&mut self) -> Close {
        let close = loop {
            if let Err(close) = self.text().await {
                break close;
            }
        };
        let answered = timeout(PATIENCE, self.0.next()).await.expect("our answer to the close frame in time");
        assert!(answered.is_none(), "after its close frame the gateway sent {answered:?}");
        assert_eq!(self.bytes_to_end().await.expect("an end, not a reset"), b"");
        close
    }

    /// Reads to the end of the connection without answering.
    pub async fn bytes_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        timeout(PATIENCE, self.0.get_mut().read_to_end(&mut bytes)).await.expect("the end in time")?;
        Ok(bytes)
    }

    /// Appends with a text frame.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    /// Appends with a binary frame.
    pub async fn send_binary(&mut self, bytes: impl Into<bytes::Bytes>) {
        self.send(Message::binary(bytes.into())).await;
    }

    /// Opens a listener whose first connection has its bytes carried in binary frames, for clients of a protocol over WebSocket.
    pub async fn carrying(mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a port");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut bytes = vec![0; 4096];
            loop {
                tokio::select! {
                    read = stream.read(&mut bytes) => match read {
                        Ok(length @ 1..) => self.send_binary(bytes[..length].to_vec()).await,
                        Ok(0) | Err(_) => return,
                    },
                    message = self.0.next() => match message {
                        Some(Ok(message)) if message.is_binary() => {
                            stream.write_all(&message.into_payload()).await.expect("a client that reads");
                        }
                        Some(Ok(message)) if !message.is_close() => {}
                        _ => return,
                    },
                }
            }
        });
        address
    }

    async fn send(&mut self, message: Message) {
        timeout(PATIENCE, self.0.send(message)).await.expect("the gateway reads").expect("an open socket");
    }

    /// Writes bytes directly to the connection. Fails if the gateway has closed it.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timeout(PATIENCE, self.0.get_mut().write_all(bytes.as_ref())).await.expect("the gateway reads")
    }
}
