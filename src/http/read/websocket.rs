//! WebSocket: one envelope a text frame, and each frame of the client an append (RFC 6455; over HTTP/2 RFC 8441).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_websockets::{
    CloseCode, Config, Error as SocketError, Limits as SocketLimits, Message, ServerBuilder,
};

use super::request::HEARTBEAT_NONE;
use crate::http::api::error::{Error, Problem};
use crate::http::conn::UpgradedIo;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::stream::{Append, ContentType, Encoding, Payload, Principal, StreamName};

/// An open socket and what it stands for.
pub(in crate::http) struct SocketSession {
    socket: tokio_websockets::WebSocketStream<UpgradedIo>,
    hub: Arc<Hub>,
    /// Where the client's frames go; `None`: nowhere, since it reads more streams than one.
    publisher: Option<Publisher>,
    limits: Arc<Limits>,
    ping_every: Duration,
    next_ping: Instant,
    /// Until when the client has to answer the last ping.
    pong_until: Option<Instant>,
}

/// Where a client's frames go.
pub(in crate::http) struct Publisher {
    pub(in crate::http) hub: Arc<Hub>,
    pub(in crate::http) stream: StreamName,
    pub(in crate::http) content_type: ContentType,
    pub(in crate::http) principal: Principal,
}

/// The answer to a client's frame.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum FrameReply {
    /// The offset behind the appended messages.
    Appended(String),
    Error(Problem),
}

