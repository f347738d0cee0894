//! WebSocket: each text frame to the client is an envelope, and each frame of the client is an append (RFC 6455; over HTTP/2
//! RFC 8441). With authorization, the frame `{"auth":"TOKEN"}` brings a token, or renews the rights of the client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_websockets::{
    CloseCode, Config, Error as SocketError, Limits as SocketLimits, Message, ServerBuilder,
};

use super::live::UnauthorizedFlag;
use super::request::HEARTBEAT_NONE;
use crate::auth::{Action, Unauthorized};
use crate::http::api::credentials::{Renewals, Rights, SocketRights};
use crate::http::api::error::{Error, Problem};
use crate::http::conn::UpgradedIo;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::stream::{Append, ContentType, Encoding, Payload, Principal, StreamName};

/// An open WebSocket.
pub(in crate::http) struct SocketSession {
    socket: tokio_websockets::WebSocketStream<UpgradedIo>,
    hub: Arc<Hub>,
    /// What the client may do. `None`: the gateway checks no credentials.
    rights: Option<SocketRights>,
    limits: Arc<Limits>,
    ping_every: Duration,
    next_ping: Instant,
    /// When the pong to the last ping is due; `None`: no pong is awaited.
    pong_until: Option<Instant>,
    unauthorized: Option<UnauthorizedFlag>,
}

/// Appends the frames of a client to the stream that it reads.
pub(in crate::http) struct Publisher {
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
    /// The token was accepted.
    #[serde(rename_all = "camelCase")]
    Authorized {
        /// For how many seconds the client has its rights.
        expires_in: Option<u64>,
    },
    Error(Problem),
}

/// The code and the reason with which the gateway closes a socket (RFC 6455, section 7.4.1).
#[derive(Debug, Clone, Copy)]
struct Closing(u16, &'static str);

const DRAINING: Closing = Closing(1001, "draining");
const POLICY_VIOLATION: u16 = 1008;

/// The close code of a client whose token is missing, refused or expired: 4000 and the status 401. Codes from 4000 are private.
const UNAUTHORIZED: u16 = 4401;

/// The largest message of a client that has not sent its token yet, in bytes: a token and what is around it.
const TOKEN_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// A frame with a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFrame<'a> {
    #[serde(borrow)]
    auth: std::borrow::Cow<'a, str>,
}

/// Returns the token in a text frame that has nothing else.
fn token_of(text: &(impl AsRef<[u8]> + ?Sized)) -> Option<TokenFrame<'_>> {
    let text = text.as_ref();
    let behind_brace = text.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    if behind_brace.starts_with(b"\"auth\"") { serde_json::from_slice(text).ok() } else { None }
}

