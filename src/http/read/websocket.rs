//! WebSocket: each text frame to the client is an envelope, and each frame of the client is an append (RFC 6455; over HTTP/2
//! RFC 8441).

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

use super::live::UnauthorizedFlag;
use super::request::HEARTBEAT_NONE;
use crate::auth::Action;
use crate::http::api::credentials::Rights;
use crate::http::api::error::{Error, Problem};
use crate::http::conn::UpgradedIo;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::stream::{Append, ContentType, Encoding, Payload, Principal, StreamName};

/// An open WebSocket.
pub(in crate::http) struct SocketSession {
    socket: tokio_websockets::WebSocketStream<UpgradedIo>,
    hub: Arc<Hub>,
    /// Appends the frames of the client. `None`: they are refused, because the socket reads many streams.
    publisher: Option<Publisher>,
    limits: Arc<Limits>,
    ping_every: Duration,
    next_ping: Instant,
    /// When the pong to the last ping is due; `None`: no pong is awaited.
    pong_until: Option<Instant>,
    unauthorized: Option<UnauthorizedFlag>,
}

/// Appends the frames of a client to the stream that it reads.
pub(in crate::http) struct Publisher {
    /// What the client may do. `None`: the gateway checks no credentials.
    pub(in crate::http) rights: Option<Rights>,
    pub(in crate::http) hub: Arc<Hub>,
    pub(in crate::http) stream: StreamName,
    pub(in crate::http) content_type: ContentType,
    pub(in crate::http) principal: Principal,
}

/// The reply to a frame of the client.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum FrameReply {
    /// The offset after the appended messages.
    Appended(String),
    Error(Problem),
}

/// The code and the reason with which the gateway closes a socket.
pub(in crate::http) struct Closing(CloseCode, &'static str);

/// The close code when the rights of the client have ended: 4000 and 401, as private use allows (RFC 6455, section 7.4.2).
const UNAUTHORIZED: u16 = 4401;

const DRAINING: Closing = Closing(CloseCode::GOING_AWAY, "draining");

/// The outcome of receiving from a client.
enum Received {
    Message(Message),
    /// A message above the size limit.
    TooLarge,
    /// A violation of the protocol, which the library has answered with a close frame.
    Violation,
    /// The end of the connection.
    End,
}

impl Publisher {
    async fn append(&self, message: Message, json_depth_max: usize) -> FrameReply {
        let binary = self.content_type.encoding() == Encoding::Binary;
        if message.is_binary() != binary {
            return FrameReply::Error(Error::FrameType { binary }.problem());
        }
        let allowed =
            self.rights.as_ref().map_or(Ok(()), |rights| rights.check(Action::Append, &self.stream));
        if let Err(error) = allowed {
            return FrameReply::Error(error.problem());
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
        Self { socket, hub, publisher, limits, ping_every, next_ping, pong_until: None, unauthorized: None }
    }

    /// Serves the socket until it ends. A client that requests a heartbeat thereby tells for how long its connection may be
    /// quiet, so pings are sent no more often than that.
    pub(in crate::http) async fn serve(
        mut self,
        updates: impl Stream<Item = Bytes>,
        heartbeat: Duration,
        unauthorized: Option<UnauthorizedFlag>,
    ) {
        self.unauthorized = unauthorized;
        if heartbeat < HEARTBEAT_NONE {
            self.ping_every = self.ping_every.max(heartbeat);
            self.next_ping = Instant::now() + self.ping_every;
        }
        log_end(self.run(updates).await);
    }

    /// Waits for the first text frame of the client, for at most `first_byte_timeout`. `None`: the socket has ended.
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
        log_end(ended);
        None
    }

    /// Returns the next text frame; an inner error is the end of the socket.
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

    /// Sends the error to the client and closes the socket.
    pub(in crate::http) async fn refuse(mut self, error: &Error) {
        let sent = self.reply(&FrameReply::Error(error.problem())).await;
        log_end(match sent {
            Ok(()) => self.close(Closing(CloseCode::POLICY_VIOLATION, "refused")).await,
            Err(error) => Err(error),
        });
    }

    /// Sends updates and receives appends until either side closes the socket.
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
                    Received::Message(message) => self.handle(message).await?,
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

    /// Receives the next message. Cancel safe.
    async fn receive(&mut self) -> Result<Received, SocketError> {
        match self.socket.next().await {
            Some(Ok(message)) => Ok(Received::Message(message)),
            Some(Err(SocketError::PayloadTooLong { .. })) => Ok(Received::TooLarge),
            Some(Err(SocketError::Protocol(_))) => Ok(Received::Violation),
            Some(Err(error)) => Err(error),
            None => Ok(Received::End),
        }
    }

    async fn end(self, end: Received) -> Result<(), SocketError> {
        match end {
            Received::TooLarge => self.close(Closing(CloseCode::MESSAGE_TOO_BIG, "message too big")).await,
            Received::Violation => self.finish().await,
            Received::Message(_) | Received::End => Ok(()),
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), SocketError> {
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
        // Replies of the library itself (pong, close) are flushed before the next frame is read, so that they do not
        // accumulate for a client that does not read.
        self.socket.flush().await
    }

    async fn reply(&mut self, reply: &FrameReply) -> Result<(), SocketError> {
        let json = serde_json::to_vec(reply).unwrap_or_default();
        self.socket.send(text(json.into())).await
    }

    fn why_updates_end(&self) -> Closing {
        if let Some(why) = self.unauthorized.as_ref().and_then(|flag| flag.get()) {
            return Closing(CloseCode::try_from(UNAUTHORIZED).unwrap_or(CloseCode::POLICY_VIOLATION), why);
        }
        if self.hub.is_draining() { DRAINING } else { Closing(CloseCode::NORMAL_CLOSURE, "nothing follows") }
    }

    /// Sends a close frame and waits for that of the client, for at most `websocket_pong_timeout`.
    async fn close(mut self, Closing(code, reason): Closing) -> Result<(), SocketError> {
        match self.socket.send(Message::close(Some(code), reason)).await {
            Ok(()) | Err(SocketError::AlreadyClosed) => {}
            Err(error) => return Err(error),
        }
        let patience = self.limits.websocket_pong_timeout.get();
        let _closed = timeout(patience, async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
        self.finish().await
    }

    /// Shuts the connection down after the last frame, so that the client can still read it.
    async fn finish(mut self) -> Result<(), SocketError> {
        self.socket.flush().await?;
        Ok(self.socket.into_inner().shutdown().await?)
    }
}

fn log_end(ended: Result<(), SocketError>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "websocket ended");
    }
}

/// Returns a text frame with JSON, which is UTF-8.
fn text(json: Bytes) -> Message {
    Message::text(tokio_websockets::Payload::from(json))
}