/// Why a socket is closed by us.
pub(in crate::http) struct Closing(CloseCode, &'static str);

const DRAINING: Closing = Closing(CloseCode::GOING_AWAY, "draining");

/// What has come from a client.
enum Received {
    Message(Message),
    /// A message that is larger than it may be.
    TooLarge,
    /// A breach of the protocol, which the library has answered with its close code.
    Breach,
    /// The end.
    Nothing,
}

impl Publisher {
    async fn append(&self, message: Message, json_depth_max: usize) -> FrameReply {
        let binary = self.content_type.encoding() == Encoding::Binary;
        if message.is_binary() != binary {
            return FrameReply::Error(Error::FrameType { binary }.problem());
        }
        let body = Bytes::copy_from_slice(message.as_payload());
        let append = Append::of(self.content_type.clone(), Payload::default());
        let appended = match append.with_body(body, json_depth_max) {
            Ok(append) => {
                self.hub.publish(&self.stream, Append { principal: self.principal, ..append }).await
            }
            Err(error) => Err(error),
        };
        match appended {
            Ok(appended) => FrameReply::Appended(appended.tail.to_string()),
            Err(error) => FrameReply::Error(Error::from(error).problem()),
        }
    }
}

impl SocketSession {
    pub(in crate::http) fn new(
        io: UpgradedIo,
        hub: Arc<Hub>,
        publisher: Option<Publisher>,
        limits: Arc<Limits>,
    ) -> Self {
        let message_limits =
            SocketLimits::default().max_payload_len(Some(limits.websocket_message_bytes_max));
        let config = Config::default().frame_size(usize::MAX);
        let socket = ServerBuilder::new().config(config).limits(message_limits).serve(io);
        let ping_every = limits.websocket_ping.get();
        let next_ping = Instant::now() + ping_every;
        Self { socket, hub, publisher, limits, ping_every, next_ping, pong_until: None }
    }

    /// Serves it to its end. A client that asks for a heartbeat says how long its network may be quiet; then pings come
    /// no more often than that.
    pub(in crate::http) async fn serve(mut self, updates: impl Stream<Item = Bytes>, heartbeat: Duration) {
        if heartbeat < HEARTBEAT_NONE {
            self.ping_every = self.ping_every.max(heartbeat);
            self.next_ping = Instant::now() + self.ping_every;
        }
        note(self.run(updates).await);
    }

    /// The first text of the client, which has as long for it as for its first byte. `None`: the socket has ended.
    pub(in crate::http) async fn first_text(mut self) -> Option<(Self, Bytes)> {
        let (patience, mut draining) = (self.limits.first_byte_timeout.get(), self.hub.draining());
        let drained = async { drop(draining.wait_for(|draining| *draining).await) };
        let text = tokio::select! {
            text = timeout(patience, self.text()) => text.ok(),
            () = drained => None,
        };
        let ended = match text {
            Some(Ok(Ok(text))) => return Some((self, text)),
            Some(Ok(Err(end))) => self.end(end).await,
            Some(Err(error)) => Err(error),
            None if self.hub.is_draining() => self.close(DRAINING).await,
            None => self.close(Closing(CloseCode::POLICY_VIOLATION, "no request in time")).await,
        };
        note(ended);
        None
    }

    /// The next text; an error is the end.
    async fn text(&mut self) -> Result<Result<Bytes, Received>, SocketError> {
        loop {
            match self.receive().await? {
                Received::Message(message) if message.is_text() => {
                    return Ok(Ok(Bytes::copy_from_slice(message.as_payload())));
                }
                Received::Message(_) => self.socket.flush().await?,
                end => return Ok(Err(end)),
            }
        }
    }

    /// Tells the client why it gets nothing, and closes.
    pub(in crate::http) async fn refuse(mut self, error: &Error) {
        let sent = self.reply(&FrameReply::Error(error.problem())).await;
        note(match sent {
            Ok(()) => self.close(Closing(CloseCode::POLICY_VIOLATION, "refused")).await,
            Err(error) => Err(error),
        });
    }

    /// Sends updates and takes appends until either side has had enough.
    async fn run(mut self, updates: impl Stream<Item = Bytes>) -> Result<(), SocketError> {
        tokio::pin!(updates);
        loop {
            let timer = self.pong_until.unwrap_or(self.next_ping);
            tokio::select! {
                update = updates.next() => match update {
                    Some(envelope) => self.socket.send(text(envelope)).await?,
                    None => {
                        let closing = self.why_updates_end();
                        return self.close(closing).await;
                    }
                },
                received = self.receive() => match received? {
                    Received::Message(message) => self.take(message).await?,
                    end => return self.end(end).await,
                },
                () = sleep_until(timer) => {
                    if self.pong_until.is_some() {
                        return self.close(Closing(CloseCode::POLICY_VIOLATION, "no pong")).await;
                    }
                    self.socket.send(Message::ping(Bytes::new())).await?;
                    self.pong_until = Some(Instant::now() + self.limits.websocket_pong_timeout.get());
                }
            }
        }
    }

    /// Cancel safe.
    async fn receive(&mut self) -> Result<Received, SocketError> {
        match self.socket.next().await {
            Some(Ok(message)) => Ok(Received::Message(message)),
            Some(Err(SocketError::PayloadTooLong { .. })) => Ok(Received::TooLarge),
            Some(Err(SocketError::Protocol(_))) => Ok(Received::Breach),
            Some(Err(error)) => Err(error),
            None => Ok(Received::Nothing),
        }
    }

    async fn end(self, end: Received) -> Result<(), SocketError> {
        match end {
            Received::TooLarge => self.close(Closing(CloseCode::MESSAGE_TOO_BIG, "message too big")).await,
            Received::Breach => self.finish().await,
            Received::Message(_) | Received::Nothing => Ok(()),
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), SocketError> {
        if message.is_pong() {
            self.pong_until = None;
            self.next_ping = Instant::now() + self.ping_every;
        }
        if message.is_text() || message.is_binary() {
            let reply = match &self.publisher {
                Some(publisher) => publisher.append(message, self.limits.json_depth_max).await,
                None => FrameReply::Error(Error::ReadOnly.problem()),
            };
            self.reply(&reply).await?;
        }
        // What the library answers by itself (pong, close) goes out before the next frame is read, so that a client
        // which does not read can not pile up answers.
        self.socket.flush().await
    }

    async fn reply(&mut self, reply: &FrameReply) -> Result<(), SocketError> {
        let json = serde_json::to_vec(reply).unwrap_or_default();
        self.socket.send(text(json.into())).await
    }

    fn why_updates_end(&self) -> Closing {
        if self.hub.is_draining() { DRAINING } else { Closing(CloseCode::NORMAL_CLOSURE, "nothing follows") }
    }

    /// Sends a close frame and gives the client time for its own.
    async fn close(mut self, Closing(code, reason): Closing) -> Result<(), SocketError> {
        match self.socket.send(Message::close(Some(code), reason)).await {
            Ok(()) | Err(SocketError::AlreadyClosed) => {}
            Err(error) => return Err(error),
        }
        let patience = self.limits.websocket_pong_timeout.get();
        let _closed = timeout(patience, async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
        self.finish().await
    }

    /// Ends the connection behind the last frame, and so that the client can still read it.
    async fn finish(mut self) -> Result<(), SocketError> {
        self.socket.flush().await?;
        Ok(self.socket.into_inner().shutdown().await?)
    }
}

fn note(ended: Result<(), SocketError>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "websocket ended");
    }
}

/// A text frame of what an encoder made, which is UTF-8.
fn text(json: Bytes) -> Message {
    Message::text(tokio_websockets::Payload::from(json))
}