fn messages_up_to(bytes: usize) -> SocketLimits {
    SocketLimits::default().max_payload_len(Some(bytes))
}

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
    async fn append(
        &self,
        message: Message,
        rights: Option<&SocketRights>,
        json_depth_max: usize,
    ) -> FrameReply {
        let binary = self.content_type.encoding() == Encoding::Binary;
        if message.is_binary() != binary {
            return FrameReply::Error(Error::FrameType { binary }.problem());
        }
        if let Some(rights) = rights
            && let Err(error) = rights.rights().check(Action::Append, &self.stream)
        {
            rights.audit_refusal(Some(&self.stream), &error);
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
        rights: Option<SocketRights>,
        limits: Arc<Limits>,
    ) -> Self {
        let config = Config::default().frame_size(usize::MAX);
        let message_limits = messages_up_to(limits.websocket_message_bytes_max);
        let socket = ServerBuilder::new().config(config).limits(message_limits).serve(io);
        let ping_every = limits.websocket_ping.get();
        let next_ping = Instant::now() + ping_every;
        let (pong_until, unauthorized) = (None, None);
        Self { socket, hub, rights, limits, ping_every, next_ping, pong_until, unauthorized }
    }

    /// What the client may do now and later. `None`: the gateway checks no credentials.
    pub(in crate::http) fn rights(&self) -> Option<(Rights, Renewals)> {
        self.rights.as_ref().map(|rights| (rights.rights().clone(), rights.renewals()))
    }

    /// Who is charged for what the client appends.
    pub(in crate::http) fn principal(&self) -> Principal {
        self.rights.as_ref().map_or(Principal::GATEWAY, |rights| rights.rights().principal())
    }

    pub(in crate::http) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Serves the socket until it ends. The frames of the client are appended by `publisher`, or refused without one, because the
    /// socket reads many streams. `streams` are those that each later token has to grant.
    ///
    /// A client that requests a heartbeat thereby tells for how long its connection may be quiet, so pings are sent no more often
    /// than that.
    pub(in crate::http) async fn serve(
        mut self,
        publisher: Option<Publisher>,
        streams: Vec<StreamName>,
        (updates, heartbeat): (impl Stream<Item = Bytes>, Duration),
        unauthorized: Option<UnauthorizedFlag>,
    ) {
        self.unauthorized = unauthorized;
        if heartbeat < HEARTBEAT_NONE {
            self.ping_every = self.ping_every.max(heartbeat);
            self.next_ping = Instant::now() + self.ping_every;
        }
        log_end(self.run(publisher.as_ref(), &streams, updates).await);
    }

    /// Waits for the token of a client that has none, for at most `websocket_auth_timeout`. `None`: the socket has ended.
    pub(in crate::http) async fn first_token(mut self) -> Option<Self> {
        *self.socket.limits_mut() = messages_up_to(TOKEN_MESSAGE_BYTES_MAX);
        let patience = self.limits.websocket_auth_timeout.get();
        let (mut session, text) =
            self.first_text_within(patience, Closing(UNAUTHORIZED, "no token in time")).await?;
        let outcome = match token_of(&text) {
            Some(token) => session.renew(&token.auth, &[]).await,
            None => session.refuse_token(&Error::Unauthorized(Unauthorized::Missing)).await,
        };
        *session.socket.limits_mut() = messages_up_to(session.limits.websocket_message_bytes_max);
        session.unless_closing(outcome).await
    }

    /// Waits for the first text frame of the client, for at most `first_byte_timeout`, and for a token before it, if the client
    /// sends one. `None`: the socket has ended.
    pub(in crate::http) async fn first_text(self) -> Option<(Self, Bytes)> {
        let patience = self.limits.first_byte_timeout.get();
        let too_late = Closing(POLICY_VIOLATION, "no request in time");
        let (mut session, text) = self.first_text_within(patience, too_late).await?;
        let Some(token) = token_of(&text) else { return Some((session, text)) };
        let outcome = session.renew(&token.auth, &[]).await;
        session.unless_closing(outcome).await?.first_text_within(patience, too_late).await
    }

    async fn first_text_within(mut self, patience: Duration, too_late: Closing) -> Option<(Self, Bytes)> {
        let mut draining = self.hub.draining();
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
            None => self.close(too_late).await,
        };
        log_end(ended);
        None
    }

    /// Takes the rights of a token, which has to grant `streams`. Returns with what to close the socket if it is refused. A gateway
    /// that checks no tokens ignores it.
    async fn renew(&mut self, token: &str, streams: &[StreamName]) -> Result<Option<Closing>, SocketError> {
        let Some(rights) = &mut self.rights else { return Ok(None) };
        if let Err(error) = rights.renew(token, streams) {
            return self.refuse_token(&error).await;
        }
        let expires_in = rights.left().map(|left| left.as_secs());
        self.reply(&FrameReply::Authorized { expires_in }).await.map(|()| None)
    }

    async fn refuse_token(&mut self, error: &Error) -> Result<Option<Closing>, SocketError> {
        self.audit(error);
        self.reply(&FrameReply::Error(error.problem())).await?;
        Ok(Some(Closing(UNAUTHORIZED, "unauthorized")))
    }

    fn audit(&self, error: &Error) {
        if let Some(rights) = &self.rights {
            rights.audit_refusal(None, error);
        }
    }

    /// Closes the socket if `outcome` says so. `None`: it has ended.
    async fn unless_closing(self, outcome: Result<Option<Closing>, SocketError>) -> Option<Self> {
        log_end(match outcome {
            Ok(None) => return Some(self),
            Ok(Some(closing)) => self.close(closing).await,
            Err(error) => Err(error),
        });
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
        self.audit(error);
        let sent = self.reply(&FrameReply::Error(error.problem())).await;
        log_end(match sent {
            Ok(()) => self.close(Closing(POLICY_VIOLATION, "refused")).await,
            Err(error) => Err(error),
        });
    }

    /// Sends updates and receives appends until either side closes the socket, or the rights of the client end.
    async fn run(
        mut self,
        publisher: Option<&Publisher>,
        streams: &[StreamName],
        updates: impl Stream<Item = Bytes>,
    ) -> Result<(), SocketError> {
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
                    Received::Message(message) => {
                        if let Some(closing) = self.handle(message, publisher, streams).await? {
                            return self.close(closing).await;
                        }
                    }
                    end => return self.end(end).await,
                },
                () = sleep_until(timer) => {
                    if self.pong_until.is_some() {
                        return self.close(Closing(POLICY_VIOLATION, "no pong")).await;
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
            Received::TooLarge => self.close(Closing(1009, "message too big")).await,
            Received::Violation => self.finish().await,
            Received::Message(_) | Received::End => Ok(()),
        }
    }

    /// Handles a message of the client. Returns with what to close the socket, if it has to be closed.
    async fn handle(
        &mut self,
        message: Message,
        publisher: Option<&Publisher>,
        streams: &[StreamName],
    ) -> Result<Option<Closing>, SocketError> {
        if message.is_pong() {
            self.pong_until = None;
            self.next_ping = Instant::now() + self.ping_every;
        }
        // Without authorization, each frame on one stream is a message, whatever it says.
        let may_be_token = self.rights.is_some() || publisher.is_none();
        if let Some(token) = message.as_text().filter(|_| may_be_token).and_then(token_of) {
            return self.renew(&token.auth, streams).await;
        }
        if message.is_text() || message.is_binary() {
            let rights = self.rights.as_ref();
            let reply = match publisher {
                Some(publisher) => publisher.append(message, rights, self.limits.json_depth_max).await,
                None => FrameReply::Error(Error::ReadOnly.problem()),
            };
            self.reply(&reply).await?;
        }
        // Replies of the library itself (pong, close) are flushed before the next frame is read, so that they do not
        // accumulate for a client that does not read.
        self.socket.flush().await.map(|()| None)
    }

    async fn reply(&mut self, reply: &FrameReply) -> Result<(), SocketError> {
        let json = serde_json::to_vec(reply).unwrap_or_default();
        self.socket.send(text(json.into())).await
    }

    fn why_updates_end(&self) -> Closing {
        if let Some(why) = self.unauthorized.as_ref().and_then(|flag| flag.get()) {
            return Closing(UNAUTHORIZED, why);
        }
        if self.hub.is_draining() { DRAINING } else { Closing(1000, "nothing follows") }
    }

    /// Sends a close frame and waits for that of the client, for at most `websocket_pong_timeout`.
    async fn close(mut self, Closing(code, reason): Closing) -> Result<(), SocketError> {
        let code = CloseCode::try_from(code).unwrap_or(CloseCode::POLICY_VIOLATION);
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
