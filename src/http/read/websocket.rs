//! WebSocket: each text frame to the client is an envelope, and each frame of the client is an append (RFC 6455; over HTTP/2
//! RFC 8441). With authorization, the frame `{"auth":"TOKEN"}` brings a token, or renews the rights of the client.

mod frames;
mod opening;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

pub(in crate::http) use frames::Publisher;

use frames::{Closing, DRAINING, FrameReply, POLICY_VIOLATION, SocketEnd, TOO_LARGE, UNAUTHORIZED, token_of};

use super::live::{UnauthorizedFlag, Updates};
use super::request::HEARTBEAT_NONE;
use crate::clock::ReusableSleep;
use crate::http::api::credentials::{Renewals, Rights, SocketRights};
use crate::http::api::error::Error;
use crate::http::conn::{ClientMessage, FrameSocket, UpgradedIo};
use crate::hub::{Hub, is_in_place};
use crate::limits::Limits;
use crate::stream::{Principal, StreamName};

/// A ping that is due so soon, and within a tenth of its interval, is sent at once with an envelope.
const SAME_TIME: Duration = Duration::from_millis(500);

/// An open WebSocket.
pub(in crate::http) struct SocketSession {
    socket: FrameSocket,
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

impl SocketSession {
    pub(in crate::http) fn new(
        io: UpgradedIo,
        hub: Arc<Hub>,
        rights: Option<SocketRights>,
        limits: Arc<Limits>,
    ) -> Self {
        let socket = FrameSocket::new(io, limits.websocket_message_bytes_max);
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

    /// Sets how the socket is kept alive, and where it finds out that the rights of the client have ended.
    ///
    /// A client that requests a heartbeat thereby tells for how long its connection may be quiet, so pings are sent no more often
    /// than that, and together with the heartbeat: each packet alone would wake the radio of a phone.
    pub(in crate::http) fn begin(&mut self, heartbeat: Duration, unauthorized: Option<UnauthorizedFlag>) {
        self.unauthorized = unauthorized;
        if heartbeat < HEARTBEAT_NONE {
            self.ping_every = self.ping_every.max(heartbeat);
            self.next_ping = Instant::now() + self.ping_every;
            self.pings_with_heartbeat = true;
        }
    }

    /// Serves the socket until it ends. The frames of the client are appended by `publisher`, or refused without one, because the
    /// socket reads many streams. `streams` are those that each later token has to grant.
    pub(in crate::http) async fn serve(
        &mut self,
        publisher: Option<&Publisher>,
        streams: &[StreamName],
        updates: &mut Updates,
    ) {
        log_end(match self.run(publisher, streams, updates).await {
            Ok(SocketEnd::Close(closing)) => Box::pin(self.close(closing)).await,
            Ok(SocketEnd::ShutDown) => self.socket.shut_down().await,
            Err(error) => Err(error),
        });
    }

    /// Sends the error to the client and closes the socket.
    pub(in crate::http) async fn refuse(&mut self, error: &Error) {
        self.audit(error);
        log_end(match self.reply(&FrameReply::Error(error.problem())).await {
            Ok(()) => self.close(Closing(POLICY_VIOLATION, "refused")).await,
            Err(error) => Err(error),
        });
    }

    /// Sends updates and receives appends until either side closes the socket, or the rights of the client end.
    async fn run(
        &mut self,
        publisher: Option<&Publisher>,
        streams: &[StreamName],
        updates: &mut Updates,
    ) -> io::Result<SocketEnd> {
        let mut timer = ReusableSleep::default();
        loop {
            let due = self.pong_until.unwrap_or(self.next_ping + self.same_time());
            tokio::select! {
                update = updates.next() => match update {
                    Some(envelope) => {
                        self.socket.send_text(envelope).await?;
                        if self.pings_with_heartbeat && self.pong_until.is_none() {
                            self.follow_envelope().await?;
                        }
                    }
                    None => return Ok(SocketEnd::Close(self.why_updates_end())),
                },
                received = receive_by_task(&mut self.socket) => {
                    // Boxed, as it is rare beside waiting, and a reader that waits would have the memory for it.
                    if let Some(end) = Box::pin(self.handle(received?, publisher, streams)).await? {
                        return Ok(end);
                    }
                }
                () = poll_fn(|context| timer.poll(context, due)) => {
                    if self.pong_until.is_some() {
                        return Ok(SocketEnd::Close(Closing(POLICY_VIOLATION, "no pong")));
                    }
                    self.ping().await?;
                }
            }
        }
    }

    /// Sends the ping that is due with a heartbeat; any other envelope puts it off, as it puts the heartbeat off.
    async fn follow_envelope(&mut self) -> io::Result<()> {
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

    async fn ping(&mut self) -> io::Result<()> {
        self.socket.send_ping().await?;
        let now = Instant::now();
        self.pong_until = Some(now + self.limits.websocket_pong_timeout.get());
        self.next_ping = now + self.ping_every;
        Ok(())
    }

    /// Handles what the client has sent. Returns how to end the socket, if it has to end.
    async fn handle(
        &mut self,
        received: ClientMessage,
        publisher: Option<&Publisher>,
        streams: &[StreamName],
    ) -> io::Result<Option<SocketEnd>> {
        let message = match received {
            ClientMessage::Control { is_pong } => {
                if is_pong {
                    self.pong_until = None;
                }
                return Ok(None);
            }
            ClientMessage::Text(text) => (text, false),
            ClientMessage::Binary(bytes) => (bytes, true),
            ClientMessage::TooLarge => return Ok(Some(SocketEnd::Close(TOO_LARGE))),
            ClientMessage::Violation | ClientMessage::End => return Ok(Some(SocketEnd::ShutDown)),
        };
        let (payload, is_binary) = &message;
        // Without authorization, each frame on one stream is a message, whatever it says.
        let may_be_token = !is_binary && (self.rights.is_some() || publisher.is_none());
        if let Some(token) = Some(payload).filter(|_| may_be_token).and_then(token_of) {
            return Ok(self.renew(&token.auth, streams).await?.map(SocketEnd::Close));
        }
        let rights = self.rights.as_ref();
        let reply = match publisher {
            Some(publisher) => publisher.append(message, rights, self.limits.json_depth_max).await,
            None => FrameReply::Error(Error::ReadOnly.problem()),
        };
        self.reply(&reply).await.map(|()| None)
    }

    async fn reply(&mut self, reply: &FrameReply) -> io::Result<()> {
        let json = serde_json::to_vec(reply).unwrap_or_default();
        self.socket.send_text(json.into()).await
    }

    fn why_updates_end(&self) -> Closing {
        if let Some(why) = self.unauthorized.as_ref().and_then(|flag| flag.get()) {
            return Closing(UNAUTHORIZED, why);
        }
        if self.hub.is_draining() { DRAINING } else { Closing(1000, "nothing follows") }
    }

    /// Sends a close frame and waits for that of the client, for at most `websocket_pong_timeout`.
    async fn close(&mut self, Closing(code, reason): Closing) -> io::Result<()> {
        self.socket.send_close(code, reason).await?;
        let patience = self.limits.websocket_pong_timeout.get();
        let closed =
            async { while !matches!(self.socket.receive().await, Ok(ClientMessage::End) | Err(_)) {} };
        let _in_time = timeout(patience, closed).await;
        self.socket.shut_down().await
    }
}

/// Receives the next message when the task of the connection polls, and not on the time of a publisher that delivers in place. The same
/// future may be polled by both. A delivery can leave the socket alone, as the task has left its waker there.
///
/// Cancel safe.
async fn receive_by_task(socket: &mut FrameSocket) -> io::Result<ClientMessage> {
    poll_fn(|context| if is_in_place() { Poll::Pending } else { socket.poll_receive(context) }).await
}

fn log_end(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "websocket ended");
    }
}
