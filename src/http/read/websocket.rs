//! WebSocket: each text frame to the client is an envelope, and each frame of the client is an append (RFC 6455; over HTTP/2
//! RFC 8441). With authorization, the frame `{"auth":"TOKEN"}` brings a token, or renews the rights of the client.

mod frames;
mod opening;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_websockets::{CloseCode, Config, Error as SocketError, Message, ServerBuilder};

use frames::{
    Closing, DRAINING, FrameReply, POLICY_VIOLATION, Received, UNAUTHORIZED, messages_up_to, text, token_of,
};

use super::live::UnauthorizedFlag;
use super::request::HEARTBEAT_NONE;
use crate::auth::Action;
use crate::http::api::credentials::{Renewals, Rights, SocketRights};
use crate::http::api::error::Error;
use crate::http::conn::UpgradedIo;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::stream::{Append, ContentType, Encoding, Payload, Principal, StreamName};

/// A ping that is due so soon, and within a tenth of its interval, is sent at once with an envelope.
const SAME_TIME: Duration = Duration::from_millis(500);

/// An open WebSocket.
pub(in crate::http) struct SocketSession {
    socket: tokio_websockets::WebSocketStream<UpgradedIo>,
    hub: Arc<Hub>,
    /// What the client may do. `None`: the gateway checks no credentials.
    rights: Option<SocketRights>,
    limits: Arc<Limits>,
    ping_every: Duration,
    next_ping: Instant,
    /// Whether the client requested a heartbeat, with which pings are sent then.
    pings_with_heartbeat: bool,
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
        let pings_with_heartbeat = false;
        Self {
            socket,
            hub,
            rights,
            limits,
            ping_every,
            next_ping,
            pings_with_heartbeat,
            pong_until,
            unauthorized,
        }
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
    /// than that, and together with the heartbeat: each packet alone would wake the radio of a phone.
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
            self.pings_with_heartbeat = true;
        }
        log_end(self.run(publisher.as_ref(), &streams, updates).await);
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
            let timer = self.pong_until.unwrap_or(self.next_ping + self.same_time());
            tokio::select! {
                update = updates.next() => match update {
                    Some(envelope) => {
                        self.socket.send(text(envelope)).await?;
                        if self.pings_with_heartbeat && self.pong_until.is_none() {
                            self.follow_envelope().await?;
                        }
                    }
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
                    self.ping().await?;
                }
            }
        }
    }

    /// Sends the ping that is due with a heartbeat; any other envelope puts it off, as it puts the heartbeat off.
    async fn follow_envelope(&mut self) -> Result<(), SocketError> {
        let now = Instant::now();
        if self.next_ping <= now + self.same_time() {
            return self.ping().await;
        }
        self.next_ping = now + self.ping_every;
        Ok(())
    }

    /// How far a ping may be from a heartbeat that it is sent with. A ping alone is sent that much later, so that it never precedes its
    /// heartbeat.
    fn same_time(&self) -> Duration {
        if self.pings_with_heartbeat { SAME_TIME.min(self.ping_every / 10) } else { Duration::ZERO }
    }

    async fn ping(&mut self) -> Result<(), SocketError> {
        self.socket.send(Message::ping(Bytes::new())).await?;
        let now = Instant::now();
        self.pong_until = Some(now + self.limits.websocket_pong_timeout.get());
        self.next_ping = now + self.ping_every;
        Ok(())
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
