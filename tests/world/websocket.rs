//! A WebSocket client. It reads with a strict library and can write bytes that no library would.

use std::io::{self, Cursor};
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Chain, Join, join};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use super::PATIENCE;
use super::client::Answer;
use super::raw::Raw;

/// What the library reads from: first what came along with the answer to the handshake.
type Io = Join<Chain<Cursor<Vec<u8>>, OwnedReadHalf>, OwnedWriteHalf>;

/// An open WebSocket. Dropping it closes the socket without a close frame.
pub struct WebSocket(WebSocketStream<Io>);

/// What a WebSocket ended with: the code and the reason of the gateway's close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close(pub u16, pub String);

/// The head of a handshake without its end, so that fields can follow.
pub fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nhost: gateway\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

impl WebSocket {
    /// Opens one, or returns the answer that refuses it.
    pub async fn open(address: SocketAddr, target: &str) -> Result<Self, Answer> {
        Self::open_on(Raw::open(address).await, target).await
    }

    /// The same on a connection that is there.
    pub async fn open_on(mut raw: Raw, target: &str) -> Result<Self, Answer> {
        raw.send(handshake(target) + "\r\n").await.expect("the gateway reads");
        let answer = raw.answer().await.expect("no reset").expect("an answer");
        if answer.status != 101 {
            return Err(answer);
        }
        // RFC 6455, section 1.3, has this key and this proof.
        assert_eq!(answer.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (stream, read) = raw.into_parts();
        let (reader, writer) = stream.into_split();
        let io = join(Cursor::new(read).chain(reader), writer);
        let client = ClientBuilder::new().limits(Limits::unlimited());
        Ok(Self(client.take_over(io)))
    }

    /// The next envelope or answer; an error is the end.
    pub async fn json(&mut self) -> Result<serde_json::Value, Close> {
        self.text().await.map(|text| serde_json::from_str(&text).expect("JSON"))
    }

    /// The next text frame as it is.
    pub async fn text(&mut self) -> Result<String, Close> {
        loop {
            let message = timeout(PATIENCE, self.0.next()).await.expect("a frame in time");
            let message = message.expect("a close frame before the end").expect("frames of RFC 6455");
            if let Some((code, reason)) = message.as_close() {
                return Err(Close(code.into(), reason.to_owned()));
            }
            if message.is_text() {
                return Ok(message.as_text().expect("UTF-8").to_owned());
            }
        }
    }

    /// Reads to the end, which has to come in good order: a close frame, then the end of the connection.
    pub async fn closed(&mut self) -> Close {
        let close = loop {
            if let Err(close) = self.text().await {
                break close;
            }
        };
        let end = timeout(PATIENCE, self.0.next()).await.expect("the end in time");
        assert!(end.is_none(), "after its close frame the gateway sent {end:?}");
        close
    }

    /// Appends by a text frame.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    /// Appends by a binary frame.
    pub async fn send_binary(&mut self, bytes: impl Into<bytes::Bytes>) {
        self.send(Message::binary(bytes.into())).await;
    }

    async fn send(&mut self, message: Message) {
        timeout(PATIENCE, self.0.send(message)).await.expect("the gateway reads").expect("an open socket");
    }

    /// Writes bytes below the library. Fails when the gateway has closed.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timeout(PATIENCE, self.0.get_mut().write_all(bytes.as_ref())).await.expect("the gateway reads")
    }
}
