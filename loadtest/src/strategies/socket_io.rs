//! Socket.IO on its two transports. Its packets are those of Engine.IO 4, each a digit and its content; on the long poll,
//! `\x1e` separates those of one response.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::time::timeout;
use tokio_websockets::Message;

use crate::client::{Client, PATIENCE};
use crate::dialects::LiveForm;
use crate::wire::{Connection, WireError, accepted};

/// Enters the namespace `/`; the server answers with the same packet and a session.
const ENTER: &str = "40";

const PONG: &str = "3";

const SEPARATOR: u8 = 0x1e;

/// The first packet of a session.
#[derive(Deserialize)]
struct Opened {
    sid: String,
}

/// What a packet asks of the client.
enum Packet<'a> {
    /// The session is open.
    Open(&'a [u8]),
    /// The client has entered the namespace and receives its messages.
    Entered,
    Ping,
    Messages,
    Closed,
    Other,
}

impl<'a> Packet<'a> {
    fn parse(packet: &'a [u8]) -> Self {
        match packet {
            [b'0', opened @ ..] => Self::Open(opened),
            [b'1', ..] | [b'4', b'1' | b'4', ..] => Self::Closed,
            [b'2', ..] => Self::Ping,
            [b'4', b'0', ..] => Self::Entered,
            [b'4', b'2', ..] => Self::Messages,
            _ => Self::Other,
        }
    }
}

/// Follows the stream over a WebSocket until the server closes.
pub(super) async fn read_websocket(client: &mut Client) -> Result<(), WireError> {
    let target = client.dialect()?.live(&client.stream, None, LiveForm::WebSocket, None);
    let (mut socket, _connection) = client.web_socket(&target).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        let packet: &[u8] = message.as_payload();
        match Packet::parse(packet) {
            Packet::Open(_) => socket.send(Message::text(ENTER)).await?,
            Packet::Entered => drop(client.started().await),
            Packet::Ping => socket.send(Message::text(PONG)).await?,
            Packet::Messages => drop(client.receive(packet)),
            Packet::Closed => return Err(WireError::Closed),
            Packet::Other => {}
        }
    }
    Ok(())
}

/// Follows the stream by long polls until an error. The server answers a poll that nothing else answers with a ping after `hold`.
pub(super) async fn read_polling(client: &mut Client, hold: Duration) -> Result<Infallible, WireError> {
    let mut session = Session { connection: client.connect().await?, id: None };
    loop {
        let answer = session.poll(client, hold).await?;
        let mut any = false;
        for packet in answer.split(|byte| *byte == SEPARATOR) {
            match Packet::parse(packet) {
                Packet::Open(opened) => {
                    let opened: Opened = serde_json::from_slice(opened)
                        .map_err(|error| WireError::SocketIo(error.to_string()))?;
                    session.id = Some(opened.sid);
                    session.send(client, ENTER).await?;
                }
                Packet::Entered => drop(client.started().await),
                Packet::Ping => session.send(client, PONG).await?,
                Packet::Messages => any |= client.receive(packet),
                Packet::Closed => return Err(WireError::Closed),
                Packet::Other => {}
            }
        }
        if !any {
            client.meter.empty_answer();
        }
    }
}

/// A session of long polls, and of requests that send packets between them.
struct Session {
    connection: Connection,
    id: Option<String>,
}

impl Session {
    /// Returns the packets of the next response.
    async fn poll(&mut self, client: &Client, hold: Duration) -> Result<Bytes, WireError> {
        let poll =
            client.counted_request(client.dialect()?.poll(&client.stream, self.id.as_deref(), None))?;
        let exchange = timeout(hold + PATIENCE, self.connection.exchange(poll));
        let answer = exchange.await.unwrap_or(Err(WireError::Mute))?;
        accepted(&answer)?;
        Ok(answer.into_body())
    }

    async fn send(&mut self, client: &Client, packet: &'static str) -> Result<(), WireError> {
        let mut request = client.dialect()?.poll(&client.stream, self.id.as_deref(), None)?;
        *request.method_mut() = Method::POST;
        *request.body_mut() = packet.into();
        request
            .headers_mut()
            .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain;charset=UTF-8"));
        let request = client.counted_request(Ok(request))?;
        accepted(&timeout(PATIENCE, self.connection.exchange(request)).await.unwrap_or(Err(WireError::Mute))?)
    }
}
